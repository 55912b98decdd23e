"""A list of tensors becomes an array with one wait, and gives what torch's gives."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch as local

from tclient._session.session import Session


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that were waited for, while they were not answered."""
    found: list[str] = []
    plain = Session.wait

    def wait(self: Session, call: Any, *args: Any, **kwargs: Any) -> Any:
        if not call.done:
            found.append(call.operation.name)
        return plain(self, call, *args, **kwargs)

    monkeypatch.setattr(Session, "wait", wait)
    return found


class Log:
    """As a program keeps its losses."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def array(self) -> Any:
        return np.array(self.values)


LISTS: dict[str, Callable[[Any], list[Any]]] = {
    "floats": lambda t: [t.tensor(float(i)) * 2 for i in range(40)],
    "integers": lambda t: [t.tensor(i) + 1 for i in range(40)],
    "bools": lambda t: [t.tensor(i) > 3 for i in range(40)],
    "halves": lambda t: [t.tensor(i / 3, dtype=t.float16) for i in range(40)],
    "rows": lambda t: [t.arange(3.0) + i for i in range(40)],
    "nested": lambda t: [[t.tensor(1.0 + i), t.tensor(2.0) * i] for i in range(20)],
    "mixed": lambda t: [t.tensor(1.5), 2, 3.5, t.tensor(2)],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_tensors_is_read_with_one_wait(tc: ModuleType, waits: list[str], name: str) -> None:
    ours, theirs = LISTS[name](tc), LISTS[name](local)
    made, expected = np.array(ours), np.array(theirs)
    assert len(waits) <= 2, waits
    assert (made.tolist(), made.dtype, made.shape) == (expected.tolist(), expected.dtype, expected.shape)
    assert np.mean(ours) == np.mean(theirs)
    assert Log(ours).array().tolist() == expected.tolist()


def test_what_was_written_in_between_is_read_again(tc: Any) -> None:
    x = tc.zeros(3)
    items = [x[0], x[1], x[2]]
    assert np.array(items).tolist() == [0, 0, 0]
    x += 1
    assert np.array(items).tolist() == [1, 1, 1]
    np.asarray(items[0])
    items[1].fill_(5)
    assert [float(each) for each in items] == [1, 5, 1]


def test_a_list_with_gradients_is_refused_as_by_torch(tc: Any) -> None:
    for module in (tc, local):
        items = [module.ones((), requires_grad=True) * each for each in range(3)]
        with pytest.raises(RuntimeError, match="requires grad"):
            np.array(items)


def test_matplotlib_reads_a_tensor_whole(tc: Any, waits: list[str]) -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    x = tc.linspace(0, 1, 50) * 2
    (line,) = axes.plot(x, x**2)
    axes.hist(x)
    pyplot.close(figure)
    assert len(waits) <= 4, waits
    np.testing.assert_allclose(np.asarray(line.get_ydata()), np.linspace(0, 2, 50, dtype="float32") ** 2, rtol=1e-5)
