"""Parameters that are computed of others each time they are asked for.

Knows modules and how they register tensors; does not know any parametrization. A module with one becomes an object of
a class of its own, in which the name of the tensor is a property.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tclient
from tclient.nn._changes import changed
from tclient.nn._core import Tensor
from tclient.nn.container import ModuleDict, ModuleList
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]

_Cache = dict[tuple[int, str], Tensor]


class _Caching:
    """How many blocks ask for a cache, and what is in it."""

    def __init__(self) -> None:
        self.depth = 0
        self.known: _Cache = {}


_caching = _Caching()


@contextmanager
def cached() -> Iterator[None]:
    """Within the block each parametrized tensor is computed once."""
    _caching.depth += 1
    try:
        yield
    finally:
        _caching.depth -= 1
        if not _caching.depth:
            _caching.known.clear()


def _register(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


def _take(original: Any, value: Tensor) -> None:
    """Gives a tensor other elements; it stays the object that optimisers know."""
    with tclient.no_grad():
        original.data = value.detach()


def _typename(value: Any) -> str:
    return value.type() if isinstance(value, Tensor) else type(value).__name__


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, one behind the other, and the tensor or tensors that the first one takes."""

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if len(modules) == 0:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        new: Any = original
        with tclient.no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    try:
                        new = module.right_inverse(new)
                    except NotImplementedError:
                        continue
        if not isinstance(new, Tensor | Sequence):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(new).__name__}"
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            if original.dtype != new.dtype:
                raise ValueError(
                    "When `right_inverse` outputs one tensor, it may not change the dtype.\n"
                    f"original.dtype: {original.dtype}\nright_inverse(original).dtype: {new.dtype}"
                )
            if new is not original:
                _take(original, new)
            _register(self, "original", original)
        else:
            for index, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ValueError(
                        "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                        f"Got element {index} of the sequence with type {type(part).__name__}."
                    )
                needs = original.requires_grad
                made = Parameter(part, needs) if isinstance(original, Parameter) else part.requires_grad_(needs)
                _register(self, f"original{index}", made)
        if not unsafe:
            self._check(self(), shape, dtype)

    def _check(self, result: Any, shape: Any, dtype: Any) -> None:
        if not isinstance(result, Tensor):
            raise ValueError(f"A parametrization must return a tensor. Got {type(result).__name__}.")
        if result.dtype != dtype:
            raise ValueError(
                "Registering a parametrization may not change the dtype of the tensor, unless `unsafe` flag is "
                f"enabled.\nunparametrized dtype: {dtype}\nparametrized dtype: {result.dtype}"
            )
        if result.shape != shape:
            raise ValueError(
                "Registering a parametrization may not change the shape of the tensor, unless `unsafe` flag is "
                f"enabled.\nunparametrized shape: {shape}\nparametrized shape: {result.shape}"
            )

    def right_inverse(self, value: Tensor) -> None:
        """Sets what is parametrized, so that the parametrizations give the value if they can."""
        with tclient.no_grad():
            new: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not implement right_inverse.")
                new = module.right_inverse(new)
            if self.is_tensor:
                self._check_assigned(new, self.original, "")
                _take(self.original, new)
                return
            if not isinstance(new, Sequence):
                raise ValueError(f"'right_inverse' must return a sequence of tensors. Got {type(new).__name__}.")
            if len(new) != self.ntensors:
                raise ValueError(
                    f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. "
                    f"Got a sequence of length {len(new)}."
                )
            for index, part in enumerate(new):
                original = getattr(self, f"original{index}")
                self._check_assigned(part, original, str(index))
                _take(original, part)

    def _check_assigned(self, value: Any, original: Tensor, index: str) -> None:
        if not isinstance(value, Tensor):
            if index:
                raise ValueError(
                    "'right_inverse' must return a sequence of tensors or reference-type opaques. "
                    f"Got element {index} of type {type(value).__name__}."
                )
            raise ValueError(f"`right_inverse` should return a tensor. Got {type(value).__name__}")
        if value.dtype != original.dtype:
            if index:
                raise ValueError(
                    f"Tensor {index} returned by `right_inverse` has dtype {value.dtype} while `original{index}` has "
                    f"dtype {original.dtype}"
                )
            raise ValueError(
                f"The tensor returned by `right_inverse` has dtype {value.dtype} while `original` has dtype "
                f"{original.dtype}"
            )

    def forward(self) -> Tensor:
        """The tensor, computed."""
        modules = list(self)
        names = ["original"] if self.is_tensor else [f"original{index}" for index in range(self.ntensors)]
        result: Tensor = modules[0](*(getattr(self, name) for name in names))
        for module in modules[1:]:
            result = module(result)
        return result


def _no_state(self: Any) -> Any:
    raise RuntimeError(
        "Serialization of parametrized modules is only supported through state_dict(). See:\n"
        "https://pytorch.org/tutorials/beginner/saving_loading_models.html"
        "#saving-loading-a-general-checkpoint-for-inference-and-or-resuming-training"
    )


