"""L-BFGS: the loss is evaluated many times a step, by the caller's closure. Source: Nocedal and Wright, chapters 3, 7.

Runs here, on tensors of the server. Numbers that decide how to go on are read as numpy's scalars of the parameters'
dtype, which round as torch's tensors without dimensions do, so that the steps are torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tclient
from tclient.nn._core import Tensor
from tclient.optim.optimizer import Optimizer, Params

_CURVATURE = 1e-10
"""Pairs that curve less are not kept."""
_ARMIJO, _WOLFE = 1e-4, 0.9
_SEARCHES = 25

# The step, and there the loss, the gradient, and the slope along the direction.
_Evaluate = Callable[[Any], "_Point"]


@dataclass
class _Point:
    step: Any
    loss: float
    gradient: Tensor
    slope: Any


def _read(tensor: Tensor) -> Any:
    """The number of a tensor without dimensions, rounded as it is there. Waits."""
    return tensor.detach().numpy()[()] if tensor.dtype is not tclient.bfloat16 else np.float32(tensor.item())


class LBFGS(Optimizer):
    """Newton's method with a short memory of curvature; `step` needs a closure that evaluates the loss anew.

    Example:
        >>> x = tclient.zeros(2, requires_grad=True)
        >>> optimizer = tclient.optim.LBFGS([x], line_search_fn="strong_wolfe")
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (x - 3).square().sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item()
        18.0
        >>> x.tolist()
        [3.0, 3.0]
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr >= 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        options = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, options)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Up to max_iter steps; the loss before the first."""
        with tclient.no_grad():
            return self._iterate(closure)

    def _iterate(self, closure: Callable[[], Any]) -> Any:
        options = self.param_groups[0]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first_loss = _evaluated(closure)
        loss, gradient = _number(first_loss), self._gradient()
        evaluations = 1
        state["func_evals"] += 1
        if _largest(gradient) <= options["tolerance_grad"]:
            return first_loss
        change = options["tolerance_change"]
        for iteration in range(1, options["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, gradient, options["history_size"])
            if state.get("prev_flat_grad") is None:
                state["prev_flat_grad"] = gradient.clone()
            else:
                state["prev_flat_grad"].copy_(gradient)
            state["prev_loss"] = previous = loss
            rate = options["lr"] if not isinstance(options["lr"], Tensor) else _read(options["lr"].reshape(()))
            step: Any = rate
            if state["n_iter"] == 1:
                step = _first_step(_read(gradient.abs().sum())) * rate
            state["d"], state["t"] = direction, step
            slope = _read(gradient.dot(direction))
            if slope > -change:
                break
            used, done = 0, False
            search = options["line_search_fn"]
            if search is not None:
                if search != "strong_wolfe":
                    raise RuntimeError("only 'strong_wolfe' is supported")
                start = _Point(0, loss, gradient, slope)
                found, used = _strong_wolfe(self._along(closure, direction), start, step, _largest(direction))
                loss, gradient, step = found.loss, found.gradient, found.step
                state["t"] = step
                self._move(step, direction)
                done = _largest(gradient) <= options["tolerance_grad"]
            else:
                self._move(step, direction)
                if iteration != options["max_iter"]:
                    # Behind the last step nobody needs to know.
                    loss, gradient = _number(_evaluated(closure)), self._gradient()
                    done = _largest(gradient) <= options["tolerance_grad"]
                    used = 1
            evaluations += used
            state["func_evals"] += used
            if iteration == options["max_iter"] or evaluations >= options["max_eval"] or done:
                break
            if _largest(direction.mul(float(step))) <= change or abs(loss - previous) < change:
                break
        return first_loss

    def _direction(self, state: dict[str, Any], gradient: Tensor, size: int) -> Tensor:
        """Where to go: down the gradient, corrected by what is remembered of the curvature."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return gradient.neg()
        changes, steps, inverses = state["old_dirs"], state["old_stps"], state["ro"]
        change = gradient.sub(state["prev_flat_grad"])
        step = state["d"].mul(float(state["t"]))
        curvature = change.dot(step)
        if _read(curvature) > _CURVATURE:
            if len(changes) == size:
                for remembered in (changes, steps, inverses):
                    remembered.pop(0)
            changes.append(change)
            steps.append(step)
            inverses.append(1.0 / curvature)
            state["H_diag"] = curvature / change.dot(change)
        factors = state.setdefault("al", [None] * size)
        direction = gradient.neg()
        for i in reversed(range(len(changes))):
            factors[i] = steps[i].dot(direction) * inverses[i]
            direction.add_(changes[i], alpha=-factors[i])
        direction = tclient.mul(direction, state["H_diag"])
        for i in range(len(changes)):
            correction = changes[i].dot(direction) * inverses[i]
            direction.add_(steps[i], alpha=factors[i] - correction)
        return direction

    def _gradient(self) -> Tensor:
        """The gradients of all parameters, one behind the other."""
        parts = []
        for param in self._params:
            gradient = param.grad
            part = param.new_zeros(param.numel()) if gradient is None else gradient.reshape(-1)
            parts.append(tclient.view_as_real(part).reshape(-1) if part.is_complex() else part)
        return tclient.cat(parts, 0)

    def _move(self, step: Any, direction: Tensor) -> None:
        """Moves all parameters along the direction."""
        start = 0
        for param in self._params:
            target = tclient.view_as_real(param) if param.is_complex() else param
            count = target.numel()
            target.add_(direction[start : start + count].view_as(target), alpha=float(step))
            start += count

    def _along(self, closure: Callable[[], Any], direction: Tensor) -> _Evaluate:
        """What the loss is at some step from where the parameters are now; they stay where they are."""
        origin = [param.clone(memory_format=tclient.contiguous_format) for param in self._params]

        def evaluate(step: Any) -> _Point:
            self._move(step, direction)
            loss, gradient = _number(_evaluated(closure)), self._gradient()
            for param, value in zip(self._params, origin, strict=True):
                param.copy_(value)
            return _Point(step, loss, gradient, _read(gradient.dot(direction)))

        return evaluate


