"""What is run where: the order of a graph's nodes, what numpy makes of it here, and what only the server can know.

A value is a constant, or known here from the sizes of tensors, or known to the server alone. What an operator needs to
know here (a shape, axes) must be one of the first two. Walks lists and not chains of calls: a graph may be deep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tclient._exceptions import TensorNotImplementedError
from tclient._onnx.folding import FOLDED, TooLarge, fold
from tclient._onnx.operators import TABLE, complaints
from tclient._onnx.reading import Array, Graph, Node, refused

# They ask for the sizes of their input, and not for its elements.
SIZES = {("", "Shape"), ("", "Size")}


class Step(NamedTuple):
    """One node that is run: here by numpy, or by the server; and the tensors that nothing needs after it."""

    node: Node
    is_here: bool
    unneeded: tuple[str, ...]


@dataclass
class Plan:
    """How a graph is run. Constants are those whose elements are needed here, held those that become tensors."""

    graph: Graph
    steps: list[Step]
    constants: dict[str, Array]
    held: dict[str, Array] = field(repr=False)


def plan_of(graph: Graph) -> Plan:
    """The plan of a graph. Raises: NotImplementedError that names all nodes that cannot be run."""
    nodes = _needed(graph)
    wrong = [f"{node}: {complaint}" for node in nodes if _key(node) in TABLE for complaint in complaints(node)]
    if wrong:
        raise TensorNotImplementedError("onnx.load: " + "; ".join(wrong))
    constants: dict[str, Array] = dict(graph.initializers)
    here = set(constants)
    # What follows from weights follows from those that the module has when it is called.
    weights = {name for name, array in constants.items() if is_weight(array)}
    run = [node for node in nodes if not _folded(node, constants, here, weights)]
    as_tensors, as_numbers = _demands(graph, run, constants, here)
    steps: list[tuple[Node, bool]] = []
    for node in run:
        if any(name in as_numbers for name in node.outputs):
            steps.append((node, True))
        if any(name in as_tensors for name in node.outputs):
            _hold_attributes(node, constants, as_tensors)
            steps.append((node, False))
    held = {name: array for name, array in constants.items() if name in as_tensors}
    numbers = {name: array for name, array in constants.items() if name in as_numbers}
    return Plan(graph, _released(steps, graph), numbers, held)


def _needed(graph: Graph) -> list[Node]:
    """The nodes that something of the outputs is made of."""
    needed = {value.name for value in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(filter(None, node.outputs)):
            kept.append(node)
            needed.update(node.inputs)
    return kept[::-1]


def _hold_attributes(node: Node, constants: dict[str, Array], as_tensors: set[str]) -> None:
    """Makes constants of the attributes of a node that its function takes as tensors."""
    found = TABLE.get(_key(node))
    for name in found.tensors.intersection(node.attributes) if found is not None else ():
        held = f"{node.outputs[0]}:{name}"
        if held in constants:
            raise refused(f"{node}: the name {held!r} is taken")
        value = node.attributes[name]
        constants[held] = np.array(value, np.float32 if any(isinstance(each, float) for each in value) else np.int64)
        node.tensors[name] = held
        as_tensors.add(held)


def _key(node: Node) -> tuple[str, str]:
    return node.domain, node.kind


def _is_constant(node: Node) -> bool:
    return _key(node) == ("", "Constant")


def _constant(node: Node) -> Array:
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    given = list(node.attributes.items())
    if len(given) == 1:
        ((name, value),) = given
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in kinds:
            return np.array(value, kinds[name])
    raise TensorNotImplementedError(f"onnx.load: {node} is a constant of {', '.join(node.attributes) or 'nothing'}")


def is_weight(array: Array) -> bool:
    """Whether an initializer is one that may be trained or loaded: numbers with a fraction, and more than a scalar."""
    return array.ndim > 0 and array.dtype.kind not in "iub"


def _folded(node: Node, constants: dict[str, Array], here: set[str], weights: set[str]) -> bool:
    """Whether the node is done with, since its outputs are constants; notes which values can be known here."""
    key = _key(node)
    if _is_constant(node):
        constants[node.outputs[0]] = _constant(node)
        here.add(node.outputs[0])
        return True
    given = [name for name in node.inputs if name]
    if key in SIZES:
        here.update(filter(None, node.outputs))
        if given[0] not in constants:
            return False
        made = [sizes(node, constants[given[0]].shape)]
    elif key in FOLDED and all(name in here for name in given):
        if not all(name in constants and name not in weights for name in given):
            here.update(filter(None, node.outputs))
            return False
        try:
            made = fold(node, [constants[name] if name else None for name in node.inputs])
        except TooLarge:
            return False
    else:
        return False
    if len(made) < len(node.outputs):
        raise refused(f"{node} makes {len(made)} outputs, and has {len(node.outputs)}")
    constants.update({name: array for name, array in zip(node.outputs, made, strict=False) if name})
    here.update(filter(None, node.outputs))
    return True


def sizes(node: Node, shape: Any) -> Array:
    """What a Shape or a Size gives for a shape."""
    if node.kind == "Size":
        return np.array(np.prod(shape, dtype=np.int64))
    return np.array(shape, np.int64)[node.get("start", 0) : node.get("end", None)]


def _demands(graph: Graph, run: list[Node], constants: dict[str, Array], here: set[str]) -> tuple[set[str], set[str]]:
    """The values that must be tensors, and those that must be known here."""
    as_tensors = {value.name for value in graph.outputs}
    as_numbers: set[str] = set()
    wrong: list[str] = []
    for node in reversed(run):
        is_tensor = any(name in as_tensors for name in node.outputs)
        is_number = any(name in as_numbers for name in node.outputs)
        given = [(at, name) for at, name in enumerate(node.inputs) if name]
        if _key(node) in SIZES:
            (as_numbers if given[0][1] in here else as_tensors).add(given[0][1])
            continue
        if is_number:
            as_numbers.update(name for _, name in given)
        if is_tensor:
            numbers = TABLE[node.domain, node.kind].numbers
            for at, name in given:
                if at not in numbers:
                    as_tensors.add(name)
                elif name in here:
                    as_numbers.add(name)
                else:
                    wrong.append(f"{node} needs the elements of {name!r}, its input {at}, which the server computes")
    if wrong:
        raise TensorNotImplementedError(
            "onnx.load: what has to be known before the graph is run must follow from constants and sizes: "
            + "; ".join(wrong[::-1])
        )
    return as_tensors, as_numbers


def _released(steps: list[tuple[Node, bool]], graph: Graph) -> list[Step]:
    """Each step with the values that it is the last to need."""
    kept = {value.name for value in graph.outputs}
    made: list[Step] = []
    for node, is_here in reversed(steps):
        last = {name for name in (*node.inputs, *node.outputs, *node.tensors.values()) if name and name not in kept}
        kept |= last
        made.append(Step(node, is_here, tuple(last)))
    return made[::-1]
