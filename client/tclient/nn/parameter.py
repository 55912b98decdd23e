"""Tensors that a module counts as its own: parameters are trained, buffers are only kept.

Knows the client's Tensor; does not know modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tclient
from tclient.nn._core import Tensor, adopt, adopt_new


class Parameter(Tensor):
    """A tensor that a module registers when it is assigned to one of its attributes.

    Shapes: as data. It shares the memory of data, as in torch.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = tclient.empty(0)
        if not isinstance(data, Tensor):
            raise TypeError(
                f"Parameter: data is a {type(data).__name__}; give a tensor, as in Parameter(tclient.tensor(data))"
            )
        return adopt_new(cls, data.detach().requires_grad_(requires_grad))

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Nothing is left to do: __new__ took over the tensor."""

    # mypy takes the arguments of dunder methods for positional ones, and finds no two of these alike.
    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        found = memo.get(id(self))
        if found is None:
            found = type(self)(self.detach().clone(), self.requires_grad)
            memo[id(self)] = found
        return found


def parameter_from(factory: Callable[..., Tensor], shape: Any, device: Any = None, dtype: Any = None) -> Parameter:
    """A new parameter that a factory such as `tclient.empty` fills: one call; Parameter(factory(...)) is three."""
    return adopt_new(Parameter, factory(shape, device=device, dtype=dtype, requires_grad=True))


class Buffer(Tensor):
    """A tensor that a module keeps as a buffer when it is assigned to one of its attributes."""

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        self = adopt(cls, tclient.empty(0) if data is None else data)
        self.persistent = persistent
        return self

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        """Nothing is left to do: __new__ took over the tensor."""


_UNKNOWN = (
    "Can't access the shape of an uninitialized parameter or buffer. This error usually happens in `load_state_dict` "
    "when trying to load an uninitialized parameter into an initialized one. Call `forward` to initialize the "
    "parameters before accessing their attributes."
)


# What may be done with a tensor whose shape is not known.
_ALLOWED = frozenset(
    (
        *("size", "copy_", "is_complex", "is_floating_point", "half", "float", "double", "char", "short", "int"),
        *("long", "cuda", "cpu", "to", "get_device", "requires_grad_", "materialize", "share_memory_", "cls_to_become"),
    )
)


def _used_too_early(name: str) -> ValueError:
    return ValueError(
        f"Attempted to use an uninitialized parameter in <method '{name}' of 'torch._C.TensorBase' objects>. This "
        "error happens when you are using a `LazyModule` or explicitly manipulating "
        "`torch.nn.parameter.UninitializedParameter` objects. When using LazyModules Call `forward` with a dummy batch "
        "to initialize the parameters before calling torch functions"
    )


class UninitializedTensorMixin:
    """A tensor whose shape is not known yet; the first forward of its module, or a loaded state, tells it."""

    cls_to_become: Any

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") and name not in _ALLOWED and callable(value):
            raise _used_too_early(name)
        return value

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Gives it a shape, and memory whose contents mean nothing yet; then it is one like any other."""
        this: Any = self
        known = this.data
        this.data = tclient.empty(shape, device=device or known.device, dtype=dtype or known.dtype)
        this.__class__ = self.cls_to_become

    @property
    def shape(self) -> Any:
        """Unknown. Raises: RuntimeError."""
        raise RuntimeError(_UNKNOWN)

    def share_memory_(self) -> Any:
        """Refused, as in torch."""
        raise RuntimeError(
            "Can't share memory on an uninitialized parameter or buffer. Call `forward` to initialize the parameters "
            "before calling `module.share_memory()`."
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"<{type(self).__name__}>"


def _refusing(name: str) -> Callable[..., Any]:
    def operator(self: Any, *args: Any) -> Any:
        raise _used_too_early(name.strip("_"))

    return operator


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "matmul", "rmatmul", "neg", "getitem", "len"):
    setattr(UninitializedTensorMixin, f"__{_name}__", _refusing(f"__{_name}__"))


class UninitializedParameter(UninitializedTensorMixin, Parameter):  # type: ignore[misc]
    """A parameter whose shape is not known yet."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Any:
        return adopt(cls, tclient.empty(0, device=device, dtype=dtype, requires_grad=requires_grad))

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        """Nothing is left to do: __new__ took over the tensor."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            known = self.data
            memo[id(self)] = type(self)(self.requires_grad, known.device, known.dtype)
        return memo[id(self)]


class UninitializedBuffer(UninitializedTensorMixin, Tensor):  # type: ignore[misc]
    """A buffer whose shape is not known yet."""

    cls_to_become = Tensor
    persistent = True

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> Any:
        made = adopt(cls, tclient.empty(0, device=device, dtype=dtype, requires_grad=requires_grad))
        made.persistent = persistent
        return made

    def __init__(
        self, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> None:
        """Nothing is left to do: __new__ took over the tensor."""


def is_lazy(param: Any) -> bool:
    """Whether the shape of a parameter or buffer is not known yet."""
    return isinstance(param, UninitializedTensorMixin)
