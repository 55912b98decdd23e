"""Data as people have it: what was once wrong with it, and that no call ends a session."""

from __future__ import annotations

import enum
import pickle
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from tests.conversions.harness import Case, outcome
from tests.conversions.values import Color, Value
from tests.conversions.ways import Way

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass")

Program = Callable[[Any], Any]


def _put(x: Any, where: Any, value: Any) -> Any:
    x[where] = value
    return x


def _loaded(m: Any, weight: Any) -> Any:
    layer = m.nn.Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": m.as_tensor(weight)})
    return layer.weight.detach()


_MATRIX = np.array([[1.0, 2.0]]).view(np.matrix)
_SPARSE = scipy.sparse.csr_matrix([[0, 1], [2, 0]])
_LONG = [0.0, *np.linspace(0, 1, 1100)]
_STRIDED = np.arange(24.0).reshape(4, 6)

PROGRAMS: dict[str, Program] = {
    "a matrix": lambda m: m.tensor(_MATRIX),
    "a dense matrix of a sparse one": lambda m: m.tensor(_SPARSE.todense()),
    "a matrix in a sum": lambda m: m.ones(1, 2) + m.from_numpy(_MATRIX),
    "a matrix as an operand": lambda m: m.ones(1, 2) == _MATRIX,
    "a matrix as an index": lambda m: m.arange(5)[_MATRIX.astype(int)],
    "a matrix that is assigned": lambda m: _put(m.zeros(2, 2), 0, _MATRIX),
    "a matrix as weights": lambda m: _loaded(m, _MATRIX),
    "a column": lambda m: m.tensor(pd.Series([16777217.0])),
    "a column of another precision": lambda m: m.tensor(pd.Series([1.5], dtype="float32")),
    "an index of a table": lambda m: m.tensor(pd.Index([1, 2])),
    "columns in a list": lambda m: m.tensor([pd.Series([0.1, 0.2]), pd.Series([0.3, 0.4])]),
    "a long column": lambda m: m.tensor(pd.Series(np.linspace(0, 1, 100))),
    "a long column of shuffled labels": lambda m: m.tensor(pd.Series(np.arange(50.0), index=np.arange(50)[::-1])),
    "a numpy number behind a thousand others": lambda m: m.tensor(_LONG),
    "a numpy number at the end of many": lambda m: m.tensor([1] * 2000 + [np.float64(0.5)]),
    "a complex number at the end of many": lambda m: m.tensor([1.0] * 2000 + [1j]),
    "a bool at the end of many": lambda m: m.tensor([1] * 2000 + [True]).dtype,
    "small numpy numbers among floats": lambda m: m.tensor([np.float16(0.1)] * 30 + [0.1]),
    "a name for a number": lambda m: m.tensor(Color.RED),
    "names for numbers": lambda m: m.tensor([[Color.RED, Color.GREEN]] * 20),
    "a name for a number as a size": lambda m: m.zeros(Color.GREEN),
    "an integer beyond 64 bits": lambda m: int(m.tensor(1e20)),
    "a negative one": lambda m: int(m.tensor(-1e30)),
    "a float of a huge integer": lambda m: m.tensor(2**100, dtype=m.float32),
    "floats of huge integers": lambda m: m.tensor([2**100, 1] * 20, dtype=m.float64),
    "a constructor with a dtype": lambda m: m.Tensor([1, 2], dtype=m.int64),
    "a constructor of a huge size": lambda m: m.Tensor(2**70),
    "numpy's reshape": lambda m: np.reshape(m.arange(4.0), (2, 2)),
    "numpy's transpose": lambda m: np.transpose(m.arange(6.0).reshape(2, 3)).shape,
    "numpy's sum": lambda m: np.sum(m.arange(4.0).reshape(2, 2), axis=0),
    "numpy's concatenate": lambda m: np.concatenate([m.ones(2), m.zeros(1)]),
    "numpy's squeeze": lambda m: np.squeeze(m.ones(1, 2)),
    "numpy's repeat": lambda m: np.repeat(m.arange(2), 2),
    "strides of a transposed array": lambda m: m.from_numpy(_STRIDED.T),
    "strides of columns": lambda m: m.from_numpy(_STRIDED[:, ::3]).stride(),
    "a view that must fail": lambda m: m.from_numpy(_STRIDED.T).view(24),
    "contiguity": lambda m: (m.from_numpy(_STRIDED.T).is_contiguous(), m.tensor(_STRIDED.T).is_contiguous()),
    "an array that is its neighbours": lambda m: m.from_numpy(
        np.lib.stride_tricks.sliding_window_view(np.arange(5), 3)
    ),
    "an array of one number": lambda m: m.from_numpy(np.broadcast_to(np.float32(3), (2, 3))),
    "strides of an operand": lambda m: m.tensor(_STRIDED.astype("f4").T).add(1).stride(),
    "a negative stride": lambda m: m.from_numpy(_STRIDED[::-1]),
    "a copy of a list": lambda m: m.asarray(list(range(24)), copy=True),
    "a list that cannot be shared": lambda m: m.asarray([1.0] * 24, copy=False),
    "an array that can": lambda m: m.asarray(np.arange(3), copy=False),
    "the bytes of an object": lambda m: m.asarray(bytearray(range(8)), dtype=m.int16),
    "a deep list": lambda m: m.tensor([[[[[[[[[[[[[[[[[[[[1.0]]]]]]]]]]]]]]]]]]]]).shape,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_data_as_people_have_it_gives_what_torch_gives(tc: ModuleType, program: Program) -> None:
    drawn = Case(Way("", lambda m, v: program(m)), Value("", lambda m: None))
    assert outcome(tc, drawn) == outcome(torch, drawn)
    assert tc.ones(1).tolist() == [1]


class _Lying(enum.Enum):
    A = object()


class _Odd:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, index: int) -> Any:
        return self


