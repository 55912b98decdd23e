"""Elements that CUDA's kernels only assert: refused before the kernel.

An index out of range fails an assertion on the device, after which the device computes nothing more for anybody. On the
CPU torch checks such elements and raises; here they are looked at first, and where one is wrong the call is made on
the host, to raise what torch raises there. The look waits for the device: one small transfer for each call, on the
engine's thread. Only calls on tensors of such a device are looked at (streams.py). Knows torch and names of operations.

Not here: what torch itself looks at on every device (bincount, histc, searchsorted, normal, the lengths of ctc_loss).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tserver.engine import streams

# Arguments larger than this are not brought to the host only to be refused in torch's own words.
_MOST_REPEATED_BYTES = 256 << 20
_NUMPY_NAMES = {"axis": "dim", "x": "input", "a": "input", "self": "input"}
_UNBOUNDED = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Within:
    """Integers that must be at least `low` and below `high`."""

    values: Tensor
    low: int
    high: int


# What is to be looked at: integers and their bounds, or a tensor of one element that is true where all is well.
Look = Within | Tensor
Looks = Callable[[dict[str, Any]], Iterator[Look]]


@dataclass(frozen=True, slots=True)
class Guard:
    """The parameters of an operation by position, and what of them is to be looked at."""

    parameters: tuple[str, ...]
    looks: Looks
    # Whether the CPU has the last word: a call that it takes is made.
    host_decides: bool = False


def guarded_on_device(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a name, looking at elements first where its kernels only assert."""
    guard = GUARDS.get(name)
    if guard is None:
        return function

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            named = dict(zip(guard.parameters, args, strict=False))
            named |= {_NUMPY_NAMES.get(key, key): value for key, value in kwargs.items()}
            with torch.no_grad():
                fits = not _on_device(named) or _all_well(list(guard.looks(named)))
        except torch.OutOfMemoryError:
            raise
        except (TypeError, KeyError, AttributeError, IndexError, ValueError, RuntimeError):
            fits = True  # arguments that the function does not take: torch says so itself, in its own words
        if not fits:
            _refuse(name, function, args, kwargs, guard)
        return function(*args, **kwargs)

    return checked


def _on_device(named: dict[str, Any]) -> bool:
    return any(isinstance(value, Tensor) and streams.runs_apart(value) for value in named.values())


def _all_well(looks: list[Look]) -> bool:
    bounds: list[tuple[int, int]] = []
    seen: list[Tensor] = []
    for look in looks:
        if isinstance(look, Within):
            if not look.values.numel():
                continue
            bounds.append((look.low, look.high))
            seen.extend(torch.aminmax(look.values))
        else:
            bounds.append((1, 2))
            seen.extend((look, look))
    if not seen:
        return True
    # Those of the host need no transfer, and go along with the others.
    device = next((one.device for one in seen if streams.runs_apart(one)), seen[0].device)
    found = torch.stack([one.to(device=device, dtype=torch.int64, non_blocking=True) for one in seen]).tolist()
    lowest, highest = found[::2], found[1::2]
    return all(low <= least and most < high for (low, high), least, most in zip(bounds, lowest, highest, strict=True))


def _refuse(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], guard: Guard
) -> None:
    """Raise what the CPU raises for these arguments."""
    if _size([*args, *kwargs.values()]) <= _MOST_REPEATED_BYTES:
        with torch.no_grad():
            function(*map(_on_host, args), **{key: _on_host(value) for key, value in kwargs.items()})
        if guard.host_decides:
            return
    raise IndexError(f"{name}: an index is out of range, or an element is not what the operation takes")


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        # A copy in any case: the call may write.
        return value.detach().to("cpu", copy=True)
    if isinstance(value, torch.Generator):
        return None
    if type(value) in (list, tuple):
        return type(value)(map(_on_host, value))
    return value


def _size(values: Any) -> int:
    return sum(
        value.nbytes if isinstance(value, Tensor) else _size(value) if isinstance(value, (list, tuple)) else 0
        for value in values
    )


# ---- what is looked at ----------------------------------------------------------------------------------------------


def _along(low_is_negative: bool) -> Looks:
    def looks(named: dict[str, Any]) -> Iterator[Look]:
        input, index = named["input"], named["index" if "index" in named else "indices"]
        dim = named.get("dim")
        size = input.numel() if dim is None else input.shape[dim] if input.dim() else 1
        yield Within(index, -size if low_is_negative else 0, size)

    return looks


def _anywhere(named: dict[str, Any]) -> Iterator[Look]:
    size = named["input"].numel()
    yield Within(named["index"], -size, size)


def _subscripts(named: dict[str, Any]) -> Iterator[Look]:
    input, index = named["input"], named["index"]
    if isinstance(index, list) and any(isinstance(item, (Tensor, list, tuple, slice, type(None))) for item in index):
        # torch has taken such a list for a tuple, and for an array of that shape. Both are looked at.
        yield from _subscripts_of(input, tuple(index))
        if not any(isinstance(item, (slice, type(None))) for item in index):
            yield from _subscripts_of(input, (index,))
        return
    yield from _subscripts_of(input, index if isinstance(index, tuple) else (index,))


