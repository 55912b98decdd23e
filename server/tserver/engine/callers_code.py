"""What stands in a graph of autograd for a caller's own code, and what of it there is in a session.

A hook suspends the pass that meets it, and goes on with what the caller's hook returned. A caller names its hooks and
functions by keys of its own, and is told which of them torch has let go of.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from tserver.engine.passes import Suspended, Told, current
from tserver.errors import InvalidArgument

_OUTSIDE = (
    "this backward meets a function or a hook of the caller, which only a pass that is waited for can run: it cannot "
    "be part of a program, or of a compiled function"
)


class CallersCode:
    """What of one session's graphs is code of its caller."""

    def __init__(self) -> None:
        # Keys of what is gone. Told once; from any thread, as torch lets go of graphs where it likes.
        self.gone: deque[int] = deque()
        self.hooks: dict[int, Any] = {}
        self.classes: dict[str, Any] = {}
        self.suspended: weakref.WeakSet[Suspended] = weakref.WeakSet()

    def told_gone(self) -> list[int]:
        """The keys of what has gone since this was asked last."""
        return [self.gone.popleft() for _ in range(len(self.gone))]

    def clear(self) -> None:
        """Take all hooks away."""
        for handle in list(self.hooks.values()):
            handle.remove()
        self.hooks.clear()
        self.classes.clear()


class Life:
    """Tells of its end."""

    def __init__(self, gone: deque[int], key: int) -> None:
        self._gone, self._key = gone, key

    def __del__(self) -> None:
        self._gone.append(self._key)


def suspended_with(told: Told) -> Any:
    """Suspend the pass that runs on this thread: what it is answered."""
    running = current()
    if running is None:
        raise RuntimeError(_OUTSIDE)
    return running.suspend({**told, "grad_enabled": torch.is_grad_enabled()})


class Hook:
    """Stands for a hook of the caller; torch quotes its name."""

    def __init__(self, code: CallersCode, key: int, name: str) -> None:
        self._code, self.key, self.__name__ = code, key, name

    def __call__(self, *given: Any) -> Any:
        return suspended_with({"key": self.key, "given": given})

    def __del__(self) -> None:
        self._code.hooks.pop(self.key, None)
        self._code.gone.append(self.key)


class _AfterAccumulation:
    """Has a hook run when the gradient of a leaf is there.

    torch's own hooks of that kind run while the node is locked, and a pass that is suspended there would hold up all
    others that reach the leaf. Those that are behind the node run at the same place, without the lock.
    """

    def __init__(self, leaf: Tensor, hook: Hook) -> None:
        # Not the leaf itself: it holds this.
        self._leaf, self.hook = weakref.ref(leaf), hook
        self._is_removed = False

    def before(self, gradient: Tensor) -> None:
        """A hook of the leaf: the node that is about to run gets the hook behind it, once."""
        leaf = self._leaf()
        if leaf is None:
            return
        node: Any = get_gradient_edge(leaf).node
        if self.hook.key not in node.metadata:
            node.metadata[self.hook.key] = True
            node.register_hook(self._behind)

    def _behind(self, *_: Any) -> None:
        leaf = self._leaf()
        if leaf is not None and not self._is_removed:
            self.hook(leaf)

    def remove(self) -> None:
        """Have it run no more."""
        self._is_removed = True


class _Handles:
    """Takes away what belongs to one hook."""

    def __init__(self, *handles: Any) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Take it away."""
        for handle in self._handles:
            handle.remove()


def _of_leaf(leaf: Tensor, hook: Hook) -> Any:
    # In torch's words, where it does not take one.
    leaf.register_post_accumulate_grad_hook(_nothing).remove()
    after = _AfterAccumulation(leaf, hook)
    handle = leaf.register_hook(after.before)
    return _Handles(handle, _Weakly(after))


class _Weakly:
    def __init__(self, after: _AfterAccumulation) -> None:
        self._after = weakref.ref(after)

    def remove(self) -> None:
        after = self._after()
        if after is not None:
            after.remove()


def kind_of(hook: Any) -> tuple[str, Hook] | None:
    """The kind of a hook that was found on a leaf, and whose it is; None for one of torch's own."""
    if isinstance(hook, Hook):
        return "gradient", hook
    after = getattr(hook, "__self__", None)
    return ("accumulated", after.hook) if isinstance(after, _AfterAccumulation) else None


def _is_recorded(tensor: Tensor) -> Any:
    if tensor.grad_fn is None:
        raise InvalidArgument("tc.hook: the tensor comes from no node of a graph")
    return tensor.grad_fn


def _nothing(_: Tensor) -> None:
    pass


# How a hook is registered, by what it is for; and on what.
KINDS: dict[str, tuple[type, Callable[[Any, Hook], Any]]] = {
    "gradient": (Tensor, lambda tensor, hook: tensor.register_hook(hook)),
    "accumulated": (Tensor, _of_leaf),
    "node": (Node, lambda node, hook: node.register_hook(hook)),
    "node_of": (Tensor, lambda tensor, hook: _is_recorded(tensor).register_hook(hook)),
    "before_node": (Node, lambda node, hook: node.register_prehook(hook)),
}
