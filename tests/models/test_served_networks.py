"""Whole networks as models: what is served is what the module gives here, and what torch gives on this machine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.models.nets import NETS
from tests.support.serving import ServerProcess

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(7)


def pixels(*shape: int) -> Callable[[int], tuple[Array, ...]]:
    """Pictures of this shape."""
    return lambda rows: (RANDOM.standard_normal((rows, *shape), dtype=np.float32),)


def words(length: int, high: int, *, masked: bool = False) -> Callable[[int], tuple[Array, ...]]:
    """Sentences of that length, and which of their words count."""

    def make(rows: int) -> tuple[Array, ...]:
        ids = RANDOM.integers(1, high, (rows, length))
        lengths = RANDOM.integers(1, length + 1, (rows, 1))
        return (ids, (np.arange(length) < lengths).astype(np.int64)) if masked else (ids,)

    return make


# Of each network: its inputs, made of tclient; what it is asked, more than one form of it; and how it is described.
CASES: dict[str, tuple[Callable[[Any], Any], list[Callable[[int], tuple[Array, ...]]], str]] = {
    "resnet": (
        lambda tc: tc.models.Input(("batch", 3, "height", "width")),
        [pixels(3, 32, 32), pixels(3, 40, 33)],
        "x float32 (batch, 3, height, width) -> output float32 (batch, 10)",
    ),
    "tagger": (
        lambda tc: tc.models.Input(("batch", "length"), tc.int64, high=50),
        [words(9, 50), words(1, 50), words(31, 50)],
        "words int64 (batch, length) -> output float32 (batch, length, 5)",
    ),
    "vit": (
        lambda tc: tc.zeros(2, 3, 32, 32),
        [pixels(3, 32, 32)],
        "image float32 (batch, 3, 32, 32) -> output float32 (batch, 7)",
    ),
    "bert": (
        lambda tc: {
            "input_ids": tc.models.Input(("batch", "length"), "int64", high=100),
            "attention_mask": tc.models.Input(("batch", "length"), "int64"),
        },
        [words(12, 100, masked=True), words(64, 100, masked=True), words(1, 100, masked=True)],
        "input_ids int64 (batch, length), attention_mask int64 (batch, length) -> "
        "last_hidden_state float32 (batch, length, 16), pooler_output float32 (batch, 16)",
    ),
    "unet": (
        lambda tc: tc.models.Input(("batch", 1, "height", "width")),
        [pixels(1, 8, 20), pixels(1, 4, 4)],
        "x float32 (batch, 1, height, width) -> output float32 (batch, 1, height, width)",
    ),
}


def listed(result: Any) -> list[Array]:
    """All outputs of a result, as arrays."""
    values = list(result.values()) if isinstance(result, dict) else [result]
    return [value if isinstance(value, np.ndarray) else value.detach().numpy() for value in values]


def assert_alike(found: Any, wanted: Any) -> None:
    """Outputs of one network on one input, alike but for rounding."""
    for one, other in zip(listed(found), listed(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def on_torch(kind: str, module: Any) -> Any:
    """The network with the same weights, of torch itself."""
    local = NETS[kind](torch)
    local.load_state_dict({key: torch.from_numpy(value.numpy()) for key, value in module.state_dict().items()})
    return local.eval()


@pytest.mark.parametrize("kind", CASES)
def test_a_network_is_served_as_it_runs_here_and_as_torch_runs_it(tc: ModuleType, name: str, kind: str) -> None:
    inputs, asked, described = CASES[kind]
    module = NETS[kind](tc)
    served = tc.models.create(name, module, inputs(tc))
    assert served._line().endswith(f"batches up to 1024: {described}")
    local, module = on_torch(kind, module), module.eval()
    for make in asked:
        for rows in (1, 3, 64):
            arrays = make(rows)
            with torch.no_grad():
                wanted = local(*map(torch.from_numpy, arrays))
            assert_alike(served(*arrays), wanted)
            tensors = [tc.from_numpy(array) for array in arrays]
            found = served(*tensors)
            assert_alike(found, wanted)
            with tc.no_grad():
                assert_alike(found, module(*tensors))


@pytest.mark.parametrize("kind", CASES)
def test_requests_of_many_callers_are_run_together(tc: ModuleType, name: str, kind: str) -> None:
    inputs, asked, _ = CASES[kind]
    module = NETS[kind](tc)
    served = tc.models.create(name, module, inputs(tc), max_queue_delay_us=20_000)
    local = on_torch(kind, module)
    requests = [make(rows) for rows in (1, 2, 5) for make in asked] * 4
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda arrays: served(*arrays), requests))
    for arrays, answer in zip(requests, answers, strict=True):
        with torch.no_grad():
            assert_alike(answer, local(*map(torch.from_numpy, arrays)))
    told = served.statistics()
    assert told.inference_count == sum(len(arrays[0]) for arrays in requests)
    assert told.execution_count < len(requests)


def test_a_network_outlives_the_server_and_is_exported_for_torch(tmp_path: Path) -> None:
    import tclient

    (ids, mask) = words(7, 100, masked=True)(2)
    options = ("--data-dir", str(tmp_path / "data"))
    with ServerProcess(*options) as server, tclient.connect(server.address):
        module = NETS["bert"](tclient)
        served = tclient.models.create("bert", module, CASES["bert"][0](tclient), max_batch_size=8)
        before = served(ids, mask)
        text = repr(served)
    with ServerProcess(*options) as server, tclient.connect(server.address):
        again = tclient.models.get("bert")
        assert repr(again) == text
        assert_alike(again(input_ids=ids, attention_mask=mask), before)
        again.configure(max_queue_delay_us=100)
        assert (again.describe().batching.max_batch_size, again.describe().batching.max_queue_delay_us) == (8, 100)
        again.unload()
        with pytest.raises(tclient.RequestRefused, match="unloaded"):
            again(ids, mask)
        again.reload()
        again.export(tmp_path / "bert.safetensors")
        assert_alike(again(ids, attention_mask=mask), before)
        again.delete()
        with pytest.raises(KeyError, match="bert"):
            again(ids, mask)
    local = NETS["bert"](torch)
    missing, unexpected = local.load_state_dict(load_file(tmp_path / "bert.safetensors"), strict=False)
    assert (missing, unexpected) == ([], ["position_ids"])
    with torch.no_grad():
        assert_alike(local.eval()(torch.from_numpy(ids), torch.from_numpy(mask)), before)
