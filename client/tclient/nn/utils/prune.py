"""Parameters with a mask: some of their elements are zero, and stay so.

Knows modules and their hooks: before each forward the parameter is made of the original and the mask. The masks are
made on the server, and nobody waits for them.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import tclient
from tclient.nn._core import Tensor
from tclient.nn.module import Module
from tclient.nn.utils.convert_parameters import parameters_to_vector


class BasePruningMethod(ABC):
    """A forward pre-hook that sets a parameter to its original, masked; subclasses say what the mask is."""

    PRUNING_TYPE: str
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask for a tensor that has another mask already: ones where elements stay."""

    def apply_mask(self, module: Module) -> Tensor:
        """The parameter, masked."""
        if self._tensor_name is None:
            raise AssertionError(f"Module {module} has to be pruned")
        mask = getattr(module, self._tensor_name + "_mask")
        original = getattr(module, self._tensor_name + "_orig")
        pruned: Tensor = mask.to(dtype=original.dtype) * original
        return pruned

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prunes a parameter by a method of this class, behind those that prune it already."""
        old, made = _taken_off(module, name), cls(*args, **kwargs)
        made._tensor_name = name
        method: BasePruningMethod = made
        if old is not None:
            method = old if isinstance(old, PruningContainer) else PruningContainer(old)
            assert isinstance(method, PruningContainer)
            method.add_pruning_method(made)
        first = not isinstance(method, PruningContainer)
        original = getattr(module, name)
        if importance_scores is None:
            importance_scores = original
        elif importance_scores.shape != original.shape:
            raise AssertionError(
                f"importance_scores should have the same shape as parameter {name} of {module}, got "
                f"{importance_scores.shape} vs {original.shape}"
            )
        if first:
            module.register_parameter(name + "_orig", original)
            del module._parameters[name]
            mask = tclient.ones_like(original)
        else:
            mask = getattr(module, name + "_mask").detach().clone()
        try:
            module.register_buffer(name + "_mask", method.compute_mask(importance_scores, default_mask=mask))
            setattr(module, name, method.apply_mask(module))
            module.register_forward_pre_hook(method)
        except Exception:
            if first:
                module.register_parameter(name, original)
                del module._parameters[name + "_orig"]
            raise
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """A tensor, masked, without a module."""
        if importance_scores is None:
            importance_scores = t
        elif importance_scores.shape != t.shape:
            raise AssertionError(
                f"importance_scores should have the same shape as tensor t, got {importance_scores.shape} vs {t.shape}"
            )
        if default_mask is None:
            default_mask = tclient.ones_like(t)
        pruned: Tensor = t * self.compute_mask(importance_scores, default_mask=default_mask)
        return pruned

    def remove(self, module: Module) -> None:
        """Makes the masked parameter the parameter; what was pruned stays so."""
        name = self._tensor_name
        if name is None:
            raise AssertionError(f"Module {module} has to be pruned before pruning can be removed")
        weight = self.apply_mask(module)
        if hasattr(module, name):
            delattr(module, name)
        original = module._parameters.pop(name + "_orig")
        assert original is not None
        original.data = weight.data
        del module._buffers[name + "_mask"]
        setattr(module, name, original)


def _hooks_of(module: Module, name: str) -> list[tuple[int, BasePruningMethod]]:
    return [
        (number, hook)
        for number, hook in module._forward_pre_hooks.items()
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name
    ]


def _taken_off(module: Module, name: str) -> BasePruningMethod | None:
    """The method that prunes the parameter so far, which another one takes the place of."""
    found = _hooks_of(module, name)
    if len(found) > 1:
        raise AssertionError(
            f"Avoid adding multiple pruning hooks to the same tensor {name} of module {module}. Use a PruningContainer."
        )
    for number, _ in found:
        del module._forward_pre_hooks[number]
    return found[0][1] if found else None


class PruningContainer(BasePruningMethod):
    """Methods that prune one parameter, one behind the other."""

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: tuple[Any, ...] = ()
        if len(args) == 1:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Adds a method of the same parameter."""
        if not isinstance(method, BasePruningMethod | None):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method is not None and self._tensor_name != method._tensor_name:
            raise ValueError(
                f"Can only add pruning methods acting on the parameter named '{self._tensor_name}' to "
                f"PruningContainer {self}. Found '{method._tensor_name}'"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: int) -> Any:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask so far, with what the last method takes of what is left."""
        method: Any = self._pruning_methods[-1]
        left: Any
        if method.PRUNING_TYPE == "unstructured":
            left = default_mask == 1
        elif method.PRUNING_TYPE == "structured":
            dims = default_mask.dim()
            dim = method.dim % dims
            others = [other for other in range(dims) if other != dim]
            left = (*[slice(None)] * dim, default_mask.sum(dim=others) != 0)
        elif method.PRUNING_TYPE == "global":
            left = (slice(None),) * default_mask.dim()
        else:
            raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
        mask = default_mask.to(dtype=t.dtype, copy=True)
        mask[left] = method.compute_mask(t[left], default_mask=default_mask[left]).to(dtype=mask.dtype)
        return mask


class Identity(BasePruningMethod):
    """Prunes nothing."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask as it was."""
        return default_mask


class _ByAmount(BasePruningMethod):
    """Prunes a number of elements or channels, or a part of them."""

    def __init__(self, amount: Any) -> None:
        if not isinstance(amount, numbers.Real):
            raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
        self.amount = amount
        highest = float("inf") if isinstance(amount, numbers.Integral) else 1.0
        if not 0 <= float(amount) <= highest:
            raise ValueError(f"amount={amount} should either be a float in the range [0, 1] or a non-negative integer")

    def _count(self, size: int) -> int:
        amount = self.amount
        if not isinstance(amount, numbers.Integral):
            return round(float(amount) * size)
        if int(amount) > size:
            raise ValueError(f"amount={self.amount} should be smaller than the number of parameters to prune={size}")
        return int(amount)


