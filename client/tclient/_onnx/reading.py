"""A file of ONNX as plain data: nodes, initializers as arrays, inputs and outputs.

Owns what is believed of a file, which may be anybody's: sizes are compared before memory is taken, and names before
they are followed. Knows the package onnx, and imports it when a file is read; knows no tensors of the server.
"""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tclient._codec.dtypes import DTYPES as DTYPES_BY_NAME
from tclient._exceptions import TensorNotImplementedError, TensorValueError
from tensorcompute.tables import dtypes

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]

# The types of elements that tensors have here, by their numbers in ONNX, and those that it has besides.
DTYPES = {row.onnx: DTYPES_BY_NAME[row.name] for row in dtypes.DTYPES if row.onnx}
_OTHER_DTYPES = {
    8: "string",
    18: "float8e4m3fnuz",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
    24: "float8e8m0",
    25: "uint2",
    26: "int2",
}
# The first version of ONNX's own operators whose broadcasting is numpy's; older files can be converted.
_OLDEST = 7
# Nodes that the functions of a file may become, and the depth to which functions may call functions.
_MOST_NODES, _MOST_DEPTH = 1_000_000, 32


class Value(NamedTuple):
    """An input or output of a graph. A size is a number, the name of one that varies, or None; shape None is any."""

    name: str
    dtype: Any
    shape: tuple[int | str | None, ...] | None


@dataclass
class Node:
    """One node of a graph. An input that is left out is the empty string."""

    kind: str
    domain: str
    name: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    # Attributes that become tensors, and the names under which they are held.
    tensors: dict[str, str] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what it is where the node does not say."""
        return self.attributes.get(name, default)

    @property
    def operator(self) -> str:
        """The operator with its domain, where that is not ONNX's own."""
        return f"{self.domain}.{self.kind}" if self.domain else self.kind

    def __str__(self) -> str:
        named = repr(self.name) if self.name else f"that makes {next(filter(None, self.outputs), '')!r}"
        return f"node {named} ({self.operator})"


@dataclass
class Graph:
    """A graph whose nodes are in order, each name given once and before it is used."""

    name: str
    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]
    initializers: dict[str, Array] = field(repr=False)


