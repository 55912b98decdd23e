"""Graphs of autograd around a restart: who still needs one, and what stands in the place of one that is gone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tserver.engine.object_store import ObjectStore, Parts

# Nodes that are looked at for one answer.
_MOST = 100_000
_MAX_NAME = 200


def needs_graph(store: ObjectStore) -> bool:
    """Whether a backward may come that needs a graph which is there now.

    A graph that a backward has gone through is of no more use, nor is one whose saved tensors were written to: torch
    refuses both. So a training loop needs none from its backward on to its next forward, whatever names it keeps.
    """
    if any(not suspended.is_over for suspended in store.callers_code.suspended):
        return True
    known: dict[Any, bool] = {}
    return any(_is_of_use(tensor.grad_fn, known) for tensor in _tensors(store) if tensor.grad_fn is not None)


def _tensors(store: ObjectStore) -> Iterator[Tensor]:
    for found in list(store.objects.values()):
        if isinstance(found, Tensor):
            if found.requires_grad:
                yield found
        elif isinstance(found, Parts):
            yield from (item for item in found.by_path.values() if isinstance(item, Tensor) and item.requires_grad)


def _is_of_use(root: Any, known: dict[Any, bool]) -> bool:
    """Whether a backward could go through all that is behind a node. `known` is what was found out before."""
    seen = {root}
    waiting = [root]
    answer = True
    while waiting and len(seen) < _MOST:
        node = waiting.pop()
        of_use = known.get(node)
        if of_use is None:
            of_use = not _is_spent(node)
            if not of_use:
                answer = False
                break
        elif not of_use:
            answer = False
            break
        else:
            continue
        for behind, _ in node.next_functions:
            if behind is not None and behind not in seen:
                seen.add(behind)
                waiting.append(behind)
    # Behind each of those there is nothing but others of them.
    known.update(dict.fromkeys(seen if answer else (root,), answer))
    return answer


def _is_spent(node: Any) -> bool:
    """Whether torch would refuse to go through a node."""
    if getattr(node, "tc_gone", False):
        return True
    try:
        kind: Any = type(node)
        for name in _saved(kind):
            getattr(node, name)
    except RuntimeError:
        return True
    return False


@functools.cache
def _saved(kind: Any) -> tuple[str, ...]:
    """The attributes of such nodes that are tensors which were saved for the backward."""
    names = tuple(name[len("_raw") :] for name in dir(kind) if name.startswith("_raw_saved_"))
    return names or (("saved_tensors",) if issubclass(kind, torch.autograd.function.BackwardCFunction) else ())


def _forward(ctx: Any, anchor: Tensor, make: Callable[[], Tensor]) -> Tensor:
    del anchor
    ctx.tc_gone = True
    return make()


def _backward(ctx: Any, *gradients: Any) -> Any:
    raise RuntimeError(
        f"{type(ctx).__name__}: the graph of this tensor is gone, as the server was restarted (or the session resumed) "
        "after it was computed; compute it again, or go back to where the graph began"
    )


@functools.lru_cache(maxsize=1024)
def _function(node: str) -> Any:
    body = {"forward": staticmethod(_forward), "backward": staticmethod(_backward)}
    made: Any = type("Gone", (torch.autograd.Function,), body)
    # What torch prints as the tensor's grad_fn.
    made._backward_cls.__name__ = node
    return made


def with_graph_gone(node: str, make: Callable[[], Tensor]) -> Tensor:
    """The tensor that is made, as one that was computed by such a node. Raises: ValueError for what names no node."""
    if not node.isidentifier() or len(node) > _MAX_NAME:
        raise ValueError(f"{node[:40]!r} is no name of a node")
    with torch.enable_grad():
        found: Tensor = _function(node).apply(torch.zeros((), requires_grad=True), make)
    return found