def _evaluated(closure: Callable[[], Any]) -> Any:
    with tclient.enable_grad():
        return closure()


def _number(loss: Any) -> float:
    return float(loss.item() if isinstance(loss, Tensor) else loss)


def _largest(tensor: Tensor) -> Any:
    """The largest absolute value. Waits."""
    return _read(tensor.abs().max())


@np.errstate(all="ignore")
def _first_step(size: Any) -> Any:
    return min(1.0, 1.0 / size)


@np.errstate(all="ignore")
def _cubic(a: _Point, b: _Point, low: Any = None, high: Any = None) -> Any:
    """Where the cubic through two points with these slopes is smallest, between the bounds; else their middle."""
    if low is None:
        low, high = (a.step, b.step) if a.step <= b.step else (b.step, a.step)
    first = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.step - b.step)
    square = first**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    root = square**0.5
    if a.step <= b.step:
        place = b.step - (b.step - a.step) * ((b.slope + root - first) / (b.slope - a.slope + 2 * root))
    else:
        place = a.step - (a.step - b.step) * ((a.slope + root - first) / (a.slope - b.slope + 2 * root))
    return min(max(place, low), high)


def _strong_wolfe(
    evaluate: _Evaluate, start: _Point, step: Any, scale: Any, smallest: float = 1e-9
) -> tuple[_Point, int]:
    """A step that lowers the loss enough and flattens the slope enough, and how often the loss was evaluated."""

    def too_high(point: _Point) -> bool:
        return bool(point.loss > start.loss + _ARMIJO * point.step * start.slope)

    def is_flat(point: _Point) -> bool:
        return bool(abs(point.slope) <= -_WOLFE * start.slope)

    point, before, used = evaluate(step), start, 1
    bracket: list[_Point] | None = None
    searches = 0
    while searches < _SEARCHES:
        # Go on until the wanted step lies between two that are known.
        if too_high(point) or (searches > 1 and point.loss >= before.loss):
            bracket = [before, point]
            break
        if is_flat(point):
            return point, used
        if point.slope >= 0:
            bracket = [before, point]
            break
        low, high = point.step + 0.01 * (point.step - before.step), point.step * 10
        following = _cubic(before, point, low, high)
        before, point = point, evaluate(following)
        used += 1
        searches += 1
    if bracket is None:
        bracket = [start, point]
    best, other = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
    stuck = False
    while searches < _SEARCHES:
        if abs(bracket[1].step - bracket[0].step) * scale < smallest:
            break
        following = _cubic(bracket[0], bracket[1])
        steps = [bracket[0].step, bracket[1].step]
        margin = 0.1 * (max(steps) - min(steps))
        if min(max(steps) - following, following - min(steps)) < margin:
            # Too near an end twice, or beyond it: go in from there.
            if stuck or following >= max(steps) or following <= min(steps):
                nearer_high = abs(following - max(steps)) < abs(following - min(steps))
                following = max(steps) - margin if nearer_high else min(steps) + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        point = evaluate(following)
        used += 1
        searches += 1
        if too_high(point) or point.loss >= bracket[best].loss:
            bracket[other] = point
            best, other = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
            continue
        if is_flat(point):
            bracket[best] = point
            break
        if point.slope * (bracket[other].step - bracket[best].step) >= 0:
            bracket[other] = bracket[best]
        bracket[best] = point
    return bracket[best], used
