"""A light fuzzer: valid requests bent at random, and random values.

Whatever comes, the server answers and the others live. The default run is short and always the same; FUZZ_EXAMPLES=5000
asks for a longer one with examples of its own.
"""

from __future__ import annotations

import os
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from google.protobuf.empty_pb2 import Empty
from hypothesis import HealthCheck, given, settings

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.models.networks import by_value
from tests.models.programs import convolution
from tests.support.raw import METHODS, RawSession
from tests.support.refusals import parse, status_of
from tests.support.values import Kept

Code = grpc.StatusCode
NEVER = {Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED}
light = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
ids = st.sampled_from([0, 1, 2, 3, 4, 9, 2**44, 2**48, 2**64 - 1])
small = st.integers(-4, 9)
# Nothing between what is small and what no machine has: a size that fits would be tried, and take its time.
integer = small | st.sampled_from([2**44, 2**62, 2**63 - 1, -(2**63)])
floats = st.floats(-9, 9) | st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e300, -1e300])
enums = st.integers(0, 20) | st.sampled_from([99, 2**31 - 1, -1])


def message(of: type[Any], /, **fields: Any) -> Any:
    """A message whose enums may be numbers that the enum does not have."""
    made = of()
    for name, value in fields.items():
        if isinstance(value, (int, float, bool, str, bytes)):
            setattr(made, name, value)
        elif isinstance(value, list):
            getattr(made, name).extend(value)
        else:
            getattr(made, name).CopyFrom(value)
    return made


refs = st.builds(lambda id, path: pb.Ref(id=id, path=path), ids, st.lists(st.integers(0, 3), max_size=3))
shapes = st.lists(small | st.sampled_from([2**44, 2**62, 2**63 - 1]), max_size=5)
data = st.builds(
    lambda dtype, shape, content: message(pb.TensorData, dtype=dtype, shape=shape, data=content),
    enums,
    shapes,
    st.binary(max_size=48),
)
arrays = st.builds(
    lambda kind, content: message(pb.HostArray, kind=kind, **content),
    enums,
    st.fixed_dictionaries({}) | st.fixed_dictionaries({"data": data}) | st.fixed_dictionaries({"upload": ids}),
)
texts = st.text(max_size=12) | st.sampled_from(["cpu", "mean", "trunc", "\0", "cuda:0", "x" * 3000, "ij,jk->ik"])
leaves = st.one_of(
    st.just(pb.Value()),
    st.builds(lambda id: pb.Value(result=id), ids),
    st.builds(lambda ref: pb.Value(ref=ref), refs),
    st.builds(lambda number: pb.Value(integer=number), integer),
    st.builds(lambda number: pb.Value(unsigned=number), ids),
    st.builds(lambda number: pb.Value(number=number), floats),
    st.builds(lambda flag: pb.Value(boolean=flag), st.booleans()),
    st.builds(lambda text: pb.Value(text=text), texts),
    st.just(pb.Value(none=Empty())),
    st.just(pb.Value(ellipsis=Empty())),
    st.builds(lambda a, b: pb.Value(complex=pb.Complex(real=a, imag=b)), floats, floats),
    st.builds(lambda code: message(pb.Value, dtype=code), enums),
    st.builds(lambda code: message(pb.Value, layout=code), enums),
    st.builds(lambda code: message(pb.Value, memory_format=code), enums),
    st.builds(lambda name: pb.Value(device=name), texts),
    st.builds(lambda dims: pb.Value(size=pb.Size(dims=dims)), shapes),
    st.builds(lambda array: pb.Value(array=array), arrays),
    st.builds(lambda content: pb.Value(data=content), data),
    st.builds(lambda text: pb.Value(object=text), texts),
)


def branches(values: st.SearchStrategy[pb.Value]) -> st.SearchStrategy[pb.Value]:
    several = st.lists(values, max_size=4)
    return st.one_of(
        st.builds(lambda items: pb.Value(list=pb.Sequence(items=items)), several),
        st.builds(lambda items: pb.Value(tuple=pb.Sequence(items=items)), several),
        st.builds(lambda a, b, c: pb.Value(slice=pb.Slice(start=a, stop=b, step=c)), values, values, values),
        st.builds(
            lambda entries: pb.Value(mapping=pb.Mapping(entries=entries)),
            st.lists(st.builds(lambda name, value: pb.NamedValue(name=name, value=value), texts, values), max_size=3),
        ),
        st.builds(
            lambda kind, items: pb.Value(named_tuple=pb.NamedTuple(type=kind, fields=["a"], items=items)),
            texts,
            several,
        ),
    )


values = st.recursive(leaves, branches, max_leaves=8)
OPERATIONS = [
    *("add", "Tensor.add_", "tensor", "ones", "full", "Tensor.__getitem__", "Tensor.__setitem__", "Tensor.reshape"),
    *("Tensor.view", "cat", "where", "matmul", "tc.read", "tc.describe", "tc.network", "tc.forward", "arange"),
    *("Tensor.to", "Tensor.backward", "einsum", "Tensor.max", "split", "as_strided", "gather", "Tensor.index_put_"),
    *("Generator", "Generator.manual_seed", "set_default_dtype", "Tensor.resize_", "stack", "no.such"),
]
keywords = st.sampled_from(
    ["dim", "dtype", "device", "out", "alpha", "size", "generator", "requires_grad", "layout", "\0"]
)
calls = st.builds(
    lambda id, operation, args, kwargs, context, frees, parts: pb.Call(
        id=id,
        operation=operation,
        args=args,
        kwargs=[pb.NamedValue(name=name, value=value) for name, value in kwargs],
        context=context,
        frees=frees,
        free_parts=parts,
    ),
    ids,
    st.integers(0, len(OPERATIONS) - 1) | st.just(2**32 - 1),
    st.lists(values, max_size=4),
    st.lists(st.tuples(keywords, values), max_size=3),
    st.sampled_from([0, 0, 0, 1, 2, 3, 2**32 - 1]),
    st.lists(ids, max_size=3),
    st.lists(refs, max_size=2),
)
contexts = st.builds(
    lambda no_grad, inference, autocast: pb.Context(no_grad=no_grad, inference=inference, autocast=autocast),
    st.booleans(),
    st.booleans(),
    st.lists(
        st.builds(
            lambda device, dtype, enabled: message(pb.Autocast, device_type=device, dtype=dtype, enabled=enabled),
            texts,
            enums,
            st.booleans(),
        ),
        max_size=2,
    ),
)


