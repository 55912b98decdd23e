"""`tclient run --profile`: which lines wait for the server, for what, how often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.launcher.running import PROGRAMS, launched, run
from tests.support.serving import ServerProcess

LINES = (PROGRAMS / "waits.py").read_text().splitlines()


def number_of(part: str) -> int:
    """The number of the line that has this."""
    (found,) = [number for number, line in enumerate(LINES, 1) if part in line]
    return found


@pytest.mark.parametrize("arguments", [[], ["fail"], ["fail", "--profile"]], ids=["its end", "an error", "Ctrl-C"])
def test_the_lines_that_wait_are_told_after_everything_else(server: ServerProcess, arguments: list[str]) -> None:
    theirs = run("waits.py", *arguments)
    ours = launched(server.address, "--profile", "waits.py", *arguments)
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)
    before, _, told = ours.stderr.rpartition("tclient: ")
    assert before == theirs.stderr
    assert "waits for the server\n" in told
    assert f"  waits.py:{number_of('loss.item')}  total += loss.item()\n" in told
    assert "values (Tensor.item): keep tensors (total += loss.detach()) and read once, behind the loop\n" in told


def test_a_file_gets_it_as_json(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "waits.json"
    done = launched(server.address, f"--profile={path}", "waits.py", "fail")
    assert "waits for the server" not in done.stderr
    found = json.loads(path.read_text())
    lines = {entry["line"]: entry for entry in found["lines"]}
    read, asked, upload = (lines[number_of(part)] for part in ("loss.item", "points > 0", "ones((300"))
    assert (read["kind"], read["what"], read["waits"]) == ("values", "Tensor.item", 7)
    assert (asked["kind"], asked["what"], asked["waits"]) == ("shape", "Tensor.shape", 1)
    assert (upload["kind"], upload["waits"]) == ("upload", 1)
    assert (read["file"], read["source"]) == (str(PROGRAMS / "waits.py"), "total += loss.item()")
    assert found["waits"] == sum(entry["waits"] for entry in found["lines"])
    assert 0 < sum(entry["seconds"] for entry in found["lines"]) == pytest.approx(found["waited_seconds"])
    assert found["waited_seconds"] < found["seconds"]
    assert sorted(found["lines"], key=lambda entry: -entry["seconds"]) == found["lines"]


def test_without_the_option_nothing_is_told(server: ServerProcess) -> None:
    assert launched(server.address, "waits.py", "--profile").stderr == ""


def test_a_wait_within_a_function_of_tclient_names_the_function_and_the_program_s_line(
    server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(
        "import json, torch\n\ndef written(x):\n    return json.dumps(x, default=torch.Tensor.tolist)\n\n"
        "written(torch.ones(2))\ntorch.distributions.Normal(0.0, torch.ones(2) * -1, validate_args=False)\n"
        "try:\n    torch.distributions.Normal(0.0, torch.ones(2) * -1)\nexcept ValueError:\n    pass\n"
    )
    done = launched(server.address, "--profile=waits.json", "program.py", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "waits.json").read_text())["lines"]
    assert {(entry["line"], entry["kind"], entry["what"].rpartition(".")[2]) for entry in found} == {
        (4, "values", "tolist"),
        (9, "check", "__init__"),
    }
