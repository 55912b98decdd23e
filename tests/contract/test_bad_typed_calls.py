"""Typed RPCs with requests that cannot be: the status and the value, nothing written, nothing left."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import RawSession
from tests.support.refusals import refused
from tests.support.values import encode

Code = grpc.StatusCode
TYPED: dict[str, tuple[str, dict[str, Any], tuple[grpc.StatusCode, ...], str]] = {
    "create from nothing": ("CreateTensor", {}, (Code.INVALID_ARGUMENT,), "source"),
    "create with an unknown dtype": (
        "CreateTensor",
        {"ones": {}, "shape": [2], "dtype": 999},
        (Code.INVALID_ARGUMENT,),
        "999",
    ),
    "create with a negative size": ("CreateTensor", {"ones": {}, "shape": [2, -3]}, (Code.INVALID_ARGUMENT,), "-3"),
    "create with sizes that overflow": (
        "CreateTensor",
        {"ones": {}, "shape": [2**62, 2**62]},
        (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED),
        str(2**62),
    ),
    "create on a device that is not there": (
        "CreateTensor",
        {"ones": {}, "shape": [2], "device": "cuda:99"},
        (Code.INVALID_ARGUMENT,),
        "cuda:99",
    ),
    "create on a device that is not one": (
        "CreateTensor",
        {"ones": {}, "shape": [2], "device": "toaster"},
        (Code.INVALID_ARGUMENT,),
        "toaster",
    ),
    "create on the meta device": (
        "CreateTensor",
        {"ones": {}, "shape": [2], "device": "meta"},
        (Code.INVALID_ARGUMENT,),
        "meta",
    ),
    "data without a dtype": (
        "CreateTensor",
        {"data": {"shape": [1], "data": b"1234"}},
        (Code.INVALID_ARGUMENT,),
        "dtype",
    ),
    "data too short": (
        "CreateTensor",
        {"data": {"dtype": pb.D_TYPE_FLOAT32, "shape": [3], "data": b"1234"}},
        (Code.INVALID_ARGUMENT,),
        "12",
    ),
    "full without a value": ("CreateTensor", {"full": {}, "shape": [2]}, (Code.INVALID_ARGUMENT,), "value"),
    "full of a text": ("CreateTensor", {"full": {"value": encode("x")}, "shape": [2]}, (Code.INVALID_ARGUMENT,), ""),
    "arange without an end": ("CreateTensor", {"arange": {}}, (Code.INVALID_ARGUMENT,), "end"),
    "arange with a step of zero": (
        "CreateTensor",
        {"arange": {"end": encode(3), "step": encode(0)}},
        (Code.INVALID_ARGUMENT,),
        "",
    ),
    "arange to not-a-number": ("CreateTensor", {"arange": {"end": encode(float("nan"))}}, (Code.INVALID_ARGUMENT,), ""),
    "randint of an empty range": (
        "CreateTensor",
        {"randint": {"low": 3, "high": 3}, "shape": [2]},
        (Code.INVALID_ARGUMENT,),
        "",
    ),
    "eye of negative rows": ("CreateTensor", {"eye": {"rows": -1}}, (Code.INVALID_ARGUMENT,), "-1"),
    "linspace of negative steps": ("CreateTensor", {"linspace": {"steps": -1}}, (Code.INVALID_ARGUMENT,), ""),
    "gradients of integers": (
        "CreateTensor",
        {"ones": {}, "dtype": pb.D_TYPE_INT32, "requires_grad": True},
        (Code.INVALID_ARGUMENT,),
        "",
    ),
    "reshape of nothing": ("Reshape", {"shape": [2]}, (Code.INVALID_ARGUMENT, Code.NOT_FOUND), "input"),
    "reshape of an unknown tensor": ("Reshape", {"input": {"id": 987}, "shape": [2]}, (Code.NOT_FOUND,), "987"),
    "reshape to another size": ("Reshape", {"input": ..., "shape": [7]}, (Code.INVALID_ARGUMENT,), "7"),
    "reshape with two sizes open": ("Reshape", {"input": ..., "shape": [-1, -1]}, (Code.INVALID_ARGUMENT,), ""),
    "reshape to a negative size": ("Reshape", {"input": ..., "shape": [-2, 3]}, (Code.INVALID_ARGUMENT,), "-2"),
    "transpose of a dimension that is not there": ("Transpose", {"input": ..., "dim0": 5}, (Code.OUT_OF_RANGE,), "5"),
    "transpose of a dimension beyond all": (
        "Transpose",
        {"input": ..., "dim1": -(2**63)},
        (Code.OUT_OF_RANGE, Code.INVALID_ARGUMENT),
        "",
    ),
    "permute of a dimension that is not there": ("Permute", {"input": ..., "dims": [0, 7]}, (Code.OUT_OF_RANGE,), "7"),
    "permute of a dimension twice": ("Permute", {"input": ..., "dims": [0, 0]}, (Code.INVALID_ARGUMENT,), ""),
    "permute of too few dimensions": ("Permute", {"input": ..., "dims": [0]}, (Code.INVALID_ARGUMENT,), ""),
    "add of nothing": ("Add", {"input": ...}, (Code.INVALID_ARGUMENT,), "addend"),
    "add of an unknown tensor": ("Add", {"input": ..., "other": {"id": 987}}, (Code.NOT_FOUND,), "987"),
    "add of a text": ("Add", {"input": ..., "scalar": encode("x")}, (Code.INVALID_ARGUMENT,), ""),
    "add times a text": (
        "Add",
        {"input": ..., "scalar": encode(1), "alpha": encode("x")},
        (Code.INVALID_ARGUMENT,),
        "",
    ),
    "add of a scalar that is a list": ("Add", {"input": ..., "scalar": encode([1])}, (Code.INVALID_ARGUMENT,), ""),
    "to a device that is not there": (
        "ToDevice",
        {"input": ..., "device": "cuda:7"},
        (Code.INVALID_ARGUMENT,),
        "cuda:7",
    ),
    "to an unknown dtype": ("ToDevice", {"input": ..., "dtype": 999}, (Code.INVALID_ARGUMENT,), "999"),
    "a tensor of no name": ("GetTensor", {}, (Code.INVALID_ARGUMENT, Code.NOT_FOUND), "tensor"),
    "a tensor of id zero": ("GetTensor", {"tensor": {"id": 0}}, (Code.INVALID_ARGUMENT, Code.NOT_FOUND), "0"),
    "a part of a tensor": ("GetTensor", {"tensor": {"id": 987, "path": [1, 2]}}, (Code.NOT_FOUND,), "987"),
    "a page token that is none": ("ListTensors", {"page_token": "garbage"}, (Code.INVALID_ARGUMENT,), "garbage"),
    "freeing an unknown tensor": ("FreeTensors", {"tensors": [{"id": 987}]}, (Code.NOT_FOUND,), "987"),
}


@pytest.mark.parametrize(("method", "fields", "codes", "naming"), TYPED.values(), ids=TYPED)
def test_a_bad_typed_call_is_refused_with_its_value(
    nothing_leaks: RawSession, method: str, fields: dict[str, Any], codes: tuple[grpc.StatusCode, ...], naming: str
) -> None:
    session = nothing_leaks
    x = session.create(ones={}, shape=[2, 3])
    fields = {name: x.id if value is ... else value for name, value in fields.items()}
    with refused(*codes, naming=naming):
        session.ask(method, **fields)
    assert session.get(x.id).tolist() == [[1, 1, 1]] * 2
    session.ask("FreeTensors", tensors=[x.id])


def test_add_in_place_that_does_not_fit_writes_nothing(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    x, y = session.create(ones={}, shape=[2]), session.create(ones={}, shape=[3])
    with refused(Code.INVALID_ARGUMENT, naming="2"):
        session.ask("Add", input=x.id, other=y.id, in_place=True)
    assert session.get(x.id).tolist() == [1, 1]
    session.ask("FreeTensors", tensors=[x.id, y.id])


def test_freeing_some_unknown_tensors_frees_the_others(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    x, y = session.create(ones={}, shape=[2]), session.create(ones={}, shape=[3])
    with refused(Code.NOT_FOUND, naming="987"):
        session.ask("FreeTensors", tensors=[x.id, pb.Ref(id=987), y.id])
    assert session.held() == (0, 0)


def test_elements_that_are_too_many_for_a_message_are_refused_with_the_remedy(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    x = session.create(zeros={}, shape=[session.limits.max_inline_bytes // 4 + 1])
    with refused(Code.RESOURCE_EXHAUSTED, naming="Download"):
        session.ask("GetTensor", tensor=x.id, include_data=True)
    session.ask("FreeTensors", tensors=[x.id])