def _index_put(named: dict[str, Any]) -> Iterator[Look]:
    yield from _subscripts_of(named["input"], tuple(named["indices"]), none_is_all=True)


def _subscripts_of(input: Tensor, index: tuple[Any, ...], *, none_is_all: bool = False) -> Iterator[Look]:
    dim = 0
    for position, item in enumerate(index):
        if item is None or isinstance(item, bool):
            dim += none_is_all
        elif item is ...:
            dim = input.dim() - sum(map(_dims_of, index[position + 1 :]))
        elif isinstance(item, (int, slice)):
            dim += 1
        else:
            values = item if isinstance(item, Tensor) else _array(item)
            if values.dtype in (torch.bool, torch.uint8):
                dim += values.dim()
                continue
            # torch takes a lone number out of its tensor, and checks that itself.
            if values.dim() or none_is_all:
                size = input.shape[dim] if dim < input.dim() else 0
                yield Within(values, -size, size)
            dim += 1


def _array(item: Any) -> Tensor:
    if isinstance(item, (list, tuple)) and any(isinstance(one, Tensor) for one in item):
        return torch.stack([torch.as_tensor(one) for one in item])
    return torch.as_tensor(item)


def _dims_of(item: Any) -> int:
    if item is None or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8):
        return item.dim()
    if isinstance(item, (list, tuple)):
        made = _array(item)
        return made.dim() if made.dtype is torch.bool else 1
    return 1


def _rows(named: dict[str, Any]) -> Iterator[Look]:
    yield Within(named["indices"], 0, named["weight"].shape[0])


def _bags(named: dict[str, Any]) -> Iterator[Look]:
    # Torch takes them in either order.
    two = (named["weight"], named["indices"] if "indices" in named else named["input"])
    indices, weight = two if not two[0].is_floating_point() else two[::-1]
    yield Within(indices, 0, weight.shape[0])
    offsets = named.get("offsets")
    if indices.dim() == 1 and offsets is not None and offsets.numel():
        yield Within(offsets, 0, indices.numel() + 1)
        yield offsets[0] == 0
        yield (offsets[1:] >= offsets[:-1]).all()


def _classes(named: dict[str, Any]) -> Iterator[Look]:
    input, target = named["input"], named["target"]
    if target.is_floating_point():
        return
    ignored = named.get("ignore_index", -100)
    yield Within(torch.where(target == ignored, 0, target), 0, input.shape[0 if input.dim() == 1 else 1])


def _classes_of_linear(named: dict[str, Any]) -> Iterator[Look]:
    target = named["target"]
    if not target.is_floating_point():
        ignored = named.get("ignore_index")
        target = target if ignored is None else torch.where(target == ignored, 0, target)
        yield Within(torch.where(target == -100, 0, target), 0, named["linear_weight"].shape[0])


def _margins(named: dict[str, Any]) -> Iterator[Look]:
    yield Within(named["target"], 0, named["input"].shape[-1])


def _labels(named: dict[str, Any]) -> Iterator[Look]:
    yield Within(named["target"], -1, named["input"].shape[-1])


def _one_hot(named: dict[str, Any]) -> Iterator[Look]:
    classes = named.get("num_classes", -1)
    yield Within(named["tensor"], 0, classes if classes > 0 else _UNBOUNDED)


def _unpooled(dims: int) -> Looks:
    def several(size: Any) -> list[int]:
        return [size] * dims if isinstance(size, int) else list(size)

    def looks(named: dict[str, Any]) -> Iterator[Look]:
        wanted = named.get("output_size")
        if wanted is None:
            kernel = several(named["kernel_size"])
            stride = several(named["stride"]) if named.get("stride") else kernel
            padding = several(named.get("padding", 0))
            pooled = named["input"].shape[-dims:]
            wanted = [
                (size - 1) * step + width - 2 * pad
                for size, step, width, pad in zip(pooled, stride, kernel, padding, strict=True)
            ]
        yield Within(named["indices"], 0, math.prod(list(wanted)[-dims:]))

    return looks


def _repeats(named: dict[str, Any]) -> Iterator[Look]:
    repeats = named["repeats"] if "repeats" in named else named["input"]
    if not isinstance(repeats, Tensor):
        return
    yield Within(repeats, 0, _UNBOUNDED)
    wanted = named.get("output_size")
    if wanted is not None:
        times = 1
        if repeats.numel() == 1 and "repeats" in named and "input" in named:
            input, dim = named["input"], named.get("dim")
            times = input.numel() if dim is None else input.shape[dim]
        yield repeats.sum() * times == wanted


def _weights(named: dict[str, Any]) -> Iterator[Look]:
    input = named["input"]
    if input.numel():
        yield ((input >= 0) & (input < math.inf)).all() & (input.sum(-1) > 0).all()


def _drawn(named: dict[str, Any]) -> Iterator[Look]:
    # With a probability of its own for all, the input only says how many are drawn.
    if not isinstance(named.get("p"), float):
        yield from _probabilities("input")(named)


