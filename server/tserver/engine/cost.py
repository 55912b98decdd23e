"""Calls that would hold the engine for hours or for ever: refused before they are run, as a kernel cannot be stopped.

Knows torch and the names of operations. What a call may take is counted in elements that are gone through. Elements
that are there in memory are bounded by that. So what is looked at is

- views of many more elements than their memory holds, such as `x.expand(2**61)`: to have one is torch's right, to go
  through it is refused. They come into being in few operations (STRETCHES), after which a session is watched;
- products of sizes, and arguments that say how often something is done (BOUNDS), at the operations that have them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tserver.engine.device import free_bytes
from tserver.engine.sparse import memory_of

# Seconds on one core, give or take what an element costs; a GPU goes through about so many times as many.
_ON_CPU = 1 << 33
_ON_GPU_TIMES = 128
# Multiplications of a matrix product, and elements of moving windows, that take about as long.
_PRODUCTS_TIMES = 1024
_WINDOWS_TIMES = 16
# Views made one by one: a few microseconds each.
_MAX_PARTS = 1 << 20
# Steps that are some kernels each, and iterations of a whole algorithm.
_MAX_STEPS = 1 << 21
_MAX_ITERATIONS = 1000


class _Limits:
    def __init__(self) -> None:
        self.elements = _ON_CPU

    def of(self, tensor: Tensor) -> int:
        """Elements that one call may go through where the tensor is."""
        return self.elements if tensor.is_cpu else self.elements * _ON_GPU_TIMES


_limits = _Limits()


def set_up(max_call_elements: int) -> None:
    """Set how many elements one call may go through on the CPU; 0 is the default."""
    _limits.elements = max_call_elements or _ON_CPU


# ---- views of more elements than there are --------------------------------------------------------------------------

_STRETCHES = frozenset(
    {
        *("as_strided", "as_strided_", "broadcast_tensors", "broadcast_to", "expand", "expand_as", "meshgrid"),
        "unfold",
    }
)
# They make a view, or look at a shape; some copy where no view can be made, for which there must be memory.
_BY_SHAPE = _STRETCHES | {
    *("adjoint", "atleast_1d", "atleast_2d", "atleast_3d", "conj", "contiguous", "cpu", "cuda", "detach"),
    *("detach_", "diagonal", "dim", "dim_order", "element_size", "flatten", "get_device", "imag"),
    *("is_complex", "is_conj", "is_contiguous", "is_floating_point", "is_inference", "is_neg"),
    *("is_same_size", "is_set_to", "is_shared", "is_signed", "moveaxis", "movedim", "narrow"),
    *("ndimension", "nelement", "numel", "permute", "positive", "ravel", "real", "requires_grad_", "reshape"),
    *("reshape_as", "resolve_conj", "resolve_neg", "result_type", "retain_grad", "select", "size", "squeeze"),
    *("squeeze_", "storage_offset", "stride", "swapaxes", "swapaxes_", "swapdims", "swapdims_", "t", "t_", "to"),
    *("transpose", "transpose_", "type_as", "unflatten", "unsqueeze", "unsqueeze_", "view", "view_as"),
    *("view_as_complex", "view_as_real", "__len__", "__repr__", "__str__", "__format__", "__get__"),
    *("chunk", "dsplit", "hsplit", "split", "split_with_sizes", "tensor_split", "unbind", "vsplit", "tolist"),
}
_BY_SHAPE_IN_FULL = frozenset(
    {
        *("Tensor.data.__set__", "Tensor.grad.__set__", "Tensor.requires_grad.__set__"),
        *("tc.describe", "tc.numpy", "tc.program", "tc.read", "tc.run", "tc.run_with_effects"),
    }
)


def stretches(name: str) -> bool:
    """Whether an operation may make a view of many more elements than there are in memory."""
    return name.rpartition(".")[2] in _STRETCHES


def is_giant(value: Any) -> bool:
    """Whether there is such a view in a result."""
    return next(_giants(value), None) is not None


def check(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse to go through such views.

    Raises: torch.OutOfMemoryError where the elements would not be in memory, and RuntimeError where they could be.
    """
    if name.rpartition(".")[2] in _BY_SHAPE or name in _BY_SHAPE_IN_FULL:
        return
    # Of what is indexed only what the index names is looked at.
    giant = next(_giants([args[1:] if name == "Tensor.__getitem__" else args, kwargs]), None)
    if giant is None:
        return
    wanted, free = giant.numel() * giant.itemsize, free_bytes(giant.device)
    refusal = torch.OutOfMemoryError if wanted > free else RuntimeError
    raise refusal(
        f"{name}: a view of {giant.numel()} elements, whose {wanted} bytes are {giant.untyped_storage().nbytes()} in "
        f"memory ({giant.device} has {free} bytes free), is more than one call goes through here (at most "
        f"{_limits.of(giant)} elements, --max-call-elements); compute on the tensor before it is expanded"
    )


