"""torch.autograd.gradcheck and gradgradcheck: whether gradients are the slopes that small differences show.

Knows tensors and backward passes. Every difference is two runs of the function, none of which is waited for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from tclient._codec.operations import TABLE
from tclient._issue import dispatch, issue_backward
from tclient._session.modes import enable_grad
from tclient._tensor import Tensor

Tensors = tuple[Any, ...]
Function = Callable[..., Any]


class GradcheckError(RuntimeError):
    """Gradients are not what the differences are."""


def _as_tuple(value: Any) -> Tensors:
    return value if isinstance(value, tuple) else tuple(value) if isinstance(value, list) else (value,)


def _differentiable(value: Any) -> Tensors:
    return tuple(each for each in _as_tuple(value) if isinstance(each, Tensor) and each.requires_grad)


def _wanted(inputs: Tensors) -> list[int]:
    """The positions of inputs that want a gradient; they must be such as can be told apart by differences."""
    found = []
    for position, each in enumerate(inputs):
        if not isinstance(each, Tensor) or not each.requires_grad:
            continue
        if each.is_complex():
            raise NotImplementedError("gradcheck of complex inputs is not there; use real and imaginary parts")
        if str(each.dtype) != "torch.float64":
            warnings.warn(
                f"Input #{position} requires gradient and is not a double precision floating point or complex. This "
                "check will likely fail if all the inputs are not of double precision floating point or complex. ",
                stacklevel=4,
            )
        if not all(stride > 0 or size <= 1 for stride, size in zip(each.stride(), each.shape, strict=True)):
            raise RuntimeError(
                f"The {position}th input has a dimension with stride 0. gradcheck only supports inputs that are "
                "non-overlapping to be able to compute the numerical gradients correctly. You should call .contiguous "
                "on the input before passing it to gradcheck."
            )
        found.append(position)
    if not found:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True."
        )
    return found


def _moved(func: Function, inputs: Tensors, position: int, element: int, by: float) -> Tensors:
    """What the function returns where one element is another."""
    changed = inputs[position].detach().clone()
    flat = changed.reshape(-1)
    flat[element] += by
    given = flat.reshape(changed.shape).detach().requires_grad_()
    return _as_tuple(func(*inputs[:position], given, *inputs[position + 1 :]))


def _numerical(func: Function, inputs: Tensors, position: int, count: int, eps: float) -> list[Any]:
    """For each output, its slopes by the elements of one input."""
    rows: list[list[Any]] = [[] for _ in range(count)]
    for element in range(inputs[position].numel()):
        below = _moved(func, inputs, position, element, -eps)
        above = _moved(func, inputs, position, element, eps)
        for number in range(count):
            slope = (above[number].detach() - below[number].detach()) / (2 * eps)
            rows[number].append(slope.reshape(-1))
    return [dispatch(TABLE["stack"], (row,), None) for row in rows]


def _analytical(output: Any, inputs: Tensors, wanted: list[int]) -> list[Any]:
    """For each input, the gradients of the elements of an output: a column for each of them."""
    columns: list[list[Any]] = [[] for _ in wanted]
    of = tuple(inputs[position] for position in wanted)
    for element in range(output.numel()):
        seed = output.detach().new_zeros(output.shape).reshape(-1)
        seed[element] = 1
        found = _gradients(output, of, seed.reshape(output.shape))
        for column, gradient, each in zip(columns, found, of, strict=True):
            if gradient is None:
                gradient = each.detach().new_zeros(each.shape)
            elif gradient.shape != each.shape:
                raise GradcheckError("Analytical gradient has incorrect size")
            column.append(gradient.detach().reshape(-1))
    return [dispatch(TABLE["stack"], (column, 1), None) for column in columns]


def _gradients(output: Any, inputs: Tensors, seed: Any) -> Tensors:
    found: Tensors = issue_backward(
        TABLE["autograd.grad"], ([output], list(inputs), [seed]), {"retain_graph": True, "allow_unused": True}
    )
    return found


def _close(one: Any, other: Any, rtol: float, atol: float) -> bool:
    close: bool = dispatch(TABLE["allclose"], (one.to(other.dtype), other, rtol, atol), None)
    return close


def gradcheck(
    func: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the gradients of a function, at these inputs, are what differences of `eps` show; True.

    Every element is looked at, also with `fast_mode`; the checks of batched gradients, of forward mode and of
    undefined gradients are not made. Raises: GradcheckError where they are not, or returns False without
    raise_exception; ValueError where no input wants a gradient.
    """
    try:
        with enable_grad():
            return _check(func, _as_tuple(inputs), eps, atol, rtol, nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False


def _check(func: Function, inputs: Tensors, eps: float, atol: float, rtol: float, nondet_tol: float) -> bool:
    wanted = _wanted(inputs)
    returned = _as_tuple(func(*inputs))
    places = [number for number, each in enumerate(returned) if isinstance(each, Tensor) and each.requires_grad]

    def differentiable(*given: Any) -> Tensors:
        found = _as_tuple(func(*given))
        return tuple(found[number] for number in places)

    if not places:
        numbers = [number for number, each in enumerate(returned) if isinstance(each, Tensor)]
        for position in wanted:
            for slopes in _numerical(
                lambda *given: tuple(_as_tuple(func(*given))[number] for number in numbers),
                inputs,
                position,
                len(numbers),
                eps,
            ):
                if slopes.ne(0).any():
                    raise GradcheckError("Numerical gradient for function expected to be zero")
        return True
    numerical = [_numerical(differentiable, inputs, position, len(places), eps) for position in wanted]
    for number, place in enumerate(places):
        output = returned[place]
        found, again = (_analytical(output, inputs, wanted) for _ in range(2))
        for index, position in enumerate(wanted):
            slopes, gradients = numerical[index][number], found[index]
            if not _close(gradients, slopes, rtol, atol):
                raise GradcheckError(
                    f"Jacobian mismatch for output {number} with respect to input {position},\n"
                    f"numerical:{slopes}\nanalytical:{gradients}\n"
                )
            if not _close(gradients, again[index], 0.0, nondet_tol):
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times "
                    "gives different values, although analytical gradient matches numerical gradient. The tolerance "
                    f"for nondeterminism was {nondet_tol}."
                )
    _check_multiplied([returned[place] for place in places], tuple(inputs[position] for position in wanted))
    return True


