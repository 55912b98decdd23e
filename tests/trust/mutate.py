"""Takes each defence away, in a copy of the tree, and sees its test fail.

    python -m tests.trust.mutate            all of them: about ten minutes
    python -m tests.trust.mutate region     those whose name has this word

Where one passes all the same, the exit code is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.serving import ROOT
from tests.trust.mutations import MUTATIONS, Mutation

_PARTS = ("client", "server", "proto", "tests")
# One that hangs without its defence has failed.
_MOST_S = 120.0


def main() -> int:
    """Try those that the command line names."""
    wanted = [each for each in MUTATIONS if all(word in each.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory(prefix="tserver-mutations-") as folder:
        copy = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        for part in _PARTS:
            shutil.copytree(ROOT / part, copy / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", copy)
        left = [each for each in wanted if not _is_seen(copy, each)]
    print(f"{len(wanted) - len(left)} of {len(wanted)} tests fail without their defence")
    return bool(left)


def _is_seen(copy: Path, mutation: Mutation) -> bool:
    """Whether the test fails without the defence."""
    path = copy / mutation.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutation.original, mutation.mutated), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / part) for part in _PARTS[:3])}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.test]
    try:
        ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=_MOST_S, check=False)
        # 1 is a test that failed; what else there is, such as no test of that name, shows nothing.
        seen = ran.returncode == 1
    except subprocess.TimeoutExpired:
        seen = True
    finally:
        path.write_text(whole, encoding="utf-8")
    print(f"{'fails ' if seen else 'PASSES'}  {mutation.name}", flush=True)
    return seen


if __name__ == "__main__":
    sys.exit(main())
