"""torch.autograd.functional: jacobians and hessians of a function of the caller, and products with them.

The function runs here and issues its operations; what is asked of them are backward passes. Knows operations and
tensors; does not wait, but where a product is to be strict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tclient._codec.operations import TABLE
from tclient._issue import dispatch, issue_backward
from tclient._session.modes import enable_grad
from tclient._tensor import Tensor

Tensors = tuple[Any, ...]
Function = Callable[..., Any]

_STRICT_DOUBLE = (
    "This is not allowed in strict mode. You should ensure that your function is twice differentiable and that the "
    "jacobian depends on the inputs (this would be violated by a linear function for example)."
)


def _gradients(
    outputs: Tensors, inputs: Tensors, seeds: Tensors, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensors:
    """The gradient of each input, None where the outputs do not depend on it."""
    kept = [(output, seed) for output, seed in zip(outputs, seeds, strict=True) if output.requires_grad]
    if not kept:
        return (None,) * len(inputs)
    found: Tensors = issue_backward(
        TABLE["autograd.grad"],
        ([output for output, _ in kept], list(inputs), [seed for _, seed in kept]),
        {"create_graph": create_graph, "retain_graph": retain_graph, "allow_unused": True},
    )
    return tuple(found)


def _as_tuple(value: Any, what: str, function: str) -> tuple[bool, Tensors]:
    """Whether there are several, and all of them."""
    several = isinstance(value, tuple)
    values: Tensors = value if several else (value,)
    for index, each in enumerate(values):
        if not isinstance(each, Tensor):
            which = f"value at index {index}" if several else f"given {what}"
            raise TypeError(
                f"The {what} given to {function} must be either a Tensor or a tuple of Tensors but the {which} has "
                f"type {type(each)}."
            )
    return several, values


def _given(inputs: Any, function: str, create_graph: bool) -> tuple[bool, Tensors]:
    """The inputs, as leaves of which gradients are asked; with create_graph they stay in the graph of the caller."""
    several, values = _as_tuple(inputs, "inputs", function)
    if create_graph:
        return several, tuple(each.view_as(each) if each.requires_grad else _leaf(each) for each in values)
    return several, tuple(_leaf(each) for each in values)


def _leaf(value: Any) -> Any:
    return value.detach().requires_grad_()


def _outputs(func: Function, inputs: Tensors, function: str) -> tuple[bool, Tensors]:
    return _as_tuple(func(*inputs), "outputs of the user-provided function", function)


def _vector(v: Any, like: Tensors, several: bool, function: str) -> Tensors:
    """The vectors of a product; their sizes are those of what they are multiplied with."""
    _, vectors = _as_tuple(v, "v", function)
    vectors = tuple(each.detach() for each in vectors)
    if len(vectors) != len(like):
        if several:
            raise RuntimeError(f"v is a tuple of invalid length: should be {len(like)} but got {len(vectors)}.")
        raise RuntimeError("The given v should contain a single Tensor.")
    for index, (vector, wanted) in enumerate(zip(vectors, like, strict=True)):
        if vector.shape != wanted.shape:
            which = f"Entry {index} in v" if several else "v"
            raise RuntimeError(f"{which} has invalid size: should be {wanted.shape} but got {vector.shape}.")
    return vectors


def _ones(values: Tensors, of: str) -> Tensors:
    """The vector that may be left out, where there is one number only."""
    if len(values) != 1 or values[0].numel() != 1:
        what = "user-provided function returns" if of == "outputs" else "input to the user-provided function is"
        raise RuntimeError(f"The vector v can only be None if the {what} a single Tensor with a single element.")
    return (values[0].detach().new_ones(values[0].shape),)


def _require_graph(outputs: Tensors) -> None:
    for index, output in enumerate(outputs):
        if not output.requires_grad:
            raise RuntimeError(
                f"Output {index} of the user-provided function does not require gradients. The outputs must be "
                "computed in a differentiable manner from the input when running in strict mode."
            )


def _filled(found: Tensors, inputs: Tensors, strict: bool, why: str) -> Tensors:
    """Zeros for what is independent of an input; in strict mode that is an error."""
    for index, gradient in enumerate(found):
        if gradient is None and strict:
            raise RuntimeError(why.format(index))
    return tuple(
        each.detach().new_zeros(each.shape) if gradient is None else gradient
        for gradient, each in zip(found, inputs, strict=True)
    )


def _told(values: Tensors, several: bool, create_graph: bool) -> Any:
    """What the caller gets: out of the graph, unless it was asked for."""
    values = tuple(each if create_graph else each.detach() for each in values)
    return values if several else values[0]


def vjp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """What `func` returns, and the product of a vector with its jacobian, for each input.

    Raises: TypeError for what is no tensor; RuntimeError for a vector of another size.
    """
    with enable_grad():
        several, given = _given(inputs, "vjp", create_graph)
        many, outputs = _outputs(func, given, "vjp")
        if strict:
            _require_graph(outputs)
        vectors = _ones(outputs, "outputs") if v is None else _vector(v, outputs, many, "vjp")
        found = _gradients(outputs, given, vectors, create_graph=create_graph)
        products = _filled(
            found,
            given,
            strict,
            "The output of the user-provided function is independent of input {}. This is not allowed in strict mode.",
        )
    return _told(outputs, many, create_graph), _told(products, several, create_graph)


def jvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """What `func` returns, and the product of its jacobian with a vector, for each output.

    Raises: TypeError for what is no tensor; RuntimeError for a vector of another size.
    """
    with enable_grad():
        several, given = _given(inputs, "jvp", create_graph)
        vectors = _ones(given, "inputs") if v is None else _vector(v, given, several, "jvp")
        many, outputs = _outputs(func, given, "jvp")
        if strict:
            _require_graph(outputs)
        # The gradient of a gradient's product with its seed: seeds stand for a vector that is not known yet.
        seeds = tuple(each.detach().new_zeros(each.shape).requires_grad_() for each in outputs)
        backward = _gradients(outputs, given, seeds, create_graph=True)
        filled = _filled(backward, given, strict, "The output is independent of input {}.")
        found = _gradients(filled, seeds, vectors, create_graph=create_graph)
        why = (
            "Output {} of the user-provided function is independent of the inputs. This is not allowed in strict mode."
        )
        products = _filled(found, outputs, strict, why)
    return _told(outputs, many, create_graph), _told(products, many, create_graph)


def _single(func: Function, given: Tensors, function: str) -> Any:
    """The one number that the function returns."""
    many, outputs = _outputs(func, given, function)
    if many:
        raise RuntimeError(f"The function given to {function} should return a single Tensor")
    if outputs[0].numel() != 1:
        raise RuntimeError(f"The Tensor returned by the function given to {function} should contain a single element")
    return outputs[0].squeeze()


def vhp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """What `func` returns, one number, and the product of a vector with its hessian, for each input."""
    return _hessian_product("vhp", func, inputs, v, create_graph, strict)


def hvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """What `func` returns, one number, and the product of its hessian with a vector, for each input."""
    return _hessian_product("hvp", func, inputs, v, create_graph, strict)


def _hessian_product(
    function: str, func: Function, inputs: Any, v: Any, create_graph: bool, strict: bool
) -> tuple[Any, Any]:
    with enable_grad():
        several, given = _given(inputs, function, create_graph)
        vectors = _ones(given, "inputs") if v is None else _vector(v, given, several, function)
        output = _single(func, given, function)
        if strict:
            _require_graph((output,))
        first = _gradients((output,), given, (output.detach().new_ones(()),), create_graph=True)
        gradients = _filled(
            first,
            given,
            strict,
            "The output of the user-provided function is independent of input {}. This is not allowed in strict mode.",
        )
        if strict:
            for index, each in enumerate(gradients):
                if not each.requires_grad:
                    raise RuntimeError(
                        "While computing the hessian, found that the jacobian of the user-provided function with "
                        f"respect to input {index} is independent of the input. {_STRICT_DOUBLE}"
                    )
        # A hessian is symmetric: both products are the backward pass of the gradients.
        found = _gradients(gradients, given, vectors, create_graph=create_graph)
        why = f"The hessian is independent of input {{}}. {_STRICT_DOUBLE}"
        products = _filled(found, given, strict, why)
    return _told((output,), False, create_graph), _told(products, several, create_graph)


def jacobian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The derivative of each output with respect to each input; its shape is the output's, then the input's.

    Both strategies give the same: each element of an output is a backward pass. Raises: TypeError for what is no
    tensor; RuntimeError in strict mode, where an output is independent of an input.
    """
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your function has more outputs '
            'than inputs, "forward-mode" tends to be more performant. Otherwise, prefer to use "reverse-mode".'
        )
    if strategy == "forward-mode" and not vectorize:
        raise NotImplementedError(
            "Computing Jacobian using forward-AD or forward-over-reverse Hessian is"
            "only implemented for `vectorize=True`."
        )
    with enable_grad():
        several, given = _given(inputs, "jacobian", create_graph)
        many, outputs = _outputs(func, given, "jacobian")
        if strict:
            _require_graph(outputs)
        rows = tuple(_rows(output, given, create_graph, strict, index) for index, output in enumerate(outputs))
    rows = tuple(tuple(each if create_graph else each.detach() for each in row) for row in rows)
    found = rows if several else tuple(row[0] for row in rows)
    return found if many else found[0]


