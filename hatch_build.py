"""Builds what is compiled, where there is a C compiler: in place for an editable install, else into the wheel.

    python hatch_build.py    in place, and tells what went wrong

Each has its equal in pure Python: without a compiler, or where one fails, the wheel is one of pure Python.
TCLIENT_NATIVE=0 keeps it so.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
# Where they lie, and the packages that they belong to.
SOURCES = {
    "client/tclient/_native/core.pyx": "tclient/_native",
    "server/tserver/engine/packed_core.pyx": "tserver/engine",
}
CYTHON = "cython>=3.1,<4"


class NativeHook(BuildHookInterface[Any]):
    """What hatch asks."""

    def dependencies(self) -> list[str]:
        """Cython, where it is of use."""
        return [CYTHON] if is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is written."""
        if self.target_name != "wheel" or not is_wanted():
            return
        try:
            if version == "editable":
                build_in_place()
                return
            folder = Path(tempfile.mkdtemp())
            found = {str(build(source, folder)): package for source, package in SOURCES.items()}
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            self.app.display_info(f"what can be compiled stays pure Python: {error}")
            return
        build_data["force_include"].update({path: f"{at}/{Path(path).name}" for path, at in found.items()})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compiler() -> list[str]:
    """How C is compiled for this Python."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def is_wanted() -> bool:
    """Whether there is a way to build, and nobody has said no."""
    return (
        os.environ.get("TCLIENT_NATIVE") != "0"
        and sys.implementation.name == "cpython"
        and os.name == "posix"
        and shutil.which(compiler()[0]) is not None
        and Path(sysconfig.get_path("include"), "Python.h").exists()
    )


def build_in_place() -> None:
    """Build beside the sources what is not of these sources."""
    for source in SOURCES:
        build(source, (ROOT / source).parent)


def build(source: str, folder: Path) -> Path:
    """The module of a source, in a folder. Raises: ImportError, OSError, CalledProcessError."""
    from Cython.Compiler.Main import compile as translate

    at = ROOT / source
    built = folder / f"{at.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    with tempfile.TemporaryDirectory() as beside:
        written = Path(beside, f"{at.stem}.c")
        if translate(str(at), output_file=str(written)).num_errors:
            raise OSError(f"{source} cannot be translated to C")
        # Whole or not at all: a Python that runs may have the old one open.
        made = Path(beside, built.name)
        command = [*compiler(), "-O2", "-fPIC", "-shared", "-fwrapv", "-DNDEBUG"]
        command += [f"-DTC_SOURCE={zlib.crc32(at.read_bytes())}u", f"-I{sysconfig.get_path('include')}"]
        subprocess.run([*command, str(written), "-o", str(made)], check=True, capture_output=True, text=True)
        new = folder / f"{built.name}.new"
        shutil.copyfile(made, new)
    new.replace(built)
    return built


if __name__ == "__main__":
    try:
        build_in_place()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.stderr)