def _check_multiplied(outputs: list[Any], inputs: Tensors) -> None:
    found: Tensors = issue_backward(
        TABLE["autograd.grad"],
        (outputs, list(inputs), [each.detach().new_zeros(each.shape) for each in outputs]),
        {"retain_graph": True, "allow_unused": True},
    )
    for gradient in found:
        if gradient is not None and gradient.ne(0).any():
            raise GradcheckError("backward not multiplied by grad_output")


def gradgradcheck(
    func: Function,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Whether the gradients of gradients are what differences show, as `gradcheck` for gradients."""
    given = _as_tuple(inputs)
    if grad_outputs is None:
        with enable_grad():
            outputs = _differentiable(func(*given))
        seeds = tuple(each.detach().clone().uniform_(-1, 1).requires_grad_() for each in outputs)
    else:
        seeds = _as_tuple(grad_outputs)

    def gradients(*args: Any) -> Tensors:
        values, along = args[: len(given)], args[len(given) :]
        outputs = _differentiable(func(*values))
        of = [each for each in values if isinstance(each, Tensor) and each.requires_grad]
        found: Tensors = issue_backward(
            TABLE["autograd.grad"], (list(outputs), of, list(along)), {"create_graph": True, "allow_unused": True}
        )
        return tuple(each for each in found if each is not None)

    return gradcheck(
        gradients,
        (*given, *seeds),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
    )


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
