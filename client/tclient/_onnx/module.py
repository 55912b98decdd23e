"""The module of a graph: its initializers as parameters and buffers, and a forward that runs its nodes.

The forward asks tensors for nothing but sizes and dtypes, so that it can be recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tclient as tc
from tclient import nn
from tclient._exceptions import TensorError, TensorRuntimeError, TensorTypeError, TensorValueError
from tclient._onnx.folding import TooLarge, fold
from tclient._onnx.operators import TABLE
from tclient._onnx.plan import SIZES, Plan, is_weight, sizes
from tclient._onnx.reading import Array, Node, Value

# Names of initializers become paths of modules up to this depth.
_DEEPEST = 32
# Inputs that are statistics of the data, and no weights: operator and position.
_STATISTICS = {("BatchNormalization", 3), ("BatchNormalization", 4)}


class GraphModule(nn.Module):
    """A graph of ONNX. `inputs` and `outputs` say what it takes and gives, by name.

    `names` gives for each initializer that is on the server its name in the state dict, which is its own where that
    can be a path of modules: letters after a dot are in a module of what stands before it.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    names: dict[str, str]

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.inputs = tuple(plan.graph.inputs)
        self.outputs = tuple(plan.graph.outputs)
        self.names = {}
        self._plan = plan
        self._places: dict[str, tuple[nn.Module, str]] = {}
        statistics = _statistics(plan)
        for name, array in plan.held.items():
            owner, key = self._place(name)
            tensor = tensor_of(array)
            is_own = name in plan.graph.initializers
            if is_own:
                path = next(path for path, module in self.named_modules() if module is owner)
                self.names[name] = f"{path}.{key}" if path else key
            if is_own and is_weight(array) and name not in statistics:
                owner.register_parameter(key, nn.Parameter(tensor))
            else:
                owner.register_buffer(key, tensor, persistent=is_own)
            self._places[name] = owner, key
        # The arrays themselves have done their work.
        plan.held = dict.fromkeys(plan.held, np.empty(0))
        plan.graph.initializers = {}
        self.eval()

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """The module and the name in it that an initializer has."""
        owner: nn.Module = self
        parts = name.split(".")
        if all(parts) and len(parts) <= _DEEPEST:
            *path, key = parts
            for part in path:
                inner = owner._modules.get(part)
                if inner is None:
                    if hasattr(owner, part):
                        break
                    inner = _Part()
                    owner.add_module(part, inner)
                owner = inner
            else:
                if not hasattr(owner, key):
                    return owner, key
        key = name.replace(".", "_")
        while hasattr(self, key) or key in self._plan.held or not key:
            key += "_"
        return self, key

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The graph's outputs for its inputs, which are given in order or by name: a tensor, or several by name."""
        values = self._bound(inputs, named)
        for name, (owner, key) in self._places.items():
            values[name] = getattr(owner, key)
        numbers: dict[str, Array] = dict(self._plan.constants)
        for node, is_here, unneeded in self._plan.steps:
            try:
                if is_here:
                    made: Sequence[Any] = _run_here(node, values, numbers)
                    numbers.update(zip(node.outputs, made, strict=False))
                else:
                    made = _run(node, values, numbers)
                    values.update(zip(node.outputs, made, strict=False))
            except TensorError as error:
                error.add_note(f"in {node} of the graph {self._plan.graph.name!r}")
                raise
            except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
                # Numbers of the graph that Python or numpy will not take.
                raise TensorValueError(f"{node}: {error}") from error
            for name in unneeded:
                values.pop(name, None)
                numbers.pop(name, None)
        found = {value.name: values[value.name] for value in self.outputs}
        return found if len(found) > 1 else next(iter(found.values()))

    def _bound(self, inputs: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
        """The inputs by name. Raises: TypeError or ValueError for what the graph does not take."""
        names = [value.name for value in self.inputs]
        given = dict(zip(names, inputs, strict=False))
        if len(inputs) > len(names) or len(given | named) != len(names) or set(given) & set(named):
            takes = ", ".join(map(_told, self.inputs)) or "nothing"
            raise TensorTypeError(f"the graph takes {takes}; given were {len(inputs)} in order, by name {[*named]}")
        given |= named
        if set(given) != set(names):
            raise TensorTypeError(f"the graph takes {names}, and nothing called {sorted(set(given) - set(names))}")
        varying: dict[str, int] = {}
        for value in self.inputs:
            tensor = given[value.name]
            if isinstance(tensor, np.ndarray):
                tensor = given[value.name] = tensor_of(tensor)
            _check(value, tensor, varying)
        return given

    def extra_repr(self) -> str:
        """What the graph takes and gives."""
        takes, gives = (", ".join(map(_told, values)) for values in (self.inputs, self.outputs))
        return f"{self._plan.graph.name}, {len(self._plan.steps)} steps: {takes} -> {gives}"


class _Part(nn.Module):
    """Holds the initializers whose names begin alike."""


def tensor_of(array: Array) -> Any:
    """A tensor of an array, also of a type that numpy has from elsewhere."""
    if array.dtype.kind != "V" and array.dtype.isbuiltin == 1:
        return tc.tensor(array)
    bits = array.view(f"i{array.dtype.itemsize}")
    return tc.tensor(bits).view(getattr(tc, array.dtype.name))


def _statistics(plan: Plan) -> set[str]:
    """The values that are used as statistics, and as nothing else."""
    uses = [
        (name, (step.node.kind, at) in _STATISTICS) for step in plan.steps for at, name in enumerate(step.node.inputs)
    ]
    return {name for name, is_one in uses if is_one} - {name for name, is_one in uses if not is_one}


def _run_here(node: Node, values: dict[str, Any], numbers: dict[str, Array]) -> Sequence[Array]:
    if (node.domain, node.kind) in SIZES:
        return [sizes(node, _shape_of(node, values, numbers))]
    try:
        return fold(node, [numbers[name] if name else None for name in node.inputs])
    except TooLarge:
        raise TensorRuntimeError(f"{node} makes more of the sizes of tensors than is computed on the client") from None


def _shape_of(node: Node, values: dict[str, Any], numbers: dict[str, Array]) -> Any:
    name = node.inputs[0]
    return values[name].shape if name in values else numbers[name].shape


def _run(node: Node, values: dict[str, Any], numbers: dict[str, Array]) -> Sequence[Any]:
    if (node.domain, node.kind) in SIZES:
        # Each size is an argument of a call by itself: recorded for two batches, it is seen to follow the batch.
        found = sizes(node, _shape_of(node, values, numbers))
        each = [tc.full((), size, dtype=tc.int64) for size in found.reshape(-1).tolist()]
        if found.ndim == 0:
            return each
        return [tc.stack(each) if each else tc.zeros(0, dtype=tc.int64)]
    row = TABLE[node.domain, node.kind]
    inputs = [
        None if not name else numbers[name] if at in row.numbers else values[name]
        for at, name in enumerate(node.inputs)
    ]
    made = row.run(node, *inputs, **{name: values[held] for name, held in node.tensors.items()})
    results = list(made) if isinstance(made, (tuple, list)) else [made]
    if len(results) < len(node.outputs):
        raise TensorRuntimeError(f"{node} has {len(node.outputs)} outputs, and {len(results)} were made")
    return results


def _check(value: Value, tensor: Any, varying: dict[str, int]) -> None:
    """Raises: TypeError or ValueError for a tensor that is not what the graph says of this input."""
    if not isinstance(tensor, tc.Tensor):
        raise TensorTypeError(f"the input {value.name!r} is to be a tensor, and is a {type(tensor).__name__}")
    fits = tensor.dtype == value.dtype
    if fits and value.shape is not None:
        shape = tensor.shape
        fits = len(shape) == len(value.shape)
        for size, wanted in zip(shape, value.shape, strict=False):
            if isinstance(wanted, str):
                wanted = varying.setdefault(wanted, size)
            fits = fits and wanted in (None, size)
    if not fits:
        kind = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        sizes_so_far = f", where {varying}" if varying else ""
        raise TensorValueError(f"the input {_told(value)} is given {kind}{sizes_so_far}")


def _told(value: Value) -> str:
    shape = "" if value.shape is None else f"[{', '.join('?' if size is None else str(size) for size in value.shape)}]"
    return f"{value.name}: {str(value.dtype).removeprefix('torch.')}{shape}"
