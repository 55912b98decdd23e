"""GradScaler: losses are scaled up so that their gradients do not vanish in float16, and gradients back down.

The scale is a number of the client; whether gradients are finite is asked of the server, once for each step.
Knows operations and optimizers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from tclient._codec.operations import TABLE
from tclient._issue import dispatch
from tclient._session.current import current
from tclient._session.modes import no_grad
from tclient._settings import has_gpu
from tclient._tensor import Tensor

_READY, _UNSCALED, _STEPPED = range(3)


class _Optimizer:
    """What is known of an optimizer since the last update."""

    def __init__(self) -> None:
        self.stage = _READY
        # Whether a gradient was not finite, as one element on the server; None if there were no gradients.
        self.found: Any = None


class GradScaler:
    """Scales losses, unscales gradients, and leaves out steps with gradients that are not finite.

    Raises: AssertionError for a growth_factor of at most 1, or a backoff_factor of at least 1.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device = device
        self._enabled = enabled
        if device == "cuda" and enabled:
            current()
            if not has_gpu():
                warnings.warn(
                    "torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.", stacklevel=2
                )
                self._enabled = False
        if not self._enabled:
            return
        if growth_factor <= 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if backoff_factor >= 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._scale = init_scale
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        # Steps in a row that went well.
        self._good_steps = 0
        self._is_used = False
        self._optimizers: dict[int, _Optimizer] = {}

    def scale(self, outputs: Any) -> Any:
        """Outputs times the scale: a tensor, or a list or tuple of tensors, within each other too."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._is_used = True
            return outputs * self._scale
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale. Does not wait.

        Raises: RuntimeError if that was done already since the last update.
        """
        if not self._enabled:
            return
        self._need_scale("unscale_")
        known = self._known(optimizer)
        if known.stage == _UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if known.stage == _STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        self._unscale(optimizer, known)
        known.stage = _UNSCALED

    def _unscale(self, optimizer: Any, known: _Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = []
        with no_grad():
            for gradient in gradients:
                gradient.mul_(1.0 / self._scale)
                finite.append(gradient.isfinite().all())
            if finite:
                known.found = dispatch(TABLE["stack"], (finite,), None).all().logical_not()

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """A step of the optimizer, if all gradients are finite. Waits to learn that.

        Raises: RuntimeError if that was done already since the last update, or with a closure.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._need_scale("step")
        known = self._known(optimizer)
        if known.stage == _STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if known.stage == _READY:
            self._unscale(optimizer, known)
            known.stage = _UNSCALED
        if known.found is None:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        known.found = bool(known.found)
        result = None if known.found else optimizer.step(*args, **kwargs)
        known.stage = _STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Lower the scale after a gradient that was not finite; raise it after many steps without one."""
        if not self._enabled:
            return
        self._need_scale("update")
        if new_scale is not None:
            self._scale = float(new_scale)
        else:
            found = [each.found for each in self._optimizers.values() if each.found is not None]
            if not found:
                raise AssertionError("No inf checks were recorded prior to update.")
            if any(map(bool, found)):
                self._scale *= self._backoff_factor
                self._good_steps = 0
            else:
                self._good_steps += 1
                if self._good_steps == self._growth_interval:
                    self._scale *= self._growth_factor
                    self._good_steps = 0
        self._optimizers.clear()

    def _known(self, optimizer: Any) -> _Optimizer:
        return self._optimizers.setdefault(id(optimizer), _Optimizer())

    def _need_scale(self, name: str) -> None:
        if not self._is_used:
            raise AssertionError(
                f"Attempted {name} but _scale is None.  This may indicate your script did not use "
                "scaler.scale(loss or outputs) earlier in the iteration."
            )

    def is_enabled(self) -> bool:
        """Whether it scales at all."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale; 1 where it does not scale."""
        return float(self._scale) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set by what the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the scale shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set by what the scale shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many steps the scale grows."""
        self._growth_interval = new_interval

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes; empty where it does not scale."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._good_steps,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises: RuntimeError for that of one that did not scale."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._scale = state_dict["scale"]
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._good_steps = state_dict["_growth_tracker"]
