"""What waits is bounded by count and by bytes, wherever a caller fills it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import torch

from tclient._session import deferred
from tclient._session.calls import Call
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.config import Config
from tserver.engine import uploads
from tserver.engine.engine import Engine
from tserver.engine.host_memory import HostMemory
from tserver.errors import Exhausted
from tserver.models import requests
from tserver.models.batching import BatchingConfig, QueuePolicy
from tserver.session import session as sessions
from tserver.session.attachment import MAX_WAITING_BYTES, StreamAttachment
from tserver.session.session import Session

HALF = MAX_WAITING_BYTES // 2 + 1
Within = Callable[[Callable[[Session], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> Within:
    """Runs something with a session of an engine that never comes to it."""
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    engine = Engine(Config(device="cpu"), on_fatal=pytest.fail)

    def run(function: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            await function(Session(b"s", "p", engine.open_queue("p"), config=Config()))

        asyncio.run(main())

    return run


async def _begun(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(each) for each in work]
    await asyncio.sleep(0)
    return tasks


def _batch(seq: int, size_bytes: int = 0) -> pb.Batch:
    return pb.Batch(seq=seq, packed=bytes(size_bytes))


def test_a_stream_is_not_read_while_its_batches_take_too_many_bytes(within: Within) -> None:
    async def check(session: Session) -> None:
        stream = session.attach_stream()
        session.receive(_batch(1), stream, HALF)
        assert not stream.full
        session.receive(_batch(2), stream, HALF)
        assert stream.full
        (waiting,) = await _begun(stream.room())
        stream.answer(1, b"reply")
        await asyncio.wait_for(waiting, 5)
        assert not stream.full

    within(check)


def test_a_stream_is_not_read_while_its_replies_are_not_taken(within: Within) -> None:
    async def check(_: Session) -> None:
        stream = StreamAttachment(window=4)
        for _number in range(8):
            stream.give(b"kept")
        assert stream.full
        (waiting,) = await _begun(stream.room())
        stream.replies.popleft()
        stream.make_room()
        await asyncio.wait_for(waiting, 5)

    within(check)


def test_batches_that_come_alone_are_bounded_by_bytes_and_by_count(within: Within) -> None:
    async def check(session: Session) -> None:
        tasks = await _begun(session.execute(_batch(1, HALF)))
        with pytest.raises(Exhausted, match="bytes are under way") as refused:
            await session.execute(_batch(2, HALF))
        assert float(refused.value.details["retry_after_s"])
        tasks += await _begun(*(session.execute(_batch(seq)) for seq in range(2, session.window + 1)))
        for more in (session.execute(_batch(session.window + 1)), session.call(_batch(session.window + 1), [])):
            with pytest.raises(Exhausted, match=f"{session.window} batches of this session are under way"):
                await more
        for task in tasks:
            task.cancel()

    within(check)


def test_requests_without_a_number_are_bounded(within: Within, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_WAITING", 8)

    async def check(session: Session) -> None:
        tasks = await _begun(*(session.call(_batch(0), []) for _ in range(8)))
        for more in (
            session.call(_batch(0), []),
            session.get_tensor(ts.GetTensorRequest()),
            session.begin_upload(ts.UploadHeader()),
        ):
            with pytest.raises(Exhausted, match="8 requests of this session wait") as refused:
                await more
            assert float(refused.value.details["retry_after_s"])
        for task in tasks:
            task.cancel()

    within(check)


def test_uploads_that_are_not_used_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOADS", 2)
    held = uploads.Uploads(HostMemory(torch.device("cpu")))
    first = held.begin("u", 1, torch.uint8, [0], 0)
    held.name(held.begin("u", 2, torch.uint8, [0], 0))
    with pytest.raises(Exhausted, match="2 uploads wait to be used"):
        held.begin("u", 3, torch.uint8, [0], 0)
    held.drop(first)
    held.begin("u", 3, torch.uint8, [0], 0)


@pytest.mark.parametrize(("most", "taken"), [(0, 2), (3, 3)], ids=["where the model says nothing", "where it does"])
def test_requests_of_a_model_are_bounded(monkeypatch: pytest.MonkeyPatch, most: int, taken: int) -> None:
    monkeypatch.setattr(requests, "MAX_WAITING", 2)
    queue = requests.RequestQueue(BatchingConfig(default_queue_policy=QueuePolicy(max_queue_size=most)))
    for _ in range(taken):
        queue.put(requests.Request(1, (), (), 0))
    with pytest.raises(Exhausted, match=f"{taken} requests wait for this model"):
        queue.put(requests.Request(1, (), (), 0))


def test_what_nobody_waits_to_be_told_of_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "_LIMIT", 3)
    opened: Any = None
    told = deferred.DeferredErrors("address", opened)
    call: Any = Call()
    for number in range(5):
        error = pb.Error(type="RuntimeError", message=f"{number}", batch_seq=1, call_index=number)
        told.note(1, pb.Result(call_index=number, error=error, lost_effect=True), call)
        told.note_warning(pb.Warning(message=f"{number}"), call)
    assert len(told._failed_effects) == len(told._warnings) == 3
    assert next(iter(told._failed_effects)) == (1, 0)
    assert told._warnings[-1][0].message == "4"
