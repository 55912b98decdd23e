"""Batches: calls on results that do not exist yet, parts, frees, definitions, and what a reply tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.raw import Raw, RawSession
from tests.support.values import DTYPES, Kept, Packed

Call = pb.Call


def chain(session: RawSession, length: int, free: bool) -> list[Call]:
    """zeros(4), then `length` times + 1, each freeing what it no longer needs; the last one is kept."""
    calls = [session.call(session.id(), "zeros", 4)]
    for _ in range(length):
        last = Kept(calls[-1].id)
        calls.append(session.call(session.id(), "Tensor.__add__", last, 1))
        if free and len(calls) > 2:
            calls[-1].frees.append(calls[-3].id)
    return calls


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_calls_name_results_that_do_not_exist_yet(session: RawSession, streamed: bool) -> None:
    calls = chain(session, 50, free=False)
    batch = session.batch(*calls, session.call(0, "tc.read", Kept(calls[-1].id)))
    if streamed:
        with session.stream() as stream:
            stream.send(batch)
            reply = stream.receive()
            stream.finish()
    else:
        reply = session.execute(batch)
    assert reply.seq == 1
    assert reply.value(len(calls)).tolist() == [50] * 4


def test_batches_on_a_stream_are_answered_in_order_without_waiting_for_replies(session: RawSession) -> None:
    total = Kept(session.id())
    assert session.limits.max_batches_in_flight < 150, "more than may wait: the server takes them as it comes to them"
    batches = [session.batch(session.call(total.id, "zeros", ()))]
    batches += [
        session.batch(session.call(0, "Tensor.add_", total, 1), session.call(0, "Tensor.item", total))
        for _ in range(150)
    ]
    with session.stream() as stream:
        stream.send(*batches)
        replies = [stream.receive() for _ in batches]
    assert [reply.seq for reply in replies] == list(range(1, 152))
    assert [reply.value(1) for reply in replies[1:]] == list(range(1, 151))


def test_unary_and_stream_number_the_same_batches(session: RawSession) -> None:
    session.run(session.call(1, "ones", 2))
    with session.stream() as stream:
        stream.send(session.batch(session.call(0, "Tensor.add_", Kept(1), 1)))
        assert stream.receive().seq == 2
        assert session.run(session.call(0, "tc.read", Kept(1))).value(0).tolist() == [2, 2]
        stream.send(session.batch(session.call(0, "tc.read", Kept(1))))
        assert stream.receive().value(0).tolist() == [2, 2]


def test_a_part_of_a_result_is_named_by_its_path(session: RawSession) -> None:
    x = torch.tensor([[3.0, 1, 2], [4, 6, 5]])
    highest, pieces = Kept(session.id()), Kept(session.id())
    reply = session.run(
        session.call(highest.id, "Tensor.max", x, 1),
        session.call(pieces.id, "split", x, 1),
        session.call(0, "tc.read", highest.part(0)),
        session.call(0, "tc.read", highest.part(1)),
        session.call(0, "tc.read", pieces.part(1)),
    ).clean()
    assert reply.value(2).tolist() == [3, 6]
    assert reply.value(3).tolist() == [0, 1]
    assert reply.value(4).tolist() == [[4, 6, 5]]
    told = reply.value(0)
    assert {name: (list(meta.shape), meta.dtype) for name, meta in told.items()} == {
        "values": ([2], pb.D_TYPE_FLOAT32),
        "indices": ([2], pb.D_TYPE_INT64),
    }
    assert reply.by_index[0].value.named_tuple.type == "torch.return_types.max"
    assert [list(meta.shape) for meta in reply.value(1)] == [[1, 3], [1, 3]]


def test_parts_are_let_go_one_by_one(session: RawSession) -> None:
    kept = session.make("Tensor.max", torch.rand(30, 20), 1)
    assert session.held() == (2, 30 * 4 + 30 * 8)
    session.run(free_parts=[kept.part(0)]).clean()
    assert session.held() == (1, 30 * 8)
    assert session.run(session.call(0, "tc.read", kept.part(0))).error(0).reason == "UNKNOWN_ID"
    session.run(session.call(0, "tc.read", kept.part(1))).clean()
    session.run(free_parts=[kept.part(1)]).clean()
    assert session.held() == (0, 0)


def test_letting_go_of_a_result_lets_go_of_its_parts(session: RawSession) -> None:
    kept = session.make("Tensor.max", torch.rand(3, 2), 1)
    session.run(frees=[kept.id]).clean()
    assert session.held() == (0, 0)


def test_frees_of_a_call_come_before_it_and_frees_of_a_batch_after_its_calls(session: RawSession) -> None:
    a, b, c = (Kept(session.id()) for _ in range(3))
    reply = session.run(
        session.call(a.id, "ones", 2),
        session.call(b.id, "zeros", 2, frees=[a.id]),
        session.call(0, "tc.read", a),
        session.call(c.id, "Tensor.__add__", b, 1),
        frees=[b.id],
    )
    assert set(reply.errors) == {2}
    assert reply.error(2).reason == "UNKNOWN_ID"
    assert session.held()[0] == 1
    assert session.read(c).tolist() == [1, 1]


def test_an_id_may_be_used_again_once_it_is_free(session: RawSession) -> None:
    reply = session.run(
        session.call(1, "ones", 2),
        session.call(1, "zeros", 3, frees=[1]),
        session.call(0, "tc.read", Kept(1)),
    ).clean()
    assert reply.value(2).tolist() == [0, 0, 0]


def test_a_chain_that_frees_as_it_goes_ends_with_two_tensors(session: RawSession) -> None:
    calls = chain(session, 1000, free=True)
    reply = session.run(*calls, session.call(0, "tc.read", Kept(calls[-1].id))).clean()
    assert reply.value(len(calls)).tolist() == [1000] * 4
    assert session.held() == (2, 32)
    assert set(reply.by_index) == {len(calls) - 2, len(calls) - 1, len(calls)}, "only what is held, and the read"


def test_a_chain_of_a_thousand_needs_no_more_memory_than_two_tensors(server: Any, session: RawSession) -> None:
    size = 1 << 20
    x = Kept(session.id())
    calls = [session.call(x.id, "zeros", size)]
    for _ in range(60):
        last = calls[-1].id
        calls.append(
            session.call(session.id(), "Tensor.__add__", Kept(last), 1, frees=[calls[-2].id] if len(calls) > 1 else [])
        )
    session.run(*calls).clean()
    assert session.held() == (2, 2 * 4 * size)


def test_an_id_of_zero_keeps_no_result(session: RawSession) -> None:
    reply = session.run(session.call(0, "ones", 2), session.call(0, "Tensor.max", torch.rand(2, 2), 1)).clean()
    assert not reply.message.results
    assert session.held() == (0, 0)


PLAIN: dict[str, tuple[str, list[Any], Any]] = {
    "an int": ("Tensor.dim", [torch.ones(2, 3)], 2),
    "a float": ("Tensor.item", [torch.tensor(0.1, dtype=torch.float64)], 0.1),
    "a bool": ("equal", [torch.ones(2), torch.ones(2)], True),
    "a complex": ("Tensor.item", [torch.tensor(1 + 2j)], 1 + 2j),
    "a text": ("Tensor.type", [torch.ones(2)], "torch.FloatTensor"),
    "a size": ("Tensor.size", [torch.ones(2, 3)], torch.Size([2, 3])),
    "a list": ("Tensor.tolist", [torch.tensor([[1, 2], [3, 4]])], [[1, 2], [3, 4]]),
    "a dtype": ("promote_types", [torch.int32, torch.float16], torch.float16),
    "a big int": ("Tensor.item", [torch.tensor(2**64 - 1, dtype=torch.uint64)], 2**64 - 1),
    "a small int": ("Tensor.item", [torch.tensor(-(2**63))], -(2**63)),
    "none": ("Tensor.grad.__get__", [torch.ones(2)], None),
}


@pytest.mark.parametrize(("operation", "args", "expected"), PLAIN.values(), ids=PLAIN)
def test_plain_values_are_in_the_reply(session: RawSession, operation: str, args: list[Any], expected: Any) -> None:
    value = session.run(session.call(session.id(), operation, *args)).clean().value(0)
    assert value == expected
    assert type(value) is type(expected)


def test_the_description_of_a_tensor_says_what_it_is(session: RawSession) -> None:
    reply = session.run(session.call(1, "ones", 2, 3, dtype=torch.float64, requires_grad=True)).clean()
    meta = reply.value(0)
    assert (list(meta.shape), meta.dtype) == ([2, 3], DTYPES[torch.float64])
    assert (meta.device, meta.requires_grad) == ("cpu", True)
    assert not meta.HasField("same_as")


def test_only_tensors_that_are_held_at_the_end_are_described(session: RawSession) -> None:
    reply = session.run(
        session.call(1, "ones", 2),
        session.call(2, "ones", 3),
        session.call(3, "ones", 4, frees=[1]),
        frees=[2],
    ).clean()
    assert set(reply.by_index) == {2}
    assert list(reply.value(2).shape) == [4]


def test_a_tensor_is_described_as_it_is_at_the_end_of_the_batch(session: RawSession) -> None:
    reply = session.run(session.call(1, "ones", 2, 3), session.call(0, "Tensor.t_", Kept(1))).clean()
    assert list(reply.value(0).shape) == [3, 2]


SAME: dict[str, tuple[str, list[Any]]] = {
    "contiguous": ("Tensor.contiguous", []),
    "float": ("Tensor.float", []),
    "to": ("Tensor.to", ["cpu", torch.float32]),
}


@pytest.mark.parametrize(("operation", "args"), SAME.values(), ids=SAME)
def test_a_call_that_returns_its_argument_says_so(session: RawSession, operation: str, args: list[Any]) -> None:
    x = session.make("arange", 4.0)
    same = Kept(session.id())
    meta = session.run(session.call(same.id, operation, x, *args)).clean().value(0)
    assert meta.same_as == x.ref
    session.run(session.call(0, "Tensor.add_", same, 1), frees=[x.id]).clean()
    assert session.read(same).tolist() == [1, 2, 3, 4], "the second name outlives the first"
    session.run(frees=[same.id])
    assert session.held() == (0, 0)


def test_an_in_place_call_changes_the_tensor_for_every_name_of_it(session: RawSession) -> None:
    x = session.make("zeros", 2, 3)
    row = session.make("Tensor.__getitem__", x, 1)
    session.run(
        session.call(0, "Tensor.add_", row, 5), session.call(0, "Tensor.__setitem__", x, (0, slice(None, 2)), 9)
    )
    assert session.read(x).tolist() == [[9, 9, 0], [5, 5, 5]]


INDICES: dict[str, Any] = {
    "an int": 1,
    "a slice with a step": slice(None, None, 2),
    "ellipsis and none": (..., None, 0),
    "a list": [1, 0],
    "a mask": torch.tensor([True, False, True]),
    "index tensors": (torch.tensor([0, 2]), torch.tensor([1, 1])),
    "a slice of tensors": slice(torch.tensor(0), torch.tensor(2)),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_an_index_picks_what_torch_picks(session: RawSession, index: Any) -> None:
    x = torch.arange(12).reshape(3, 4)
    kept = session.make("Tensor.__getitem__", x, index)
    assert torch.equal(session.read(kept), x[index])


def test_a_sequence_of_numbers_has_the_dtype_that_torch_infers(session: RawSession) -> None:
    made = [session.make("tensor", Packed(numbers)) for numbers in ([[1, 2]], [1.5, 2.0], [True, False])]
    assert [session.read(kept).dtype for kept in made] == [torch.int64, torch.float32, torch.bool]


def test_a_name_of_an_operation_is_defined_once_and_used_in_later_batches(session: RawSession) -> None:
    session.run(session.call(1, "ones", 2))
    batch = session.batch(session.call(2, "ones", 3))
    assert not batch.define_operations
    session.execute(batch).clean()
    assert session.held()[0] == 2


def test_contexts_are_defined_once_and_hold_for_their_calls_alone(session: RawSession) -> None:
    no_grad = pb.Context(no_grad=True)
    autocast = pb.Context(autocast=[pb.Autocast(device_type="cpu", dtype=pb.D_TYPE_BFLOAT16, enabled=True)])
    x = session.make("ones", 2, 2, requires_grad=True)
    reply = session.run(
        session.call(11, "matmul", x, x),
        session.call(12, "matmul", x, x, context=1),
        session.call(13, "matmul", x, x, context=2),
        session.call(14, "matmul", x, x),
        define_contexts=[no_grad, autocast],
    ).clean()
    assert [reply.value(index).requires_grad for index in range(4)] == [True, False, True, True]
    assert [reply.value(index).dtype == pb.D_TYPE_BFLOAT16 for index in range(4)] == [False, False, True, False]
    later = session.run(session.call(15, "matmul", x, x, context=1)).clean()
    assert not later.value(0).requires_grad


def test_a_read_that_is_too_long_for_a_message_is_staged_for_download(session: RawSession) -> None:
    size = session.limits.max_inline_bytes // 4 + 1
    x = session.make("arange", float(size))
    staged = Kept(session.id())
    reply = session.run(session.call(staged.id, "tc.read", x), session.call(0, "Tensor.zero_", x)).clean()
    assert reply.by_index[0].value.object == "staged"
    first, *chunks, _last = session.download(staged)
    assert first.header.total_bytes == 4 * size
    received = b"".join(chunk.chunk for chunk in chunks)
    assert torch.equal(torch.frombuffer(bytearray(received), dtype=torch.float32), torch.arange(float(size)))
    session.run(frees=[staged.id, x.id]).clean()
    assert session.held() == (0, 0)


def test_a_reply_is_bounded_however_much_is_asked_for(session: RawSession) -> None:
    x = session.make("zeros", session.limits.max_inline_bytes // 4)
    reads = [session.call(session.id(), "tc.read", x) for _ in range(200)]
    reply = session.run(*reads, session.call(0, "Tensor.sum", x), frees=[read.id for read in reads])
    assert reply.message.ByteSize() <= 64 << 20
    assert len(reply.by_index) >= 200, "every read is answered: with data, a staged copy, or an error"
    listed = session.run(*(session.call(0, "Tensor.tolist", x) for _ in range(8)))
    assert listed.message.ByteSize() <= 64 << 20


def test_a_program_may_come_as_its_bytes(session: RawSession) -> None:
    constant = torch.ones(session.limits.max_inline_bytes // 4 + 1)
    calls = [session.call(2, "Tensor.__add__", Kept(1), constant)]
    program = pb.Program(inputs=1, calls=calls, result=pb.Value(result=2)).SerializeToString()
    header = ts.UploadHeader(id=5, dtype=pb.D_TYPE_UINT8, shape=[len(program)])
    header.context.session = session.secret
    session.upload(header, [program[at : at + 900_000] for at in range(0, len(program), 900_000)])
    uploaded = pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=5))
    reply = session.run(
        session.call(6, "tc.program", uploaded),
        session.call(7, "tc.run", Kept(6), torch.ones(1)),
        session.call(8, "Tensor.sum", Kept(7)),
        session.call(0, "Tensor.item", Kept(8)),
    ).clean()
    assert reply.value() == 2.0 * len(constant)
    for wrong in (b"\xff", b"", b"\x12"):
        data = torch.tensor([*wrong], dtype=torch.uint8)
        error = session.run(session.call(9, "tc.program", data), frees=[9]).error()
        assert (error.type, error.reason) == ("ValueError", "INVALID_ARGUMENT")
        assert "program" in error.message


def test_an_empty_batch_is_answered(session: RawSession) -> None:
    reply = session.run()
    assert (reply.seq, len(reply.message.results)) == (1, 0)


def test_a_session_on_one_connection_can_be_used_from_another(session: RawSession) -> None:
    kept = session.make("ones", 2)
    with Raw(session.address) as elsewhere:
        context = session.context()
        answer = elsewhere.ask("GetTensor", context=context, tensor=kept, include_data=True)
        assert list(answer.tensor.shape) == [2]
