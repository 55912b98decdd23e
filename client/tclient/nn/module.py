"""The base of all layers: parameters, buffers and submodules by name, modes, hooks and text.

Knows tensors and their names; does not know any layer. What is computed, and where, is the layer's business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import tclient
from tclient.nn import _hooks, _state
from tclient.nn._changes import Watched, changed
from tclient.nn._core import Tensor
from tclient.nn._network import LayerCall
from tclient.nn._text import module_text
from tclient.nn.parameter import Buffer, Parameter

_TABLES = ("_parameters", "_buffers", "_modules")


class Module:
    """Base class of everything that has parameters and a forward pass.

    Assigning a Parameter, a Module or a Buffer to an attribute registers it.

    Example:
        >>> class Twice(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = nn.Linear(4, 4)
        ...     def forward(self, x):
        ...         return self.layer(self.layer(x))
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _forward_hooks: Watched[int, _hooks.ForwardHook]
    _forward_pre_hooks: Watched[int, _hooks.ForwardPreHook]

    def __init__(self) -> None:
        for name, value in (
            ("training", True),
            ("_parameters", Watched()),
            ("_buffers", {}),
            ("_non_persistent_buffers_set", set()),
            ("_forward_hooks", Watched()),
            ("_forward_pre_hooks", Watched()),
            ("_modules", Watched()),
        ):
            object.__setattr__(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._forward_hooks and not self._forward_pre_hooks:
            return self.forward(*args, **kwargs)
        return _hooks.run(self, args, kwargs)

    def _describe(self) -> list[LayerCall] | None:
        """The layers that the forward amounts to, for those that the server can run as one call."""
        return None

    # Attributes and registration

    def __getattr__(self, name: str) -> Any:
        for table in _TABLES:
            entries = self.__dict__.get(table)
            if entries is not None and name in entries:
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in own:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            if "_modules" not in own:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, "_modules")
            own["_modules"][name] = value
        elif isinstance(value, Buffer):
            if "_buffers" not in own:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            self._forget(name, "_buffers")
            self.register_buffer(name, value, value.persistent)
        elif not any(name in own.get(table, ()) for table in _TABLES):
            object.__setattr__(self, name, value)
            changed()
        else:
            self._replace(name, value)

    def _forget(self, name: str, keep: str = "") -> None:
        """Takes a name out of all tables; in the one to keep it holds its place."""
        self.__dict__.pop(name, None)
        for table in _TABLES:
            if table != keep:
                self.__dict__.get(table, {}).pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def _replace(self, name: str, value: Any) -> None:
        """Assigns something to a registered name: None, or for a buffer a tensor."""
        kinds = (("_parameters", "parameter", "nn.Parameter"), ("_modules", "child module", "nn.Module"))
        for table, noun, wanted in kinds:
            if name in self.__dict__[table]:
                if value is not None:
                    raise TypeError(
                        f"cannot assign '{_typename(value)}' as {noun} '{name}' ({wanted} or None expected)"
                    )
                self.__dict__[table][name] = None
                return
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"cannot assign '{_typename(value)}' as buffer '{name}' (Tensor or None expected)")
        self._buffers[name] = value

    def __delattr__(self, name: str) -> None:
        if any(name in self.__dict__[table] for table in _TABLES):
            self._forget(name)
        else:
            object.__delattr__(self, name)
            changed()

    def __dir__(self) -> list[str]:
        registered = [name for table in _TABLES for name in self.__dict__[table]]
        return sorted({*super().__dir__(), *registered})

    def __getstate__(self) -> dict[str, Any]:
        # A network made of this module belongs to this very object: a copy makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_network"}

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter, or the name of one that is not there."""
        self._check_name("parameter", name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_typename(param)}' object to parameter '{name}' (nn.Parameter or None required)"
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is no parameter; a persistent one is part of the state."""
        self._check_name("buffer", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{_typename(tensor)}' object to buffer '{name}' (torch Tensor or None required)"
            )
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_typename(module)} is not a Module subclass")
        self._check_name("module", name)
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, noun: str, name: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {noun} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{noun} name should be a string. Got {_typename(name)}")
        if "." in name:
            got = f", got: {name}" if noun == "module" else ""
            raise KeyError(f'{noun} name can\'t contain "."{got}')
        if name == "":
            raise KeyError(f'{noun} name can\'t be empty string ""')
        taken = self.__dict__[{"parameter": "_parameters", "buffer": "_buffers", "module": "_modules"}[noun]]
        if hasattr(self, name) and name not in taken:
            raise KeyError(f"attribute '{name}' already exists")

    # Walking

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it, each with its dotted name."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The submodules right below this one, with their names."""
        seen: set[Module] = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The submodules right below this one."""
        for _, child in self.named_children():
            yield child

    def _named_tensors(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        owners = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        seen: set[int] = set()
        for path, owner in owners:
            for name, tensor in owner.__dict__[table].items():
                if tensor is None or id(tensor) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(tensor))
                yield f"{path}.{name}" if path else name, tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters, each once, with their dotted names."""
        yield from self._named_tensors("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers, each once, with their dotted names."""
        yield from self._named_tensors("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def parameter_count(self) -> int:
        """How many numbers all parameters have together, by the server's sizes; each parameter counts once."""
        return sum(param.numel() for param in self.parameters())

    def get_submodule(self, target: str) -> Module:
        """The submodule with that dotted name."""
        found: Module = self
        for name in target.split(".") if target else []:
            if not hasattr(found, name):
                raise AttributeError(f"{type(found).__name__} has no attribute `{name}`")
            child = getattr(found, name)
            if not isinstance(child, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
            found = child
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with that dotted name."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        found = owner._parameters.get(name)
        if found is None:
            problem = (
                f"`{name}` is not an nn.Parameter"
                if hasattr(owner, name)
                else f"{type(owner).__name__} has no attribute `{name}`"
            )
            raise AttributeError(problem)
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with that dotted name."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        found = owner._buffers.get(name)
        if found is None:
            raise AttributeError(
                f"`{name}` is not a buffer"
                if hasattr(owner, name)
                else f"{type(owner).__name__} has no attribute `{name}`"
            )
        return found

    # State

    def state_dict(
        self, *, destination: OrderedDict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> OrderedDict[str, Tensor]:
        """All parameters and persistent buffers by dotted name; the tensors share memory with the module's."""
        state: OrderedDict[str, Tensor] = OrderedDict() if destination is None else destination
        _state.collect(self, state, prefix, keep_vars)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _state.IncompatibleKeys:
        """Copies tensors or numpy arrays into the parameters and buffers of the same names.

        Raises: RuntimeError naming every missing and unexpected name (when strict) and every shape that does not fit.
        """
        return _state.load(self, state_dict, strict, assign)

    # Modes and conversions

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, here and below: dropout drops, batch norm learns its statistics."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        changed()
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
        for param in self.parameters():
            if set_to_none:
                param.grad = None
            elif (grad := param.grad) is not None:
                grad.detach_().zero_()

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Calls fn with every submodule, then with this module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replaces the contents of every parameter, its gradient and every buffer by what fn makes of it."""
        for module in self.modules():
            for param in module._parameters.values():
                if param is not None:
                    grad = param.grad
                    with tclient.no_grad():
                        # The parameter stays the object it is: optimisers and networks hold on to it.
                        param.data = fn(param.data)
                        if grad is not None:
                            param.grad = fn(grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves and casts parameters and buffers as Tensor.to does; a dtype reaches floating-point ones only."""
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

        def convert(tensor: Tensor) -> Tensor:
            floating = tensor.dtype.is_floating_point or tensor.dtype.is_complex
            wanted = dtype if floating else None
            options = {name: value for name, value in (("device", device), ("dtype", wanted)) if value is not None}
            return tensor.to(**options, **kwargs) if options else tensor

        return self._apply(convert)

    def _cast(self, dtype: Any) -> Self:
        return self._apply(lambda tensor: tensor.to(dtype) if tensor.dtype.is_floating_point else tensor)

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

    def cpu(self) -> Self:
        """Moves all parameters and buffers to the server's memory."""
        return self._apply(lambda tensor: tensor.cpu())

    def cuda(self, device: Any = None) -> Self:
        """Moves all parameters and buffers to a GPU of the server."""
        return self._apply(lambda tensor: tensor.cuda(device))

    # Hooks and text

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> _hooks.RemovableHandle:
        """Calls hook(module, args, output) after each forward; what it returns, unless None, replaces the output."""
        return _hooks.add(self._forward_hooks, _hooks.ForwardHook(hook, with_kwargs, always_call), prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> _hooks.RemovableHandle:
        """Calls hook(module, args) before each forward; what it returns, unless None, replaces the arguments."""
        return _hooks.add(self._forward_pre_hooks, _hooks.ForwardPreHook(hook, with_kwargs), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> _hooks.RemovableHandle:
        """Refused: gradients are computed on the server, where no function of yours runs."""
        raise NotImplementedError(
            "register_full_backward_hook: backward runs on the server, which runs no code of its callers; "
            "read the gradients with tclient.autograd.grad instead"
        )

    register_backward_hook = register_full_backward_hook

    def share_memory(self) -> Self:
        """Refused: the memory is the server's; threads of this process share the module as it is."""
        raise NotImplementedError("share_memory: the parameters live on the server, not in memory of this process")

    def extra_repr(self) -> str:
        """What stands in the parentheses of the module's text."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return module_text(self)


def _typename(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
