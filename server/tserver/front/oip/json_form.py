"""Requests and answers in HTTP: JSON, and behind it elements as bytes (the binary tensor data extension).

Of messages of protobuf it knows only how they look in JSON, so that both wire forms tell the same of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from google.protobuf.message import Message

from tserver.errors import InvalidArgument
from tserver.front.http.messages import HttpResponse, parse_object
from tserver.front.oip.tensors import (
    DATATYPES,
    Answer,
    GivenTensor,
    InferRequest,
    Output,
    Parameters,
    WantedOutput,
    number,
    packed,
    shorten,
    unpacked,
)

# How much of the body is JSON; the elements follow.
HEADER_LENGTH = "Inference-Header-Content-Length"
# As tensors can have in torch.
_MAX_DIMENSIONS = 64


def json_bytes(length: str, body_bytes: int) -> int:
    """How much of a body is JSON. Raises: InvalidArgument for a header that cannot be right."""
    if not length:
        return body_bytes
    if length.isascii() and length.isdecimal() and len(length) < 19 and int(length) <= body_bytes:
        return int(length)
    raise InvalidArgument(f"{HEADER_LENGTH} is {length[:50]!r}, but the body has {body_bytes} bytes; it is within them")


def parse(body: bytearray, length: str, max_text_bytes: int) -> InferRequest:
    """A request from its body and the header that tells how much of it is JSON. Raises: InvalidArgument."""
    whole = memoryview(body)
    size = json_bytes(length, len(body))
    told = parse_object(whole[:size])
    parameters = _parameters(told)
    inputs = _objects(told, "inputs")
    is_binary = _flag(parameters, "binary_data_output")
    request_id = told.get("id", "")
    if not isinstance(request_id, str):
        raise InvalidArgument(f"id is {str(request_id)[:100]!r}, not a text")
    tensors = [_tensor(each) for each in inputs]
    outputs = []
    for each in _objects(told, "outputs"):
        own = _parameters(each)
        is_text = not (_flag(own, "binary_data") if "binary_data" in own else is_binary)
        outputs.append(WantedOutput(_text(each, "name"), own, is_text))
    return InferRequest(
        request_id,
        parameters,
        tensors,
        outputs,
        lambda: list(_elements(inputs, tensors, whole[size:])),
        is_text=not is_binary,
        max_text_bytes=max_text_bytes,
    )


def response(answer: Answer) -> HttpResponse:
    """An answer."""
    told: dict[str, Any] = {"model_name": answer.model_name, "model_version": str(answer.model_version)}
    if answer.id:
        told["id"] = answer.id
    told["outputs"] = [_described(output) for output in answer.outputs]
    text = json.dumps(told, separators=(",", ":")).encode()
    binary = [output.elements for output in answer.outputs if not output.is_text and output.part is None]
    if not binary:
        return HttpResponse(body=(text,))
    return HttpResponse(
        body=(text, *binary), content_type="application/octet-stream", headers={HEADER_LENGTH: str(len(text))}
    )


def of_message(message: Message) -> dict[str, Any]:
    """A message of protobuf with the names of its fields, numbers as numbers, and nothing left to defaults."""
    told: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            entry = kind.fields_by_name["value"]
            told[field.name] = {str(key): _value(entry, each) for key, each in value.items()}
        elif field.is_repeated:
            told[field.name] = [_value(field, each) for each in value]
        elif not field.has_presence or message.HasField(field.name):
            told[field.name] = _value(field, value)
    return told


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return of_message(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value


def _described(output: Output) -> dict[str, Any]:
    told: dict[str, Any] = {"name": output.name, "datatype": output.datatype.name, "shape": list(output.shape)}
    if output.part is not None:
        told["parameters"] = {
            "shared_memory_region": output.part.region,
            "shared_memory_offset": output.part.offset,
            "shared_memory_byte_size": output.part.byte_size,
        }
    elif output.is_text:
        told["data"] = unpacked(output.datatype, output.elements)
    else:
        told["parameters"] = {"binary_data_size": len(output.elements)}
    return told


def _elements(
    inputs: Sequence[dict[str, Any]], tensors: Sequence[GivenTensor], binary: memoryview
) -> Iterator[memoryview | None]:
    """The elements of each input: from its data, or the next bytes behind the JSON."""
    at = 0
    for told, tensor in zip(inputs, tensors, strict=True):
        what = f"the input {tensor.name[:100]!r}"
        is_binary, is_shared = "binary_data_size" in tensor.parameters, "shared_memory_region" in tensor.parameters
        if is_binary + is_shared + ("data" in told) > 1:
            raise InvalidArgument(
                f"{what} has elements in more than one place: data, binary_data_size and shared_memory_region exclude "
                "each other; leave the others out"
            )
        if is_shared:
            yield None
        elif is_binary:
            size = number(tensor.parameters, "binary_data_size")
            if size > len(binary) - at:
                raise InvalidArgument(
                    f"{what} has {size} bytes of binary data, but {len(binary) - at} are left behind the JSON"
                )
            yield binary[at : at + size]
            at += size
        elif "data" in told:
            yield packed(DATATYPES[tensor.datatype], _flat(told["data"], tensor.shape, what), what)
        else:
            raise InvalidArgument(f"{what} has no elements: give data, or binary_data_size")
    if at != len(binary):
        raise InvalidArgument(
            f"{len(binary)} bytes are behind the JSON, but the inputs have {at} bytes of binary data; see "
            f"{HEADER_LENGTH} and binary_data_size"
        )


def _flat(data: Any, shape: Sequence[int], what: str) -> Sequence[Any]:
    """Elements in row-major order, of lists as the shape has them or of one list. Raises: InvalidArgument."""
    if not isinstance(data, list):
        raise InvalidArgument(f"{what} has data that is no list")
    if not data or not isinstance(data[0], list):
        return data
    rows: list[Any] = [data]
    for size in shape:
        if not all(isinstance(row, list) and len(row) == size for row in rows):
            raise InvalidArgument(f"{what} has data in lists that are not of the shape {shorten(shape)}")
        rows = list(chain.from_iterable(rows))
    return rows


def _tensor(told: dict[str, Any]) -> GivenTensor:
    shape = told.get("shape")
    if not isinstance(shape, list) or any(type(size) is not int for size in shape) or len(shape) > _MAX_DIMENSIONS:
        raise InvalidArgument(f"the shape of an input is {str(shape)[:100]}, not a list of whole numbers")
    return GivenTensor(_text(told, "name"), _text(told, "datatype"), tuple(shape), _parameters(told))


def _objects(told: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = told.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidArgument(f"{key} is not a list of objects")
    return found


def _parameters(told: dict[str, Any]) -> Parameters:
    found = told.get("parameters", {})
    if not isinstance(found, dict) or not all(isinstance(value, bool | int | float | str) for value in found.values()):
        raise InvalidArgument("parameters is not an object of texts, numbers and truth values")
    return found


def _text(told: dict[str, Any], key: str) -> str:
    found = told.get(key)
    if not isinstance(found, str):
        raise InvalidArgument(f"the {key} of a tensor is {str(found)[:100]}, not a text")
    return found


def _flag(parameters: Parameters, key: str) -> bool:
    found = parameters.get(key, False)
    if not isinstance(found, bool):
        raise InvalidArgument(f"the parameter {key} is {str(found)[:100]!r}, not true or false")
    return found
