"""torch.autograd.graph: the nodes that a backward pass goes through, as far as one can look at them from here.

Knows tensors and operations. A node is asked about when a program looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tclient._issue import call_builtin
from tclient._session.handles import NODE, WRAPPERS, RemoteObject
from tclient._tensor import Tensor
from tclient.autograd._callers import RemovableHandle, callers_of, register


class Node(RemoteObject):
    """A node of a graph, `x.grad_fn`: an operation that computes gradients of gradients."""

    __slots__ = ("_known",)

    # What the server said of it, once it was asked.
    _known: dict[str, Any]

    def _about(self) -> dict[str, Any]:
        try:
            known = self._known
        except AttributeError:
            known = self._known = call_builtin("tc.node", self)
        return known

    def name(self) -> str:
        """torch's name of it."""
        name: str = self._about()["name"]
        return name

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes that its gradients go to, each with the number of its output that is meant."""
        found: tuple[tuple[Node | None, int], ...] = self._about()["next"]
        return found

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What a function of the program has saved for its backward."""
        found: tuple[Any, ...] = call_builtin("tc.saved", self)
        return found

    @property
    def variable(self) -> Any:
        """The leaf whose gradient it adds to."""
        found = self._about()["variable"]
        if found is None:
            raise AttributeError(f"'{self.kind}' object has no attribute 'variable'")
        return found

    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Calls fn(grad_inputs, grad_outputs) when it has run; what that returns, unless None, replaces grad_inputs."""
        return register(self, "node", fn, lambda told: fn(*told["given"]))

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Calls fn(grad_outputs) before it runs; what that returns, unless None, replaces them."""
        return register(self, "before_node", fn, lambda told: fn(*told["given"]))

    def __getattr__(self, name: str) -> Any:
        # What a function of the program has put on its context.
        if not name.startswith("_") and self.kind.endswith("Backward"):
            key = self._about()["key"]
            code = callers_of(self._ref.session).code.get(key)
            if code is not None:
                return getattr(code.__self__, name)  # type: ignore[attr-defined]
        raise AttributeError(f"'{self.kind}' object has no attribute '{name}'", name=name, obj=self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and (self is other or self._about()["number"] == other._about()["number"])

    def __hash__(self) -> int:
        return hash(self._about()["number"])

    def __repr__(self) -> str:
        return f"<{self.kind} object at {id(self):#x}>"


WRAPPERS[NODE] = Node


class GradientEdge(NamedTuple):
    """Where a gradient comes from: a node, and which of its outputs."""

    node: Node
    output_nr: int


def get_gradient_edge(tensor: Any) -> GradientEdge:
    """The edge at which the gradient of a tensor is.

    Raises: RuntimeError for a tensor without one.
    """
    if not tensor.requires_grad:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(*call_builtin("tc.edge", tensor))


def increment_version(tensor: Any) -> None:
    """Has a backward believe that tensors were changed in place: a change of nothing does it."""
    for each in (tensor,) if isinstance(tensor, Tensor) else tuple(tensor):
        each.detach().mul_(1)


@contextmanager
def save_on_cpu(pin_memory: bool = False, device_type: str = "cuda") -> Iterator[None]:
    """What is saved for a backward stays where it is: memory is the server's concern."""
    yield


__all__ = ["GradientEdge", "Node", "get_gradient_edge", "increment_version", "save_on_cpu"]
