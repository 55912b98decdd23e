"""Functions of the caller that run when a backward pass goes through a module.

All inputs go through one node that changes nothing, and so do all outputs: there their gradients are together, and the
pass is suspended. Knows tensors and how a hook is called; does not know layers.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tclient._caller import caller
from tclient._codec.operations import Operation
from tclient._issue import dispatch
from tclient._session.modes import MODES
from tclient._tensor import Tensor

if TYPE_CHECKING:
    from tclient.nn.module import Module

Values = tuple[Any, ...]
Hooks = list[Callable[..., Any]]

_NO_INPUT = (
    "Full backward hook is firing when gradients are computed with respect to module outputs since no inputs require "
    "gradients. See https://docs.pytorch.org/docs/main/generated/"
    "torch.nn.Module.html#torch.nn.Module.register_full_backward_hook for more details."
)


@functools.cache
def _identity(count: int) -> Operation:
    return Operation({"name": "tc.identity", "returns": {"count": count}})


class _Gate:
    """Values that go through one node, and which of them are tensors."""

    def __init__(self, values: Values, code: Callable[[Values, Values], Values | None]) -> None:
        """`code` is given the gradients of the tensors before and behind the node, and may replace the former."""
        self.count = len(values)
        self.positions = [number for number, value in enumerate(values) if isinstance(value, Tensor)]
        self.values = values
        self.is_closed = not MODES.grad or not any(values[number].requires_grad for number in self.positions)
        if self.is_closed:
            return
        from tclient.autograd import _callers

        made = dispatch(_identity(len(self.positions)), tuple(values[number] for number in self.positions), None)
        through = dict(zip(self.positions, made, strict=True))
        self.values = tuple(through.get(number, value) for number, value in enumerate(values))
        known = next(each for number, each in through.items() if values[number].requires_grad)
        _callers.register(known, "node_of", code, lambda told: code(*told["given"]))

    def spread(self, gradients: Values) -> Values:
        """A gradient for each value, None for what is no tensor."""
        found = dict(zip(self.positions, gradients, strict=True))
        return tuple(found.get(number) for number in range(self.count))

    def gathered(self, gradients: Any) -> Values:
        """Those of the tensors."""
        return tuple(gradients[number] for number in self.positions)


class Around:
    """The gates around one forward of a module."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._hooks: Hooks = list(module._backward_hooks.values()) if module._is_full_backward_hook else []
        self._pre_hooks: Hooks = list(module._backward_pre_hooks.values())
        self._gradients: Any = None

    def enter(self, args: Values) -> Values:
        """The arguments, through their gate."""
        self._inputs = _Gate(args, self._at_inputs)
        return self._inputs.values

    def leave(self, result: Any) -> Any:
        """The result, through its gate."""
        self._outputs = _Gate(result if isinstance(result, tuple) else (result,), self._at_outputs)
        return self._outputs.values if isinstance(result, tuple) else self._outputs.values[0]

    def _at_outputs(self, _: Values, behind: Values) -> Values:
        self._gradients = self._outputs.spread(behind)
        for hook in self._pre_hooks:
            changed = hook(self._module, self._gradients)
            if changed is None:
                continue
            got, wanted = len(changed), self._outputs.count
            if got != wanted:
                raise RuntimeError(
                    f"Backward pre hook returned an invalid number of grad_output, got {got}, but expected {wanted}"
                )
            self._gradients = changed
        kept = self._gradients
        if self._inputs.is_closed:
            frame = caller()
            registry = frame.f_globals.setdefault("__warningregistry__", {})
            warnings.warn_explicit(_NO_INPUT, UserWarning, frame.f_code.co_filename, frame.f_lineno, registry=registry)
            for hook in self._hooks:
                changed = hook(self._module, (None,) * self._inputs.count, self._gradients)
                if changed is not None and not (isinstance(changed, tuple) and all(each is None for each in changed)):
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should always return None or None "
                        "for all gradients."
                    )
            self._gradients = None
        # Also where nothing was changed: what the node itself gives has zeros for None.
        return self._outputs.gathered(kept)

    def _at_inputs(self, before: Values, _: Values) -> Values | None:
        if self._gradients is None:
            # It went past the outputs of the module.
            return None
        given = found = self._inputs.spread(before)
        for hook in self._hooks:
            changed = hook(self._module, found, self._gradients)
            if changed is None:
                continue
            changed = changed if isinstance(changed, tuple) else (changed,)
            if len(changed) != len(found):
                raise RuntimeError(
                    f"Backward hook returned an invalid number of grad_input, got {len(changed)}, but expected "
                    f"{len(found)}"
                )
            found = changed
        self._gradients = None
        return None if found is given else self._inputs.gathered(found)


def at_last_node(module: Module, result: Any) -> None:
    """The hooks as torch first had them: at the node that the result comes from, whatever is behind that."""
    found = result
    while not isinstance(found, Tensor):
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    if not MODES.grad or not found.requires_grad or found.is_leaf:
        return
    from tclient.autograd import _callers

    def registered(hook: Callable[..., Any]) -> None:
        _callers.register(found, "node_of", hook, lambda told: hook(module, *told["given"]))

    for hook in module._backward_hooks.values():
        registered(hook)