class _Unstructured(_ByAmount):
    PRUNING_TYPE = "unstructured"
    _largest: bool

    def _scores(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without the elements that are taken."""
        count = self._count(t.nelement())
        mask = default_mask.clone(memory_format=tclient.contiguous_format)
        if count:
            taken = tclient.topk(self._scores(t).view(-1), k=count, largest=self._largest)
            mask.view(-1)[taken.indices] = 0
        return mask


class RandomUnstructured(_Unstructured):
    """Prunes elements that are drawn."""

    _largest = True

    def _scores(self, t: Tensor) -> Tensor:
        return tclient.rand_like(t)


class L1Unstructured(_Unstructured):
    """Prunes the elements of the smallest absolute value."""

    _largest = False

    def _scores(self, t: Tensor) -> Tensor:
        return tclient.abs(t)


class _Structured(_ByAmount):
    PRUNING_TYPE = "structured"
    dim: int

    def _kept(self, t: Tensor, size: int, count: int) -> Tensor:
        """What indexes the channels that are left."""
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without the channels that are taken."""
        shape = t.shape
        if len(shape) <= 1:
            raise ValueError(
                "Structured pruning can only be applied to multidimensional tensors. Found tensor of shape "
                f"{shape} with {len(shape)} dims"
            )
        if self.dim >= len(shape):
            raise IndexError(f"Invalid index {self.dim} for tensor of size {shape}")
        count = self._count(shape[self.dim])
        if count == 0:
            return default_mask
        mask = tclient.zeros_like(t)
        mask[(*[slice(None)] * (self.dim % len(shape)), self._kept(t, shape[self.dim], count))] = 1
        mask *= default_mask.to(dtype=mask.dtype)
        return mask


class RandomStructured(_Structured):
    """Prunes channels that are drawn."""

    def __init__(self, amount: Any, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    def _kept(self, t: Tensor, size: int, count: int) -> Tensor:
        drawn = tclient.rand(size)
        kept: Tensor = drawn > tclient.kthvalue(drawn, k=count).values
        return kept


class LnStructured(_Structured):
    """Prunes the channels of the smallest norm."""

    def __init__(self, amount: Any, n: Any, dim: int = -1) -> None:
        super().__init__(amount)
        self.n = n
        self.dim = dim

    def _kept(self, t: Tensor, size: int, count: int) -> Tensor:
        dims = list(range(t.dim()))
        dims.remove(dims[self.dim])
        return tclient.topk(tclient.norm(t, p=self.n, dim=dims), k=size - count, largest=True).indices


class CustomFromMask(BasePruningMethod):
    """Prunes what a mask says."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Both masks."""
        if default_mask.shape != self.mask.shape:
            raise AssertionError(
                f"default_mask shape {default_mask.shape} must match self.mask shape {self.mask.shape}"
            )
        mask: Tensor = default_mask * self.mask.to(dtype=default_mask.dtype)
        return mask


def identity(module: Module, name: str) -> Module:
    """Makes a parameter a pruned one of which nothing is pruned."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: Any) -> Module:
    """Prunes elements that are drawn: so many, or such a part of them."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: Any, importance_scores: Tensor | None = None) -> Module:
    """Prunes the elements of the smallest absolute value, or of the smallest scores."""
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: Any, dim: int) -> Module:
    """Prunes channels along a dimension that are drawn."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module, name: str, amount: Any, n: Any, dim: int, importance_scores: Tensor | None = None
) -> Module:
    """Prunes the channels along a dimension of the smallest norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prunes what a mask says."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(parameters: Any, pruning_method: Any, importance_scores: Any = None, **kwargs: Any) -> None:
    """Prunes several parameters as if they were one."""
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    places = list(parameters)
    scores = importance_scores if importance_scores is not None else {}
    if not isinstance(scores, dict):
        raise TypeError("global_unstructured(): importance_scores must be of type dict")
    tensors = [getattr(module, name) for module, name in places]
    relevant = parameters_to_vector([scores.get(place, t) for place, t in zip(places, tensors, strict=True)])
    before = parameters_to_vector(
        [
            getattr(module, name + "_mask") if hasattr(module, name + "_mask") else tclient.ones_like(tensor)
            for (module, name), tensor in zip(places, tensors, strict=True)
        ]
    )
    container = PruningContainer()
    container._tensor_name = "temp"
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            f'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method {pruning_method} of '
            f"type {method.PRUNING_TYPE}"
        )
    container.add_pruning_method(method)
    mask = container.compute_mask(relevant, before)
    start = 0
    for (module, name), tensor in zip(places, tensors, strict=True):
        count = tensor.numel()
        custom_from_mask(module, name, mask[start : start + count].view_as(tensor))
        start += count


def remove(module: Module, name: str) -> Module:
    """Makes a pruned parameter one like any other; what was pruned stays zero.

    Raises: ValueError if it is not pruned.
    """
    for number, hook in _hooks_of(module, name):
        hook.remove(module)
        del module._forward_pre_hooks[number]
        return module
    raise ValueError(f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed")


def is_pruned(module: Module) -> bool:
    """Whether a parameter is pruned, here or below."""
    return any(
        isinstance(hook, BasePruningMethod) for one in module.modules() for hook in one._forward_pre_hooks.values()
    )
