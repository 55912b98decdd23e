"""Manifests and files of programs that somebody has tampered with, sealed as sound ones are.

What is wrong is refused with a reason and set aside, and the server serves on.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from tests.models.programs import ask_by_name, convolution, convolved, create_program
from tests.support.raw import Raw
from tests.support.refusals import parse
from tests.support.serving import ServerProcess
from tserver.storage.files import seal

COUNT = 300
SOUND = "sound"
# What may stand in the place of anything.
HOSTILE: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1,
        3,
        2**31,
        2**63,
        -(2**63),
        2**64,
        10**400,
        1e308,
        float("nan"),
        "",
        "0",
        "-1",
        "x" * 300_000,
    ),
    *(
        [],
        {},
        [[]],
        [None],
        {"a": 1},
        ["w"] * 5000,
        "\x00",
        "../../../etc/passwd",
        "os.system",
        "__import__",
        "tc.program",
    ),
    *("tc.run", "Tensor.set_", "load", "randn", "Tensor.share_memory_", {"result": 999}, {"result": 2**63}),
    *({"integer": 2**62}, {"size": {"dims": [2**40, 2**40]}}, {"list": {"items": [{"result": 1}] * 3000}}),
    *({"array": {"kind": "KIND_TENSOR", "data": {"dtype": "D_TYPE_FLOAT32", "shape": [2**40], "data": "AAAA"}}},),
    *({"device": "cuda:99"}, {"dtype": 99}, {"foreign": {"type_name": "x"}}),
]


def deep(levels: int) -> Any:
    """A value within values."""
    value: Any = {"integer": 1}
    for _ in range(levels):
        value = {"list": {"items": [value]}}
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands, at every depth."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def tampered(manifest: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A manifest of which one to three things are changed, removed, doubled or swapped."""
    bent = copy.deepcopy(manifest)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = chance.choice([path for path in places(bent["program"]) if path])
        holder: Any = bent["program"]
        for step in path[:-1]:
            holder = holder[step]
        action = chance.randrange(5)
        if action == 0:
            del holder[path[-1]]
        elif action == 1 and isinstance(holder, list):
            holder += [copy.deepcopy(holder[path[-1]])] * chance.choice((1, 300))
        elif action == 2 and isinstance(holder, list):
            chance.shuffle(holder)
        elif action == 3:
            holder[path[-1]] = deep(chance.choice((50, 150)))
        else:
            holder[path[-1]] = copy.deepcopy(chance.choice(HOSTILE))
    return bent


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one sound program."""
    data_dir = tmp_path_factory.mktemp("hostile") / "data"
    described, weights = convolution()
    with ServerProcess("--data-dir", str(data_dir)) as server, Raw(server.address) as raw:
        create_program(raw, SOUND, described, weights)
    return data_dir


def test_what_is_wrong_is_refused_with_a_reason_and_the_server_serves_on(stored: Path) -> None:
    _, weights = convolution()
    images = torch.randn(2, 3, 6, 5)
    home = stored / "models"
    manifest = json.loads((home / SOUND / "1/manifest.json").read_text())
    file = (home / SOUND / "1/model.safetensors").read_bytes()
    chance = random.Random("manifests")
    refusals = 0
    with ServerProcess("--data-dir", str(stored)) as server, Raw(server.address) as raw:
        for number in range(COUNT):
            name = f"bent-{number}"
            bent, data = tampered(manifest, chance), file
            bent["name"] = name
            if number % 10 == 0:
                cut = bytearray(file)
                for _ in range(4):
                    cut[chance.randrange(len(cut) // 4)] = chance.randrange(256)
                data = bytes(cut[: chance.choice((len(cut), len(cut) // 2))])
                bent["weights"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            folder = home / name / "1"
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_bytes(data)
            (folder / "manifest.json").write_bytes(seal(bent))
            try:
                raw.ask("LoadMlp", name=name)
            except grpc.RpcError as error:
                told = parse(error)
                assert told.code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT), (
                    bent,
                    told,
                )
                assert len(told.message) > 20, told
                refusals += 1
            else:
                raw.ask("DeleteMlp", name=name)
            shutil.rmtree(home / name, ignore_errors=True)
        torch.testing.assert_close(ask_by_name(raw, SOUND, {"image": images})["logits"], convolved(images, weights))
    # The others were changed where it does not matter: a text, a size at which it was recorded, the order of fields.
    assert refusals > COUNT * 0.7
