"""What `help` and `inspect.signature` say of the functions that the table of operations gives.

Signatures are torch's, the words are ours. Knows the table and its texts, nothing of tensors.
"""

from __future__ import annotations

import ast
import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import tensorcompute.v1
from tclient._codec.operations import Operation

_DOCS = "https://docs.pytorch.org/docs/stable/"
# Namespaces whose functions torch describes together, on one page.
_PAGES = {"special.": "special.html", "nn.init.": "nn.init.html", "Generator.": "generated/torch.Generator.html"}

_RESULTS = {
    "tensor": "Gives a tensor at once; reading its elements waits.",
    "self": "Changes its first argument in place and gives it back; does not wait.",
    "none": "Gives nothing, and does not wait.",
    "object": "Gives an object of the server at once.",
    "wait": "Waits for the answer of the server.",
    "by_signature": "Gives tensors at once where the arguments tell how many they are; else waits for the answer.",
}
_ERRORS = (
    "what torch raises, with torch's text, at the first read that needs the result: TypeError for arguments\n"
    "    that fit no signature, RuntimeError for shapes, dtypes or devices that do not go together, IndexError\n"
    "    for a dim out of range."
)


def _load(name: str) -> dict[str, Any]:
    (folder,) = tensorcompute.v1.__path__
    found: dict[str, Any] = json.loads((Path(folder) / name).read_bytes())
    return found


@cache
def signatures() -> dict[str, list[str]]:
    """The texts of torch's signatures by the name of the operation."""
    return _load("operations_signatures.json")


@cache
def _shapes() -> dict[str, str]:
    return {name: line for line, names in _load("operations_shapes.json").items() for name in names.split()}


def page(name: str) -> str:
    """The address of what torch says of an operation."""
    path = name.removesuffix(".__get__").removesuffix(".__set__")
    for prefix, found in _PAGES.items():
        if path.startswith(prefix):
            return f"{_DOCS}{found}#torch.{path}"
    if path.startswith("Tensor.") and (path != name or path.endswith("__")):
        return f"{_DOCS}tensors.html#torch.{path}"
    return f"{_DOCS}generated/torch.{path}.html"


def _result(returns: Any) -> str:
    if isinstance(returns, str):
        return _RESULTS[returns]
    if "fields" in returns:
        return f"Gives the tensors ({', '.join(returns['fields'])}) at once; reading their elements waits."
    return f"Gives {returns['count']} tensors at once; reading their elements waits."


def documentation(operation: Operation) -> str:
    """What `help` says of an operation."""
    name, entry = operation.name, operation.entry
    short = name.rpartition(".")[2]
    if entry["kind"] in ("property", "setter"):
        return f"torch.{name.rpartition('.')[0]}, asked of the server.\n\nSource: {page(name)}"
    lines = [short + text for text in signatures().get(name, ())]
    lines.append(f"\ntorch.{name}, run by the server. {_result(operation.returns)}\n")
    shape = _shapes().get(name)
    if shape:
        lines.append(f"Shapes: {shape}.")
    written = [each for each in entry.get("writes", ()) if each != "self"]
    if written:
        lines.append(f"Changes: {', '.join(written)}.")
    if "writes_if" in entry:
        lines.append(f"Changes: its arguments in place, if {entry['writes_if']['flag']} says so.")
    if "random" in entry:
        lines.append("Random: draws from the session's numbers (manual_seed), or from a generator that is given.")
    lines.append(f"Raises: {_ERRORS}")
    lines.append(f"Source: {page(name)}")
    return "\n".join(lines)


class Declaration:
    """How an operation is called, for `inspect.signature`: a function's `__wrapped__`, read when someone asks."""

    __slots__ = ("_operation",)

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    @property
    def __signature__(self) -> inspect.Signature | None:
        """The signature with the most parameters, if there are several; `__doc__` has all."""
        texts = signatures().get(self._operation.name)
        if not texts:
            return None
        return max(map(_signature, texts), key=lambda signature: len(signature.parameters))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self._operation.name} is only declared here")


class _Written:
    """A type or a default that is shown as torch writes it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _default(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _Written(ast.unparse(node))


def _signature(text: str) -> inspect.Signature:
    """The signature that a text says."""
    node = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(node, ast.FunctionDef)
    arguments, parameters, empty = node.args, [], inspect.Parameter.empty

    def add(argument: ast.arg, kind: Any, default: ast.expr | None) -> None:
        shown = empty if default is None else _default(default)
        annotation = empty if argument.annotation is None else _Written(ast.unparse(argument.annotation))
        parameters.append(inspect.Parameter(argument.arg, kind, default=shown, annotation=annotation))

    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    for index, (argument, default) in enumerate(zip(positional, [*missing, *arguments.defaults], strict=True)):
        before_slash = index < len(arguments.posonlyargs)
        add(
            argument,
            inspect.Parameter.POSITIONAL_ONLY if before_slash else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default,
        )
    if arguments.vararg is not None:
        add(arguments.vararg, inspect.Parameter.VAR_POSITIONAL, None)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        add(argument, inspect.Parameter.KEYWORD_ONLY, default)
    if arguments.kwarg is not None:
        add(arguments.kwarg, inspect.Parameter.VAR_KEYWORD, None)
    returned = empty if node.returns is None else _Written(ast.unparse(node.returns))
    return inspect.Signature(parameters, return_annotation=returned)