def _rows(output: Any, inputs: Tensors, create_graph: bool, strict: bool, number: int) -> Tensors:
    """The jacobian of one output, for each input."""
    count = output.numel()
    seeds = dispatch(TABLE["eye"], (count,), {"dtype": output.dtype, "device": output.device}).unbind(0)
    why = (
        f"Output {number} of the user-provided function is independent of input {{}}. "
        "This is not allowed in strict mode."
    )
    backward = [
        _filled(
            _gradients((output,), inputs, (seed.reshape(output.shape),), create_graph=create_graph, retain_graph=True),
            inputs,
            strict,
            why,
        )
        for seed in seeds
    ]
    return tuple(
        dispatch(TABLE["stack"], ([row[index] for row in backward],), None).reshape((*output.shape, *each.shape))
        for index, each in enumerate(inputs)
    )


def hessian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a function that returns one number; its shape is the input's, twice.

    Raises: RuntimeError if the function returns more than one number.
    """
    several, given = _as_tuple(inputs, "inputs", "hessian")

    def gradients(*values: Any) -> Any:
        found = jacobian(lambda *inner: _single(func, inner, "hessian"), values, create_graph=True)
        if strict:
            for index, each in enumerate(found):
                if not each.requires_grad:
                    raise RuntimeError(
                        "The jacobian of the user-provided function with respect to input "
                        f"{index} is independent of the input. {_STRICT_DOUBLE}"
                    )
        return found

    found = jacobian(
        gradients,
        given,
        create_graph=create_graph,
        strict=strict,
        vectorize=vectorize,
        strategy=outer_jacobian_strategy,
    )
    return found if several else found[0][0]
