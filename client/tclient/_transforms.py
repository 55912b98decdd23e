"""The transformations of torch.func: gradients, products with jacobians, and functions of one sample for many.

The function runs here and issues its operations; what is asked of them are backward passes. Many samples are as many
runs, of which the results are stacked. Knows tensors; does not wait.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tclient._codec.operations import TABLE
from tclient._issue import dispatch, issue_backward
from tclient._session.modes import enable_grad
from tclient._tensor import Tensor
from tclient.utils import _pytree as pytree

Function = Callable[..., Any]
Argnums = int | tuple[int, ...]


def _leaf(value: Any) -> Any:
    """A tensor of which gradients are asked; one that is in a graph stays there."""
    if not isinstance(value, Tensor):
        return value
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()


def _out_of_graph(value: Any, keep: bool) -> Any:
    """Results without the graph that was made for them, unless they belong to one of the caller."""
    return value if keep else pytree.tree_map(lambda each: each.detach() if isinstance(each, Tensor) else each, value)


def _is_in_graph(*values: Any) -> bool:
    return any(isinstance(each, Tensor) and each.requires_grad for each in pytree.tree_leaves(values))


def _tensors(value: Any) -> list[Any]:
    return [each for each in pytree.tree_leaves(value) if isinstance(each, Tensor)]


def _gradients(outputs: list[Any], inputs: list[Any], seeds: list[Any] | None, *, keep: bool) -> list[Any]:
    """The gradient of each input; zeros where the outputs do not depend on it."""
    rooted = [number for number, each in enumerate(outputs) if each.requires_grad]
    if not rooted:
        return [each.detach().new_zeros(each.shape) for each in inputs]
    found = issue_backward(
        TABLE["autograd.grad"],
        (
            [outputs[number] for number in rooted],
            inputs,
            None if seeds is None else [seeds[number] for number in rooted],
        ),
        {"create_graph": keep, "retain_graph": True, "allow_unused": True},
    )
    return [
        each.detach().new_zeros(each.shape) if gradient is None else gradient
        for each, gradient in zip(inputs, found, strict=True)
    ]


def _numbers(argnums: Argnums, count: int) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in numbers:
        if not -count <= number < count:
            raise RuntimeError(f"Got argnum={number}, but only {count} positional inputs")
    return tuple(number % count for number in numbers)


def _with(args: tuple[Any, ...], numbers: tuple[int, ...]) -> list[Any]:
    """The arguments, with leaves for tensors where gradients are asked."""
    return [pytree.tree_map(_leaf, each) if number in numbers else each for number, each in enumerate(args)]


def _like(argnums: Argnums, args: list[Any], numbers: tuple[int, ...], found: list[Any]) -> Any:
    """Results in the form of the arguments they are for."""
    rest = iter(found)
    made = tuple(
        pytree.tree_map(lambda each: next(rest) if isinstance(each, Tensor) else each, args[number])
        for number in numbers
    )
    return made[0] if isinstance(argnums, int) else made


def grad_and_value(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """A function that returns the gradient of a function of one number, and the number."""

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        numbers = _numbers(argnums, len(args))
        keep = _is_in_graph(args, kwargs)
        with enable_grad():
            given = _with(args, numbers)
            output = func(*given, **kwargs)
            aux = None
            if has_aux:
                if not (isinstance(output, tuple) and len(output) == 2):
                    raise RuntimeError(
                        "grad_and_value(f)(*args): output of function f should be a tuple: (output, aux) if has_aux is "
                        "True"
                    )
                output, aux = output
            if not isinstance(output, Tensor):
                raise RuntimeError(
                    f"grad_and_value(f)(*args): Expected f(*args) to return a tensor, got {type(output)}"
                )
            if output.dim() != 0:
                raise RuntimeError(
                    "grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor, got tensor with "
                    f"{output.dim()} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
                )
            inputs = [each for number in numbers for each in _tensors(given[number])]
            found = _like(argnums, given, numbers, _gradients([output], inputs, None, keep=keep))
        result = (output, aux) if has_aux else output
        return _out_of_graph((found, result), keep)

    return run


def grad(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """A function that returns the gradient of a function of one number."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        found, result = both(*args, **kwargs)
        return (found, result[1]) if has_aux else found

    return run


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> Any:
    """What the function returns, and a function of vectors that gives their products with its jacobian."""
    keep = _is_in_graph(primals)
    with enable_grad():
        given = _with(primals, tuple(range(len(primals))))
        output = func(*given)
        output, aux = output if has_aux else (output, None)
    outputs = _tensors(output)
    inputs = _tensors(given)

    def product(*cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        seeds = _tensors(cotangents)
        wanted = keep or _is_in_graph(seeds)
        with enable_grad():
            found = _gradients(outputs, inputs, seeds, keep=wanted)
        return _out_of_graph(_like(tuple(range(len(given))), given, tuple(range(len(given))), found), wanted)

    told = _out_of_graph(output, keep)
    return (told, product, _out_of_graph(aux, keep)) if has_aux else (told, product)


def jvp(func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """What the function returns, and the product of its jacobian with a vector."""
    if not isinstance(primals, tuple):
        raise RuntimeError(
            "jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it should be valid to call f(*primals)."
        )
    keep = _is_in_graph(primals, tangents)
    with enable_grad():
        given = _with(primals, tuple(range(len(primals))))
        output = func(*given)
        output, aux = output if has_aux else (output, None)
        outputs = _tensors(output)
        # The gradient of a gradient's product with its seed: seeds stand for a vector that is not known yet.
        seeds = [each.detach().new_zeros(each.shape).requires_grad_() for each in outputs]
        backward = _gradients(outputs, _tensors(given), seeds, keep=True)
        found = iter(_gradients(backward, seeds, _tensors(tangents), keep=keep))
    product = pytree.tree_map(lambda each: next(found) if isinstance(each, Tensor) else each, output)
    told = _out_of_graph((output, product), keep)
    return (*told, _out_of_graph(aux, keep)) if has_aux else told


def jacrev(
    func: Function,
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Function:
    """A function that returns the jacobian: for each output, its shape and then that of the input."""

    @functools.wraps(func)
    def run(*args: Any) -> Any:
        numbers = _numbers(argnums, len(args))
        keep = _is_in_graph(args)
        with enable_grad():
            given = _with(args, numbers)
            output = func(*given)
            output, aux = output if has_aux else (output, None)
            inputs = [each for number in numbers for each in _tensors(given[number])]

            def rows(each: Any) -> Any:
                if not isinstance(each, Tensor):
                    return each
                count = each.numel()
                seeds = dispatch(TABLE["eye"], (count,), {"dtype": each.dtype, "device": each.device}).unbind(0)
                found = [_gradients([each], inputs, [seed.reshape(each.shape)], keep=keep) for seed in seeds]
                stacked = [
                    dispatch(TABLE["stack"], ([row[number] for row in found],), None).reshape(
                        (*each.shape, *input.shape)
                    )
                    for number, input in enumerate(inputs)
                ]
                return _like(argnums, given, numbers, stacked)

            made = pytree.tree_map(rows, output)
        return _out_of_graph((made, aux), keep) if has_aux else _out_of_graph(made, keep)

    return run


def jacfwd(
    func: Function, argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error", chunk_size: Any = None
) -> Function:
    """As `jacrev`: the numbers are the same."""
    return jacrev(func, argnums, has_aux=has_aux)


def hessian(func: Function, argnums: Argnums = 0) -> Function:
    """A function that returns the second derivatives."""
    return jacrev(jacrev(func, argnums), argnums)


def vmap(
    func: Function,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Function:
    """A function of many samples, of one of a single sample: it is run for each, and the results are stacked.

    Raises: ValueError where the samples are not as many in all arguments, or nothing is mapped over.
    """

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        dims = in_dims if isinstance(in_dims, (tuple, list)) else (in_dims,) * len(args)
        if len(dims) != len(args):
            raise ValueError(
                f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>): in_dims is not compatible with the structure "
                f"of inputs. in_dims has structure {pytree.tree_flatten(in_dims)[1]} but inputs has structure "
                f"{pytree.tree_flatten(args)[1]}."
            )
        spread = [*map(_spread, args, dims), *(_spread(each, 0) for each in kwargs.values())]
        sizes = {size for _, size in spread if size is not None}
        if not sizes:
            raise ValueError(
                f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>): got no inputs to vmap over, or all in_dims "
                "are None: at least one input must be mapped"
            )
        if len(sizes) > 1:
            raise ValueError(
                f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sorted(sizes)} "
                "for the mapped dimension"
            )
        outputs = []
        for number in range(sizes.pop()):
            picked = [pick(number) for pick, _ in spread]
            outputs.append(func(*picked[: len(args)], **dict(zip(kwargs, picked[len(args) :], strict=True))))
        return _stacked(outputs, out_dims)

    return run


def _name(func: Function) -> str:
    return getattr(func, "__name__", repr(func))


def _spread(value: Any, dim: Any) -> tuple[Callable[[int], Any], int | None]:
    """What gives the sample of a number, and how many there are; None where all samples have the same."""
    if dim is None:
        return lambda number: value, None
    if isinstance(value, Tensor):
        samples = value.unbind(dim)
        return lambda number: samples[number], value.shape[dim]
    if isinstance(value, dict):
        parts = {name: _spread(each, dim[name] if isinstance(dim, dict) else dim) for name, each in value.items()}
        return lambda number: {name: pick(number) for name, (pick, _) in parts.items()}, _size(parts.values())
    if isinstance(value, (list, tuple)):
        inner = dim if isinstance(dim, (list, tuple)) else [dim] * len(value)
        several = [_spread(each, of) for each, of in zip(value, inner, strict=True)]
        return lambda number: type(value)([pick(number) for pick, _ in several]), _size(several)
    raise ValueError(
        f"vmap: Got in_dim={dim} for an input but the input is of type {type(value)}. We cannot vmap over non-Tensor "
        "arguments, please use None as the respective in_dim"
    )


def _size(parts: Any) -> int | None:
    sizes = {size for _, size in parts if size is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sorted(sizes)} for "
            "the mapped dimension"
        )
    return sizes.pop() if sizes else None


