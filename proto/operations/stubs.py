"""The signatures that ship with torch as .pyi files, read as syntax trees.

Owns the translation of a stub's annotation into the coarse types that the client can tell apart without torch.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

_ROOT = Path(torch.__file__).parent


@dataclass(frozen=True)
class Param:
    """One parameter: its coarse type is atoms joined by "|", for instance "int|ints|none"."""

    name: str  # "*size" takes all further positional arguments
    type: str
    required: bool
    keyword_only: bool


@dataclass(frozen=True)
class Overload:
    """One way to call a function."""

    params: tuple[Param, ...]
    returns: str  # the annotation as written
    text: str  # "(input: Tensor, dim: int) -> Tensor"


_ATOMS = {
    "Tensor": "tensor",
    "_int": "int",
    "int": "int",
    "SymInt": "int",
    "_bool": "bool",
    "bool": "bool",
    "_float": "float",
    "float": "float",
    "_complex": "number",
    "Number": "number",
    "str": "str",
    "None": "none",
    "_dtype": "dtype",
    "_layout": "layout",
    "_device": "device|str",
    "DeviceLikeType": "device|str|int",
    "Device": "device|str|int|none",
    "memory_format": "memory_format",
    "Generator": "generator",
    "_size": "ints",
    "Size": "ints",
    "_size_1_t": "int|ints",
    "_size_2_t": "int|ints",
    "_size_3_t": "int|ints",
    "_size_any_t": "int|ints",
    "_size_2_opt_t": "int|ints",
    "_size_3_opt_t": "int|ints",
    "_ratio_any_t": "float|floats",
    "Literal[True]": "true",
    "Literal[False]": "false",
    "tuple[Tensor, ...]": "tensors",
    "list[Tensor]": "tensors",
    "Sequence[Tensor]": "tensors",
    "Sequence[_int]": "ints",
    "Sequence[_int | SymInt]": "ints",
    "Sequence[_float]": "floats",
}


def coarse(annotation: str) -> str:
    """The coarse type of an annotation; "any" for what the client cannot tell apart."""
    atoms: list[str] = []
    for part in split_union(annotation):
        atoms.extend(_ATOMS.get(part, "str" if part.startswith("Literal['") else "any").split("|"))
    return "any" if "any" in atoms else "|".join(dict.fromkeys(atoms))


def split_union(annotation: str) -> list[str]:
    """The parts of a union that is written with "|"."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(annotation):
        if character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
        elif character == "|" and depth == 0:
            parts.append(annotation[start:position].strip())
            start = position + 1
    return [*parts, annotation[start:].strip()]


def _readable(annotation: str) -> str:
    text = re.sub(r"\b_(int|float|bool|complex|dtype|device|layout|size|qscheme)\b", r"\1", annotation)
    text = (
        re.sub(r"\bsize\b", "Size", text).replace("int | SymInt", "int").replace("DeviceLikeType", "device | str | int")
    )
    return re.sub(r"\b(Size)(_\w+_t)\b", r"size\2", text)


def _overload(node: ast.FunctionDef) -> Overload:
    arguments = node.args
    params: list[Param] = []
    texts: list[str] = []
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    for index, argument in enumerate(positional):
        annotation = ast.unparse(argument.annotation) if argument.annotation else "Any"
        default = arguments.defaults[index - first_default] if index >= first_default else None
        if argument.arg == "self" and argument.annotation is None:
            texts.append("self")
            params.append(Param("self", "tensor", True, False))
            continue
        params.append(Param(argument.arg, coarse(annotation), default is None, False))
        texts.append(_parameter_text(argument.arg, annotation, default))
        if arguments.posonlyargs and index == len(arguments.posonlyargs) - 1:
            texts.append("/")
    if arguments.vararg:
        annotation = ast.unparse(arguments.vararg.annotation) if arguments.vararg.annotation else "Any"
        params.append(Param("*" + arguments.vararg.arg, coarse(annotation), False, False))
        texts.append(f"*{arguments.vararg.arg}: {_readable(annotation)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        annotation = ast.unparse(argument.annotation) if argument.annotation else "Any"
        params.append(Param(argument.arg, coarse(annotation), default is None, True))
        texts.append(_parameter_text(argument.arg, annotation, default))
    if arguments.kwarg:
        params.append(Param("**" + arguments.kwarg.arg, "any", False, True))
        texts.append(f"**{arguments.kwarg.arg}")
    returns = ast.unparse(node.returns) if node.returns else "Any"
    return Overload(tuple(params), returns, f"({', '.join(texts)}) -> {_readable(returns)}")


def _parameter_text(name: str, annotation: str, default: ast.expr | None) -> str:
    text = f"{name}: {_readable(annotation)}"
    return text if default is None else f"{text} = {ast.unparse(default)}"


@cache
def _read(file: str, class_name: str | None = None) -> dict[str, list[Overload]]:
    found: dict[str, list[Overload]] = defaultdict(list)
    body = ast.parse((_ROOT / file).read_text(encoding="utf-8")).body
    if class_name is not None:
        body = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == class_name).body
    for node in body:
        if isinstance(node, ast.FunctionDef):
            overload = _overload(node)
            if overload not in found[node.name]:
                found[node.name].append(overload)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = ast.unparse(node.annotation)
            found[node.target.id].append(Overload((), annotation, _readable(annotation)))
    return dict(found)


def overloads(name: str) -> list[Overload]:
    """The shipped overloads of an operation, in the order in which torch tries them; empty without stubs."""
    prefix, _, leaf = name.removesuffix(".__get__").rpartition(".")
    match prefix:
        case "":
            return _read("_C/_VariableFunctions.pyi").get(leaf, [])
        case "Tensor":
            return _read("_C/__init__.pyi", "TensorBase").get(leaf, [])
        case "Generator":
            return _read("_C/__init__.pyi", "Generator").get(leaf, [])
        case "nn.functional":
            found = _read("nn/functional.pyi").get(leaf)
            return found or _read("_C/_nn.pyi").get(leaf) or _read("_C/_VariableFunctions.pyi").get(leaf, [])
        case _:
            return []
