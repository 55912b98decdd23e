"""Weights that are computed before each forward, of parameters with a norm: the hooks of torch.nn.utils.

Knows modules and their hooks. Everything is a call on the server, and none is waited for.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, TypeVar

import tclient
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter

M = TypeVar("M", bound=Module)


class _Reparametrization:
    """A forward pre-hook that sets an attribute to a weight which it computes."""

    what: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def hook_of(cls, module: Module, name: str) -> int | None:
        """The number of the hook of this kind for that name."""
        for number, hook in module._forward_pre_hooks.items():
            if isinstance(hook, cls) and hook.name == name:
                return number
        return None

    def install(self, module: Module) -> None:
        """Takes the parameter of that name out of the module and computes it from now on.

        Raises: RuntimeError if there is such a hook already.
        """
        if self.hook_of(module, self.name) is not None:
            raise RuntimeError(f"Cannot register two {self.what} hooks on the same parameter {self.name}")
        weight = getattr(module, self.name)
        del module._parameters[self.name]
        self.split(module, weight)
        module.register_forward_pre_hook(self)

    @classmethod
    def uninstall(cls, module: Module, name: str) -> None:
        """Makes what is computed a parameter again.

        Raises: ValueError if there is no such hook.
        """
        number = cls.hook_of(module, name)
        if number is None:
            raise ValueError(f"{cls.what} of '{name}' not found in {module}")
        hook = module._forward_pre_hooks.pop(number)
        assert isinstance(hook, cls)
        hook.join(module)

    def split(self, module: Module, weight: Tensor) -> None:
        """Registers what the weight is computed of, and sets the attribute for the first time."""
        raise NotImplementedError

    def join(self, module: Module) -> None:
        """Takes out what the weight was computed of, and registers the weight."""
        raise NotImplementedError

    def __call__(self, module: Module, args: Any) -> None:
        raise NotImplementedError


class WeightNorm(_Reparametrization):
    """weight = g · v / ‖v‖. Source: Salimans and Kingma (2016)."""

    what = "weight_norm"

    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Tensor:
        """The weight, from its direction and its norm."""
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        weight: Tensor = v * (g / tclient.norm_except_dim(v, 2, self.dim))
        return weight

    def split(self, module: Module, weight: Tensor) -> None:
        norm = tclient.norm_except_dim(weight, 2, self.dim)
        module.register_parameter(self.name + "_g", Parameter(norm.data))
        module.register_parameter(self.name + "_v", Parameter(weight.data))
        setattr(module, self.name, self.compute_weight(module))

    def join(self, module: Module) -> None:
        weight = self.compute_weight(module)
        delattr(module, self.name)
        del module._parameters[self.name + "_g"]
        del module._parameters[self.name + "_v"]
        setattr(module, self.name, Parameter(weight.data))

    def __call__(self, module: Module, args: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


class SpectralNorm(_Reparametrization):
    """weight = orig / σ(orig), σ by power iteration. Source: Miyato and others (2018)."""

    what = "spectral_norm"

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__(name)
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def _matrix(self, weight: Tensor) -> Tensor:
        if self.dim != 0:
            weight = weight.movedim(self.dim, 0)
        return weight.flatten(1)

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        """The weight; with an iteration what is known of the singular vectors gets better, in place."""
        weight = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        matrix = self._matrix(weight)
        if do_power_iteration:
            with tclient.no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(tclient.mv(matrix.t(), u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(tclient.mv(matrix, v), dim=0, eps=self.eps))
                # The next iteration writes into them, and backward needs them as they are now.
                u, v = u.clone(), v.clone()
        divided: Tensor = weight / tclient.dot(u, tclient.mv(matrix, v))
        return divided

    def split(self, module: Module, weight: Tensor) -> None:
        with tclient.no_grad():
            matrix = self._matrix(weight)
            height, width = matrix.shape
            u = F.normalize(weight.new_empty(height).normal_(0, 1), dim=0, eps=self.eps)
            v = F.normalize(weight.new_empty(width).normal_(0, 1), dim=0, eps=self.eps)
        module.register_parameter(self.name + "_orig", Parameter(weight.data, weight.requires_grad))
        setattr(module, self.name, weight.data)
        module.register_buffer(self.name + "_u", u)
        module.register_buffer(self.name + "_v", v)

    def join(self, module: Module) -> None:
        with tclient.no_grad():
            weight = self.compute_weight(module, do_power_iteration=False)
        for name in (self.name, self.name + "_u", self.name + "_v", self.name + "_orig"):
            delattr(module, name)
        module.register_parameter(self.name, Parameter(weight.detach()))

    def __call__(self, module: Module, args: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, do_power_iteration=module.training))


def weight_norm(module: M, name: str = "weight", dim: int = 0) -> M:
    """Splits a parameter into its norm and its direction, which are trained instead of it."""
    warnings.warn(
        "`torch.nn.utils.weight_norm` is deprecated in favor of `torch.nn.utils.parametrizations.weight_norm`.",
        FutureWarning,
        stacklevel=2,
    )
    WeightNorm(name, dim).install(module)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Makes a parameter again of its norm and its direction."""
    WeightNorm.uninstall(module, name)
    return module


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divides a parameter by its largest singular value before each forward."""
    if dim is None:
        dim = 1 if isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d) else 0
    SpectralNorm(name, n_power_iterations, dim, eps).install(module)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Makes the divided weight a parameter."""
    SpectralNorm.uninstall(module, name)
    return module