def _deep(levels: int) -> Any:
    made: Any = 1
    for _ in range(levels):
        made = [made, {"a": 1}]
    return made


def _endless() -> Any:
    made: list[Any] = []
    made.append((made, made))
    return made


def _endless_dict() -> Any:
    made: dict[str, Any] = {}
    made["a"] = made
    return made


def _columns() -> Any:
    return np.ones((2, 3))


NOT_TO_BE_SENT: dict[str, Callable[[], Any]] = {
    "a deep list": lambda: _deep(60),
    "a deeper list": lambda: _deep(5000),
    "a list of itself": _endless,
    "a dict of itself": lambda: _endless_dict(),
    "half a letter": lambda: "\ud800",
    "a huge integer": lambda: 1 << 100_000,
    "an object that is all errors": _Odd,
    "a name for an object": lambda: _Lying.A,
    "a type": lambda: pickle.Pickler,
    "a dict of numbers": lambda: {1: 2},
    "an array of arrays": lambda: np.array([np.ones(2), None], dtype=object),
    "records": lambda: np.zeros(2, [("a", "f4"), ("b", "O")]),
    "a frame": lambda: pd.DataFrame({"a": [1, 2]}),
    "a memory of two dimensions": lambda: memoryview(_columns()),
    "a memory of columns": lambda: memoryview(_columns())[::-1],
    "a matrix": lambda: _MATRIX,
    "masked numbers": lambda: np.ma.masked_array([1, 2], [True, False]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", NOT_TO_BE_SENT.values(), ids=NOT_TO_BE_SENT.keys())
def test_whatever_is_given_to_a_call_only_the_call_fails(tc: ModuleType, make: Callable[[], Any]) -> None:
    kept = tc.arange(3)
    layer = tc.nn.Linear(2, 2)
    uses: list[Callable[[Any], Any]] = [
        tc.tensor,
        tc.as_tensor,
        tc.from_numpy,
        tc.asarray,
        tc.Tensor,
        lambda v: kept.new_tensor(v),
        lambda v: kept[v],
        lambda v: _put(tc.zeros(3), v, 1),
        lambda v: _put(tc.zeros(3), 0, v),
        lambda v: tc.add(kept, v),
        lambda v: tc.cat([kept, v]),
        lambda v: tc.zeros(v),
        lambda v: tc.zeros(1, dtype=v),
        lambda v: layer(v),
        lambda v: layer.load_state_dict({"weight": v, "bias": v}),
        lambda v: kept.to(v),
        lambda v: kept + v,
        lambda v: tc.tensor([v, v], dtype=tc.float32),
    ]
    for use in uses:
        try:
            use(make())
            tc.synchronize()
        except tc.ServerError:
            raise
        except Exception:
            pass
    try:
        tc.synchronize()
    except tc.ServerError:
        raise
    except tc.TensorError:
        pass
    assert kept.tolist() == [0, 1, 2]


def test_an_array_that_cannot_be_written_is_warned_of_once(tc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from tclient._codec import data as _data

    monkeypatch.setattr(_data, "_has_warned", False)
    array = np.ones(2)
    array.flags.writeable = False
    with pytest.warns(UserWarning, match="The given NumPy array is not writable") as told:
        tc.from_numpy(array)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tc.from_numpy(array)
        tc.tensor(array)


def test_an_array_with_wide_gaps_leaves_them_here(tc: ModuleType) -> None:
    column = np.arange(1 << 20, dtype=np.float32).reshape(1 << 10, 1 << 10)[:, 0]
    made = tc.from_numpy(column)
    assert (made.stride(), made[3].item()) == ((1,), 3 * 1024)
    assert tc.from_numpy(column[:4]).stride() == (1024,)
