"""Sparse tensors: how they are made, and which kernels of torch may see them.

A sparse kernel trusts the indices: what torch takes at its word here would read and write the memory of others. So they
are looked at when a tensor is made, and from then on nobody else has their memory: they are copied on the way in and on
the way out. Whatever is done with a sparse tensor then goes through `GUARD`, which sees each kernel before it is run,
also those of a function that is made of others and those of a backward pass. It lets pass the kernels of RULES, which
were read and tried (tests/fuzz), within the memory that is free. A kernel that torch does not have for sparse tensors
is left to torch, which says so; all others are refused.

Knows torch; does not know sessions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tserver.engine.extents import tensors_in
from tserver.engine.memory import check_bytes
from tserver.engine.new_memory import is_zeroed

_INDEX_BYTES = 8
# Kernels compute with sizes in 32 bits now and then, where larger ones wrap.
_MAX_SIZE = 2**31 - 1
_VALIDATE: Callable[..., None] = torch._validate_sparse_coo_tensor_args

# Everything is looked at here; torch would warn, in whatever session comes first, that it does not.
torch.sparse.check_sparse_tensor_invariants.disable()


def is_sparse(value: Any) -> bool:
    """Whether it is a tensor of another layout than the strided one."""
    return isinstance(value, Tensor) and value.layout is not torch.strided


def memory_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """The strided tensors whose memory a tensor takes: itself, or those that a sparse one is made of."""
    if tensor.layout is torch.strided:
        return (tensor,)
    return (tensor._indices(), tensor._values()) if tensor.layout is torch.sparse_coo else ()


# ---- making them ----------------------------------------------------------------------------------------------------


def coo_tensor(*args: Any, **kwargs: Any) -> Tensor:
    """`torch.sparse_coo_tensor`, always as with check_invariants=True. Raises: RuntimeError in torch's words."""
    given = dict(zip(("indices", "values"), args, strict=False)) | kwargs
    if "size" not in kwargs and len(args) == 1 and "values" not in kwargs:
        given = kwargs  # a size alone
    rest = args if given is kwargs else args[2:]
    named = {name: _owned(name, value) for name, value in given.items()}
    named.pop("check_invariants", None)
    if given is not kwargs:
        rest = (*(named.pop(name) for name in ("indices", "values")[: len(args)]), *rest)
    return _checked(torch.sparse_coo_tensor(*rest, **named, check_invariants=True))


