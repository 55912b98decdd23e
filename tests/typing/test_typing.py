"""A strict type checker takes what people write, and refuses what is wrong at the line where it is wrong.

One run of mypy sees everything: the programs beside this file, and one program of wrong lines.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

from tests.support.serving import ROOT

HERE = Path(__file__).parent
ACCEPTED = ("course.py", "training.py")

# A wrong line, and mypy's word for what is wrong.
WRONG = {
    "adding a text to a tensor": ('x + "a"', "operator"),
    "multiplying matrices with a number": ("x @ 3", "operator"),
    "an index that is a text": ('x["a"]', "index"),
    "assigning a text": ('x[0] = "a"', "index|call-overload|assignment|arg-type"),
    "a function that does not exist": ("tclient.ad(x, x)", "attr-defined"),
    "a method that does not exist": ("x.ad(x)", "attr-defined"),
    "a property that does not exist": ("print(x.shap)", "attr-defined"),
    "a function that functional does not have": ("F.reluu(x)", "attr-defined"),
    "a function that linalg does not have": ("tclient.linalg.svdd(x)", "attr-defined"),
    "a function that fft does not have": ("tclient.fft.fff(x)", "attr-defined"),
    "a function that cuda does not have": ("tclient.cuda.is_availble()", "attr-defined"),
    "a layer that does not exist": ("nn.Lineer(1, 2)", "attr-defined"),
    "an optimiser that does not exist": ("optim.Adm([x])", "attr-defined"),
    "an error that does not exist": ("tclient.TensorErr", "attr-defined"),
    "too few arguments": ("tclient.add(x)", "call-arg"),
    "a keyword that does not exist": ("tclient.add(x, x, beta=2)", "call-arg"),
    "a list where a tensor belongs": ("tclient.sigmoid([1.0])", "arg-type"),
    "a text where a tensor belongs": ('F.relu("a")', "arg-type"),
    "a number where a list of tensors belongs": ("tclient.cat(3)", "arg-type"),
    "a tensor where a list of tensors belongs": ("tclient.stack(x)", "arg-type"),
    "a text where a number belongs": ('x.clamp_min("0")', "arg-type|call-overload"),
    "a text where a dim belongs": ('F.softmax(x, dim="rows")', "arg-type"),
    "a text where a dtype belongs": ('tclient.zeros(2, dtype="float32")', "call-overload"),
    "a number where a device belongs": ("x.to(device=1.5)", "call-overload"),
    "a text where a size belongs": ('tclient.zeros("2")', "arg-type|call-overload"),
    "a text where sizes belong": ('x.view("2")', "arg-type|call-overload"),
    "a name where an array belongs": ('tclient.from_numpy("a")', "arg-type"),
    "a tensor used as a text": ("text: str = x.sum()", "assignment"),
    "a tensor used as a number": ("number: float = x.sum()", "assignment"),
    "a number of an element used as a text": ("letters: str = x.item()", "assignment"),
    "a shape used as a number": ("count: int = x.shape", "assignment"),
    "named results used as a tensor": ("largest: Tensor = x.max(dim=0)", "assignment"),
    "a field that the results do not have": ("x.max(dim=0).value", "attr-defined"),
    "two results taken for three": ("a, b, c = x.sort()", "misc"),
    "calling a tensor": ("x(1)", "operator"),
    "calling a property": ("x.shape()", "operator"),
    "a dtype that does not exist": ("tclient.float31", "attr-defined"),
    "a layer with a text for its width": ('nn.Linear(2, "3")', "arg-type"),
    "an optimiser whose rate is a text": ('optim.SGD([x], lr="0.1")', "arg-type"),
    "an address that is a number": ("tclient.connect(50051)", "arg-type"),
    "a session of a keyword that does not exist": ('tclient.connect("h:1", timeout=3)', "call-arg"),
    "setting the shape": ("x.shape = tclient.Size([2])", "misc"),
    "a coroutine that nobody waits for": ("array: np.ndarray = x.numpy_async()", "assignment"),
}

_PROLOGUE = """\
import numpy as np

import tclient
import tclient.nn.functional as F
from tclient import Tensor, nn, optim

def wrong(x: Tensor) -> None:
"""
_LINE = re.compile(r"^(?P<file>.*?):(?P<line>\d+): error: (?P<text>.*?)(?:  \[(?P<code>[\w-]+)\])?$")

Found = dict[str, dict[int, list[tuple[str, str]]]]  # file -> line -> errors, each with its word


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What mypy says, by file and line."""
    program = tmp_path_factory.mktemp("typing") / "wrong.py"
    program.write_text(_PROLOGUE + "".join(f"    {line}\n" for line, _ in WRONG.values()), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", f"{ROOT / 'client'}:{ROOT / 'proto'}")
        output, trouble, _ = api.run(
            [
                "--strict",
                "--config-file=",
                f"--cache-dir={ROOT / '.mypy_cache' / 'typing'}",
                "--follow-imports=silent",  # only what people write is judged here
                "--disable-error-code=type-arg",  # a plain np.ndarray is what people write
                "--no-error-summary",
                "--hide-error-context",
                "--no-color-output",
                str(program),
                *(str(HERE / name) for name in ACCEPTED),
            ]
        )
    assert not trouble, trouble
    errors: Found = {}
    for line in output.splitlines():
        match = _LINE.match(line)
        if match:
            place = errors.setdefault(Path(match["file"]).name, {}).setdefault(int(match["line"]), [])
            place.append((match["code"] or "", match["text"]))
    return errors


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_people_write_is_accepted(found: Found, name: str) -> None:
    assert found.get(name, {}) == {}


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[name.replace(" ", "-") for name in WRONG])
def test_what_is_wrong_is_refused_at_its_line(found: Found, number: int) -> None:
    line, codes = list(WRONG.values())[number]
    told = found.get("wrong.py", {}).get(_PROLOGUE.count("\n") + 1 + number, [])
    assert {code for code, _ in told} & {*codes.split("|")}, f"{line}: {told}"


def test_nothing_else_is_refused_in_the_program_of_wrong_lines(found: Found) -> None:
    first = _PROLOGUE.count("\n") + 1
    assert set(found["wrong.py"]) <= {*range(first, first + len(WRONG))}
