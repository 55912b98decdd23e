"""Normalisation over a batch, with running statistics.

Knows which statistics are kept and when they are learned; the arithmetic is the server's.
"""

from __future__ import annotations

from typing import Any, ClassVar

import tclient
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter, parameter_from


class _NormBase(Module):
    """Scale and shift, and running mean and variance, each as many as there are features."""

    _version = 2
    _dims: ClassVar[tuple[int, ...]]
    weight: Parameter | Any  # None if it was not asked for
    bias: Parameter | Any  # None if it was not asked for
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: Any,
        dtype: Any,
        bias: bool,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        where = {"device": device, "dtype": dtype}
        if affine:
            self.weight = parameter_from(tclient.ones, num_features, **where)
        else:
            self.register_parameter("weight", None)
        if affine and bias:
            self.bias = parameter_from(tclient.zeros, num_features, **where)
        else:
            self.register_parameter("bias", None)
        if track_running_stats:
            self.register_buffer("running_mean", tclient.zeros(num_features, **where))
            self.register_buffer("running_var", tclient.ones(num_features, **where))
            self.register_buffer("num_batches_tracked", tclient.tensor(0, dtype=tclient.int64, device=device))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)

    def reset_running_stats(self) -> None:
        """Forgets the running statistics."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Sets scale to 1 and shift to 0, and forgets the running statistics."""
        self.reset_running_stats()
        with tclient.no_grad():
            if self.weight is not None:
                self.weight.fill_(1)
            if self.bias is not None:
                self.bias.zero_()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *args: Any) -> None:
        """Takes its part of a state; old ones do not say how many batches there were."""
        if local_metadata.get("version", 1) < self._version and self.track_running_stats:
            state_dict.setdefault(
                prefix + "num_batches_tracked",
                tclient.tensor(0) if self.num_batches_tracked is None else self.num_batches_tracked,
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def _check_dims(self, input: Tensor) -> None:
        if input.dim() not in self._dims:
            wanted = " or ".join(f"{dims}D" for dims in self._dims)
            raise ValueError(f"expected {wanted} input (got {input.dim()}D input)")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_NormBase):
    """Each feature to mean 0 and variance 1 over the batch, then scaled and shifted."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        """Input, normalised."""
        self._check_dims(input)
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        tracked = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            self.training or (self.running_mean is None and self.running_var is None),
            factor,
            self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Shapes: (N, C) or (N, C, L)."""

    _dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Shapes: (N, C, H, W)."""

    _dims = (4,)


class BatchNorm3d(_BatchNorm):
    """Shapes: (N, C, D, H, W)."""

    _dims = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation over the batches of all processes: here is one, so that it is that of its own batch.

    Shapes: (N, C, ...).
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_dims(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
        if input.size(1) == 0:
            raise ValueError("SyncBatchNorm number of input channels should be non-zero")

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with layers of this class in the place of its batch normalisations, whose tensors they take."""
        made = module
        if isinstance(module, _BatchNorm):
            made = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
                bias=module.bias is not None,
            )
            if module.affine:
                made.weight, made.bias = module.weight, module.bias
            for name in ("running_mean", "running_var", "num_batches_tracked", "training"):
                setattr(made, name, getattr(module, name))
        for name, child in module.named_children():
            made.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return made