class Unsupported:
    """In the place of an attribute that no operator here takes: a graph, a type, a sparse tensor."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return self.kind


def package() -> Any:
    """The package onnx. Raises: ImportError that says how to install it."""
    try:
        import onnx.checker
        import onnx.external_data_helper
        import onnx.helper
        import onnx.inliner
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(
            f"{error.msg}: onnx.load reads files by the package onnx; install it with: pip install 'tclient[onnx]'",
            name=error.name,
        ) from None
    return onnx


def read(source: str | os.PathLike[str] | bytes | bytearray | memoryview, known: Container[tuple[str, str]]) -> Graph:
    """The graph of a file, or of its bytes; known are the operators, with their domains.

    Raises: ValueError for what is no graph, NotImplementedError, a RuntimeError, for what cannot be run here.
    """
    onnx = package()
    folder: Path | None = None
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    else:
        path = Path(os.fspath(source))
        data = path.read_bytes()
        folder = path.parent
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf has an error of its own for each of its implementations
        raise refused(f"this is no model of ONNX: {error}") from None
    if not model.HasField("graph"):
        raise refused("this is no model of ONNX: it has no graph")
    return _graph(onnx, _inlined(onnx, model), folder, known)


def refused(reason: str) -> TensorValueError:
    """What is raised for a file that is not as it should be."""
    return TensorValueError(f"onnx.load: {reason}")


def dtype_of(number: int, name: str) -> Any:
    """The dtype for a number of ONNX. Raises: NotImplementedError, a RuntimeError, for types that tensors lack."""
    found = DTYPES.get(number)
    if found is None:
        raise TensorNotImplementedError(
            f"onnx.load: {name!r} is of {_OTHER_DTYPES.get(number, f'the type numbered {number}')}, which tensors lack"
        )
    return found


def _graph(onnx: Any, model: onnx.ModelProto, folder: Path | None, known: Container[tuple[str, str]]) -> Graph:
    proto = model.graph
    versions = {_domain(entry.domain): entry.version for entry in model.opset_import}
    if versions.get("", _OLDEST) < _OLDEST:
        raise TensorNotImplementedError(
            f"onnx.load: the file is of opset {versions['']}, and opsets are read from {_OLDEST} on; "
            "onnx.version_converter makes a newer one of it"
        )
    if max(model.ir_version, *versions.values(), 0) >= 1 << 31 or min(model.ir_version, *versions.values(), 0) < 0:
        raise refused(f"its versions are {model.ir_version} and {versions}")
    if proto.sparse_initializer:
        raise TensorNotImplementedError("onnx.load: sparse initializers are not read; make them dense")
    initializers: dict[str, Array] = {}
    for tensor in proto.initializer:
        name = _word(tensor.name)
        if not name or name in initializers:
            raise refused(f"two initializers, or one without a name, are called {name!r}")
        initializers[name] = array_of(onnx, tensor, folder)
    nodes = [_node(onnx, node, versions) for node in proto.node]
    _check_operators(onnx, model, nodes, known)
    # Files of old list their initializers among the inputs.
    inputs = [_value(found) for found in proto.input if found.name not in initializers]
    outputs = [_value(found) for found in proto.output]
    graph = Graph(_word(proto.name), inputs, outputs, nodes, initializers)
    _check_names(graph)
    return graph


def _check_operators(onnx: Any, model: onnx.ModelProto, nodes: list[Node], known: Container[tuple[str, str]]) -> None:
    """Raises: NotImplementedError that names all operators that are not known; ValueError for a node that is wrong."""
    missing: dict[str, list[Node]] = {}
    for node in nodes:
        if (node.domain, node.kind) not in known and (node.domain, node.kind) != ("", "Constant"):
            missing.setdefault(node.operator, []).append(node)
    if missing:
        told = [
            f"{operator}: {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
            for operator, found in sorted(missing.items())
        ]
        raise TensorNotImplementedError("onnx.load: there is nothing here for these operators: " + "; ".join(told))
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {_domain(entry.domain): entry.version for entry in model.opset_import}
    for node, proto in zip(nodes, model.graph.node, strict=True):
        try:
            onnx.checker.check_node(proto, context)
        except Exception as error:  # a ValidationError, or what the library below it throws
            raise refused(f"{node}: {str(error).strip().splitlines()[0]}") from None


def _check_names(graph: Graph) -> None:
    """Raises: ValueError where a name is made twice, or used before it is made."""
    known = set(graph.initializers)
    for value in graph.inputs:
        if not value.name or value.name in known:
            raise refused(f"the name {value.name!r} is given to two inputs, or to none")
        known.add(value.name)
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in known:
                raise refused(f"{node} takes {name!r}, which nothing before it makes")
        for name in filter(None, node.outputs):
            if name in known:
                raise refused(f"{node} makes {name!r}, which is there already")
            known.add(name)
    if not graph.outputs:
        raise refused("the graph has no outputs")
    seen: set[str] = set()
    for value in graph.outputs:
        if value.name not in known or value.name in seen:
            raise refused(f"the output {value.name!r} is made by nothing, or named twice")
        seen.add(value.name)


def _node(onnx: Any, proto: onnx.NodeProto, versions: dict[str, int]) -> Node:
    domain = _domain(proto.domain)
    attributes: dict[str, Any] = {}
    # An input may be left out at the end, too.
    inputs, outputs = _without_last(proto.input), _without_last(proto.output)
    node = Node(_word(proto.op_type), domain, _word(proto.name), versions.get(domain, 0), inputs, outputs, attributes)
    for attribute in proto.attribute:
        name = _word(attribute.name)
        if name in attributes:
            raise refused(f"{node} has the attribute {name!r} twice")
        attributes[name] = _attribute(onnx, attribute, node)
    if domain not in versions:
        raise refused(f"{node} is of a domain whose version the file does not give")
    return node


def _attribute(onnx: Any, proto: onnx.AttributeProto, node: Node) -> Any:
    kinds = onnx.AttributeProto
    if proto.ref_attr_name:
        raise refused(f"{node}: the attribute {proto.name!r} is that of a function, and the node is in none")
    if proto.type == kinds.FLOAT:
        return proto.f
    if proto.type == kinds.INT:
        return proto.i
    if proto.type == kinds.STRING:
        return _text(proto.s)
    if proto.type == kinds.FLOATS:
        return list(proto.floats)
    if proto.type == kinds.INTS:
        return list(proto.ints)
    if proto.type == kinds.STRINGS:
        return [_text(found) for found in proto.strings]
    if proto.type == kinds.TENSOR:
        if proto.t.data_type == kinds.STRING or proto.t.data_type not in DTYPES:
            return Unsupported(f"a tensor of {_OTHER_DTYPES.get(proto.t.data_type, 'an unknown type')}")
        return array_of(onnx, proto.t, None)
    known = proto.type in kinds.AttributeType.values()
    return Unsupported(kinds.AttributeType.Name(proto.type).lower() if known else "an unknown kind")


def array_of(onnx: Any, proto: onnx.TensorProto, folder: Path | None) -> Array:
    """The elements of a tensor in a file, which must be as many as it says."""
    label = f"the tensor {proto.name!r}"
    if proto.data_type not in DTYPES:
        dtype_of(proto.data_type, proto.name)
    if any(size < 0 for size in proto.dims):
        raise refused(f"{label} has the sizes {list(proto.dims)}")
    if len(proto.dims) > 64:
        raise refused(f"{label} has {len(proto.dims)} dimensions")
    element = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)
    size_bytes = math.prod(proto.dims) * element.itemsize
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        proto = _from_beside(onnx, proto, folder, size_bytes, label)
    if proto.HasField("raw_data"):
        there = len(proto.raw_data)
    else:
        field_name = onnx.helper.tensor_dtype_to_field(proto.data_type)
        values = getattr(proto, field_name)
        pair = 2 if proto.data_type in (14, 15) else 1
        there = len(values) // pair * element.itemsize if len(values) % pair == 0 else -1
    if there != size_bytes:
        sizes = list(proto.dims)
        raise refused(f"{label} is to have {size_bytes} bytes, by its sizes {sizes}, and has {max(there, 0)}")
    try:
        return np.array(onnx.numpy_helper.to_array(proto))
    except Exception as error:  # whatever a number is that its type does not hold
        raise refused(f"{label}: {error}") from None


def _from_beside(onnx: Any, proto: Any, folder: Path | None, size_bytes: int, label: str) -> Any:
    """A tensor whose elements lie in a file of their own, in the folder of the model or below it."""
    if folder is None:
        raise refused(f"{label} lies in another file: give the path of the model, and not its bytes")
    said = {_word(entry.key): _word(entry.value) for entry in proto.external_data}
    for key in ("offset", "length"):
        if key in said and not (said[key].isascii() and said[key].isdigit() and len(said[key]) < 20):
            raise refused(f"{label}: the {key} of its data is {said[key]!r}")
    if int(said.get("length", size_bytes)) != size_bytes:
        raise refused(f"{label} is to have {size_bytes} bytes, and says that {said['length']} lie in its file")
    found = onnx.TensorProto()
    found.CopyFrom(proto)
    if "length" not in said:
        found.external_data.add(key="length", value=str(size_bytes))
    try:
        # It refuses absolute paths, those that leave the folder, links and what is no plain file.
        onnx.external_data_helper.load_external_data_for_tensor(found, os.fspath(folder))
    except Exception as error:  # each of its checks has an error of its own
        raise refused(f"{label}: {error}") from None
    found.data_location = onnx.TensorProto.DEFAULT
    return found


def _value(proto: onnx.ValueInfoProto) -> Value:
    if not proto.type.HasField("tensor_type"):
        kind = proto.type.WhichOneof("value") or "a value of no type"
        raise TensorNotImplementedError(
            f"onnx.load: {proto.name!r} is a {kind.removesuffix('_type')}, and graphs take and give tensors here; "
            "skl2onnx makes tensors with options={'zipmap': False}"
        )
    found = proto.type.tensor_type
    if not found.HasField("shape"):
        return Value(_word(proto.name), dtype_of(found.elem_type, _word(proto.name)), None)
    sizes: list[int | str | None] = []
    for size in found.shape.dim:
        is_number = size.HasField("dim_value")
        if is_number and size.dim_value < 0:
            raise refused(f"{proto.name!r} has the size {size.dim_value}")
        sizes.append(size.dim_value if is_number else _word(size.dim_param) or None)
    return Value(_word(proto.name), dtype_of(found.elem_type, _word(proto.name)), tuple(sizes))


def _inlined(onnx: Any, model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions of its own: their nodes stand where they were called."""
    if not model.functions:
        return model
    functions = {(_domain(found.domain), _word(found.name)): found for found in model.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        if depth > _MOST_DEPTH:
            raise refused(f"its functions call functions more than {_MOST_DEPTH} deep, or themselves")
        total = 0
        for node in nodes:
            key = _domain(node.domain), node.op_type
            if key in functions and key not in counts:
                counts[key] = count(functions[key].node, depth + 1)
            total += counts.get(key, 1)
        return total

    if count(model.graph.node, 0) > _MOST_NODES:
        raise refused(f"its functions become more than {_MOST_NODES} nodes")
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # of the library below it, which has no tree of errors
        raise refused(f"its functions: {error}") from None


def _domain(name: str | bytes) -> str:
    found = _word(name)
    return "" if found == "ai.onnx" else found


def _word(name: str | bytes) -> str:
    """A name; protobuf gives bytes for one that is no text."""
    if isinstance(name, bytes):
        raise refused(f"a name in it is no text: {name!r}")
    return name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _without_last(names: Sequence[str]) -> tuple[str, ...]:
    kept = [_word(name) for name in names]
    while kept and not kept[-1]:
        kept.pop()
    return tuple(kept)