def _copied(self: Any, memo: dict[int, Any]) -> Any:
    made = memo[id(self)] = object.__new__(type(self))
    own = {name: value for name, value in self.__dict__.items() if name != "_network"}
    made.__dict__.update(copy.deepcopy(own, memo))
    return made


def _become_parametrized(module: Module) -> None:
    kind = type(module)
    members: dict[str, Any] = {
        "__getstate__": _no_state,
        # What its layers compute is no longer said by its tensors alone.
        "_describe": lambda self: None,
        "__doc__": kind.__doc__,
    }
    if not hasattr(kind, "__deepcopy__"):
        members["__deepcopy__"] = _copied
    made: type[Any] = type(f"Parametrized{kind.__name__}", (kind,), members)
    module.__class__ = made
    changed()


def _add_property(module: Module, name: str) -> None:
    def get(self: Any) -> Tensor:
        computed: ParametrizationList = self.parametrizations[name]
        if not _caching.depth:
            return computed()  # type: ignore[no-any-return]
        key = (id(self), name)
        if key not in _caching.known:
            _caching.known[key] = computed()
        return _caching.known[key]

    def put(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(get, put))


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Has a parameter or buffer computed by a module, of what was there before; the last one registered comes last.

    A parametrization may have `right_inverse`, which gives the first values, and takes those that are assigned.

    Example:
        >>> class Symmetric(nn.Module):
        ...     def forward(self, x):
        ...         return x.triu() + x.triu(1).T
        >>> layer = register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
        >>> bool((layer.weight == layer.weight.T).all())
        True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        parametrizations: Any = module.parametrizations[tensor_name]
        if not unsafe:
            _check_next(tensor_name, getattr(module, tensor_name), parametrization)
        parametrizations.append(parametrization)
        parametrizations.unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        made = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _become_parametrized(module)
            module.parametrizations = ModuleDict()
        _add_property(module, tensor_name)
        module.parametrizations[tensor_name] = made
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    return module


def _check_next(name: str, value: Tensor, parametrization: Any) -> None:
    """Whether a parametrization that is registered behind others keeps to what they give."""
    result = parametrization(value)
    if not isinstance(result, Tensor):
        raise ValueError(f"A parametrization must return a tensor. Got {type(result).__name__}.")
    if result.dtype != value.dtype:
        raise ValueError(
            "Registering a parametrization may not change the dtype of the tensor, unless the `unsafe` flag is "
            f"enabled.\nmodule.{name}.dtype: {value.dtype}\nparametrization(module.{name}).dtype: {result.dtype}"
        )
    if result.shape != value.shape:
        raise ValueError(
            "Registering a parametrization may not change the shape of the tensor, unless the `unsafe` flag is "
            f"enabled.\nmodule.{name}.shape: {value.shape}\nparametrization(module.{name}).shape: {result.shape}"
        )
    if not hasattr(parametrization, "right_inverse"):
        return
    try:
        back = parametrization.right_inverse(result)
    except NotImplementedError:
        return
    if not isinstance(back, Tensor):
        raise ValueError(f"parametrization.right_inverse must return a tensor. Got: {type(back).__name__}")
    if back.dtype != value.dtype:
        raise ValueError(
            "The tensor returned by parametrization.right_inverse must have the same dtype as "
            f"module.{name}, unless the `unsafe` flag is enabled.\nmodule.{name}.dtype: {value.dtype}\n"
            f"returned dtype: {back.dtype}"
        )
    if back.shape != value.shape:
        raise ValueError(
            "The tensor returned by parametrization.right_inverse must have the same shape as "
            f"module.{name}, unless the `unsafe` flag is enabled.\nmodule.{name}.shape: {value.shape}\n"
            f"returned shape: {back.shape}"
        )


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a tensor of the module is computed, or that one."""
    parametrizations = getattr(module, "parametrizations", None)
    if not isinstance(parametrizations, ModuleDict):
        return False
    return len(parametrizations) > 0 if tensor_name is None else tensor_name in parametrizations


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Makes a computed tensor a parameter or buffer again: as it is now, or as what it was computed of."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    parametrizations: Any = module.parametrizations[tensor_name]
    if parametrizations.is_tensor:
        original = parametrizations.original
        if leave_parametrized:
            _take(original, getattr(module, tensor_name))
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value) if value.requires_grad else value
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    changed()
    return module


def type_before_parametrizations(module: Module) -> type[Any]:
    """The class of the module as it was before it had parametrizations."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Gives another module the parametrizations of a module, with copies of what they compute of."""
    if not is_parametrized(from_module):
        return to_module
    if not isinstance(from_module.parametrizations, ModuleDict):
        raise AssertionError(f"from_module.parametrizations is {_typename(from_module.parametrizations)}")
    names = list(from_module.parametrizations) if tensor_name is None else [tensor_name]
    for name in names:
        source: Any = from_module.parametrizations[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name)))
        for parametrization in source:
            register_parametrization(to_module, name, parametrization)
        target: Any = to_module.parametrizations[name]
        originals = ["original"] if source.is_tensor else [f"original{index}" for index in range(source.ntensors)]
        for original in originals:
            kept = getattr(source, original)
            setattr(target, original, copy.deepcopy(kept) if kept.is_leaf else kept.clone())
    return to_module
