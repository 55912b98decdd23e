"""Installs the wheel alone into a bare environment, and tries it against a server of this tree.

    python -m tests.wheel [PYTHON ...]

For each Python named, and for the newest one that the machine has beyond this one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.serving import ROOT, serving

SMOKE = Path(__file__).with_name("smoke.py")


def main() -> None:
    """Build, install, try. Ends with an error that says which step failed."""
    pythons = sys.argv[1:] or [sys.executable, *newer()]
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        at = Path(folder)
        for number, python in enumerate(pythons):
            bare, dist = at / f"bare-{number}", at / f"dist-{number}"
            run(python, "-m", "venv", str(bare))
            # One for each Python: what is compiled is for that one only.
            made = ("wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist), str(ROOT))
            run(str(bare / "bin" / "python"), "-m", "pip", *made)
            (wheel,) = dist.glob("*.whl")
            run(str(bare / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel), constrained=True)
            run(str(bare / "bin" / "python"), "-m", "pip", "check")
            run(str(bare / "bin" / "python"), "-P", str(SMOKE), server.address)


def newer() -> list[str]:
    """The newest Python that this machine has, if it is newer than this one and works."""
    places = [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep)]
    places += (Path.home() / ".pyenv" / "versions").glob("3.*/bin")
    found: dict[int, str] = {}
    for place in places:
        for each in place.glob("python3.*"):
            if (named := re.fullmatch(r"python3\.(\d+)", each.name)) and int(named[1]) > sys.version_info.minor:
                works = subprocess.run([str(each), "-c", "import venv, ensurepip"], capture_output=True, check=False)
                if works.returncode == 0:
                    found.setdefault(int(named[1]), str(each))
    return [found[max(found)]] if found else []


def run(*command: str, constrained: bool = False) -> None:
    """Run a step, away from this tree and its path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if constrained:
        environment["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    done = subprocess.run(command, cwd=ROOT.anchor, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    main()