def _giants(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        count = value.numel()
        if (
            count > _limits.elements
            and value.layout is torch.strided
            and not value.is_meta
            and count > _limits.of(value)
            and count * value.itemsize > value.untyped_storage().nbytes()
        ):
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _giants(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _giants(item)


# ---- products of sizes, and counts ----------------------------------------------------------------------------------

# How much a call is, of how much that may be, and what it is; or None. Calls that torch refuses are left to torch.
Bound = Callable[..., tuple[float, float, str] | None]


def bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a name of the table, refusing what would take too long, if its arguments can say so."""
    bound = BOUNDS.get(name)
    if bound is None and name.startswith("linalg."):
        bound = _batch
    if bound is None:
        return function

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_bound(name, bound, args, kwargs)
        return function(*args, **kwargs)

    return checked


def check_bound(name: str, bound: Bound, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Refuse a call that is more than its bound. Raises: RuntimeError."""
    try:
        found = bound(*args, **{_NUMPY_NAMES.get(key, key): value for key, value in kwargs.items()})
    except Exception:
        return  # arguments that the function does not take: torch says so itself, in its own words
    if found is not None and found[0] > found[1]:
        amount, most, what = found
        raise RuntimeError(
            f"{name}: {what} are {amount:.0f}, more than one call takes here (at most {most:.0f}, which grows with "
            "--max-call-elements); divide it into several calls"
        )


_NUMPY_NAMES = {"axis": "dim", "x": "input", "a": "input"}


def product(left: Tensor, right: Tensor) -> tuple[float, float, str]:
    """Multiplications of a matrix product."""
    columns = right.shape[-1] if right.dim() > 1 else 1
    rows = left.shape[-2] if left.dim() > 1 else 1
    count = max(_elements(left) * columns, _elements(right) * rows)
    if left.layout is not torch.strided or right.layout is not torch.strided:
        # Of a sparse factor only what is there is multiplied; how much meets is looked at in sparse.py.
        count = min(_elements(left) * columns, _elements(right) * rows)
    return count, _limits.of(left) * _PRODUCTS_TIMES, "the multiplications"


def _elements(tensor: Tensor) -> int:
    return sum(part.numel() for part in memory_of(tensor))


def _of_matrices(*tensors: Any, **named: Any) -> tuple[float, float, str] | None:
    left, right = [*tensors, *(named[name] for name in ("input", "other", "mat2") if name in named)][:2]
    return product(left, right)


def _of_sum_and_matrices(
    input: Any, left: Any = None, right: Any = None, **named: Any
) -> tuple[float, float, str] | None:
    left = next((named[name] for name in ("mat1", "batch1", "mat") if name in named), left)
    right = next((named[name] for name in ("mat2", "batch2", "vec") if name in named), right)
    return product(left, right)


def _linear(input: Tensor, weight: Tensor, *_: Any, **__: Any) -> tuple[float, float, str]:
    count = input.numel() * (weight.shape[0] if weight.dim() > 1 else 1)
    return count, _limits.of(input) * _PRODUCTS_TIMES, "the multiplications"


def _convolution(*, transposed: bool) -> Bound:
    def bound(
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        *_: Any,
        **__: Any,
    ) -> tuple[float, float, str]:
        dims = weight.dim() - 2
        batch = input.shape[0] if input.dim() == dims + 2 else 1
        where = math.prod(input.shape[-dims:])
        if not transposed:
            steps = _several(stride, dims)
            around = [0] * dims if isinstance(padding, str) else _several(padding, dims)
            kernel = weight.shape[2:]
            where = math.prod(
                # With the padding "same" there are as many outputs as inputs.
                size if isinstance(padding, str) else max(0, size + 2 * pad - width) // step + 1
                for size, width, step, pad in zip(input.shape[-dims:], kernel, steps, around, strict=True)
            )
        return batch * where * weight.numel(), _limits.of(input) * _PRODUCTS_TIMES, "the multiplications"

    return bound


def _window(dims: int) -> Bound:
    def bound(
        input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *_: Any, **__: Any
    ) -> tuple[float, float, str]:
        kernel = _several(kernel_size, dims)
        steps = _several(stride, dims) if stride else kernel
        count = input.numel() * math.prod(kernel) / math.prod(steps)
        return count, _limits.of(input) * _WINDOWS_TIMES, "the elements of all windows"

    return bound


def _norm_window(dims: int) -> Bound:
    inner = _window(dims)
    return lambda input, norm_type, *rest, **named: inner(input, *rest, **named)


def _attention(query: Tensor, key: Tensor, *_: Any, **__: Any) -> tuple[float, float, str]:
    return query.numel() * key.shape[-2], _limits.of(query) * _PRODUCTS_TIMES, "the multiplications"


def _distances(x1: Tensor, x2: Tensor, *_: Any, **__: Any) -> tuple[float, float, str]:
    return x1.numel() * x2.shape[-2], _limits.of(x1) * _WINDOWS_TIMES, "the differences"


def _margins(input: Tensor, *_: Any, **__: Any) -> tuple[float, float, str]:
    return input.numel() * input.shape[-1], _limits.of(input) * _WINDOWS_TIMES, "the pairs of classes"


def _differences(input: Tensor, n: int = 1, *_: Any, **__: Any) -> tuple[float, float, str]:
    return input.numel() * min(n, max(input.shape)), _limits.of(input), "the differences"


def _zeta(input: Any, other: Any, **_: Any) -> tuple[float, float, str] | None:
    # Summed up one by one from a negative number on, unless that is whole.
    return _terms(other, torch.broadcast_tensors(input, other)[0].numel() if isinstance(input, Tensor) else 1)


def _polygamma(*args: Any, **named: Any) -> tuple[float, float, str] | None:
    given = next(value for value in (*args, *named.values()) if isinstance(value, Tensor))
    return _terms(given, given.numel())


def _terms(of: Any, count: int) -> tuple[float, float, str] | None:
    if not isinstance(of, Tensor):
        return count * max(0.0, -of) if of % 1 else 0.0, _ON_CPU, "the terms"
    if not of.is_floating_point() or not of.numel():
        return None
    summed = torch.where(of.frac() == 0, 0, of.clamp(max=0)).nan_to_num(0.0).double().sum()
    return -float(summed) * max(1, count // of.numel()), _limits.of(of), "the terms"


def _iterations(place: int, default: int) -> Bound:
    def bound(*args: Any, **named: Any) -> tuple[float, float, str] | None:
        niter = named.get("niter", args[place] if len(args) > place else default)
        if niter is None:
            return None
        # A negative number is until it converges, which it may never do.
        return (math.inf if niter < 0 else niter), _MAX_ITERATIONS, "the iterations (niter)"

    return bound


def _parts(named_count: str) -> Bound:
    def bound(input: Tensor, count: Any = None, dim: int = 0, **named: Any) -> tuple[float, float, str] | None:
        count = next((value for name, value in named.items() if name != "dim"), count)
        if named_count == "size":
            if not isinstance(count, int):
                return None
            return input.shape[dim] / count, _MAX_PARTS, "the parts"
        if not isinstance(count, int):
            return None
        return count, _MAX_PARTS, "the parts"

    return bound


def _chunks(input: Tensor, chunks: int, dim: int = 0) -> tuple[float, float, str]:
    return min(chunks, input.shape[dim]), _MAX_PARTS, "the parts"


def _unbound(input: Tensor, dim: int = 0) -> tuple[float, float, str]:
    return input.shape[dim], _MAX_PARTS, "the parts"


def _steps(*args: Any, **named: Any) -> tuple[float, float, str] | None:
    data: Tensor = args[0] if args else named["data" if "data" in named else "input"]
    # A packed sequence comes as its data and its batch sizes.
    sizes = named.get("batch_sizes", args[1] if len(args) > 1 else None)
    if isinstance(sizes, Tensor) and not sizes.is_floating_point():
        steps = sizes.numel()
    else:
        batch_first = named.get("batch_first", args[8] if len(args) > 8 else False)
        steps = data.shape[1 if batch_first and data.dim() > 2 else 0]
    layers = [value for value in (*args[2:], *named.values()) if type(value) is int]
    return steps * max([1, *layers]), _MAX_STEPS, "the steps of the sequence"


def _batch(*args: Any, **named: Any) -> tuple[float, float, str] | None:
    """Matrices without elements, which are gone through one by one."""
    most = 0
    for value in (*args, *named.values()):
        if isinstance(value, Tensor) and not value.numel():
            most = max(most, math.prod(max(1, size) for size in value.shape))
    return most, _MAX_STEPS * 8, "the matrices without elements"


def _several(size: Any, dims: int) -> Sequence[int]:
    if not isinstance(size, Sequence):
        return [size] * dims
    return size if len(size) == dims else [*size] * dims


def _both(*names: str) -> tuple[str, ...]:
    return (*names, *(f"Tensor.{name}" for name in names))


# Looked at only where threads.py has found them to be worth all cores.
PRODUCTS: dict[str, Bound] = {
    **dict.fromkeys((*_both("matmul", "mm", "bmm", "__matmul__"), "linalg.matmul"), _of_matrices),
    "Tensor.__rmatmul__": lambda right, left: _of_matrices(left, right),
    "nn.functional.linear": _linear,
    **{
        f"{prefix}conv{dims}d": _convolution(transposed=False)
        for prefix in ("", "nn.functional.")
        for dims in (1, 2, 3)
    },
}
BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(
        (*_both("addmm", "addmv", "addbmm", "baddbmm"), "Tensor.addmm_", "Tensor.baddbmm_", "Tensor.addbmm_"),
        _of_sum_and_matrices,
    ),
    **{
        f"{prefix}conv_transpose{dims}d": _convolution(transposed=True)
        for prefix in ("", "nn.functional.")
        for dims in (1, 2, 3)
    },
    **{
        f"{prefix}{kind}_pool{dims}d{suffix}": _window(dims)
        for prefix in ("", "nn.functional.")
        for kind, suffix in (("max", ""), ("max", "_with_indices"), ("avg", ""))
        for dims in (1, 2, 3)
    },
    **{f"nn.functional.lp_pool{dims}d": _norm_window(dims) for dims in (1, 2, 3)},
    "nn.functional.scaled_dot_product_attention": _attention,
    "cdist": _distances,
    **dict.fromkeys(("nn.functional.nll_loss", "embedding_bag", "nn.functional.embedding_bag"), _batch),
    "nn.init.sparse_": lambda tensor, *_, **__: (tensor.shape[1], _MAX_STEPS, "the columns"),
    "nn.functional.multilabel_margin_loss": _margins,
    **dict.fromkeys(_both("diff"), _differences),
    "special.zeta": _zeta,
    **dict.fromkeys((*_both("polygamma"), "special.polygamma", "Tensor.polygamma_"), _polygamma),
    "lobpcg": _iterations(6, 0),
    "pca_lowrank": _iterations(3, 2),
    "svd_lowrank": _iterations(2, 2),
    **dict.fromkeys((*_both("split", "unsafe_split"),), _parts("size")),
    **dict.fromkeys((*_both("tensor_split", "hsplit", "vsplit", "dsplit"),), _parts("count")),
    **dict.fromkeys((*_both("chunk", "unsafe_chunk"),), _chunks),
    **dict.fromkeys(_both("unbind"), _unbound),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _steps),
    **dict.fromkeys(
        _both("cholesky", "cholesky_inverse", "cholesky_solve", "det", "geqrf", "inverse", "logdet", "lu_solve", "lu")
        + _both("matrix_exp", "matrix_power", "orgqr", "ormqr", "pinverse", "qr", "slogdet", "svd", "triangular_solve"),
        _batch,
    ),
}
