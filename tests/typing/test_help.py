"""`help`, `inspect.signature` and the stubs of an editor say the same of the functions that the table gives."""

from __future__ import annotations

import ast
import inspect
import pydoc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from operations import generate, pyi

import tclient
import tclient.nn.functional
from tclient._codec.operations import TABLE
from tclient._help import Declaration, page

_MODULES = {
    "": tclient,
    "nn.functional.": tclient.nn.functional,
    "linalg.": tclient.linalg,
    "fft.": tclient.fft,
    "special.": tclient.special,
    "autograd.": tclient.autograd,
}


def is_generated(value: Any) -> bool:
    """Whether the table gives it."""
    return isinstance(getattr(value, "__wrapped__", None), Declaration)


def generated() -> Iterator[tuple[str, Any]]:
    """The functions and methods that the table gives, by their names in torch."""
    owners = {**_MODULES, "Tensor.": tclient.Tensor, "Generator.": tclient.Generator}
    for name, operation in TABLE.items():
        prefix = name[: name.rfind(".") + 1]
        if operation.entry["kind"] in ("function", "method") and prefix in owners:
            found = vars(owners[prefix]).get(name.removeprefix(prefix))
            if is_generated(found):
                yield name, found


def test_every_function_says_its_signatures_and_where_torch_describes_it() -> None:
    names = 0
    for name, function in generated():
        names += 1
        text = function.__doc__
        assert text.startswith(name.rpartition(".")[2] + "("), name
        assert f"\nSource: {page(name)}" in text, name
        assert "\nRaises: " in text, name
    assert names > 1_300


def test_every_function_has_a_signature() -> None:
    for name, function in generated():
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, name
        assert "args" not in signature.parameters, name


def test_help_says_signature_shapes_errors_and_source() -> None:
    text = pydoc.plain(pydoc.render_doc(tclient.add))
    assert "add(input: Tensor | Number | complex, other: Tensor | Number | complex, *, alpha: Number | complex" in text
    assert "Shapes: the arguments broadcast" in text
    assert "RuntimeError" in text
    assert "Source: https://docs.pytorch.org/docs/stable/generated/torch.add.html" in text


def test_a_method_with_several_signatures_says_them_all() -> None:
    text = tclient.Tensor.max.__doc__ or ""
    assert "max(self) -> Tensor\n" in text
    assert "max(self, dim: int, keepdim: bool = False) -> torch.return_types.max\n" in text
    assert [*inspect.signature(tclient.Tensor.max).parameters] == ["self", "dim", "keepdim"]


def test_the_signature_of_a_function_shows_torchs_defaults() -> None:
    parameters = inspect.signature(tclient.nn.functional.batch_norm).parameters
    assert parameters["momentum"].default == 0.1
    assert parameters["training"].default is False


def test_what_is_said_is_not_torchs_text(torch_sentences: set[str]) -> None:
    for name, function in generated():
        prose = (line.strip() for line in (function.__doc__ or "").split("\n") if line.strip().endswith("."))
        assert not torch_sentences & {*prose}, name


@pytest.fixture(scope="module")
def torch_sentences() -> set[str]:
    """Lines of torch's documentation that are sentences."""
    import torch

    owners = [torch, torch.nn.functional, torch.linalg, torch.fft, torch.special, torch.Tensor]
    texts = [getattr(owner, name).__doc__ or "" for owner in owners for name in dir(owner) if name[0] != "_"]
    lines = {line.strip() for text in texts if isinstance(text, str) for line in text.split("\n")}
    return {line for line in lines if line.endswith(".") and len(line) > 20}


def test_the_committed_files_are_what_the_generator_gives_now() -> None:
    stale = [path.name for path, text in generate.files().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run python -m operations.generate"


def stub_names(path: Path) -> set[str]:
    """The names that a stub offers."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names if alias.name == alias.asname)
            if [alias.name for alias in node.names] == ["*"]:
                assert node.module is not None
                found |= stub_names(pyi.CLIENT.parent / (node.module.replace(".", "/") + ".pyi"))
    return found


@pytest.mark.parametrize("module", _MODULES.values(), ids=[name.strip(".") or "tclient" for name in _MODULES])
def test_a_stub_offers_what_the_module_has(module: ModuleType) -> None:
    path = Path(str(module.__file__)).with_suffix(".pyi")
    offered = stub_names(path)
    functions = {name for name, value in vars(module).items() if is_generated(value)}
    assert functions <= offered
    assert [name for name in offered if not hasattr(module, name)] == []


def test_the_stub_of_tensors_offers_what_they_have() -> None:
    (methods,) = (
        node
        for node in ast.parse((pyi.CLIENT / "_stubs" / "methods.pyi").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "TensorMethods"
    )
    offered = {node.name for node in methods.body if isinstance(node, ast.FunctionDef)}
    offered |= {node.target.id for node in methods.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    given = {name for name, value in vars(tclient.Tensor).items() if is_generated(value)}
    assert given <= offered
    assert [name for name in offered if not hasattr(tclient.Tensor, name)] == []
