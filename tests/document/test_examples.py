"""Rows N7, N9 to N11 and the demo: every file of client/examples runs, says what it should, and leaves its picture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

from tests.support.serving import ROOT, server_environment

EXAMPLES = ROOT / "client" / "examples"
TIMEOUT_S = 100.0

SAYS = {
    "tour": [
        r">>> torch\.ones\(\[3, 4\]\)\ntensor\(\[\[1\., 1\., 1\., 1\.\],",
        r">>> x\.size\(1\)\n2\n",
        r">>> row\ntensor\(\[  3, 100\], ",
        r"RuntimeError: The size of tensor a \(3\) must match the size of tensor b \(4\)[\s\S]*tour\.py",
    ],
    "perceptron_line": [
        r"\( 3\.0,  2\.0\) -> \+1\n",
        r"\(-2\.0, -1\.0\) -> -1\n",
        r"of 120 random points \d+ are on the positive side, \d+ are not",
    ],
    "collapse": [r"largest difference: \d\.\de-\d\d\n", r"with tanh between the layers it is \d\.\d\d"],
    "triangles_squares": [
        r"the best of 29160 lines gets [5-8]\d% of the shapes right",
        r"the network with 13 parameters gets 100% right",
    ],
    "decision_machine": [
        r"at 14: looks +1\.00 +1\.00 +0\.00 +0\.00\n",
        r"at 15: looks and chances +0\.00 +1\.00 +1\.00 +0\.00\n",
        r"first choice: Ana -> Bea -> Cleo -> Cleo\n",
    ],
    "learn_triangles_squares": [
        r"a line: loss 0\.\d+ -> 0\.[5-7]\d+, [5-7]\d% of the shapes right",
        r"the network: loss 0\.\d+ -> 0\.0\d+, 100% of the shapes right",
    ],
    "learn_decision_machine": [
        r"at 14 +loss 0\.\d+ -> 0\.\d+, right about [56]\d% of those it has not met\n",
        r"at 25 +loss 0\.\d+ -> 0\.\d+, right about 8\d% of those it has not met\n",
        r"super machine +loss [01]\.\d+ -> 0\.[12]\d+, right about 9\d% of those it has not met\n",
        r"weights found at 25: looks \+\d\.\d, chances \+\d\.\d, character \+\d\.\d, ",
    ],
    "learn_digits": [
        r"loss: 2\.\d+ -> 0\.0\d+\n",
        r"test accuracy: 9[789]\.\d%\n",
        r"saved and loaded again: 9[789]\.\d%\n",
    ],
    "hugging_face": [
        r"bert: BertForSequenceClassification, 41 tensors, all names matched\n",
        r"input_ids, attention_mask, token_type_ids -> scores \(3, 3\), classes \[\d, \d, \d\]\n",
        r"served as hugging-face-bert version 1, ready, .*input_ids int64 \(batch, length\), .* float32 \(batch, 3\)\n",
        r"the same from arrays: True\n",
        r"vit: ViTForImageClassification, 40 tensors, all names matched\n",
        r"resnet: ResNetForImageClassification, 74 tensors, all names matched\n",
    ],
    "demo": [
        r"accuracy: 9\d\.\d%\n",
        r"agreement with the local prediction: 100\.0%\n",
        r"throughput: [\d,]+ forwards/s, [\d,]+ rows/s\n",
    ],
}
PICTURES = {
    "perceptron_line": "perceptron_line.png",
    "collapse": "collapse.png",
    "triangles_squares": "triangles_squares.png",
    "decision_machine": "decision_machine.png",
    "learn_triangles_squares": "learn_triangles_squares.png",
    "learn_decision_machine": "learn_decision_machine.png",
    "learn_digits": "learn_digits.png",
    "demo": "digits.png",
}


def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one file as a person does, in a process group of its own, and return what it printed."""
    environment = server_environment(PYTHONWARNINGS="error::UserWarning")
    environment.pop("TCLIENT_ADDRESS", None)
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    with pytest.raises(ProcessLookupError):  # nothing that it started is left
        os.killpg(process.pid, 0)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("[!_]*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_and_says_what_it_should(name: str, server: Any, tmp_path: Path) -> None:
    done = run_example(name, "--address", server.address, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for pattern in SAYS[name]:
        assert re.search(pattern, done.stdout), f"{pattern!r} is not in\n{done.stdout}"
    if name in PICTURES:
        assert f"picture: {tmp_path / PICTURES[name]}" in done.stdout
        pixels = image.imread(tmp_path / PICTURES[name])
        height, width = pixels.shape[:2]
        assert width >= 600
        assert height >= 400
        assert pixels[..., :3].std() > 0.05  # no blank sheet


def test_without_an_address_an_example_starts_a_server_and_stops_it(tmp_path: Path) -> None:
    done = run_example("perceptron_line", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert (tmp_path / "perceptron_line.png").is_file()


def test_an_address_where_nobody_listens_is_named_in_the_error(tmp_path: Path) -> None:
    done = run_example("collapse", "--address", "127.0.0.1:1", "--out", str(tmp_path))
    assert done.returncode != 0
    assert "127.0.0.1:1" in done.stderr
