"""torch.nn.functional, run by the server: the functions that the table of operations lists.

A function that calls one of the caller's is written here: the caller's runs here, and what it calls on the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tclient._codec.operations import TABLE
from tclient._issue import dispatch
from tclient._namespace import functions, missing

_REDUCTIONS = ("mean", "sum", "none")

globals().update(functions("nn.functional."))


def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """How much nearer than `margin` the negative is to the anchor, by a distance of the caller's.

    Shapes: three tensors (N, *) -> (), or what the distance gives with reduction="none".
    Raises: ValueError for another reduction or a margin that is not positive; RuntimeError for other dimensions.
    """
    if distance_function is None:
        named = {"margin": margin, "swap": swap, "reduction": reduction}
        operation = TABLE["nn.functional.triplet_margin_with_distance_loss"]
        return dispatch(operation, (anchor, positive, negative), named)
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    dims = anchor.ndim, positive.ndim, negative.ndim
    if len(set(dims)) > 1:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {dims[0]}D, positive {dims[1]}D, and negative {dims[2]}D inputs"
        )
    near, far = distance_function(anchor, positive), distance_function(anchor, negative)
    if swap:
        far = far.minimum(distance_function(positive, negative))
    loss = (margin + near - far).clamp_min(0)
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
