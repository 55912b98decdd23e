"""Packed calls: the same calls in words do the same, and words that break the rules end the batch with an error."""

from __future__ import annotations

import random

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire import packed
from tests.support.raw import RawSession
from tests.support.values import Kept


def plain(session: RawSession, number: int, operation: str, *arguments: int, context: int = 0) -> list[int]:
    """The words of a call."""
    return [packed.head(session.operation(operation), len(arguments), context), number, *arguments]


def batch(session: RawSession, *calls: list[int] | pb.Call, behind: list[int] | None = None) -> pb.Batch:
    """A batch of packed and other calls, in order."""
    words = [word for call in calls for word in ([packed.GENERAL] if isinstance(call, pb.Call) else call)]
    made = session.batch(*[call for call in calls if isinstance(call, pb.Call)])
    made.packed = packed.to_bytes([*words, *(behind or [])])
    return made


def test_packed_and_other_calls_run_in_one_order(session: RawSession) -> None:
    reply = session.execute(
        batch(
            session,
            session.call(1, "ones", 4),
            plain(session, 2, "add", 1, 1),
            session.call(3, "mul", Kept(2), 3),
            plain(session, 4, "sub", 3, packed.integer(-2)),
            plain(session, 5, "mul", 4, packed.NUMBER, packed.bits_of(0.5)),
            plain(session, 0, "Tensor.add_", 5, 1),
            session.call(0, "tc.read", Kept(5)),
            plain(session, 0, "tc.read", 4),
        )
    ).clean()
    assert reply.value(6).tolist() == [5.0] * 4
    assert reply.value(7).tolist() == [8.0] * 4
    # Calls are counted in this order, also where they are described.
    assert [list(reply.value(index).shape) for index in (0, 1, 2, 3, 4)] == [[4]] * 5


def test_results_are_let_go_in_their_place(session: RawSession) -> None:
    session.run(session.call(1, "ones", 4), session.call(2, "split", torch.ones(4), 2))
    reply = session.execute(
        batch(
            session,
            list(packed.let_go(1)) + plain(session, 3, "clone", 1),
            list(packed.let_go(2, (0,))) + plain(session, 1, "arange", packed.integer(3)),
            session.call(0, "tc.read", Kept(2).part(1)),
            session.call(0, "tc.read", Kept(2).part(0)),
            behind=[*packed.let_go(1)],
        )
    )
    assert reply.error(0).type == "KeyError"
    assert reply.value(2).tolist() == [1, 1]
    assert reply.error(3).type == "KeyError"
    assert session.held()[0] == 1, "the other half of the split"


def test_a_result_that_is_an_argument_is_told_to_be_that(session: RawSession) -> None:
    session.run(session.call(1, "ones", 4))
    reply = session.execute(batch(session, plain(session, 2, "Tensor.contiguous", 1))).clean()
    assert reply.by_index[0].value.tensor.same_as == pb.Ref(id=1)


def test_the_modes_of_a_packed_call_are_in_force(session: RawSession) -> None:
    session.run(session.call(1, "ones", 4, requires_grad=True))
    calls = batch(session, plain(session, 2, "add", 1, 1, context=1), plain(session, 3, "add", 1, 1))
    calls.define_contexts.add(no_grad=True)
    reply = session.execute(calls).clean()
    assert [reply.value(index).requires_grad for index in (0, 1)] == [False, True]


def test_an_argument_that_failed_skips_the_call(session: RawSession) -> None:
    reply = session.execute(
        batch(
            session,
            session.call(1, "ones", 4),
            session.call(2, "ones", 3),
            plain(session, 3, "add", 1, 2),
            plain(session, 4, "neg", 3),
        )
    )
    assert reply.error(2).message == reply.error(3).message
    assert reply.error(3).call_index == 2


@pytest.mark.parametrize(
    "words",
    [
        [9],
        [packed.GENERAL | 1 << 8],
        [packed.GENERAL],
        [packed.head(0, 0, 0)],
        [packed.head(0, 3, 0), 0, 1],
        [packed.PART | 5 << 8],
        [packed.PART | 5 << 8, 1 << 60, 0],
    ],
    ids=["a kind", "bits of the general", "no call left", "no id", "too few arguments", "no steps", "too many steps"],
)
def test_what_breaks_the_rules_ends_the_batch_where_it_stands(session: RawSession, words: list[int]) -> None:
    bad = batch(session, session.call(1, "ones", 4), plain(session, 2, "neg", 1), words)
    reply = session.execute(bad)
    assert (reply.error(2).reason, reply.error(2).type) == ("INVALID_ARGUMENT", "ValueError")
    assert "break the rules" in reply.error(2).message
    assert session.run(session.call(0, "tc.read", Kept(2))).value(0).tolist() == [-1] * 4


def test_a_call_that_has_no_word_ends_the_batch(session: RawSession) -> None:
    bad = batch(session, plain(session, 1, "ones", packed.integer(2)))
    bad.calls.append(session.call(2, "ones", 2))
    assert "break the rules" in session.execute(bad).error(1).message


@pytest.mark.parametrize("size", [1, 7, 9])
def test_bytes_that_are_no_whole_words_end_the_batch(session: RawSession, size: int) -> None:
    bad = batch(session, plain(session, 1, "ones", packed.integer(2)))
    bad.packed += bytes(size)
    assert "break the rules" in session.execute(bad).error(1).message


@pytest.mark.parametrize("size", [1, 7])
def test_a_call_that_is_cut_within_an_argument_is_not_run(session: RawSession, size: int) -> None:
    session.run(session.call(255, "ones", 4), session.call(1, "ones", 4))
    bad = batch(session, plain(session, 2, "neg", 1), plain(session, 0, "Tensor.zero_", 1))
    bad.packed = bad.packed[:-size]
    assert "break the rules" in session.execute(bad).error(1).message
    assert session.read(Kept(1)).tolist() == session.read(Kept(255)).tolist() == [1] * 4


@pytest.mark.parametrize(
    "argument", [3 << 48, packed.NUMBER | 1, 0xFFFF << 48, 0], ids=["a tag", "a number's bits", "all tags", "no id"]
)
def test_an_argument_that_is_nothing_fails_its_call(session: RawSession, argument: int) -> None:
    reply = session.execute(batch(session, plain(session, 1, "neg", argument), session.call(2, "ones", 1)))
    assert reply.error(0).type in ("ValueError", "KeyError")
    assert list(reply.value(1).shape) == [1]


def test_a_word_is_never_taken_for_an_id_of_the_server_s(session: RawSession) -> None:
    made = session.create(ones={}, shape=[2])
    # The same bits as an integer argument.
    reply = session.execute(batch(session, plain(session, 1, "zeros", made.id.id)))
    assert list(reply.clean().value(0).shape) == [made.id.id - (1 << 48)]


def test_an_id_that_is_the_server_s_to_make_is_refused_and_nothing_held_under_it(session: RawSession) -> None:
    reply = session.execute(batch(session, plain(session, 1 << 48, "ones", packed.integer(2))))
    assert "not below 2^48" in reply.error(0).message
    assert session.run(session.call(0, "neg", Kept(1 << 48))).error(0).type == "KeyError"


def test_garbage_in_words_leaves_the_session_usable(session: RawSession) -> None:
    draw = random.Random(7)
    session.operation("add")
    for _ in range(300):
        words = [draw.choice([draw.getrandbits(64), draw.getrandbits(12), draw.randrange(4)]) for _ in range(12)]
        session.execute(batch(session, session.call(0, "ones", 1), words))
    session.run(session.call(1 << 40, "ones", 2), session.call(0, "tc.read", Kept(1 << 40))).clean()
