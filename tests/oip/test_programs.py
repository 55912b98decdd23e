"""Programs as models, with inputs and outputs of their own, by Triton's clients over both wires, beside torch."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import tclient
from tests.models.nets import NETS
from tests.models.programs import convolution, convolved, create_program
from tests.models.test_program_models import two_by_two
from tests.models.test_served_networks import CASES, assert_alike, on_torch
from tests.oip import triton as remote
from tests.oip.triton import Refusal, Triton
from tests.support.http import Caller
from tests.support.raw import Raw
from tests.support.serving import ServerProcess

TABLE = torch.arange(30.0).reshape(10, 3)
IDS, KEEP = np.array([1, 5, 9, 2]), np.array([True, False, True, True])


@pytest.fixture(params=["gRPC", "HTTP"])
def client(request: pytest.FixtureRequest) -> Triton:
    """Triton's client, over each wire."""
    found: Triton = request.getfixturevalue("triton" if request.param == "gRPC" else "triton_http")
    return found


@pytest.fixture
def picking(raw: Raw) -> Iterator[str]:
    """A model of two inputs and two outputs, not batched, and one shape that only the model knows."""
    create_program(raw, "picking", two_by_two(), [TABLE])
    yield "picking"
    raw.ask("DeleteMlp", name="picking")


@pytest.fixture
def images(raw: Raw) -> Iterator[str]:
    """A model of images of any size, batched."""
    create_program(raw, "images", *convolution())
    yield "images"
    raw.ask("DeleteMlp", name="images")


def test_inputs_and_outputs_go_by_their_names(client: Triton, picking: str) -> None:
    picked = TABLE[IDS][torch.from_numpy(KEEP)].numpy()
    found = client.run(remote.infer_by_name, picking, {"keep": KEEP, "ids": IDS}, ["picked", "sum"], is_named=False)
    np.testing.assert_array_equal(found["picked"], picked)
    np.testing.assert_array_equal(found["sum"], picked.sum(0))
    only = client.run(remote.infer_by_name, picking, {"ids": IDS, "keep": KEEP}, ["sum"])
    np.testing.assert_array_equal(only["sum"], picked.sum(0))


def test_images_of_any_size_are_taken(client: Triton, images: str) -> None:
    weights = convolution()[1]
    for sizes in ((1, 8, 9), (3, 5, 4)):
        given = torch.randn(sizes[0], 3, *sizes[1:])
        found = client.run(remote.infer_by_name, images, {"image": given.numpy()}, ["logits"])
        np.testing.assert_allclose(found["logits"], convolved(given, weights), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CASES)
def test_whole_networks_give_what_torch_gives(client: Triton, open_server: ServerProcess, raw: Raw, kind: str) -> None:
    inputs, asked, _ = CASES[kind]
    with tclient.connect(open_server.address):
        module = NETS[kind](tclient)
        served = tclient.models.create(kind, module, inputs(tclient))
        local = on_torch(kind, module)
    for make in asked:
        for rows in (1, 64):
            arrays = make(rows)
            given = dict(zip((each.name for each in served.inputs), arrays, strict=True))
            found = client.run(remote.infer_by_name, kind, given, [each.name for each in served.outputs])
            with torch.no_grad():
                wanted = local(*map(torch.from_numpy, arrays))
            assert_alike(found, wanted if isinstance(wanted, dict) else {"output": wanted})
    raw.ask("DeleteMlp", name=kind)


def test_what_does_not_fit_is_refused(client: Triton, picking: str, images: str) -> None:
    for model, given, naming in (
        (picking, {"ids": IDS}, "exactly 2"),
        (picking, {"ids": IDS, "keep": KEEP[:2]}, "'n' is 2"),
        (picking, {"ids": IDS.astype("int32"), "keep": KEEP}, "takes INT64"),
        (images, {"image": np.zeros((1, 4, 2, 2), "float32")}, "[-1, 3, -1, -1]"),
    ):
        with pytest.raises(Refusal) as told:
            client.run(remote.infer_by_name, model, given, ["sum"])
        assert told.value.status in ("INVALID_ARGUMENT", "400")
        assert naming in told.value.text


def test_what_the_program_refuses_is_told(client: Triton, picking: str) -> None:
    with pytest.raises(Refusal) as told:
        client.run(remote.infer_by_name, picking, {"ids": IDS + 10, "keep": KEEP}, ["sum"])
    assert told.value.status in ("INVALID_ARGUMENT", "400")
    assert client("is_model_ready", picking)


def test_both_are_described(http: Caller, picking: str, images: str) -> None:
    told = http.ask("GET", f"/v2/models/{picking}").json
    assert told["inputs"] == [
        {"name": "ids", "datatype": "INT64", "shape": [-1]},
        {"name": "keep", "datatype": "BOOL", "shape": [-1]},
    ]
    assert [output["shape"] for output in told["outputs"]] == [[-1, 3], [3]]
    config = http.ask("GET", f"/v2/models/{picking}/config").json
    assert (config["max_batch_size"], "dynamic_batching" in config) == (0, False)
    config = http.ask("GET", f"/v2/models/{images}/config").json
    assert (config["max_batch_size"], "dynamic_batching" in config) == (1024, True)
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [3, -1, -1]}]
    assert [output["dims"] for output in config["output"]] == [[5]]


def test_a_program_is_asked_in_json(http: Caller, picking: str) -> None:
    inputs = [
        {"name": "ids", "datatype": "INT64", "shape": [4], "data": IDS.tolist()},
        {"name": "keep", "datatype": "BOOL", "shape": [4], "data": KEEP.tolist()},
    ]
    reply = http.ask("POST", f"/v2/models/{picking}/infer", json.dumps({"inputs": inputs}).encode())
    picked, total = reply.json["outputs"]
    expected = TABLE[IDS][torch.from_numpy(KEEP)]
    assert (picked["shape"], picked["data"]) == ([3, 3], expected.flatten().tolist())
    assert (total["shape"], total["data"]) == ([3], expected.sum(0).tolist())
