"""Requests of several inputs and outputs, of datatypes and shapes of their own, in both wire forms."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tensorcompute.oip import inference_pb2 as oip
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.models.spec import TensorSpec
from tserver.errors import InvalidArgument, ServerError, Unimplemented
from tserver.front.http.messages import HttpResponse
from tserver.front.oip import describe, json_form, protobuf_form
from tserver.front.oip.inference import Caller, Inferences
from tserver.front.oip.regions import AllRegions
from tserver.front.oip.settings import TraceSettings
from tserver.front.oip.tensors import BY_CODE, DATATYPES, InferRequest, packed, unpacked
from tserver.identity import Identity, Role
from tserver.models.batching import BatchingConfig
from tserver.models.registry import ServedModel
from tserver.models.requests import Given
from tserver.models.statistics import ModelStatistics

HOME = Path("/dev/shm")


@dataclass
class Form:
    """What goes into a model, and what comes out of it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_batched: bool


BATCHED = Form(
    (
        TensorSpec("ids", torch.int64, ("rows", "width")),
        TensorSpec("mask", torch.bool, ("rows", "width")),
    ),
    (
        TensorSpec("scores", torch.float32, ("rows", 2)),
        TensorSpec("kept", torch.bool, ("rows", "")),
        TensorSpec("half", torch.float16, ("rows", 1)),
    ),
    True,
)
WHOLE = Form(
    (TensorSpec("image", torch.uint8, (3, "height", "width")), TensorSpec("scale", torch.float64, ())),
    (TensorSpec("size", torch.int32, (2,)),),
    False,
)
LOCAL = Identity("local", Role.ADMIN, is_local=True)
Made = tuple[tuple[int, ...], bytes | memoryview]


class Model:
    """A model that is none: it says what it is and what it was given, and gives what it was told to."""

    def __init__(self, form: Form, made: list[Made]) -> None:
        self.made = made
        self.given: dict[str, Given] = {}
        served: Any = SimpleNamespace(
            name="m",
            version=3,
            batching=BatchingConfig(max_batch_size=8),
            statistics=ModelStatistics(),
            state="READY",
            **vars(form),
        )
        served.output_shapes = partial(ServedModel.output_shapes, served)
        self.served = served
        registry = SimpleNamespace(find=lambda name, version=0: served, has=lambda name: True)
        self.manager: Any = SimpleNamespace(registry=registry, request_by_name=self._request, run=self._run)

    def _request(self, served: Any, given: Mapping[str, Given]) -> Any:
        self.given = dict(given)
        shapes, outputs = zip(*self.made, strict=True)
        return SimpleNamespace(output_shapes=shapes, outputs=outputs)

    async def _run(self, served: Any, order: Any, principal: str) -> None:
        pass


IDS = struct.pack("<6q", 1, 2, 3, 4, 5, -6)
MASK = bytes((1, 0, 1, 1, 1, 0))
SCORES, KEPT, HALF = struct.pack("<4f", 1, 2, 3, 4), bytes((1, 0, 0, 1)), struct.pack("<2e", 0.5, -2)


@pytest.fixture
def batched() -> Model:
    """A model of rows, with two inputs and three outputs."""
    return Model(BATCHED, [((2, 2), SCORES), ((2, 2), memoryview(KEPT)), ((2, 1), HALF)])


def run(model: Model, request: InferRequest, regions: AllRegions | None = None) -> Any:
    """The answer to a request by a caller on this machine."""
    return asyncio.run(Inferences(model.manager, regions, TraceSettings(0)).run("m", "", request, Caller(LOCAL, None)))


def by_protobuf(*, raw: Sequence[bytes] = (), **fields: Any) -> InferRequest:
    """A request as gRPC brings it."""
    message = oip.ModelInferRequest(raw_input_contents=raw, **fields)
    return protobuf_form.parse(message.SerializeToString())[1]


def by_json(told: Any, *behind: bytes) -> InferRequest:
    """A request as HTTP brings it."""
    text = json.dumps(told).encode()
    return json_form.parse(bytearray(text + b"".join(behind)), str(len(text)), 1000)


def text_of(response: HttpResponse) -> Any:
    """The JSON at the beginning of an answer."""
    return json.loads(bytes(response.body[0]))


