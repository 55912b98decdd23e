"""torch.autograd.Function: operations of the caller's own, with the gradient that the caller says.

The forward runs here without gradients and issues its operations; the server then puts one node into the graph, which
asks for the backward when a pass meets it. Knows tensors and operations; waits in a backward only.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

from tclient._codec.operations import Operation
from tclient._exceptions import make_error
from tclient._issue import dispatch, find_session, operation_named
from tclient._session.current import current
from tclient._session.modes import MODES, no_grad
from tclient._tensor import Tensor
from tclient.autograd._callers import Told, callers_of

_ONCE = "tc.differentiated_once"


class FunctionCtx:
    """What a forward leaves to its backward: tensors in `save_for_backward`, and any attributes."""

    _forward_cls: type[Function]

    def __init__(self) -> None:
        self._inputs: tuple[Any, ...] | None = None
        self._saved: tuple[Any, ...] = ()
        self._dirty: tuple[Any, ...] = ()
        self._constant: tuple[Any, ...] = ()
        self._materialize = True
        # What the server tells, while the backward runs.
        self._told: Told | None = None

    def save_for_backward(self, *tensors: Any) -> None:
        """Keeps tensors, inputs or outputs above all, for the backward: `ctx.saved_tensors`. Once in a forward."""
        for position, each in enumerate(tensors):
            if each is not None and not isinstance(each, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument {position} is of type "
                    f"{type(each).__name__}"
                )
        self._saved = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """For derivatives in forward mode, which are not computed here."""

    def mark_dirty(self, *tensors: Any) -> None:
        """Says which inputs the forward has changed in place; it returns them."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Says which outputs have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether the gradient of an output that nothing depends on is zeros; else it is None."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved for the backward.

        Raises: RuntimeError where it was changed since, or where the graph is gone.
        """
        told = self._told
        if told is None:
            return self._saved
        if told["refusal"]:
            raise make_error("RuntimeError", told["refusal"])
        saved: tuple[Any, ...] = told["saved"]
        return saved

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """Which arguments want a gradient."""
        told = self._told
        if told is not None:
            needed: tuple[bool, ...] = told["needed"]
            return needed
        return tuple(isinstance(each, Tensor) and each.requires_grad for each in self._inputs or ())

    def _answer(self, told: Told) -> list[Any]:
        """Run the backward: what resumes the pass."""
        before, self._told = self._told, told
        try:
            found = self._forward_cls._differentiate()(self, *told["given"])
        finally:
            self._told = before
        return list(found) if isinstance(found, tuple) else [found]


class Function:
    """Base class of operations with a gradient of their own.

    Example:
        >>> class Square(autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x
        ...     @staticmethod
        ...     def backward(ctx, gradient):
        ...         (x,) = ctx.saved_tensors
        ...         return 2 * x * gradient
        >>> y = Square.apply(x)
    """

    generate_vmap_rule = False
    _backward_cls: type[FunctionCtx] = FunctionCtx

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._backward_cls = type(f"{cls.__name__}Backward", (FunctionCtx,), {"_forward_cls": cls})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should "
            "invoke them on the class itself. Instantiating an autograd function will raise an error in a future "
            "version of PyTorch.",
            DeprecationWarning,
            stacklevel=2,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "Legacy autograd function with non-static forward method is deprecated. Please use new-style autograd "
            "function with static forward method. (Example: "
            "https://pytorch.org/docs/stable/autograd.html#torch.autograd.Function)"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """What the operation computes: `forward(ctx, *args)`, or `forward(*args)` beside `setup_context`."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """What the forward leaves to the backward, where it does not see the context itself."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradient of each argument, of those of the outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    # torch takes either name.
    vjp = backward

    @classmethod
    def _differentiate(cls) -> Callable[..., Any]:
        """The backward, under the name that the class has it by."""
        if cls.vjp is not Function.vjp:
            if cls.backward is not Function.backward:
                raise RuntimeError(
                    "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You should only "
                    "implement one of them."
                )
            return cls.vjp
        return cls.backward

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """The operation, as part of the graph.

        Raises: what the forward raises.
        """
        if MODES.recorder is not None and MODES.recorder.has_gradients:
            raise MODES.recorder.refused(f"{cls.__name__}.apply", "has a backward that runs in your process")
        sets_up = cls.setup_context is not Function.setup_context
        if sets_up:
            bound = inspect.signature(cls.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            args, kwargs = bound.args, {}
        ctx = cls._backward_cls()
        ctx._inputs = args
        with no_grad():
            if sets_up:
                outputs = cls.forward(*args)
                cls.setup_context(ctx, args, outputs)
            else:
                outputs = cls.forward(ctx, *args, **kwargs)
        ctx._inputs = None
        if isinstance(outputs, tuple):
            return _in_graph(ctx, args, outputs)
        return _in_graph(ctx, args, (outputs,))[0]


class InplaceFunction(Function):
    """A function that may work in place, as torch has it."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


def _in_graph(ctx: FunctionCtx, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The outputs, as those of one node. An input that comes back is itself if it was changed, and else a view."""
    saved, ctx._saved = ctx._saved, ()
    dirty, ctx._dirty = ctx._dirty, ()
    constant, ctx._constant = ctx._constant, ()
    if not MODES.grad or not any(isinstance(each, Tensor) for each in inputs):
        with no_grad():
            return tuple(each.view_as(each) if _is_in(each, inputs, dirty) else each for each in outputs)
    session = find_session(inputs, None) or current()
    callers = callers_of(session)
    callers.count(session)
    tensors = [each if isinstance(each, Tensor) else None for each in outputs]
    given = (
        ctx._forward_cls.__name__,
        callers.add(ctx._answer),
        [each if isinstance(each, Tensor) else None for each in inputs],
        tensors,
        list(saved),
        list(dirty),
        list(constant),
        ctx._materialize,
    )
    made = iter(dispatch(_node(sum(each is not None for each in tensors)), given, None))
    found = tuple(each if tensor is None else next(made) for each, tensor in zip(outputs, tensors, strict=True))
    return tuple(each if any(each is one for one in dirty) else new for each, new in zip(outputs, found, strict=True))


def _is_in(output: Any, inputs: tuple[Any, ...], dirty: tuple[Any, ...]) -> bool:
    """Whether it is an input that was not changed."""
    if not isinstance(output, Tensor) or any(output is each for each in dirty):
        return False
    return any(output is each for each in inputs)


@functools.cache
def _node(count: int) -> Operation:
    """The operation that returns so many outputs."""
    return Operation({"name": "tc.function", "returns": {"count": count}, "writes": ["outputs"]})


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A backward that is computed without a graph of its own: to differentiate it again is an error.

    Raises: RuntimeError where somebody does.
    """

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any) -> Any:
        with no_grad():
            outputs = fn(ctx, *args)
        if not MODES.grad or not any(isinstance(each, Tensor) and each.requires_grad for each in args):
            return outputs
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        made = dispatch(operation_named(_ONCE), (list(values),), None)
        return made if isinstance(outputs, tuple) else made[0]

    return wrapper


__all__ = ["Function", "FunctionCtx", "InplaceFunction", "once_differentiable"]