def _probabilities(*names: str) -> Looks:
    def looks(named: dict[str, Any]) -> Iterator[Look]:
        for name in names:
            value = named.get(name)
            if isinstance(value, Tensor) and value.is_floating_point():
                yield ((value >= 0) & (value <= 1)).all()

    return looks


def _rates(named: dict[str, Any]) -> Iterator[Look]:
    yield (named["input"] >= 0).all()


def _enough(named: dict[str, Any]) -> Iterator[Look]:
    mask = named["mask"]
    mask = mask.expand(torch.broadcast_shapes(mask.shape, named["input"].shape))
    yield mask.sum() <= named["source"].numel()


def _pivots(matrix: str, pivots: str) -> Looks:
    def looks(named: dict[str, Any]) -> Iterator[Look]:
        if named.get("unpack_pivots", True):
            yield Within(named[pivots], 1, named[matrix].shape[-2] + 1)

    return looks


# ---- for which operations -------------------------------------------------------------------------------------------


def _forms(name: str) -> tuple[str, ...]:
    return name, f"{name}_", f"Tensor.{name}", f"Tensor.{name}_"


_ALONG = ("input", "dim", "index")
_LOSS = ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing")
_BY_FORM: dict[str, Guard] = {
    **dict.fromkeys(
        (
            "gather",
            "scatter",
            "scatter_add",
            "scatter_reduce",
            "index_select",
            "index_add",
            "index_copy",
            "index_reduce",
        ),
        Guard(_ALONG, _along(low_is_negative=False)),
    ),
    "index_fill": Guard(_ALONG, _along(low_is_negative=True)),
    "take_along_dim": Guard(("input", "indices", "dim"), _along(low_is_negative=False)),
    "take": Guard(("input", "index"), _anywhere),
    "put": Guard(("input", "index", "source", "accumulate"), _anywhere),
    "index_put": Guard(("input", "indices", "values", "accumulate"), _index_put, host_decides=True),
    "multinomial": Guard(("input", "num_samples", "replacement"), _weights),
    "masked_scatter": Guard(("input", "mask", "source"), _enough),
    "repeat_interleave": Guard(("input", "repeats", "dim"), _repeats),
    **dict.fromkeys(("quantile", "nanquantile"), Guard(("input", "q"), _probabilities("q"))),
}
GUARDS: dict[str, Guard] = {
    **{form: guard for name, guard in _BY_FORM.items() for form in _forms(name)},
    "Tensor.__getitem__": Guard(("input", "index"), _subscripts, host_decides=True),
    "Tensor.__setitem__": Guard(("input", "index", "value"), _subscripts, host_decides=True),
    **dict.fromkeys(("embedding", "embedding_renorm_"), Guard(("weight", "indices"), _rows)),
    "nn.functional.embedding": Guard(("indices", "weight"), lambda named: _rows(_input_as_indices(named))),
    "embedding_bag": Guard(("weight", "indices", "offsets"), _bags),
    "nn.functional.embedding_bag": Guard(("input", "weight", "offsets"), _bags),
    **dict.fromkeys(("nn.functional.nll_loss", "nn.functional.cross_entropy"), Guard(_LOSS, _classes)),
    "nn.functional.linear_cross_entropy": Guard(("input", "linear_weight", "target"), _classes_of_linear),
    "nn.functional.multi_margin_loss": Guard(("input", "target"), _margins),
    "nn.functional.multilabel_margin_loss": Guard(("input", "target"), _labels),
    "nn.functional.one_hot": Guard(("tensor", "num_classes"), _one_hot),
    **{
        f"nn.functional.max_unpool{dims}d": Guard(
            ("input", "indices", "kernel_size", "stride", "padding", "output_size"), _unpooled(dims)
        )
        for dims in (1, 2, 3)
    },
    **dict.fromkeys(("bernoulli", "Tensor.bernoulli"), Guard(("input", "p"), _drawn)),
    "Tensor.bernoulli_": Guard(("input", "p"), _probabilities("p")),
    "nn.functional.binary_cross_entropy": Guard(("input", "target"), _probabilities("input", "target")),
    "poisson": Guard(("input",), _rates),
    **{
        f"nn.functional.fractional_max_pool{dims}d{suffix}": Guard(
            ("input", "kernel_size", "output_size", "output_ratio", "return_indices", "_random_samples"),
            _probabilities("_random_samples"),
        )
        for dims in (2, 3)
        for suffix in ("", "_with_indices")
    },
    "lu_unpack": Guard(("LU_data", "LU_pivots", "unpack_data", "unpack_pivots"), _pivots("LU_data", "LU_pivots")),
    **dict.fromkeys(
        ("lu_solve", "Tensor.lu_solve"), Guard(("input", "LU_data", "LU_pivots"), _pivots("LU_data", "LU_pivots"))
    ),
    "linalg.lu_solve": Guard(("LU", "pivots", "B"), _pivots("LU", "pivots")),
}


def _input_as_indices(named: dict[str, Any]) -> dict[str, Any]:
    return {**named, "indices": named["indices"] if "indices" in named else named["input"]}
