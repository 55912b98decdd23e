"""The texts of signatures, for people and for editors: valid Python, every parameter with a type that tclient has.

Torch says them in three ways: shipped stubs, annotations of Python functions, first lines of documentation with the
types in the operator schemas. This makes one of the three. Decides nothing about what the table says.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from typing import Any

from operations import schemas, stubs
from operations.lists import words
from operations.surface import Candidate

_TENSORS = "Tensor | Sequence[Tensor]"
_MANY = "sorted: bool = True, "
_UNIQUE = [
    "return_inverse: Literal[False] = False, return_counts: Literal[False] = False, dim: int | None = None) -> Tensor",
    "return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> tuple[Tensor, ...]",
]

# Reviewed: what no source says, or says wrongly.
REVIEWED: dict[str, list[str]] = {
    "Generator": ["(device: device | str | int | None = None) -> Generator"],
    "Tensor.__ipow__": ["(self, other: Tensor | Number | complex) -> Tensor"],
    "Tensor.__itruediv__": ["(self, other: Tensor | Number | complex) -> Tensor"],
    "Tensor.__matmul__": ["(self, other: Tensor) -> Tensor"],
    "Tensor.__pow__": ["(self, other: Tensor | Number | complex) -> Tensor"],
    "Tensor.__setitem__": ["(self, indices: Index | tuple[Index, ...], value: Tensor | Number | complex, /) -> None"],
    "Tensor.__delitem__": ["(self, key: Any, /) -> None"],
    "Tensor.dim_order": ["(self, *, ambiguity_check: bool | list[memory_format] = False) -> tuple[int, ...]"],
    "Tensor.is_shared": ["(self) -> bool"],
    "Tensor.__eq__": ["(self, other: object) -> Tensor"],
    "Tensor.__ne__": ["(self, other: object) -> Tensor"],
    "cdist": [
        "(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = 'use_mm_for_euclid_dist_if_necessary') -> Tensor"
    ],
    "broadcast_shapes": ["(*shapes: int | Sequence[int]) -> Size"],
    "broadcast_tensors": ["(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]"],
    "einsum": ["(equation: str, *operands: Tensor | Sequence[Tensor]) -> Tensor"],
    "get_device": ["(input: Tensor) -> int"],
    "lu": [
        "(A: Tensor, pivot: bool = True, get_infos: bool = False, out: tuple[Tensor, ...] | None = None)"
        " -> tuple[Tensor, ...]"
    ],
    "Tensor.lu": ["(self, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]"],
    "unique": [f"(input: Tensor, {_MANY}{line}" for line in _UNIQUE],
    "unique_consecutive": [f"(input: Tensor, {line}" for line in _UNIQUE],
    "Tensor.unique": [f"(self, {_MANY}{line}" for line in _UNIQUE],
    "Tensor.unique_consecutive": [f"(self, {line}" for line in _UNIQUE],
    **{f"atleast_{n}d": ["(tensor: Tensor, /) -> Tensor", "(*tensors: Any) -> tuple[Tensor, ...]"] for n in "123"},
}

# Types of parameters that torch leaves without one, by name.
_BY_NAME = {
    **dict.fromkeys(words("A B LD LU a b input other tensor x x1 x2 pivots tau"), "Tensor"),
    **dict.fromkeys(words("sorted return_inverse return_counts pivot get_infos keepdim create_graph"), "bool"),
    **dict.fromkeys(words("requires_grad check_errors"), "bool"),
    **dict.fromkeys(words("retain_graph sci_mode"), "bool | None"),
    **dict.fromkeys(words("precision threshold edgeitems linewidth"), "int | None"),
    "dim": "int | Sequence[int] | None",
    "dims": "int | Sequence[Sequence[int]]",
    "sizes": "int | Sequence[int]",
    "matrices": "Tensor",
    "tensors": _TENSORS,
    "inputs": f"{_TENSORS} | None",
    "gradient": "Tensor | None",
    "p": "float",
    "n": "int",
    "d": "float",
    "seed": "int",
    "profile": "str | None",
    "format_spec": "str",
    "out": "Tensor | None",
    "dtype": "dtype | None",
    "layout": "layout | None",
    "device": "device | str | int | None",
    "memory_format": "memory_format",
}

_NAMES = {
    "Size": "Sequence[int]",
    "_Index": "Index",
    "_size_any_t": "int | Sequence[int]",
    "_size_1_t": "int | Sequence[int]",
    "_size_2_t": "int | Sequence[int]",
    "_size_3_t": "int | Sequence[int]",
    "_size_2_opt_t": "int | None | Sequence[int | None]",
    "_size_3_opt_t": "int | None | Sequence[int | None]",
    "_ratio_any_t": "float | Sequence[float]",
    "ndarray": "np.ndarray[Any, Any]",
    "NoneType": "None",
    # Every result of autograd.grad that is a mapping was asked for with one, which few know.
    "dict[str, Tensor]": "",
    "list": "list[Any]",
    "list[int]": "Sequence[int]",
    "_C.Generator": "Generator",
    # Callables stay with the caller, and options of the compiler's have no place here.
    "Callable": "None",
    "LinearCrossEntropyOptions": "None",
}
_SHORTER = {
    "int | float | bool | complex": "Number | complex",
    "tuple[Tensor, ...] | list[Tensor]": "Sequence[Tensor]",
    "tuple[Tensor | None, ...] | list[Tensor | None]": "Sequence[Tensor | None]",
    "list[str | None]": "Sequence[str | None]",
}
_NOT_OURS = {"SymInt", "SymFloat", "GradientEdge"}


def _union(parts: list[str]) -> str:
    """The parts joined by "|", once each; None goes last, as people write it."""
    flat = dict.fromkeys(part for each in parts for part in stubs.split_union(each) if part)
    return " | ".join([part for part in flat if part != "None"] + ["None"] * ("None" in flat))


def _clean(node: ast.expr) -> str:
    """A type with the names that tclient has."""
    match node:
        case ast.Constant(value=None):
            return "None"
        case ast.Constant(value=str(text)):
            return clean(text)
        case ast.Constant():
            return ast.unparse(node)
        case ast.Name(id=name):
            return "" if name in _NOT_OURS else _NAMES.get(name, name)
        case ast.Attribute(attr=name):
            text = ast.unparse(node)
            if text == "torch.return_types.histogramdd":  # what it gives has a plain tuple inside, and no fixed names
                return "tuple[Tensor, tuple[Tensor, ...]]"
            if text.startswith("torch.return_types."):
                return text
            return "" if name in _NOT_OURS else _NAMES.get(name, name)
        case ast.BinOp(left=left, right=right):
            return _union([_clean(left), _clean(right)])
        case ast.Call(args=[inner, *_]):  # ForwardRef('Tensor')
            return _clean(inner)
        case ast.Tuple(elts=items):
            return f"tuple[{', '.join(map(_clean, items))}]"
        case ast.Subscript(value=value, slice=slice_):
            outer = ast.unparse(value).rpartition(".")[2]
            items = slice_.elts if isinstance(slice_, ast.Tuple) else [slice_]
            if outer == "Union":
                return _union([_clean(item) for item in items])
            if outer == "Optional":
                return _union([_clean(slice_), "None"])
            if outer == "Literal":
                return ast.unparse(node).replace("typing.", "")
            if outer == "Callable":
                return "None"
            texts = [_clean(item) for item in items]
            text = f"{outer}[{', '.join(texts)}]" if all(texts) else ""
            return _NAMES.get(text, text)
    raise ValueError(f"a type that nobody has reviewed: {ast.unparse(node)}")


def clean(annotation: str) -> str:
    """An annotation of torch with the names that tclient has."""
    return _clean(ast.parse(annotation.strip(), mode="eval").body)


_SCHEMA_TYPES = {
    "Tensor": "Tensor",
    "number": "Number | complex",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "List[int]": "Sequence[int]",
    "List[Tensor]": "tuple[Tensor, ...] | list[Tensor]",
}


def _from_schemas(candidate: Candidate) -> dict[str, str]:
    """Types of parameters by name; the first one is also known as it is in the documentation."""
    found: dict[str, list[str]] = {}
    for schema in schemas.schemas(candidate.prefix, candidate.leaf):
        for argument in schema.arguments:
            text = str(argument.type)
            optional = text.startswith("Optional[")
            known = _SCHEMA_TYPES.get(text.removeprefix("Optional[").removesuffix("]") if optional else text)
            if known is None or argument.name in ("dtype", "layout", "device"):
                continue
            if known == "Sequence[int]" and argument.N is not None:
                known = "int | Sequence[int]"
            found.setdefault(argument.name, []).extend([known, "None"] if optional else [known])
    types = {name: _union(parts) for name, parts in found.items()}
    if "self" in types:
        types.setdefault("input", types["self"])
    return types


def _return_text(kind: Any) -> str:
    """What the table says of the result, as a type."""
    match kind:
        case "tensor" | "self":
            return "Tensor"
        case "none":
            return "None"
        case {"fields": _, "type": name}:
            return str(name)
        case {"count": count}:
            return f"tuple[{', '.join(['Tensor'] * count)}]"
    return "Any"


def _signature_text(signature: inspect.Signature) -> str:
    """As Python would print it, but with every annotation as an expression."""

    def expression(annotation: Any) -> Any:
        if annotation is inspect.Parameter.empty or annotation is inspect.Signature.empty:
            return annotation
        return _Bare(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))

    params = [p.replace(annotation=expression(p.annotation)) for p in signature.parameters.values()]
    return str(signature.replace(parameters=params, return_annotation=expression(signature.return_annotation)))


class _Bare:
    """Prints as its text, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _complete(candidate: Candidate, text: str, kind: Any) -> str:
    """The text with a type for every parameter and for the result."""
    head, _, tail = text.partition(") -> (")  # documentation writes a tuple so, which the table knows better
    text = head + ")" if tail else text
    text = re.sub(r"\*, bool (\w+)", r"*, \1", text)
    node = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(node, ast.FunctionDef)
    arguments = node.args
    known = {**_BY_NAME, **_from_schemas(candidate)}
    if isinstance(kind, dict):
        known["out"] = "tuple[Tensor, ...] | list[Tensor] | None"
    method = candidate.kind == "method"
    positional = [*arguments.posonlyargs, *arguments.args]
    if method and (not positional or positional[0].arg != "self"):
        arguments.args.insert(0, ast.arg("self"))
        positional.insert(0, arguments.args[0])
    hidden = _runtime_defaults(candidate.target) if "..." in text else {}
    defaults: dict[str, ast.expr] = {}
    if arguments.defaults:
        defaults.update(
            (a.arg, d) for a, d in zip(positional[-len(arguments.defaults) :], arguments.defaults, strict=True)
        )
    defaults.update((a.arg, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d)
    for argument in [*positional, *arguments.kwonlyargs][method:]:
        typed = _clean(argument.annotation) if argument.annotation else known.get(argument.arg, "Any")
        if typed == "Any" and argument.arg == "input":
            typed = "Tensor"
        if argument.arg in defaults:
            default = ast.unparse(defaults[argument.arg])
            typed = _for_default(typed, hidden.get(argument.arg, default) if default == "..." else default)
        for long, short in _SHORTER.items():
            typed = typed.replace(long, short)
        argument.annotation = ast.Name(typed)
    if arguments.vararg:
        annotation = arguments.vararg.annotation
        arguments.vararg.annotation = ast.Name(_clean(annotation) if annotation else _BY_NAME[arguments.vararg.arg])
    returned = ast.unparse(node.returns) if node.returns else _return_text(kind)
    # A result is a Size; a parameter takes any sequence.
    node.returns = ast.Name(returned if returned == "Size" else clean(returned))
    return written(node, hidden)


def _for_default(typed: str, default: str) -> str:
    """The type, with that of the default: a default that is None, or one number for all dimensions, says more."""
    if default == "None" and typed != "Any":
        return _union([typed, "None"])
    if default.lstrip("-").isdecimal() and typed.startswith("Sequence[int]"):
        return "int | " + typed
    return typed


@cache
def _runtime_defaults(target: Any) -> dict[str, str]:
    """The defaults that a stub writes as "...", where they are plain."""
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return {}
    plain = (bool, int, float, str, tuple, type(None))
    return {parameter.name: repr(parameter.default) for parameter in found if isinstance(parameter.default, plain)}


def written(node: ast.FunctionDef, runtime_defaults: dict[str, str]) -> str:
    """The signature of a function as people write it."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]

    def one(argument: ast.arg, default: ast.expr | None) -> str:
        text = f"{argument.arg}: {ast.unparse(argument.annotation)}" if argument.annotation else argument.arg
        if default is None:
            return text
        value = ast.unparse(default)
        return f"{text} = {runtime_defaults.get(argument.arg, value) if value == '...' else value}"

    parts = [one(argument, default) for argument, default in zip(positional, defaults, strict=True)]
    if arguments.posonlyargs:
        parts.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        parts.append("*" + one(arguments.vararg, None))
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += [
        one(argument, default) for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({', '.join(parts)}){returns}"


def is_deprecated(text: str) -> bool:
    """Whether it is one of torch's old orders, `add(self, alpha, other)`, that only warn today."""
    node = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(node, ast.FunctionDef)
    required = [a.arg for a in node.args.args[: len(node.args.args) - len(node.args.defaults)]]
    return any(name in ("alpha", "beta", "value") for name in required[:-1])


def _documented(target: Any) -> str:
    lines = (inspect.getdoc(target) or "").strip().split("\n")
    line = lines[0].strip()
    start = line.find("(")
    return " ".join(line[start:].split()) if start > 0 and line[:start].replace(".", "").isidentifier() else ""


def signatures(candidate: Candidate, kind: Any) -> list[str]:
    """How an operation is called, one text for each way; `kind` is what the table says of the result."""
    if candidate.name in REVIEWED:
        return REVIEWED[candidate.name]
    if candidate.kind in ("property", "setter"):
        return []
    overloads = stubs.overloads(candidate.name)
    if overloads:
        texts = [overload.text for overload in overloads]
    else:
        text = ""
        if not inspect.isbuiltin(candidate.target):
            try:
                text = _signature_text(inspect.signature(candidate.target))
            except (TypeError, ValueError):
                text = ""
        if not text or text == "(*args, **kwargs)":
            text = _documented(candidate.target)
        texts = [text] if text else []
    found = dict.fromkeys(_complete(candidate, text, kind) for text in texts)
    return [text for text in found if not is_deprecated(text)] or [*found]