def _stacked(outputs: list[Any], out_dims: Any) -> Any:
    flat = [pytree.tree_flatten(each) for each in outputs]
    leaves, spec = [each for each, _ in flat], flat[0][1]
    dims = list(out_dims) if isinstance(out_dims, (tuple, list)) else [out_dims] * len(leaves[0])
    made = []
    for number, dim in zip(range(len(leaves[0])), dims, strict=True):
        column = [each[number] for each in leaves]
        if not isinstance(column[0], Tensor):
            raise ValueError(
                f"vmap: `func` must only return Tensors, got type {type(column[0])}. Did you mean to set out_dims= to "
                "None for output?"
            )
        made.append(column[0] if dim is None else dispatch(TABLE["stack"], (column, dim), None))
    return pytree.tree_unflatten(made, spec)


def stack_module_state(models: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of several modules of one kind as one stack for each name, and their buffers."""
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")

    def stacked(states: list[dict[str, Any]], leaf: bool) -> dict[str, Any]:
        found = {}
        for name in states[0]:
            together = dispatch(TABLE["stack"], ([state[name].detach() for state in states],), None)
            found[name] = together.requires_grad_() if leaf and states[0][name].requires_grad else together
        return found

    return (
        stacked([dict(model.named_parameters()) for model in models], True),
        stacked([dict(model.named_buffers()) for model in models], False),
    )


__all__ = ["grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "stack_module_state", "vjp", "vmap"]