def old_constructor(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.sparse.FloatTensor and its kin."""

    def made(*args: Any, **kwargs: Any) -> Tensor:
        names = ("indices", "values")
        args = tuple(_owned(name, value) for name, value in zip((*names, "", ""), args, strict=False))
        return _checked(make(*args, **kwargs))

    return made


def _owned(name: str, value: Any) -> Any:
    """What a part of a sparse tensor is made of, so that nobody else can write to it behind the tensor's back."""
    if not isinstance(value, Tensor) or is_sparse(value):
        return value
    if name == "indices":
        return value.detach().clone(memory_format=torch.contiguous_format)
    return value.contiguous() if name == "values" else value


def _checked(made: Tensor) -> Tensor:
    if made.is_meta:
        raise NotImplementedError("sparse tensors on the meta device are not held; use a dense one")
    if max(made.shape, default=0) > _MAX_SIZE:
        raise RuntimeError(f"a sparse tensor of size {list(made.shape)}: sizes must be below 2^31")
    indices, values = made._indices(), made._values()
    _VALIDATE(indices, values, made.shape)
    if made.is_coalesced():
        try:
            _VALIDATE(indices, values, made.shape, True)
        except RuntimeError:
            made._coalesced_(False)  # torch takes it for ordered after some kernels that do not keep the order
    return made


def indices_of(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function that hands out the indices: a copy of them."""

    def copied(*args: Any, **kwargs: Any) -> Tensor:
        return function(*args, **kwargs).clone()

    return copied


def values_of(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function that hands out the values: an alias that cannot be resized behind the tensor's back."""

    def apart(*args: Any, **kwargs: Any) -> Tensor:
        values = function(*args, **kwargs)
        if not is_zeroed(values.device) and values.untyped_storage().nbytes() != values.nbytes:
            return values.clone()  # what nobody has written may be behind them
        return values if values._is_view() else values.detach()

    return apart


HANDED_OUT: dict[str, Callable[[Callable[..., Tensor]], Callable[..., Tensor]]] = {
    "Tensor.indices": indices_of,
    "Tensor._indices": indices_of,
    "Tensor.values": values_of,
    "Tensor._values": values_of,
}


# ---- which kernels may see them -------------------------------------------------------------------------------------

# What a kernel is given: looked at before it is run. Raises: torch.OutOfMemoryError, RuntimeError.
Rule = Callable[..., None]


def _as_it_is(*args: Any, **kwargs: Any) -> None:
    pass


def _needs(what: Tensor, count: int, size: int) -> None:
    check_bytes("the result", count * size, what.device)


def _densifies(input: Tensor, *_: Any, **__: Any) -> None:
    _needs(input, input.numel(), input.itemsize)


def _product(left: Tensor, right: Tensor, *_: Any, **__: Any) -> None:
    if is_sparse(left) and is_sparse(right):
        _product_of_sparse(left, right)
        return
    columns = right.shape[-1] if right.dim() > 1 else 1
    _needs(left, math.prod(left.shape[:-1]) * columns, left.itemsize)


def _sum_and_product(input: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> None:
    if is_sparse(input) and not (is_sparse(left) and is_sparse(right)):
        raise NotImplementedError("addmm of a sparse tensor and a dense product is not computed here; use to_dense()")
    _product(left, right)


def _product_of_sparse(left: Tensor, right: Tensor, *_: Any, **__: Any) -> None:
    if left.dim() != 2 or right.dim() != 2 or left.sparse_dim() != 2 or right.sparse_dim() != 2:
        return
    _needs(left, left.shape[0] + right.shape[0] + right.shape[1], 2 * _INDEX_BYTES)
    # The pairs that meet: each element of a column on the left with each of that row on the right.
    rows = right._indices()[0].sort().values
    columns = left._indices()[1].contiguous()
    met = torch.searchsorted(rows, columns, right=True) - torch.searchsorted(rows, columns)
    _needs(left, int(met.sum()), left.itemsize + 3 * _INDEX_BYTES)


def _by_rows(input: Tensor, dim: int, *_: Any, **__: Any) -> None:
    # One number for each position of the other dimensions.
    sizes = list(input.shape)
    if -len(sizes) <= dim < len(sizes):
        sizes.pop(dim)
        _needs(input, math.prod(sizes), 4 * _INDEX_BYTES)


def _by_rows_backward(grad: Tensor, output: Tensor, dim: int, input: Tensor) -> None:
    if grad.shape != input.shape or output.shape != input.shape:
        raise RuntimeError("sparse softmax: gradient, output and input must have one shape")
    _by_rows(input, dim)


def _elementwise(left: Any, right: Any = None, *_: Any, **__: Any) -> None:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return
    try:
        shape = torch.broadcast_shapes(left.shape, right.shape)
    except RuntimeError:
        return  # torch says so in its own words
    for tensor in (left, right):
        if is_sparse(tensor) and tensor.shape != shape and tensor._nnz():
            times = math.prod(shape) // max(1, tensor.numel()) + 1
            _needs(tensor, tensor._nnz() * times, tensor.itemsize + _INDEX_BYTES * len(shape))


def _elementwise_in_place(left: Any, right: Any = None, *_: Any, **__: Any) -> None:
    # torch gives a sparse tensor another form before it notices.
    if is_sparse(left) and isinstance(right, Tensor) and right.dim() and left.shape != right.shape:
        raise RuntimeError(f"a sparse tensor of size {list(left.shape)} is not changed in place by {list(right.shape)}")
    _elementwise(left, right)


def _selected(input: Tensor, dim: int, index: Tensor) -> None:
    _needs(input, input._nnz() * max(1, index.numel()), input.itemsize + _INDEX_BYTES * input.dim())


def _copied_to(input: Tensor, *_: Any, device: Any = None, layout: Any = None, **__: Any) -> None:
    if device is not None and torch.device(device).type == "meta":
        raise NotImplementedError("sparse tensors on the meta device are not held; use a dense one")
    if layout is torch.strided:
        _densifies(input)


def _of_one_shape(input: Tensor, other: Tensor, *_: Any, **__: Any) -> None:
    if input.shape != other.shape:
        return
    if is_sparse(input) and is_sparse(other) and input.sparse_dim() != other.sparse_dim():
        raise RuntimeError(
            f"sparse_mask: the input has {input.sparse_dim()} sparse dimensions, the mask {other.sparse_dim()}"
        )


_UNARY = """
abs asin asinh atan atanh ceil deg2rad erf erfinv expm1 floor frac log1p nan_to_num neg rad2deg relu round sgn sign
signbit sin sinh sqrt tan tanh trunc isinf isnan isneginf isposinf conj_physical
"""
_PARTS = "_dimI _dimV sparse_dim dense_dim _nnz is_coalesced _indices _values indices values _coalesce coalesce"
_FORMS = "clone detach alias permute transpose t unsqueeze select cat stack narrow_copy zero_ is_same_size size numel"

# What these return has the indices of what they are given, or none.
_KEEPING = frozenset([*_PARTS.split(), *_UNARY.split(), "clone", "detach", "alias", "_to_copy"])

RULES: dict[str, Rule] = {
    **dict.fromkeys(_PARTS.split(), _as_it_is),
    **dict.fromkeys(_UNARY.split(), _as_it_is),
    **dict.fromkeys(_FORMS.split(), _as_it_is),
    **dict.fromkeys(("any", "norm", "sum", "_sparse_sum", "_sparse_sum_backward", "threshold_backward"), _as_it_is),
    **dict.fromkeys(("pow", "unbind", "_to_sparse", "_local_scalar_dense"), _as_it_is),
    **dict.fromkeys(("_sparse_coo_tensor_with_dims_and_tensors", "_sparse_coo_tensor_unsafe"), _as_it_is),
    **dict.fromkeys(("_to_copy", "empty_like", "zeros_like"), _copied_to),
    **dict.fromkeys(("sparse_mask", "_sparse_mask_projection"), _of_one_shape),
    **dict.fromkeys(("add", "sub", "mul", "div"), _elementwise),
    **dict.fromkeys(("add_", "sub_", "mul_", "div_"), _elementwise_in_place),
    **dict.fromkeys(("mm", "mv", "bmm", "_sparse_mm"), _product),
    **dict.fromkeys(("addmm", "_sparse_addmm"), _sum_and_product),
    **dict.fromkeys(("_sparse_softmax", "_sparse_log_softmax"), _by_rows),
    **dict.fromkeys(("_sparse_softmax_backward_data", "_sparse_log_softmax_backward_data"), _by_rows_backward),
    "_sparse_sparse_matmul": _product_of_sparse,
    "_to_dense": _densifies,
    "index_select": _selected,
}
"""The kernels that may see sparse tensors, by the name of the operator, and what is looked at before."""


_HAS = torch._C._dispatch_has_kernel_for_dispatch_key


@cache
def _is_for_torch(operator: Any, key: str) -> bool:
    """Whether torch has no kernel for sparse tensors behind an operator: it says so itself, and runs nothing."""
    return not any(_HAS(operator.name(), each) for each in (key, *_COMPOSITE))


_COMPOSITE = ("CompositeImplicitAutograd", "CompositeExplicitAutograd")


@cache
def _made_of_others(operator: Any) -> Any:
    """The key of the kernel that calls other operators, where that is all an operator is; else None."""
    own = any(_HAS(operator.name(), key) for key in ("SparseCPU", "SparseCUDA"))
    found = [key for key in _COMPOSITE if not own and _HAS(operator.name(), key)]
    return getattr(torch._C.DispatchKey, found[0]) if found else None


def _writes_to(operator: Any, args: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Whether an operator is to write to a sparse tensor."""
    given = dict(zip((argument.name for argument in operator._schema.arguments), args, strict=False)) | dict(named)
    return any(
        argument.alias_info is not None
        and argument.alias_info.is_write
        and next(_sparse_in(given.get(argument.name)), None) is not None
        for argument in operator._schema.arguments
    )


def _sparse_in(value: Any) -> Iterator[Tensor]:
    return (tensor for tensor in tensors_in(value) if tensor.layout is not torch.strided)


class _Guard(TorchDispatchMode):
    """Sees each kernel before it is run, while it is entered."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        found = next(_sparse_in([list(args), named]), None)
        if found is None:
            return func(*args, **named)
        operator = func.overloadpacket.__name__
        rule = RULES.get(operator)
        if rule is None or _writes_out(func):
            made_of = _made_of_others(func)
            if made_of is not None and not _writes_to(func, args, named):
                with self:
                    return func._op_dk(made_of, *args, **named)
            if not _is_for_torch(func, "SparseCUDA" if found.is_cuda else "SparseCPU"):
                raise NotImplementedError(
                    f"{operator}{' with out=' if _writes_out(func) else ''} is not run on sparse tensors here; "
                    "call to_dense() first"
                )
        else:
            rule(*args, **named)
        made = func(*args, **named)
        if operator not in _KEEPING:
            for each in _sparse_in(made):
                _checked(each)
        return made


@cache
def _writes_out(func: Any) -> bool:
    return any(argument.is_out for argument in func._schema.arguments)


GUARD = _Guard()  # type: ignore[no-untyped-call]

# Programs look at each of their calls.
_BY_ITS_CALLS = ("tc.program", "tc.run")


def concerns(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, is_backward: bool) -> bool:
    """Whether a call of a session that has sparse tensors may bring one to a kernel."""
    if is_backward or (name.startswith("tc.") and not name.startswith(_BY_ITS_CALLS)):
        return True
    return next(_sparse_in([list(args), dict(kwargs)]), None) is not None
