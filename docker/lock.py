"""Writes docker/requirements: every package of the images, its version and the hashes of its files, by uv.

    pip install uv && python docker/lock.py      `make lock`

Versions are those of constraints.txt; what that does not name (torch's own requirements) is the newest that fits.
torch's CPU build comes from an index of its own, and is pinned by its version alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docker" / "requirements"
HEADER = "# Made by docker/lock.py; `make lock` makes it anew.\n"
# What a CUDA build of torch needs besides what every build does.
CUDA = re.compile(r"torch|triton|cuda-.*|nvidia-(?!ml-py).*")


def compiled(*arguments: str) -> dict[str, str]:
    """The lines of each package that these arguments of `uv pip compile` come to."""
    command = ["uv", "pip", "compile", *arguments, "--constraint", "constraints.txt", "--generate-hashes"]
    command += ["--python-version", "3.11", "--python-platform", "linux", "--no-header", "--no-annotate", "--quiet"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    return {part.partition("==")[0]: part for part in parts if "==" in part}


def main() -> int:
    """Write all."""
    # With what options of the server need that is small: tokens of other issuers, traces.
    of_server = ("--extra", "server", "--extra", "jwt", "--extra", "otel")
    server = compiled("pyproject.toml", *of_server)
    with_ray = compiled("pyproject.toml", *of_server, "--extra", "cluster")
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("hatchling>=1.27,<2\n")
        wanted.flush()
        build = compiled(wanted.name)
    files = {
        "build": build,
        "server": {name: lines for name, lines in server.items() if not CUDA.fullmatch(name)},
        "cuda": {name: lines for name, lines in server.items() if CUDA.fullmatch(name)},
        "cluster": {name: lines for name, lines in with_ray.items() if name not in server},
    }
    FOLDER.mkdir(exist_ok=True)
    for name, packages in files.items():
        (FOLDER / f"{name}.txt").write_text(HEADER + "".join(packages[each] for each in sorted(packages)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