def start(session: RawSession) -> None:
    """What every example begins with: tensors under ids 1 to 3, and all operations defined."""
    session.run(frees=[0, 1, 2, 3, 4, 9, 2**44])
    session.run(
        session.call(1, "arange", 6.0),
        session.call(2, "ones", 2, 3, requires_grad=True),
        session.call(3, "Tensor.max", Kept(2), 1),
        *(session.call(0, name) for name in OPERATIONS if name not in session._operations),
    )


@light
@given(calls=st.lists(calls, min_size=1, max_size=5), contexts=st.lists(contexts, max_size=2))
def test_random_calls_are_all_answered(
    bystander: RawSession, session: RawSession, calls: list[pb.Call], contexts: list[pb.Context]
) -> None:
    start(session)
    reply = session.run(*calls, define_contexts=contexts)
    for index, error in reply.errors.items():
        assert all((error.type, error.reason)), (calls[index], error)
    session.run(
        session.call(0, "set_default_dtype", pb.Value(dtype=pb.D_TYPE_FLOAT32)), frees=[0, 1, 2, 3, 4, 9, 2**44]
    )


@pytest.mark.parametrize(
    "method", ["Execute", "CreateTensor", "Add", "CreateMlp", "CreateModel", "ListTensors", "OpenSession"]
)
def test_bent_bytes_are_all_answered(bystander: RawSession, session: RawSession, method: str) -> None:
    start(session)
    x = session.create(ones={}, shape=[3])
    batch = session.batch(session.call(5, "add", Kept(1), Kept(1), alpha=2), frees=[5], seq=1)
    described, weights = convolution()
    valid: dict[str, dict[str, Any]] = {
        "Execute": {"session": session.secret, "batch": batch},
        "CreateTensor": {
            "shape": [2, 3],
            "full": {"value": pb.Value(integer=3)},
            "dtype": pb.D_TYPE_INT8,
            "device": "cpu",
        },
        "Add": {"input": x.id, "scalar": pb.Value(number=1.5), "alpha": pb.Value(integer=2)},
        "CreateMlp": {"name": "bent", "layers": [{"in_features": 2, "out_features": 3}]},
        "CreateModel": {"name": "bent", "program": described, "weights": [by_value(weight) for weight in weights]},
        "ListTensors": {"page_size": 2, "page_token": "1"},
        "OpenSession": {"min_protocol": 1, "max_protocol": 1, "client": "bent"},
    }
    wire = session.request(method, **valid[method]).SerializeToString()

    @light
    @given(edits=st.lists(st.tuples(st.integers(0, len(wire) - 1), st.integers(0, 255)), min_size=1, max_size=4))
    def bend(edits: list[tuple[int, int]]) -> None:
        bent = bytearray(wire)
        for at, byte in edits:
            bent[at] = byte
        try:
            response = session.send(method, bytes(bent))
        except grpc.RpcError as error:
            told = parse(error)
            assert told.code not in NEVER, told
            return
        if method == "OpenSession":
            session.ask("CloseSession", session=response.session)
        elif method in ("CreateMlp", "CreateModel"):
            session.ask("DeleteMlp", name=(response.mlp if method == "CreateMlp" else response.model).name)

    bend()
    assert method in METHODS


@pytest.mark.parametrize("method", ["ExecuteStream", "Upload"])
def test_bent_streams_are_all_answered(bystander: RawSession, session: RawSession, method: str) -> None:
    start(session)
    batch = session.batch(session.call(5, "add", Kept(1), Kept(1), alpha=2), frees=[5], seq=1)
    header = service_pb.UploadHeader(context=session.context(), id=3, dtype=pb.D_TYPE_FLOAT32, shape=[2, 2], crc32=5)
    valid: dict[str, list[Any]] = {
        "ExecuteStream": [
            service_pb.ExecuteStreamRequest(session=session.secret),
            service_pb.ExecuteStreamRequest(batch=batch),
        ],
        "Upload": [service_pb.UploadRequest(header=header), service_pb.UploadRequest(chunk=bytes(16))],
    }
    wires = [request.SerializeToString() for request in valid[method]]
    edit = st.tuples(st.integers(0, 1), st.integers(0, 200), st.integers(0, 255))

    @light
    @given(edits=st.lists(edit, min_size=1, max_size=4), order=st.lists(st.integers(0, 1), max_size=4))
    def bend(edits: list[tuple[int, int, int]], order: list[int]) -> None:
        bent = [bytearray(wire) for wire in wires]
        for which, at, byte in edits:
            bent[which][at % len(bent[which])] = byte
        requests = [bytes(bent[which]) for which in (order or [0, 1])]
        code = status_of(lambda: session.send_stream(method, requests))
        assert code not in NEVER, code

    bend()
