"""What the images install is pinned: versions as everywhere else, and hashes, which pip is told to insist on."""

from __future__ import annotations

import re

from tests.support.serving import ROOT

PINNED = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
FILES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docker" / "requirements").iterdir())}


def pins() -> dict[str, str]:
    return {name: version for text in FILES.values() for name, version, _ in PINNED.findall(text)}


def test_every_package_has_hashes() -> None:
    for name, text in FILES.items():
        assert len(PINNED.findall(text)) == text.count("=="), name
    assert {"grpcio", "aiohttp", "safetensors", "ray", "hatchling", "torch"} <= pins().keys()


def test_versions_are_those_that_are_tested() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.partition(" ")[0].split("==") for line in lines if "==" in line and not line.startswith("#"))
    ours = pins()
    # hatchling builds the wheel, in an image that keeps nothing else of it.
    differ = {name for name in tested.keys() & ours.keys() if tested[name] != ours[name]} - {"hatchling", "packaging"}
    assert not differ, "run `make lock`"


def test_the_images_install_nothing_else() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    commands = re.sub(r"\\\n\s*", "", text)
    installs = re.findall(r"-m pip (?:install|wheel) [^\n&;]*", commands)
    assert len(installs) >= 6
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install, install
