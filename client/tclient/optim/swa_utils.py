"""Averages of a model over its training, under the names of torch.optim.swa_utils.

Knows modules, optimisers and schedules. Averages are taken on the server, and nobody waits for one.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import tclient
from tclient.nn._core import Tensor
from tclient.nn.batchnorm import _BatchNorm
from tclient.nn.module import Module
from tclient.optim.lr_scheduler.base import LRScheduler
from tclient.optim.optimizer import Optimizer

Average = Callable[[Tensor, Tensor, Any], Tensor]
MultiAverage = Callable[[Any, Any, Any], None]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average of one parameter."""
    _check_decay(decay)

    def average(averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        return decay * averaged + (1 - decay) * current

    return average


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """The exponential moving average of many parameters, in place."""
    _check_decay(decay)

    def average(averaged: Any, current: Any, num_averaged: Any) -> None:
        with tclient.no_grad():
            for mean, new in zip(averaged, current, strict=True):
                if mean.is_floating_point() or mean.is_complex():
                    mean.lerp_(new, 1 - decay)
                else:
                    mean.copy_(mean * decay + new * (1 - decay))

    return average


def get_swa_avg_fn() -> Average:
    """The equal average of one parameter over all updates."""

    def average(averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        result: Tensor = averaged + (current - averaged) / (num_averaged + 1)
        return result

    return average


def get_swa_multi_avg_fn() -> MultiAverage:
    """The equal average of many parameters over all updates, in place."""
    one = get_swa_avg_fn()

    def average(averaged: Any, current: Any, num_averaged: Any) -> None:
        with tclient.no_grad():
            for mean, new in zip(averaged, current, strict=True):
                mean.copy_(one(mean, new, num_averaged))

    return average


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's.

    Args:
        avg_fn: the new average of one parameter, of the average, the parameter and the number of updates.
        multi_avg_fn: the same in place, for lists of averages and parameters.
        use_buffers: averages the buffers too, which else are copied.
    """

    module: Module
    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tclient.tensor(0, dtype=tclient.int64, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model computes."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Takes the model as it is now into the average; the first one is the average."""
        averaged, current = self._averaged(self.module), self._averaged(model)
        with tclient.no_grad():
            count = self.n_averaged
            if self.multi_avg_fn is not None:
                after = [mean.clone() for mean in averaged]
                self.multi_avg_fn(after, current, count)
            else:
                one = self.avg_fn or get_swa_avg_fn()
                after = [one(mean, new, count) for mean, new in zip(averaged, current, strict=True)]
            # The server looks whether this is the first update: to ask it would be to wait.
            first = count == 0
            for mean, new, result in zip(averaged, current, after, strict=True):
                mean.copy_(tclient.where(first, new, result))
            if not self.use_buffers:
                for mine, other in zip(self.module.buffers(), model.buffers(), strict=True):
                    mine.copy_(other)
            count += 1

    def _averaged(self, model: Module) -> list[Tensor]:
        buffers: Iterable[Tensor] = model.buffers() if self.use_buffers else ()
        return [tensor.detach() for tensor in itertools.chain(model.parameters(), buffers)]


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Runs the model over the loader once, so that batch normalisation learns the statistics of its inputs."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    was_training = model.training
    model.train()
    with tclient.no_grad():
        for batch in loader:
            rows = batch[0] if isinstance(batch, list | tuple) else batch
            model(rows if device is None else rows.to(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """From the current rates to swa_lr in anneal_epochs, and constant from there on."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        groups = optimizer.param_groups
        wanted = list(swa_lr) if isinstance(swa_lr, list | tuple) else [swa_lr] * len(groups)
        if len(wanted) != len(groups):
            raise ValueError(
                "swa_lr must have the same length as optimizer.param_groups. "
                f"swa_lr has {len(wanted)} values, param_groups has {len(groups)}."
            )
        for rate, group in zip(wanted, groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """How much of the way to swa_lr is gone after that many steps."""
        part = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return part if self._strategy == "linear" else (1 - math.cos(math.pi * part)) / 2

    def get_lr(self) -> list[float]:
        """The rates for this step."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for group in self.optimizer.param_groups:
            goal, rate = group["swa_lr"], group["lr"]
            start = goal if before == 1 else (rate - before * goal) / (1 - before)
            rates.append(goal * now + start * (1 - now))
        return rates


__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]
