"""The typed unary RPCs, by anyone with gRPC, with a session and without one. The oracle is torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32 as crc

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.raw import Raw, RawSession
from tests.support.values import DTYPES, encode, tensor_data

Oracle = Callable[[], torch.Tensor]
NUMBERS = torch.arange(24.0).reshape(2, 3, 4) - 7


def bits(tensor: torch.Tensor) -> bytes:
    return tensor_data(tensor).data


def assert_is(caller: Raw, meta: pb.TensorMeta, expected: torch.Tensor) -> None:
    """The tensor that the description names is this one, to the bit, and is described as it is."""
    assert list(meta.shape) == list(expected.shape)
    assert meta.dtype == DTYPES[expected.dtype]
    assert meta.device == str(expected.device)
    assert meta.requires_grad == expected.requires_grad
    data = caller.ask("GetTensor", tensor=meta.id, include_data=True).data
    assert data.dtype == meta.dtype
    assert data.shape == meta.shape
    assert data.data == bits(expected)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_data_of_every_dtype_comes_back_bit_by_bit(caller: Raw, dtype: torch.dtype) -> None:
    count = 2 * 3 * dtype.itemsize
    pattern = torch.arange(count, dtype=torch.uint8) % 2 if dtype == torch.bool else torch.arange(count).to(torch.uint8)
    tensor = pattern.view(dtype).reshape(2, 3)
    assert_is(caller, caller.create(data=tensor_data(tensor)), tensor)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 1, 3, 1, 2)], ids=str)
def test_data_of_any_shape_comes_back(caller: Raw, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape)
    assert_is(caller, caller.create(data=tensor_data(tensor)), tensor)


FACTORIES: dict[str, tuple[dict[str, Any], Oracle]] = {
    "empty is zero-filled": ({"empty": {}, "shape": [3, 4]}, lambda: torch.zeros(3, 4)),
    "ones": ({"ones": {}, "shape": [3]}, lambda: torch.ones(3)),
    "ones of a dtype": ({"ones": {}, "shape": [3], "dtype": pb.D_TYPE_INT16}, lambda: torch.ones(3, dtype=torch.int16)),
    "zeros without dimensions": ({"zeros": {}}, lambda: torch.zeros(())),
    "zeros that record gradients": (
        {"zeros": {}, "shape": [2], "requires_grad": True},
        lambda: torch.zeros(2, requires_grad=True),
    ),
    "zeros on the cpu": ({"zeros": {}, "shape": [2], "device": "cpu"}, lambda: torch.zeros(2, device="cpu")),
    "full of an int": ({"full": {"value": encode(7)}, "shape": [2, 2]}, lambda: torch.full((2, 2), 7)),
    "full of a float": ({"full": {"value": encode(2.5)}, "shape": [2]}, lambda: torch.full((2,), 2.5)),
    "full of a bool": ({"full": {"value": encode(True)}, "shape": [2]}, lambda: torch.full((2,), True)),
    "full of a complex": ({"full": {"value": encode(1 + 2j)}, "shape": [2]}, lambda: torch.full((2,), 1 + 2j)),
    "full of a dtype": (
        {"full": {"value": encode(1)}, "shape": [2], "dtype": pb.D_TYPE_BFLOAT16},
        lambda: torch.full((2,), 1, dtype=torch.bfloat16),
    ),
    "arange of ints": ({"arange": {"end": encode(5)}}, lambda: torch.arange(5)),
    "arange of floats": (
        {"arange": {"start": encode(1.0), "end": encode(2.5), "step": encode(0.5)}},
        lambda: torch.arange(1.0, 2.5, 0.5),
    ),
    "arange down": (
        {"arange": {"start": encode(5), "end": encode(-5), "step": encode(-3)}},
        lambda: torch.arange(5, -5, -3),
    ),
    "eye": ({"eye": {"rows": 3}}, lambda: torch.eye(3)),
    "eye that is not square": ({"eye": {"rows": 2, "columns": 4}}, lambda: torch.eye(2, 4)),
    "eye without columns": ({"eye": {"rows": 2, "columns": 0}}, lambda: torch.eye(2, 0)),
    "linspace": ({"linspace": {"start": -1, "end": 1, "steps": 5}}, lambda: torch.linspace(-1, 1, 5)),
}


@pytest.mark.parametrize(("fields", "oracle"), FACTORIES.values(), ids=FACTORIES)
def test_a_factory_makes_what_torch_makes(caller: Raw, fields: dict[str, Any], oracle: Oracle) -> None:
    assert_is(caller, caller.create(**fields), oracle())


@pytest.mark.parametrize(
    ("fields", "low", "high", "dtype"),
    [
        pytest.param({"rand": {}}, 0.0, 1.0, torch.float32, id="rand"),
        pytest.param({"randn": {}}, -9.0, 9.0, torch.float32, id="randn"),
        pytest.param({"randint": {"low": 3, "high": 10}}, 3, 10, torch.int64, id="randint"),
        pytest.param({"rand": {}, "dtype": pb.D_TYPE_FLOAT64}, 0.0, 1.0, torch.float64, id="rand of a dtype"),
    ],
)
def test_a_random_factory_draws_from_its_range(
    caller: Raw, fields: dict[str, Any], low: float, high: float, dtype: torch.dtype
) -> None:
    drawn = caller.get(caller.create(**fields, shape=[50, 40]).id)
    assert drawn.shape == (50, 40)
    assert drawn.dtype == dtype
    assert ((drawn >= low) & (drawn < high)).all()
    assert drawn.unique().numel() > 6


VIEWS: dict[str, tuple[str, dict[str, Any], Callable[[torch.Tensor], torch.Tensor]]] = {
    "reshape": ("Reshape", {"shape": [4, 6]}, lambda x: x.reshape(4, 6)),
    "reshape with one size open": ("Reshape", {"shape": [-1, 8]}, lambda x: x.reshape(-1, 8)),
    "transpose": ("Transpose", {"dim0": 0, "dim1": 2}, lambda x: x.transpose(0, 2)),
    "transpose from the end": ("Transpose", {"dim0": -1, "dim1": -2}, lambda x: x.transpose(-1, -2)),
    "permute": ("Permute", {"dims": [2, 0, 1]}, lambda x: x.permute(2, 0, 1)),
    "permute from the end": ("Permute", {"dims": [-1, -3, -2]}, lambda x: x.permute(-1, -3, -2)),
}


@pytest.mark.parametrize(("method", "fields", "oracle"), VIEWS.values(), ids=VIEWS)
def test_a_view_shows_the_elements_of_its_base(
    caller: Raw, method: str, fields: dict[str, Any], oracle: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    base = caller.create(data=tensor_data(NUMBERS))
    held = caller.held()
    view = caller.ask(method, input=base.id, **fields).tensor
    assert_is(caller, view, oracle(NUMBERS))
    assert caller.held() == (held[0] + 1, held[1]), "a view takes no memory"
    caller.ask("Add", input=view.id, scalar=encode(1), in_place=True)
    assert_is(caller, base, NUMBERS + 1)


ADDITIONS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "a tensor": ({}, lambda x, y: x + y),
    "alpha times a tensor": ({"alpha": encode(0.5)}, lambda x, y: torch.add(x, y, alpha=0.5)),
    "an int": ({"scalar": encode(10)}, lambda x, y: x + 10),
    "alpha times an int": ({"scalar": encode(10), "alpha": encode(3)}, lambda x, y: torch.add(x, 10, alpha=3)),
    "a float": ({"scalar": encode(-0.5)}, lambda x, y: x + -0.5),
    "a complex": ({"scalar": encode(1j)}, lambda x, y: x + 1j),
}


@pytest.mark.parametrize(("fields", "oracle"), ADDITIONS.values(), ids=ADDITIONS)
def test_add_broadcasts_and_promotes_as_torch_does(
    caller: Raw, fields: dict[str, Any], oracle: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    row = torch.tensor([1.5, 2, 3, 4], dtype=torch.float64)
    x = caller.create(data=tensor_data(NUMBERS))
    y = caller.create(data=tensor_data(row))
    addend: dict[str, Any] = {} if "scalar" in fields else {"other": y.id}
    total = caller.ask("Add", input=x.id, **addend, **fields).tensor
    assert total.id.id not in (x.id.id, y.id.id)
    assert_is(caller, total, oracle(NUMBERS, row))
    assert_is(caller, x, NUMBERS)


def test_add_in_place_returns_the_id_of_its_input(caller: Raw) -> None:
    x = caller.create(data=tensor_data(NUMBERS))
    held = caller.held()
    total = caller.ask("Add", input=x.id, scalar=encode(2), alpha=encode(3), in_place=True).tensor
    assert total.id == x.id
    assert caller.held() == held
    assert_is(caller, x, NUMBERS + 6)


def test_add_of_a_bool_to_ints_is_what_torch_gives(caller: Raw) -> None:
    x = caller.create(arange={"end": encode(4)})
    total = caller.ask("Add", input=x.id, scalar=encode(True)).tensor
    assert_is(caller, total, torch.arange(4) + True)


def test_to_device_with_nothing_to_do_is_the_same_tensor(caller: Raw) -> None:
    x = caller.create(data=tensor_data(NUMBERS))
    held = caller.held()
    same = caller.ask("ToDevice", input=x.id, device="cpu", dtype=pb.D_TYPE_FLOAT32).tensor
    assert same.same_as == x.id
    assert caller.held()[1] == held[1]
    caller.ask("Add", input=x.id, scalar=encode(1), in_place=True)
    assert torch.equal(caller.get(same.id), NUMBERS + 1)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"device": "cpu", "dtype": pb.D_TYPE_FLOAT64}, id="device and dtype"),
        pytest.param({"dtype": pb.D_TYPE_FLOAT64}, id="dtype"),
        pytest.param({"copy": True}, id="copy"),
    ],
)
def test_to_device_makes_another_tensor_where_there_is_something_to_do(caller: Raw, fields: dict[str, Any]) -> None:
    x = caller.create(data=tensor_data(NUMBERS))
    new = caller.ask("ToDevice", input=x.id, **fields).tensor
    assert not new.HasField("same_as")
    assert new.id != x.id
    assert_is(caller, new, NUMBERS.double() if "dtype" in fields else NUMBERS)


def test_get_tensor_gives_the_description_alone_unless_asked_for_more(caller: Raw) -> None:
    x = caller.create(data=tensor_data(NUMBERS))
    answer = caller.ask("GetTensor", tensor=x.id)
    assert (list(answer.tensor.shape), answer.tensor.id) == ([2, 3, 4], x.id)
    assert not answer.HasField("data")
    assert not answer.text


@pytest.mark.parametrize(
    "tensor", [NUMBERS, torch.tensor(True), torch.empty(0), torch.ones(2000)], ids=["3d", "0d", "no elements", "long"]
)
def test_get_tensor_gives_the_text_that_torch_prints(caller: Raw, tensor: torch.Tensor) -> None:
    x = caller.create(data=tensor_data(tensor))
    assert caller.ask("GetTensor", tensor=x.id, include_text=True).text == str(tensor)


def test_list_tensors_gives_pages_in_the_order_of_ids(session: RawSession) -> None:
    made = [session.create(ones={}, shape=[n]).id.id for n in range(1, 8)]
    token = ""
    pages: list[list[tuple[int, list[int]]]] = []
    while not pages or token:
        page = session.ask("ListTensors", page_size=3, page_token=token)
        assert (page.total_tensors, page.total_bytes) == (7, 4 * 28)
        pages.append([(tensor.id.id, list(tensor.shape)) for tensor in page.tensors])
        token = page.next_page_token
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [entry for page in pages for entry in page] == [
        (id, [n]) for id, n in zip(sorted(made), range(1, 8), strict=True)
    ]


def test_a_page_goes_on_after_tensors_before_it_were_freed(session: RawSession) -> None:
    made = [session.create(ones={}, shape=[1]).id for _ in range(6)]
    first = session.ask("ListTensors", page_size=3)
    session.ask("FreeTensors", tensors=made[:3])
    second = session.ask("ListTensors", page_size=3, page_token=first.next_page_token)
    assert [tensor.id for tensor in second.tensors] == made[3:]


def test_an_empty_session_lists_nothing(session: RawSession) -> None:
    assert session.ask("ListTensors") == service_pb.ListTensorsResponse()


def test_freed_tensors_give_their_memory_back_when_no_view_is_left(caller: Raw) -> None:
    before = caller.held()
    base = caller.create(zeros={}, shape=[1000])
    view = caller.ask("Reshape", input=base.id, shape=[10, 100]).tensor
    assert caller.held() == (before[0] + 2, before[1] + 4000)
    assert caller.ask("FreeTensors", tensors=[base.id]).freed == 1
    assert caller.held() == (before[0] + 1, before[1] + 4000)
    assert caller.ask("FreeTensors", tensors=[view.id]).freed == 1
    assert caller.held() == before


def test_sessionless_callers_share_a_session(anyone: Raw, session: RawSession) -> None:
    mine = anyone.create(data=tensor_data(NUMBERS))
    with Raw(anyone.address) as stranger:
        assert torch.equal(stranger.get(mine.id), NUMBERS)
        stranger.ask("Add", input=mine.id, scalar=encode(1), in_place=True)
    assert torch.equal(anyone.get(mine.id), NUMBERS + 1)
    assert session.held() == (0, 0)


def test_typed_calls_and_batches_share_the_tensors_of_a_session(session: RawSession) -> None:
    kept = session.make("arange", 6.0)
    view = session.ask("Reshape", input=kept, shape=[2, 3]).tensor
    session.run(session.call(0, "Tensor.mul_", pb.Value(ref=view.id), 2)).clean()
    assert torch.equal(session.read(kept), torch.arange(6.0) * 2)


def test_a_typed_call_with_a_seq_is_applied_once(session: RawSession) -> None:
    x = session.create(zeros={}, shape=[3])
    answers = [session.ask("Add", input=x.id, scalar=encode(1), in_place=True, seq=1) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert session.get(x.id).tolist() == [1, 1, 1]
    made = [session.ask("CreateTensor", ones={}, shape=[2], seq=2).tensor.id for _ in range(2)]
    assert made[0] == made[1]
    session.next_seq = 3
    session.run(session.call(0, "Tensor.add_", pb.Value(ref=x.id), 1)).clean()
    assert session.get(x.id).tolist() == [2, 2, 2]


def test_an_upload_becomes_a_tensor_at_once(caller: Raw) -> None:
    tensor = torch.randn(70_000)
    raw = bits(tensor)
    header = service_pb.UploadHeader(
        context=caller.context(), dtype=pb.D_TYPE_FLOAT32, shape=tensor.shape, create_tensor=True, crc32=crc(raw)
    )
    answer = caller.upload(header, [raw[:100_001], raw[100_001:200_000], raw[200_000:]])
    assert answer.received_bytes == len(raw)
    assert torch.equal(caller.get(answer.tensor.id), tensor)


def test_an_upload_is_used_up_by_the_call_that_names_it(session: RawSession) -> None:
    tensor = torch.arange(50_000).to(torch.int32)
    held = session.held()
    header = service_pb.UploadHeader(context=session.context(), id=9, dtype=pb.D_TYPE_INT32, shape=tensor.shape)
    assert session.upload(header, [bits(tensor)]).received_bytes == 200_000
    argument = pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_NDARRAY, upload=9))
    kept = session.make("tensor", argument)
    assert torch.equal(session.get(kept), tensor)
    again = session.run(session.call(session.id(), "tensor", argument)).error(0)
    assert "9" in again.message
    session.run(frees=[kept.id])
    assert session.held() == held


def test_an_upload_without_elements_is_a_tensor(caller: Raw) -> None:
    header = service_pb.UploadHeader(
        context=caller.context(), dtype=pb.D_TYPE_FLOAT32, shape=[0, 3], create_tensor=True, crc32=0
    )
    answer = caller.upload(header, [])
    assert (answer.received_bytes, list(answer.tensor.shape)) == (0, [0, 3])


@pytest.mark.parametrize("chunk_bytes", [0, 65_536], ids=["the server's chunks", "chosen chunks"])
def test_a_download_is_a_header_then_chunks_then_a_checksum(caller: Raw, chunk_bytes: int) -> None:
    tensor = torch.randn(600, 500)
    raw = bits(tensor)
    header = service_pb.UploadHeader(
        context=caller.context(), dtype=pb.D_TYPE_FLOAT32, shape=tensor.shape, create_tensor=True
    )
    uploaded = caller.upload(header, [raw[at : at + 500_000] for at in range(0, len(raw), 500_000)])
    turned = caller.ask("Transpose", input=uploaded.tensor.id, dim0=0, dim1=1).tensor
    first, *chunks, last = caller.download(turned.id, chunk_bytes)
    assert first.header == service_pb.DownloadHeader(dtype=pb.D_TYPE_FLOAT32, shape=[500, 600], total_bytes=len(raw))
    received = b"".join(chunk.chunk for chunk in chunks)
    assert received == bits(tensor.t())
    assert last.trailer.crc32 == crc(received)
    if chunk_bytes:
        assert {len(chunk.chunk) for chunk in chunks[:-1]} == {chunk_bytes}


def test_a_download_of_no_elements_has_no_chunks(caller: Raw) -> None:
    empty = caller.create(zeros={}, shape=[0])
    first, last = caller.download(empty.id)
    assert (first.header.total_bytes, last.trailer.crc32) == (0, 0)


def test_the_server_says_what_it_is(anyone: Raw, session: RawSession) -> None:
    info = anyone.ask("GetServerInfo")
    assert info.version
    assert info.torch_version.startswith(torch.__version__.split("+")[0])
    assert (info.min_protocol, info.max_protocol) == (1, 2)
    assert info.boot_id == session.opened.boot_id
    assert info.limits == session.limits
    assert info.operations_digest == session.opened.operations_digest
    assert info.sessions >= 1
    assert info.uptime_s > 0
    assert info.devices[0].name == session.opened.default_device == "cpu"
    assert info.devices[0].total_bytes > info.devices[0].free_bytes > 0


def test_the_memory_of_tensors_is_counted_on_their_device(anyone: Raw, session: RawSession) -> None:
    def allocated() -> int:
        count: int = anyone.ask("GetServerInfo").devices[0].allocated_bytes
        return count

    before = allocated()
    x = session.create(zeros={}, shape=[1 << 20])
    assert allocated() == before + (4 << 20)
    session.ask("FreeTensors", tensors=[x.id])
    assert allocated() == before


def test_a_closed_session_lets_go_of_all_it_held(anyone: Raw, other: RawSession) -> None:
    before = anyone.ask("GetServerInfo")
    other.create(zeros={}, shape=[1 << 20])
    other.make("ones", 5)
    other.ask("CloseSession", session=other.secret)
    other.ask("CloseSession", session=other.secret)
    after = anyone.ask("GetServerInfo")
    assert after.sessions == before.sessions - 1
    assert after.devices[0].allocated_bytes == before.devices[0].allocated_bytes
