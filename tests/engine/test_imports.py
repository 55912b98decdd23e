"""A server is ready after two seconds of CPU, most of which is torch: nothing may come to that which is as large."""

from __future__ import annotations

import pytest

from tests.support.serving import ServerProcess

# Each takes from a tenth of a second to as long as torch, and is imported where it is needed.
LATER = (
    *("torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.tensorboard", "sympy", "mpmath", "networkx"),
    *("jinja2", "ray", "onnx", "aiohttp", "jwt", "cryptography", "opentelemetry", "matplotlib", "sklearn", "tclient"),
)


@pytest.mark.parametrize("options", [(), ("--engines", "2")], ids=["alone", "house"])
def test_what_is_imported_when_a_server_is_ready(options: tuple[str, ...]) -> None:
    with ServerProcess(*options, env={"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        server.terminate()
    imported = [line.rpartition("|")[2].strip() for line in server.stderr if line.startswith("import time:")]
    # One process has it: the engine, or what engines are forked from.
    assert imported.count("torch._C") == 1
    heavy = [name for name in imported if name.startswith(tuple(f"{each}." for each in LATER))]
    assert heavy == []