Tensor = oip.ModelInferRequest.InferInputTensor
Contents = oip.InferTensorContents
TWO: list[dict[str, Any]] = [
    {"name": "ids", "datatype": "INT64", "shape": [2, 3]},
    {"name": "mask", "datatype": "BOOL", "shape": [2, 3]},
]


def json_two(ids: dict[str, Any], mask: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**TWO[0], **ids}, {**TWO[1], **mask}]


BINARY = {"parameters": {"binary_data_output": True}}
AS_BYTES = {"parameters": {"binary_data_size": 48}}, {"parameters": {"binary_data_size": 6}}
AS_DATA = {"data": [[1, 2, 3], [4, 5, -6]]}, {"data": [True, False, True, True, True, False]}

REQUESTS: dict[str, Callable[[], InferRequest]] = {
    "raw": lambda: by_protobuf(inputs=[Tensor(**each) for each in TWO], raw=[IDS, MASK]),
    "raw, in another order": lambda: by_protobuf(inputs=[Tensor(**each) for each in TWO[::-1]], raw=[MASK, IDS]),
    "typed": lambda: by_protobuf(
        inputs=[
            Tensor(contents=Contents(int64_contents=[1, 2, 3, 4, 5, -6]), **TWO[0]),
            Tensor(contents=Contents(bool_contents=map(bool, MASK)), **TWO[1]),
        ]
    ),
    "bytes behind JSON": lambda: by_json({"inputs": json_two(*AS_BYTES), **BINARY}, IDS, MASK),
    "bytes in another order": lambda: by_json({"inputs": json_two(*AS_BYTES)[::-1], **BINARY}, MASK, IDS),
    "JSON": lambda: by_json({"inputs": json_two(*AS_DATA), **BINARY}),
    "one of each": lambda: by_json({"inputs": json_two(AS_DATA[0], AS_BYTES[1]), **BINARY}, MASK),
}


@pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS.keys())
def test_inputs_reach_the_model_by_their_names(batched: Model, make: Callable[[], InferRequest]) -> None:
    answer = run(batched, make())
    ids, mask = batched.given["ids"], batched.given["mask"]
    assert (ids.dtype, tuple(ids.shape), bytes(ids.data)) == (pb.D_TYPE_INT64, (2, 3), IDS)
    assert (mask.dtype, tuple(mask.shape), bytes(mask.data)) == (pb.D_TYPE_BOOL, (2, 3), MASK)
    assert [(output.name, output.shape) for output in answer.outputs] == [
        ("scores", (2, 2)),
        ("kept", (2, 2)),
        ("half", (2, 1)),
    ]


def test_all_outputs_are_in_both_answers(batched: Model) -> None:
    answer = run(batched, REQUESTS["JSON"]())
    response = oip.ModelInferResponse.FromString(protobuf_form.joined(answer))
    assert list(response.raw_output_contents) == [SCORES, KEPT, HALF]
    assert [output.datatype for output in response.outputs] == ["FP32", "BOOL", "FP16"]
    found = json_form.response(answer)
    assert [bytes(part) for part in found.body[1:]] == [SCORES, KEPT, HALF]
    sizes = [output["parameters"]["binary_data_size"] for output in text_of(found)["outputs"]]
    assert sizes == [16, 4, 4]


