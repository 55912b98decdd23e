"""What changes a module as a whole: modes, gradients, dtypes and devices, here and in all modules below.

Knows that a module has parameters, buffers and submodules; does not know how they are registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import tclient
from tclient.nn._changes import changed
from tclient.nn._core import Tensor, describe, gradients
from tclient.nn.parameter import Parameter, is_lazy

if TYPE_CHECKING:
    from tclient.nn.module import Module


class Conversions:
    """The part of Module that converts it."""

    if TYPE_CHECKING:
        training: bool
        _parameters: dict[str, Parameter | None]
        _buffers: dict[str, Tensor | None]

        def children(self) -> Iterator[Module]: ...
        def parameters(self, recurse: bool = True) -> Iterator[Parameter]: ...
        def buffers(self, recurse: bool = True) -> Iterator[Tensor]: ...

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, here and below: dropout drops, batch norm learns its statistics."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        object.__setattr__(self, "training", mode)
        changed()
        for module in self.children():
            # By its own method: programs override it to keep a part as it is.
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Sets evaluation mode, here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Says whether gradients are recorded for the parameters, here and below."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Lets go of the gradients of all parameters, or fills them with zeros."""
        params = list(self.parameters())
        if set_to_none:
            for param in params:
                param.grad = None
            return
        for grad in gradients(params):
            if grad is not None:
                grad.detach_().zero_()

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Calls fn with every submodule, then with this module."""
        for child in self.children():
            child.apply(fn)
        fn(self)  # type: ignore[arg-type]
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replaces the contents of every parameter, its gradient and every buffer by what fn makes of it."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        params = [param for param in self._parameters.values() if param is not None]
        with tclient.no_grad():
            made = [(param, fn(param)) for param in params]
            changed = [(param, new) for param, new in made if new is not param]
            grads = gradients([param for param, _ in changed])
            # All is asked for before anything changes, of which nothing is known then.
            describe([grad for grad in grads if grad is not None])
            new_grads = [None if grad is None else fn(grad) for grad in grads]
            for (param, new), new_grad in zip(changed, new_grads, strict=True):
                # The parameter stays the object it is: optimisers and networks hold on to it.
                param.data = new
                if new_grad is not None:
                    param.grad = new_grad
        for name, buffer in self._buffers.items():
            if buffer is not None and is_lazy(buffer):
                buffer.data = fn(buffer.data)
            elif buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves and casts parameters and buffers as Tensor.to does; a dtype reaches floating-point ones only.

        With session=other they go to another session, and their gradients with them, by one transfer; see
        `tclient.move`. Optimisers stay with the session that they were made in: make new ones.
        """
        if "session" in kwargs:
            from tclient._moving import device_of, move  # here, as few programs have two sessions

            session = kwargs.pop("session")
            moved: Self = move(self, session, device_of(args, kwargs))
            return moved
        dtype = kwargs.pop("dtype", None)
        device = kwargs.pop("device", None)
        for arg in args:
            if isinstance(arg, Tensor):
                device, dtype = arg.device, arg.dtype
            elif isinstance(arg, tclient.dtype):
                dtype = arg
            elif isinstance(arg, bool):
                kwargs.setdefault("non_blocking", arg)
            elif arg is not None:
                device = arg
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}"
            )

        place = None if device is None else tclient.device(device)
        may_stay = kwargs.keys() <= {"non_blocking"}

        kinds = self._kinds()

        def convert(tensor: Tensor) -> Tensor:
            element, where = kinds.get(tensor._ref) or (tensor.dtype, tensor.device)
            wanted = dtype if element.is_floating_point or element.is_complex else None
            if may_stay and wanted in (None, element) and place in (None, where):
                return tensor
            options = {name: value for name, value in (("device", device), ("dtype", wanted)) if value is not None}
            return tensor.to(**options, **kwargs) if options else tensor

        return self._apply(convert)

    def _kinds(self) -> dict[Any, tuple[Any, Any]]:
        """dtype and device of all parameters and buffers, by one wait where they are not known."""
        tensors = [each for each in (*self.parameters(), *self.buffers()) if not is_lazy(each)]
        describe(tensors)
        return {each._ref: (each.dtype, each.device) for each in tensors}

    def _cast(self, dtype: Any) -> Self:
        kinds = self._kinds()

        def convert(tensor: Tensor) -> Tensor:
            element, _ = kinds.get(tensor._ref) or (tensor.dtype, None)
            return tensor.to(dtype) if element.is_floating_point and element is not dtype else tensor

        return self._apply(convert)

    def type(self, dst_type: Any) -> Self:
        """Casts all parameters and buffers."""
        return self._apply(lambda tensor: tensor.type(dst_type))

    def float(self) -> Self:
        """Casts all floating-point parameters and buffers to float32."""
        return self._cast(tclient.float32)

    def double(self) -> Self:
        """Casts all floating-point parameters and buffers to float64."""
        return self._cast(tclient.float64)

    def half(self) -> Self:
        """Casts all floating-point parameters and buffers to float16."""
        return self._cast(tclient.float16)

    def bfloat16(self) -> Self:
        """Casts all floating-point parameters and buffers to bfloat16."""
        return self._cast(tclient.bfloat16)

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Moves parameters and buffers without their elements."""

        def emptied(tensor: Tensor) -> Tensor:
            return tclient.empty_like(tensor, device=device)

        if recurse:
            for module in self.children():
                module.to_empty(device=device)
        for name, param in self._parameters.items():
            if param is not None and param.device.type == "meta":
                # Where there are no elements, torch makes another parameter.
                self._parameters[name] = Parameter(emptied(param), param.requires_grad)
        return self._apply(emptied, recurse=False)

    def cpu(self) -> Self:
        """Moves all parameters and buffers to the server's memory."""
        return self._apply(lambda tensor: tensor.cpu())

    def cuda(self, device: Any = None) -> Self:
        """Moves all parameters and buffers to a GPU of the server."""
        return self._apply(lambda tensor: tensor.cuda(device))
