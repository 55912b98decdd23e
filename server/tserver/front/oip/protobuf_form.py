"""Requests and answers as messages of protobuf, in their bytes. See `wire` for how elements pass it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from tensorcompute.oip import inference_pb2 as oip
from tserver.errors import InvalidArgument
from tserver.front.oip.tensors import (
    DATATYPES,
    EMPTY_FINAL,
    Answer,
    Datatype,
    GivenTensor,
    InferRequest,
    Parameters,
    WantedOutput,
    packed,
)
from tserver.front.oip.wire import join_response, join_stream_response, split_request

FINAL = "triton_final_response"
# The typed field for a kind of numbers, of any size that is not named itself.
_FIELDS = {"b": "bool_contents", "i": "int_contents", "u": "uint_contents"}
_OWN_FIELDS = {
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}

Elements = Sequence[memoryview | None]


def parse_message(data: bytes) -> tuple[oip.ModelInferRequest, list[memoryview]]:
    """All of a message but raw_input_contents, and those. Raises: InvalidArgument."""
    header, raw = split_request(data)
    try:
        return oip.ModelInferRequest.FromString(header), raw
    except DecodeError as error:
        raise InvalidArgument(
            f"the {len(data)} bytes of the request are not an inference.ModelInferRequest: {error}"
        ) from None


def parse(data: bytes) -> tuple[oip.ModelInferRequest, InferRequest]:
    """A request: the message, and what it asks for. Raises: InvalidArgument."""
    message, raw = parse_message(data)
    return message, InferRequest(
        message.id,
        _plain(message.parameters),
        [
            GivenTensor(tensor.name, tensor.datatype, tuple(tensor.shape), _plain(tensor.parameters))
            for tensor in message.inputs
        ],
        [WantedOutput(wanted.name, _plain(wanted.parameters)) for wanted in message.outputs],
        lambda: _elements(message, raw),
    )


def joined(answer: Answer) -> bytes:
    """An answer as a ModelInferResponse."""
    return join_response(_header(answer).SerializeToString(), [output.elements for output in answer.outputs])


def joined_in_stream(answer: Answer, request: InferRequest) -> bytes:
    """An answer as a ModelStreamInferResponse."""
    header = _header(answer)
    if request.parameters.get(EMPTY_FINAL) is True:
        header.parameters[FINAL].bool_param = True
    return join_stream_response(header.SerializeToString(), [output.elements for output in answer.outputs])


def failed_in_stream(error: Exception, request_id: str) -> bytes:
    """What became of a request, as a ModelStreamInferResponse."""
    return oip.ModelStreamInferResponse(
        error_message=str(error) or type(error).__name__, infer_response=oip.ModelInferResponse(id=request_id)
    ).SerializeToString()


def _header(answer: Answer) -> oip.ModelInferResponse:
    # Clients count on an entry of raw_output_contents for each output, an empty one for those in shared memory.
    response = oip.ModelInferResponse(
        model_name=answer.model_name, model_version=str(answer.model_version), id=answer.id
    )
    for output in answer.outputs:
        described = response.outputs.add(name=output.name, datatype=output.datatype.name, shape=output.shape)
        if output.part is not None:
            described.parameters["shared_memory_region"].string_param = output.part.region
            described.parameters["shared_memory_offset"].int64_param = output.part.offset
            described.parameters["shared_memory_byte_size"].int64_param = output.part.byte_size
    return response


def _plain(parameters: Any) -> Parameters:
    """Parameters as plain values; one that is not set has none of the types that any parameter has."""
    found = {}
    for key, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[key] = "" if choice is None else getattr(parameter, choice)
    return found


def _elements(message: oip.ModelInferRequest, raw: list[memoryview]) -> Elements:
    own = [tensor for tensor in message.inputs if "shared_memory_region" not in tensor.parameters]
    typed = [tensor for tensor in message.inputs if tensor.HasField("contents")]
    if raw and typed:
        raise InvalidArgument("raw_input_contents is set, and contents of an input too; set one of them")
    if any("shared_memory_region" in tensor.parameters for tensor in typed) or (raw and not own):
        raise InvalidArgument("inputs are in shared memory, but the request has elements of them too; leave those out")
    if not typed and len(raw) != len(own):
        raise InvalidArgument(
            f"raw_input_contents has {len(raw)} entries; it has one for each input that is not in shared memory: "
            f"{len(own)}"
        )
    given = iter(raw)
    found: list[memoryview | None] = []
    for tensor in message.inputs:
        if "shared_memory_region" in tensor.parameters:
            found.append(None)
        else:
            found.append(_typed(tensor) if typed else next(given))
    return found


def _typed(tensor: oip.ModelInferRequest.InferInputTensor) -> memoryview:
    """Elements from the typed field of a tensor. Raises: InvalidArgument."""
    datatype: Datatype = DATATYPES[tensor.datatype]
    if not datatype.typecode:
        raise InvalidArgument(f"{datatype.name} elements have no typed field; send them in raw_input_contents")
    field = _OWN_FIELDS.get(datatype.name) or _FIELDS[datatype.kind]
    elements = getattr(tensor.contents, field)
    if any(each.name != field for each, _ in tensor.contents.ListFields()) or not elements:
        raise InvalidArgument(f"{datatype.name} elements belong in {field}, and there only")
    return packed(datatype, elements, f"the input {tensor.name[:100]!r}")