def test_outputs_are_given_as_each_is_wanted_in_the_order_of_the_request(batched: Model) -> None:
    wanted = [{"name": "half"}, {"name": "scores", "parameters": {"binary_data": False}}]
    answer = run(batched, by_json({"inputs": json_two(*AS_DATA), "outputs": wanted, **BINARY}))
    found = json_form.response(answer)
    assert text_of(found)["outputs"] == [
        {"name": "half", "datatype": "FP16", "shape": [2, 1], "parameters": {"binary_data_size": 4}},
        {"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]},
    ]
    assert found.body[1:] == (HALF,)
    only = run(batched, by_json({"inputs": json_two(*AS_DATA), "outputs": [{"name": "kept"}]}))
    (output,) = text_of(json_form.response(only))["outputs"]
    assert output["data"] == [True, False, False, True]


def test_an_output_of_16_bits_is_refused_as_json_before_anything_is_run(batched: Model) -> None:
    with pytest.raises(InvalidArgument, match="'half' is FP16"):
        run(batched, by_json({"inputs": json_two(*AS_DATA)}))
    assert batched.given == {}
    assert batched.served.statistics.failures == {"INVALID_ARGUMENT": 1}


def test_an_output_whose_size_only_the_model_knows_is_checked_when_it_is_made(batched: Model) -> None:
    batched.made[1] = ((2, 600), bytes(1200))
    wanted = [{"name": "kept", "parameters": {"binary_data": False}}]
    with pytest.raises(InvalidArgument, match="1200 bytes"):
        run(batched, by_json({"inputs": json_two(*AS_DATA), "outputs": wanted}))
    assert batched.given


WRONG: dict[str, tuple[Callable[[], InferRequest], str]] = {
    "one is missing": (lambda: by_json({"inputs": json_two(*AS_DATA)[:1]}), r"exactly 2, \['ids', 'mask'\]"),
    "one is there twice": (lambda: by_json({"inputs": json_two(*AS_DATA) + json_two(*AS_DATA)[:1]}), "exactly 2"),
    "another datatype": (
        lambda: by_json({"inputs": json_two(AS_DATA[0], {**AS_DATA[1], "datatype": "UINT8"})}),
        "takes BOOL",
    ),
    "numbers for truth values": (lambda: by_json({"inputs": json_two(AS_DATA[0], {"data": [1] * 6})}), "no BOOL"),
    "fractions for whole numbers": (
        lambda: by_json({"inputs": json_two({"data": [1.0] * 6}, AS_DATA[1])}),
        "no INT64",
    ),
    "out of range": (lambda: by_json({"inputs": json_two({"data": [1 << 63] * 6}, AS_DATA[1])}), "range of INT64"),
    "rows that differ": (
        lambda: by_json({"inputs": json_two(AS_DATA[0], {"shape": [1, 6], "data": [True] * 6})}),
        r"\[2, 1\] rows",
    ),
    "too many rows": (
        lambda: by_json({"inputs": json_two({"shape": [9, 0], "data": []}, {"shape": [9, 0], "data": []}), **BINARY}),
        "max_batch_size",
    ),
    "another rank": (lambda: by_json({"inputs": json_two({"shape": [6], "data": [1] * 6}, AS_DATA[1])}), r"\[-1, -1\]"),
    "bytes of one too few": (
        lambda: by_json({"inputs": json_two(*AS_BYTES), **BINARY}, IDS),
        "6 bytes of binary data, but 0 are left",
    ),
    "bytes of one too many": (
        lambda: by_protobuf(inputs=[Tensor(**each) for each in TWO], raw=[IDS, MASK, b""]),
        "3 entries",
    ),
    "typed and raw": (
        lambda: by_protobuf(
            inputs=[Tensor(contents=Contents(int64_contents=[1] * 6), **TWO[0]), Tensor(**TWO[1])], raw=[MASK]
        ),
        "contents",
    ),
    "an output that is not there": (
        lambda: by_json({"inputs": json_two(*AS_DATA), "outputs": [{"name": "kept"}, {"name": "lost"}]}),
        "exactly 3",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_as_the_model_has_it_is_refused(batched: Model, case: tuple[Callable[[], Any], str]) -> None:
    make, naming = case
    with pytest.raises(InvalidArgument, match=naming):
        run(batched, make())
    assert batched.given == {}


def test_tensors_of_one_request_may_be_in_shared_memory_or_not(batched: Model, tmp_path: Path) -> None:
    path = HOME / f"tserver-{tmp_path.name}"
    path.write_bytes(MASK + bytes(26))
    every = AllRegions()
    regions = every.of(LOCAL.principal)
    regions.register("r", path.name, 0, 32)
    try:
        inputs = [Tensor(**TWO[0]), Tensor(**TWO[1])]
        inputs[1].parameters["shared_memory_region"].string_param = "r"
        inputs[1].parameters["shared_memory_byte_size"].int64_param = 6
        outputs = [oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("kept", "scores", "half")]
        for at, (wanted, size) in enumerate(zip(outputs[1:], (16, 4), strict=True)):
            wanted.parameters["shared_memory_region"].string_param = "r"
            wanted.parameters["shared_memory_offset"].uint64_param = 8 + 16 * at
            wanted.parameters["shared_memory_byte_size"].int64_param = size
        answer = run(batched, by_protobuf(inputs=inputs, outputs=outputs, raw=[IDS]), every)
        assert bytes(batched.given["mask"].data) == MASK
        assert path.read_bytes() == MASK + bytes(2) + SCORES + HALF + bytes(4)
        response = oip.ModelInferResponse.FromString(protobuf_form.joined(answer))
        assert list(response.raw_output_contents) == [KEPT, b"", b""]
        told = text_of(json_form.response(answer))["outputs"]
        assert told[2]["parameters"] == {
            "shared_memory_region": "r",
            "shared_memory_offset": 24,
            "shared_memory_byte_size": 4,
        }
        outputs[0].CopyFrom(outputs[1])
        outputs[0].name = "kept"
        outputs[0].parameters["shared_memory_byte_size"].int64_param = 3
        with pytest.raises(ServerError, match="needs 4 bytes"):
            run(batched, by_protobuf(inputs=inputs, outputs=outputs, raw=[IDS]), every)
    finally:
        regions.unregister()
        path.unlink()


def test_a_model_that_is_not_batched_takes_its_shapes_as_they_are() -> None:
    model = Model(WHOLE, [((2,), struct.pack("<2i", 4, 5))])
    image = {"name": "image", "datatype": "UINT8", "shape": [3, 1, 2], "data": [[[0, 1]], [[2, 3]], [[4, 255]]]}
    scale = {"name": "scale", "datatype": "FP64", "shape": [], "data": [0.5]}
    answer = run(model, by_json({"inputs": [scale, image]}))
    assert bytes(model.given["image"].data) == bytes((0, 1, 2, 3, 4, 255))
    assert (tuple(model.given["scale"].shape), bytes(model.given["scale"].data)) == ((), struct.pack("<d", 0.5))
    (output,) = text_of(json_form.response(answer))["outputs"]
    assert output == {"name": "size", "datatype": "INT32", "shape": [2], "data": [4, 5]}
    for wrong in ({"shape": [1, 3, 1, 2]}, {"shape": [2, 1, 3]}, {"data": [[[0, 1]], [[2, 3]], [[4, 256]]]}):
        with pytest.raises(InvalidArgument):
            run(model, by_json({"inputs": [{**image, **wrong}, scale]}))


def test_a_configuration_has_rows_only_where_there_are_any(batched: Model) -> None:
    told = describe.config(batched.served)
    assert (told.max_batch_size, told.HasField("dynamic_batching")) == (8, True)
    assert [(each.name, oip.DataType.Name(each.data_type), list(each.dims)) for each in told.input] == [
        ("ids", "TYPE_INT64", [-1]),
        ("mask", "TYPE_BOOL", [-1]),
    ]
    metadata = describe.metadata(batched.served, [batched.served])
    assert [(each.datatype, list(each.shape)) for each in metadata.inputs] == [("INT64", [-1, -1]), ("BOOL", [-1, -1])]
    model = Model(WHOLE, [])
    told = describe.config(model.served)
    assert (told.max_batch_size, told.HasField("dynamic_batching")) == (0, False)
    assert [list(each.dims) for each in told.input] == [[3, -1, -1], []]


def test_tensors_that_the_protocol_has_no_datatype_for_are_told_so() -> None:
    model = Model(Form((TensorSpec("z", torch.complex64, ("rows",)),), BATCHED.outputs, True), [])
    for ask in (
        lambda: describe.metadata(model.served, []),
        lambda: describe.config(model.served),
        lambda: run(model, by_json({"inputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": [1]}]})),
    ):
        with pytest.raises(Unimplemented, match="'z' of 'm' is complex64"):
            ask()


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "INT8": [-128, 127],
    "INT16": [-(1 << 15), 5],
    "INT32": [-(1 << 31), (1 << 31) - 1],
    "INT64": [-(1 << 63), (1 << 63) - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, (1 << 32) - 1],
    "UINT64": [0, (1 << 64) - 1],
    "FP32": [0.5, 1],
    "FP64": [1 / 3, -2],
}


@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_goes_as_numbers_or_says_that_it_does_not(name: str) -> None:
    datatype = DATATYPES[name]
    assert BY_CODE[datatype.code] is datatype
    if name in ("FP16", "BF16"):
        with pytest.raises(InvalidArgument, match=name):
            packed(datatype, [1.0], "x")
        return
    elements = packed(datatype, VALUES[name], "x")
    assert len(elements) == datatype.size * len(VALUES[name])
    assert unpacked(datatype, elements) == VALUES[name]
