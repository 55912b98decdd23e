"""Random programs of creation, views, in-place changes, indexing and arithmetic agree with torch at each step.

A program is drawn by hypothesis, step by step, against torch; the same steps then run through tclient, pipelined, and
every tensor is compared after the steps that were chosen for it, and at the end. Longer: `-m slow`; other programs:
`--hypothesis-seed=N`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.serving import ServerProcess

Step = Callable[[Any, list[Any]], Any]
"""Runs with a module and the tensors so far; returns a tensor, a number, or several tensors."""

_DTYPES = ["float32", "float64", "int64", "int32", "uint8", "bool", "complex64", "bfloat16"]
_MAX_ELEMENTS = 400
_MAX_DIMS = 5
_STEPS = 14
_IN_PLACE = """
add_ sub_ mul_ div_ fill_ pow_ clamp_ copy_ iadd imul t_ zero_ neg_ abs_ cumsum_ masked_fill_ sigmoid_
unsqueeze_ squeeze_ transpose_ index_fill_ logical_not_ floor_divide_ remainder_ lerp_
""".split()
_REDUCTIONS = """
sum prod mean max min any all argmax norm std cumsum logsumexp amax nansum count_nonzero median item tolist
shape len bool
""".split()
_UNARY = """
neg abs exp sqrt sin sign floor round logical_not relu sigmoid tanh softmax sort argsort flip tril isnan
isfinite nan_to_num square reciprocal bitwise_not unique nonzero roll repeat
""".split()
_BINARY = """
__add__ __sub__ __mul__ __truediv__ __floordiv__ __mod__ __matmul__ __eq__ __lt__ __ge__ __ne__ __and__ __or__
__xor__ maximum where atan2 dot __pow__ equal radd rsub rtruediv rpow add_alpha
""".split()


class Steps:
    """Draws the steps of a program, knowing the shapes that torch has got so far."""

    def __init__(self, data: st.DataObject, tensors: list[torch.Tensor]) -> None:
        self._data = data
        self._tensors = tensors

    def draw(self) -> tuple[str, Step]:
        """The next step, and its text."""
        kinds = [self._create, self._view, self._view, self._in_place, self._get, self._set, self._reduce, self._unary]
        kinds += [self._binary, self._binary, self._join, self._convert, self._out, self._several]
        return self._one(kinds if self._tensors else [self._create])()

    def _one(self, options: Any) -> Any:
        return self._data.draw(st.sampled_from(options))

    def _int(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))

    def _tensor(self) -> tuple[int, torch.Tensor]:
        index = self._int(0, len(self._tensors) - 1)
        return index, self._tensors[index]

    def _dim(self, x: torch.Tensor) -> int:
        # Sometimes one that is not there.
        return self._int(-x.dim() - (self._int(0, 19) == 0), max(x.dim() - 1, 0))

    def _number(self) -> Any:
        return self._one([0, 1, 2, -1, 3, 0.5, -1.5, 2.0, True, False, 1j, 100, 1e3, float("inf"), 7])

    def _shape(self) -> tuple[int, ...]:
        return tuple(self._data.draw(st.lists(st.sampled_from([0, 1, 1, 2, 2, 3, 4]), max_size=4)))

    def _create(self) -> tuple[str, Step]:
        shape, dtype = self._shape(), self._one(_DTYPES)
        count = int(np.prod(shape))
        which = self._one(["arange", "zeros", "ones", "full", "tensor", "numpy", "eye", "linspace", "seeded"])
        value = self._int(-3, 9)

        def run(m: Any, _: list[Any]) -> Any:
            kind = getattr(m, dtype)
            if which == "arange":
                return m.arange(count).to(kind).reshape(shape)
            if which in ("zeros", "ones"):
                return getattr(m, which)(shape, dtype=kind)
            if which == "full":
                return m.full(shape, value, dtype=kind)
            if which == "tensor":
                return m.tensor((np.arange(count) * value % 7).reshape(shape).tolist()).to(kind)
            # An array without elements has any strides, which do not travel, and a tensor made of it has them too.
            if which == "numpy" and count:
                return m.from_numpy((np.arange(count) * 0.75 - value).reshape(shape)).to(kind)
            if which == "eye":
                return m.eye(3, 2, dtype=kind)
            if which == "linspace":
                return m.linspace(0, value, 5).to(kind)
            m.manual_seed(value)
            return (m.rand(shape) * 10).to(kind)

        return f"{which} {shape} {dtype} {value}", run

    def _view(self) -> tuple[str, Step]:
        i, x = self._tensor()
        a, b = self._dim(x), self._dim(x)
        sizes = self._one([(-1,), (x.numel(),), (1, -1), (-1, 1), (2, -1), tuple(x.shape), tuple(reversed(x.shape))])
        options: dict[str, Step] = {
            "view": lambda m, v: v[i].view(sizes),
            "reshape": lambda m, v: v[i].reshape(sizes),
            "transpose": lambda m, v: v[i].transpose(a, b),
            "permute": lambda m, v: v[i].permute(*reversed(range(x.dim()))),
            "t": lambda m, v: v[i].t(),
            "mT": lambda m, v: v[i].mT,
            "unsqueeze": lambda m, v: v[i].unsqueeze(a),
            "squeeze": lambda m, v: v[i].squeeze(),
            "squeeze dim": lambda m, v: v[i].squeeze(a),
            "expand": lambda m, v: v[i].expand(2, *x.shape),
            "flatten": lambda m, v: v[i].flatten(),
            "narrow": lambda m, v: v[i].narrow(a, 0, 1),
            "select": lambda m, v: v[i].select(a, 0),
            "diagonal": lambda m, v: v[i].diagonal(0, a, b),
            "unfold": lambda m, v: v[i].unfold(a, 2, 1),
            "movedim": lambda m, v: v[i].movedim(a, b),
            "detach": lambda m, v: v[i].detach(),
            "conj": lambda m, v: v[i].conj(),
            "real": lambda m, v: v[i].real,
            "imag": lambda m, v: v[i].imag,
            "contiguous": lambda m, v: v[i].contiguous(),
            "view_as_real": lambda m, v: m.view_as_real(v[i]),
            "as_strided": lambda m, v: v[i].as_strided((2,), (1,)),
            "clone": lambda m, v: v[i].clone(),
        }
        name = self._one(sorted(options))
        return f"x{i}.{name} {a} {b} {sizes}", options[name]

    def _in_place(self) -> tuple[str, Step]:
        i, x = self._tensor()
        j, _ = self._tensor()
        number, a = self._number(), self._dim(x)
        name = self._one(_IN_PLACE)
        with_tensor = self._data.draw(st.booleans())

        def run(m: Any, v: list[Any]) -> Any:
            x, other = v[i], v[j] if with_tensor else number
            if name in ("zero_", "neg_", "abs_", "t_", "sigmoid_", "squeeze_", "logical_not_"):
                return getattr(x, name)()
            if name == "fill_":
                return x.fill_(number)
            if name == "clamp_":
                return x.clamp_(min=number)
            if name == "copy_":
                return x.copy_(v[j])
            if name == "iadd":
                x += other
                return x
            if name == "imul":
                x *= other
                return x
            if name == "cumsum_":
                return x.cumsum_(a)
            if name == "masked_fill_":
                return x.masked_fill_(x == 1, number)
            if name == "unsqueeze_":
                return x.unsqueeze_(a)
            if name == "transpose_":
                return x.transpose_(a, -1)
            if name == "index_fill_":
                return x.index_fill_(a, m.tensor([0], device=x.device), number)
            if name == "lerp_":
                return x.lerp_(v[j], 0.5)
            return getattr(x, name)(other)

        return f"x{i}.{name} {f'x{j}' if with_tensor else number} {a}", run

    def _index(self, x: torch.Tensor) -> tuple[str, Callable[[Any, Any], Any]]:
        size = x.shape[0] if x.dim() else 1
        n = self._int(-size - (self._int(0, 9) == 0), max(size - 1, 0))
        start, stop, step = self._int(-3, 3), self._int(-3, 5), self._int(1, 3)
        rows = self._data.draw(st.lists(st.integers(-size, max(size - 1, 0)), max_size=3)) if size else []
        options: dict[str, Callable[[Any, Any], Any]] = {
            "int": lambda m, y: n,
            "slice": lambda m, y: slice(start, stop, step),
            "slices": lambda m, y: (slice(None, None, step), slice(start, None)),
            "ellipsis": lambda m, y: (..., n),
            "none": lambda m, y: (None, n),
            "list": lambda m, y: rows,
            "tensor": lambda m, y: m.tensor(rows, dtype=m.int64, device=y.device),
            "two": lambda m, y: (rows, slice(None, None, step)),
            "pairs": lambda m, y: (rows, rows),
            "mask": lambda m, y: y > 1,
            "equal": lambda m, y: y == n,
            "bool": lambda m, y: step == 1,
            "row mask": lambda m, y: m.arange(size, device=y.device) % 2 == 0,
            "numpy": lambda m, y: np.array(rows, dtype=np.int64),
            "column": lambda m, y: (slice(None), n),
        }
        name = self._one(sorted(options))
        return f"[{name} {n} {start}:{stop}:{step} {rows}]", options[name]

    def _get(self) -> tuple[str, Step]:
        i, x = self._tensor()
        text, index = self._index(x)
        return f"x{i}{text}", lambda m, v: v[i][index(m, v[i])]

    def _set(self) -> tuple[str, Step]:
        i, x = self._tensor()
        j, _ = self._tensor()
        text, index = self._index(x)
        number, with_tensor = self._number(), self._data.draw(st.booleans())
        augmented = self._data.draw(st.booleans())

        def run(m: Any, v: list[Any]) -> Any:
            place = index(m, v[i])
            if augmented:
                v[i][place] += number
            else:
                v[i][place] = v[j].reshape(-1)[:1] if with_tensor else number
            return v[i]

        return f"x{i}{text} {'+=' if augmented else '='} {number} {with_tensor} x{j}", run

    def _reduce(self) -> tuple[str, Step]:
        i, x = self._tensor()
        name = self._one(_REDUCTIONS)
        a, keep, whole = self._dim(x), self._data.draw(st.booleans()), self._data.draw(st.booleans())

        def run(m: Any, v: list[Any]) -> Any:
            y = v[i]
            if name in ("item", "tolist"):
                return getattr(y, name)()
            if name == "shape":
                return (
                    tuple(y.shape),
                    str(y.dtype),
                    (y.stride(), y.storage_offset()) if y.numel() else (),
                    y.is_contiguous(),
                )
            if name == "len":
                return len(y)
            if name == "bool":
                return bool(y)
            if name in ("cumsum", "logsumexp", "amax"):
                return getattr(y, name)(a)
            if whole:
                return getattr(y, name)()
            if name in ("norm", "count_nonzero"):
                return getattr(y, name)(dim=a)
            return getattr(y, name)(a, keepdim=keep)

        return f"x{i}.{name} {a} {keep} {whole}", run

    def _unary(self) -> tuple[str, Step]:
        i, x = self._tensor()
        name = self._one(_UNARY)
        a = self._dim(x)

        def run(m: Any, v: list[Any]) -> Any:
            if name in ("softmax", "flip"):
                return getattr(v[i], name)(a)
            if name in ("sort", "argsort"):
                return getattr(v[i], name)(dim=a, stable=True)
            if name == "roll":
                return v[i].roll(1, a)
            if name == "repeat":
                return v[i].repeat(2, *([1] * x.dim()))
            return getattr(v[i], name)()

        return f"x{i}.{name} {a}", run

    def _binary(self) -> tuple[str, Step]:
        i, _ = self._tensor()
        j, _ = self._tensor()
        name = self._one(_BINARY)
        number, with_tensor = self._number(), self._data.draw(st.booleans())

        def run(m: Any, v: list[Any]) -> Any:
            x, y = v[i], v[j] if with_tensor else number
            if name == "where":
                return m.where(x > 0, x, y)
            if name == "radd":
                return number + x
            if name == "rsub":
                return number - x
            if name == "rtruediv":
                return number / x
            if name == "rpow":
                return 2**x
            if name == "add_alpha":
                return m.add(x, y, alpha=2)
            if name in ("maximum", "atan2", "dot", "equal", "__matmul__"):
                return getattr(x, name)(v[j])
            return getattr(x, name)(y)

        return f"x{i} {name} {f'x{j}' if with_tensor else number}", run

    def _join(self) -> tuple[str, Step]:
        i, x = self._tensor()
        j, _ = self._tensor()
        name, a = self._one(["cat", "stack", "hstack", "broadcast_tensors", "outer", "cat same"]), self._dim(x)

        def run(m: Any, v: list[Any]) -> Any:
            if name in ("cat", "stack"):
                return getattr(m, name)([v[i], v[j]], a)
            if name == "cat same":
                return m.cat((v[i], v[i], v[i]), dim=a)
            if name == "hstack":
                return m.hstack([v[i], v[j]])
            return getattr(m, name)(v[i], v[j])

        return f"{name} x{i} x{j} {a}", run

    def _convert(self) -> tuple[str, Step]:
        i, x = self._tensor()
        j, _ = self._tensor()
        dtype, name = self._one(_DTYPES), self._one(["to", "type", "to other", "float", "numpy", "view", "copy"])

        def run(m: Any, v: list[Any]) -> Any:
            kind = getattr(m, dtype)
            if name == "to other":
                return v[i].to(v[j])
            if name == "float":
                return v[i].float()
            if name == "numpy" and x.numel():
                return m.from_numpy(np.array(v[i].numpy(), order="C"))
            if name in ("copy", "numpy"):
                return v[i].to(kind, copy=True)
            return getattr(v[i], name)(kind)

        return f"x{i}.{name} {dtype} x{j}", run

    def _out(self) -> tuple[str, Step]:
        i, x = self._tensor()
        j, y = self._tensor()
        k, out = self._tensor()
        name = self._one(["add", "mul", "matmul", "eq", "sum"])
        # An `out` that has to grow and shares its storage with an input shows what happens to be in memory, in torch.
        try:
            fits = name in ("add", "mul", "eq") and torch.broadcast_shapes(x.shape, y.shape) == out.shape
        except RuntimeError:
            fits = False

        def run(m: Any, v: list[Any]) -> Any:
            target = v[k] if fits else v[k].clone()
            if name == "sum":
                return m.sum(v[i], 0, out=target)
            return getattr(m, name)(v[i], v[j], out=target)

        return f"{name}(x{i}, x{j}, out=x{k}{'' if fits else '.clone()'})", run

    def _several(self) -> tuple[str, Step]:
        i, x = self._tensor()
        name = self._one(["split", "chunk", "unbind", "max", "sort", "topk", "iterate", "aminmax", "where", "var_mean"])
        a = self._dim(x)

        def run(m: Any, v: list[Any]) -> Any:
            if name in ("split", "chunk"):
                return getattr(v[i], name)(2, a)
            if name == "unbind":
                return v[i].unbind(a)
            if name == "max":
                return v[i].max(dim=a)
            if name == "sort":
                return v[i].sort(dim=a, stable=True)
            if name == "topk":
                return v[i].topk(1, a).values
            if name == "iterate":
                return list(v[i])
            if name == "aminmax":
                return v[i].aminmax(dim=a).min
            if name == "where":
                return m.where(v[i] > 1)
            return m.var_mean(v[i], a)

        return f"x{i}.{name} {a}", run


def _describe(m: Any, value: Any) -> Any:
    if isinstance(value, m.Tensor):
        # The elements as text: repr of each number tells 0.0 from -0.0 and makes nan equal to itself.
        elements = repr(value.detach().tolist())
        # An empty array of numpy has any strides, and a tensor made of it too.
        return (str(value.dtype), tuple(value.shape), value.stride() if value.numel() else (), elements)
    if isinstance(value, (tuple, list)):
        return [_describe(m, item) for item in value]
    return repr(value)


def _flat(m: Any, value: Any) -> list[Any]:
    """The tensors in a result."""
    if isinstance(value, m.Tensor):
        return [value]
    return [item for item in value if isinstance(item, m.Tensor)] if isinstance(value, (tuple, list)) else []


def _error(error: Exception) -> tuple[str, str]:
    return next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"), str(error)


def _settle(tc: Any) -> None:
    try:
        tc.synchronize()
    except Exception:
        return


def _run_program(tc: Any, data: st.DataObject) -> None:
    _settle(tc)
    texts: list[str] = []
    try:
        _compare(tc, data, texts)
    except Exception as error:
        error.add_note("the program: " + "; ".join(texts))
        raise


def _compare(tc: Any, data: st.DataObject, texts: list[str]) -> None:
    ours: list[Any] = []
    theirs: list[torch.Tensor] = []
    steps = Steps(data, theirs)
    for _ in range(_STEPS):
        text, step = steps.draw()
        texts.append(text)
        failure: tuple[str, str] | None = None
        expected: Any = None
        try:
            expected = step(torch, theirs)
        except Exception as error:
            failure = _error(error)
        try:
            got = step(tc, ours)
            if failure is not None:
                # Raised when it is read, at the latest.
                _describe(tc, got)
                tc.synchronize()
        except Exception as error:
            _settle(tc)
            assert failure is not None, f"{texts}: only tclient fails, with {_error(error)}"
            assert _error(error) == failure, texts
            continue
        assert failure is None, f"{texts}: only torch fails, with {failure}"
        made, meant = _flat(tc, got), _flat(torch, expected)
        assert len(made) == len(meant), texts
        if not meant:
            assert _describe(tc, got) == _describe(torch, expected), texts
        for mine, other in zip(made, meant, strict=True):
            if other.numel() <= _MAX_ELEMENTS and other.dim() <= _MAX_DIMS:
                ours.append(mine)
                theirs.append(other)
        if meant and data.draw(st.integers(0, 3)) == 0:
            assert _describe(tc, made) == _describe(torch, meant), texts
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert _describe(tc, mine) == _describe(torch, other), f"{texts}: tensor {number}"


@pytest.fixture(scope="module")
def session(server: ServerProcess) -> Iterator[Any]:
    """One session for all programs: what one leaves behind must not reach the next."""
    import tclient

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state = torch.get_rng_state()
    with tclient.connect(server.address), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield tclient
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


_SETTINGS = settings(
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


@settings(_SETTINGS, max_examples=200, derandomize=True)
@given(st.data())
def test_random_programs_agree_with_torch_at_each_step(session: Any, data: st.DataObject) -> None:
    _run_program(session, data)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(_SETTINGS, max_examples=10_000)
@given(st.data())
def test_ten_thousand_random_programs_agree_with_torch(session: Any, data: st.DataObject) -> None:
    _run_program(session, data)
