"""The safetensors format: what its own library writes is read, and what lies is refused with a clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load as library_load
from safetensors.torch import save as library_save

from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import linear_of
from tserver.engine.models import files
from tserver.engine.models.description import summarise
from tserver.errors import InvalidArgument

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
RELU = ms.Activation(kind=ms.ACTIVATION_KIND_RELU)
NONE = ms.Activation()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_library_writes_is_read(dtype: torch.dtype) -> None:
    tensors = {"0.weight": torch.randn(3, 4).to(dtype), "0.bias": torch.randn(3).to(dtype)}
    found, metadata = files.read(library_save(tensors, {"made": "here"}))
    assert metadata == {"made": "here"}
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_what_is_written_the_library_reads_and_torch_loads() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False))
    first, last = linear_of(network), linear_of(network, 2)
    layers = [summarise(4, 3, RELU, has_bias=True), summarise(3, 2, NONE, has_bias=False)]
    data = files.write(layers, [(first.weight.detach(), first.bias.detach()), (last.weight.detach(), None)])
    network.load_state_dict(library_load(data))
    tensors, metadata = files.read(data)
    again, weights = files.layers_of(tensors, metadata, [])
    assert again == layers
    assert torch.equal(weights[1][0], last.weight)


def raw(header: Any, content: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


def tensor(**fields: Any) -> dict[str, Any]:
    return {"weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8], **fields}}


EIGHT = bytes(8)
LIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "0 bytes"),
    "half a length": (b"1234", "4 bytes"),
    "a header longer than the file": (raw(b"{}", length=1 << 40), str(1 << 40)),
    "a header one byte longer than the file": (raw(b"{}", length=3), "3 bytes"),
    "no JSON": (raw(b"{"), "not JSON"),
    "no UTF-8": (raw(b"\xff\xfe{}"), "not JSON"),
    "a header that nests without end": (raw(b'{"a":' + b"[" * 100_000), "not JSON"),
    "a header that is a list": (raw([]), "list"),
    "half of a character": (raw(b'{"\\ud800.weight": 1}'), "surrogates"),
    "a number of many digits": (raw(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
    "a header larger than any network's": (raw(b"{}".ljust(17 << 20)), "at most"),
    "sizes that no strides can be computed for": (
        raw(tensor(shape=[1 << 32, 1 << 32, 0], data_offsets=[0, 0])),
        "more bytes than there are",
    ),
    "a name twice": (raw(b'{"a":1,"a":2}'), "twice"),
    "a tensor that is a number": (raw({"weight": 3}), "'weight'"),
    "a field missing": (raw({"weight": {"dtype": "F32", "shape": [1]}}), "data_offsets"),
    "a dtype nobody knows": (raw(tensor(dtype="F7"), EIGHT), "F7"),
    "integers": (raw(tensor(dtype="I64", shape=[1]), EIGHT), "I64"),
    "a shape larger than its bytes": (raw(tensor(shape=[1000, 1000]), EIGHT), "4000000 bytes"),
    "a shape smaller than its bytes": (raw(tensor(shape=[1]), EIGHT), "needs 4 bytes"),
    "a negative size": (raw(tensor(shape=[-1, -2]), EIGHT), "are not sizes"),
    "a size that is a text": (raw(tensor(shape=["2"]), EIGHT), "are not sizes"),
    "a size that is a bool": (raw(tensor(shape=[True, 2]), EIGHT), "are not sizes"),
    "sizes beyond all numbers": (raw(tensor(shape=[1 << 61] * 60), EIGHT), "needs"),
    "an end before its begin": (raw(tensor(data_offsets=[8, 0]), EIGHT), r"at \[8, 0\]"),
    "an end behind the file": (raw(tensor(), b"1234"), r"at \[0, 8\], and there are 4 bytes"),
    "bytes that belong to nobody": (raw(tensor(), bytes(12)), "4 bytes at its end"),
    "a hole": (raw(tensor(data_offsets=[4, 12]), bytes(12)), "begin at byte 4"),
    "two tensors in one place": (raw({**tensor(), "bias": tensor()["weight"]}, EIGHT), "begin at byte 0"),
    "metadata that is no mapping": (raw({"__metadata__": 3}), "metadata"),
    "metadata that is no text": (raw({"__metadata__": {"a": 3}}), "metadata"),
}


@pytest.mark.parametrize(("data", "naming"), LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused(data: bytes, naming: str) -> None:
    with pytest.raises(InvalidArgument, match=naming):
        files.read(data)


W = torch.ones(2, 3)
MISFITS: dict[str, tuple[dict[str, torch.Tensor], dict[str, str], list[ms.LayerSpec], str]] = {
    "no tensors": ({}, {}, [ms.LayerSpec()], "no tensors"),
    "a tensor that is no layer's": ({"0.weight": W, "running_mean": W}, {}, [ms.LayerSpec()], "running_mean"),
    "a bias alone": ({"0.bias": torch.ones(2)}, {}, [ms.LayerSpec()], "no weight"),
    "a bias of another length": ({"0.weight": W, "0.bias": torch.ones(3)}, {}, [ms.LayerSpec()], "layer '0'"),
    "a weight that is a vector": ({"0.weight": torch.ones(3)}, {}, [ms.LayerSpec()], "layer '0'"),
    "fewer activations than layers": ({"0.weight": W, "1.weight": W}, {}, [ms.LayerSpec()], "1 layers"),
    "another width than described": ({"0.weight": W}, {}, [ms.LayerSpec(in_features=4)], "in_features 4"),
    "no word on activations": ({"0.weight": W}, {}, [], "give layers"),
    "metadata that is no JSON": ({"0.weight": W}, {files.LAYERS_KEY: "{"}, [], "JSON"),
    "metadata that is no list": ({"0.weight": W}, {files.LAYERS_KEY: "{}"}, [], "list"),
    "metadata that nest without end": ({"0.weight": W}, {files.LAYERS_KEY: "[" * 100_000}, [], "nested"),
    "metadata with half of a character": ({"0.weight": W}, {files.LAYERS_KEY: r'[{"\ud800": 1}]'}, [], "surrogates"),
    "metadata of another width": ({"0.weight": W}, {files.LAYERS_KEY: '[{"in_features": "7"}]'}, [], "in_features 7"),
    "metadata with a number too large": ({"0.weight": W}, {files.LAYERS_KEY: '[{"in_features": 1e30}]'}, [], "range"),
    "names that are no JSON": ({"0.weight": W}, {files.NAMES_KEY: "["}, [ms.LayerSpec()], "JSON"),
    "names that are no list": ({"0.weight": W}, {files.NAMES_KEY: '{"0": 1}'}, [ms.LayerSpec()], "list of names"),
    "names that are no texts": ({"0.weight": W}, {files.NAMES_KEY: "[0]"}, [ms.LayerSpec()], "list of names"),
    "names of others": ({"0.weight": W}, {files.NAMES_KEY: '["1"]'}, [ms.LayerSpec()], "metadata names .* no '1'"),
    "metadata of other fields": ({"0.weight": W}, {files.LAYERS_KEY: '[{"wings": 2}]'}, [], "wings"),
}


@pytest.mark.parametrize(("tensors", "metadata", "specs", "naming"), MISFITS.values(), ids=MISFITS)
def test_a_file_that_is_no_such_network_is_refused(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], specs: list[ms.LayerSpec], naming: str
) -> None:
    with pytest.raises(InvalidArgument, match=naming):
        files.layers_of(tensors, metadata, specs)
