"""The base of all layers: parameters, buffers and submodules by name, their state, hooks and text.

Knows tensors and their names; does not know any layer. What is computed, and where, is the layer's business.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from tclient import _notebook
from tclient.nn import _hooks, _state
from tclient.nn._changes import Watched, changed
from tclient.nn._conversions import Conversions
from tclient.nn._core import Tensor
from tclient.nn._hooks import (
    register_module_buffer_registration_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from tclient.nn._network import LayerCall
from tclient.nn._text import indent, module_text
from tclient.nn.parameter import Buffer, Parameter

__all__ = [
    "Module",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]

T_destination = TypeVar("T_destination", bound=dict[str, Any])
_IncompatibleKeys = _state.IncompatibleKeys

_TABLES = ("_parameters", "_buffers", "_modules")
# What holds the hooks of a module. A change of those that a forward runs makes another network of it.
_HOOKS: tuple[tuple[str, Callable[[], Any]], ...] = (
    ("_forward_hooks", Watched),
    ("_forward_hooks_with_kwargs", OrderedDict),
    ("_forward_hooks_always_called", OrderedDict),
    ("_forward_pre_hooks", Watched),
    ("_forward_pre_hooks_with_kwargs", OrderedDict),
    ("_backward_hooks", Watched),
    ("_backward_pre_hooks", Watched),
    ("_state_dict_hooks", OrderedDict),
    ("_state_dict_pre_hooks", OrderedDict),
    ("_load_state_dict_pre_hooks", OrderedDict),
    ("_load_state_dict_post_hooks", OrderedDict),
)


class Module(Conversions):
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

    dump_patches: bool = False
    call_super_init: bool = False
    T_destination = T_destination
    _version: ClassVar[int] = 1
    _compiled_call_impl: Callable[..., Any] | None = None
    # Whether the backward hooks are those of whole modules; None as long as there were none.
    _is_full_backward_hook: bool | None = None

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _forward_hooks: Watched[int, Any]
    _forward_hooks_with_kwargs: OrderedDict[int, bool]
    _forward_hooks_always_called: OrderedDict[int, bool]
    _forward_pre_hooks: Watched[int, Any]
    _forward_pre_hooks_with_kwargs: OrderedDict[int, bool]
    _backward_hooks: Watched[int, Callable[..., Any]]
    _backward_pre_hooks: Watched[int, Callable[..., Any]]
    _state_dict_hooks: OrderedDict[int, Any]
    _state_dict_pre_hooks: OrderedDict[int, Any]
    _load_state_dict_pre_hooks: OrderedDict[int, Any]
    _load_state_dict_post_hooks: OrderedDict[int, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            wrong = (
                f"got an unexpected keyword argument '{next(iter(kwargs))}'"
                if kwargs
                else f"takes 1 positional argument but {len(args) + 1} were given"
            )
            raise TypeError(f"{type(self).__name__}.__init__() {wrong}")
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = Watched()
        own["_buffers"] = {}
        own["_non_persistent_buffers_set"] = set()
        for name, kind in _HOOKS:
            own[name] = kind()
        own["_modules"] = Watched()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _hooks.has_hooks(self):
            return self.forward(*args, **kwargs)
        if self._compiled_call_impl is not None:
            return self._compiled_call_impl(*args, **kwargs)
        return _hooks.run(self, args, kwargs)

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        return _hooks.run(self, args, kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Has calls of the module run as those of `tclient.compile(module, ...)` do."""
        from tclient._compile import compile

        self._compiled_call_impl = compile(self._call_impl, *args, **{**kwargs, "disable": not kwargs.get("fullgraph")})

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
            value = _hooks.registered(_hooks._global_module_registration_hooks, self, name, value)
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name, kind in _HOOKS:
            self.__dict__.setdefault(name, kind())
        self.__dict__.setdefault("_non_persistent_buffers_set", set())
        changed()

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter, or the name of one that is not there."""
        self._check_name("parameter", name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_typename(param)}' object to parameter '{name}' (nn.Parameter or None required)"
            )
        self._parameters[name] = _hooks.registered(_hooks._global_parameter_registration_hooks, self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is no parameter; a persistent one is part of the state."""
        self._check_name("buffer", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{_typename(tensor)}' object to buffer '{name}' (torch Tensor or None required)"
            )
        self._buffers[name] = _hooks.registered(_hooks._global_buffer_registration_hooks, self, name, tensor)
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_typename(module)} is not a Module subclass")
        self._check_name("module", name)
        self._modules[name] = _hooks.registered(_hooks._global_module_registration_hooks, self, name, module)

    def register_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule."""
        self.add_module(name, module)

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

    def _named_members(
        self,
        get_members_fn: Callable[[Module], Iterable[tuple[str, Any]]],
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Any]]:
        """What the function gives of each module, with dotted names."""
        owners = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        seen: set[int] = set()
        for path, owner in owners:
            for name, member in get_members_fn(owner):
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield f"{path}.{name}" if path else name, member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters, each once, with their dotted names."""
        yield from self._named_members(lambda module: module._parameters.items(), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers, each once, with their dotted names."""
        yield from self._named_members(lambda module: module._buffers.items(), prefix, recurse, remove_duplicate)

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

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts a submodule at that dotted name; with strict only in the place of another one."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if strict and not hasattr(owner, name):
            raise AttributeError(f"{owner._get_name()} has no attribute `{name}`")
        if hasattr(owner, name) and not isinstance(getattr(owner, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(owner, name, module)

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
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> OrderedDict[str, Any]:
        """All parameters and persistent buffers by dotted name; the tensors share memory with the module's."""
        if args:
            warnings.warn(
                "Positional args are being deprecated, use kwargs instead. Refer to "
                "https://pytorch.org/docs/main/generated/torch.nn.Module.html#torch.nn.Module.state_dict for details.",
                FutureWarning,
                stacklevel=2,
            )
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and prefix == "" else prefix
            keep_vars = args[2] if len(args) > 2 and keep_vars is False else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        state: OrderedDict[str, Any] = _state.save(self, destination, prefix, keep_vars)
        return state

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Puts the module's own part into the state; a subclass may put other things there."""
        _state.save_own(self, destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes the module's own part of the state; a subclass may change that before."""
        _state.load_own(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def get_extra_state(self) -> Any:
        """What the state holds besides tensors; a subclass that defines it also defines `set_extra_state`."""
        raise RuntimeError(_NEVER.format("get_extra_state"))

    def set_extra_state(self, state: Any) -> None:
        """Takes what `get_extra_state` gave."""
        raise RuntimeError(_NEVER.format("set_extra_state"))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _state.IncompatibleKeys:
        """Copies tensors or numpy arrays into the parameters and buffers of the same names.

        Raises: RuntimeError naming every missing and unexpected name (when strict) and every shape that does not fit.
        """
        return _state.load(self, state_dict, strict, assign)

    # Hooks and text

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> _hooks.RemovableHandle:
        """Calls hook(module, args, output) after each forward; what it returns, unless None, replaces the output."""
        ways = (self._forward_hooks_with_kwargs, with_kwargs), (self._forward_hooks_always_called, always_call)
        return _hooks.add(self._forward_hooks, hook, prepend, ways)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> _hooks.RemovableHandle:
        """Calls hook(module, args) before each forward; what it returns, unless None, replaces the arguments."""
        return _hooks.add(self._forward_pre_hooks, hook, prepend, [(self._forward_pre_hooks_with_kwargs, with_kwargs)])

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> _hooks.RemovableHandle:
        """Calls hook(module, prefix, keep_vars) before the module's state is taken."""
        return _hooks.add(self._state_dict_pre_hooks, hook, False)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> _hooks.RemovableHandle:
        """Calls hook(module, state, prefix, metadata) behind the state of the module and its submodules."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        return _hooks.add(self._state_dict_hooks, hook, False)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> _hooks.RemovableHandle:
        """As the post-hook; what it returns, unless None, replaces the state."""
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError(
                "Cannot register the same function as the state dict post hook that was previously registered via "
                "register_state_dict_post_hook"
            )
        return _hooks.add(self._state_dict_hooks, hook, False)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> _hooks.RemovableHandle:
        """Calls hook(module, state, prefix, …) before the module's part of a state is loaded."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> _hooks.RemovableHandle:
        return _hooks.add(self._load_state_dict_pre_hooks, _state.WithModule(hook) if with_module else hook, False)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> _hooks.RemovableHandle:
        """Calls hook(module, incompatible_keys) once the module and its submodules are loaded."""
        return _hooks.add(self._load_state_dict_post_hooks, hook, False)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> _hooks.RemovableHandle:
        """Calls hook(module, grad_input, grad_output) in each backward; what it returns, unless None, replaces the
        former.
        """
        self._use_backward_hooks(full=True)
        return _hooks.add(self._backward_hooks, hook, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> _hooks.RemovableHandle:
        """Calls hook(module, grad_output) before each backward; what it returns, unless None, replaces that."""
        return _hooks.add(self._backward_pre_hooks, hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> _hooks.RemovableHandle:
        """The old form, which sees the gradients of the module's last operation only."""
        self._use_backward_hooks(full=False)
        return _hooks.add(self._backward_hooks, hook, False)

    def _use_backward_hooks(self, *, full: bool) -> None:
        if self._is_full_backward_hook not in (None, full):
            raise RuntimeError(
                "Cannot use both regular backward hooks and full backward hooks on a single Module. Please use only "
                "one of them."
            )
        object.__setattr__(self, "_is_full_backward_hook", full)

    def share_memory(self) -> Self:
        """Notes that others shall share the parameters, which no process can: it is refused where one gets them."""
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.share_memory_()
        return self

    def extra_repr(self) -> str:
        """What stands in the parentheses of the module's text."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return module_text(self)

    def _repr_html_(self) -> str:
        return _notebook.of_module(self)


_NEVER = (
    "Reached a code path in Module.{}() that should never be called. Please file an issue at "
    "https://github.com/pytorch/pytorch/issues/new?template=bug-report.yml to report this bug."
)


def _addindent(s_: str, numSpaces: int) -> str:
    """Text with all lines but the first one moved to the right: what modules that print themselves import."""
    return indent(s_, numSpaces)


def _forward_unimplemented(self: Module, *input: Any) -> None:
    """What a module computes that does not say."""
    raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')


def _typename(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
