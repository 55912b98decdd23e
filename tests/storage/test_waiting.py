"""While the disk is slow: nobody else waits, what is kept is what was there, and no caller takes too much of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import grpc
import pytest

from tensorcompute.v1 import storage_service_pb2 as ss
from tests.support.in_memory import InMemoryChannel, serving_in_memory
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.serving import wait_until
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.storage import files

Code = grpc.StatusCode
TIMEOUT_S = 20.0


class SlowDisk:
    """A disk on which files are written when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self._write = files.write

    def write(self, path: Path, chunks: Iterable[Any]) -> files.Written:
        """As files.write."""
        self.begun.release()
        assert self.may_go_on.wait(TIMEOUT_S)
        return self._write(path, chunks)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    """The disk of the server."""
    slow = SlowDisk()
    monkeypatch.setattr(files, "write", slow.write)
    return slow


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryChannel]:
    """A channel to services in this process, whose settings of torch they leave alone."""
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    config = Config(device="cpu", data_dir=str(tmp_path / "data"), max_session_bytes=1 << 20)
    with serving_in_memory(config) as channel:
        yield channel


@pytest.fixture
def session(channel: InMemoryChannel) -> Iterator[RawSession]:
    """A session that may hold a MiB."""
    with Raw("in memory", channel=channel).open_session() as session:
        yield session


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for answers."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


def keep(session: RawSession, name: str, x: Any, **fields: Any) -> ss.KeptName:
    tensors = [ss.KeptTensor(name="x", tensor=x.ref)]
    answer: ss.KeepResponse = session.ask("Keep", name=name, tensors=tensors, **fields)
    return answer.kept


def recalled(session: RawSession, name: str) -> Any:
    (one,) = session.ask("Recall", name=name).tensors
    return session.get(one.tensor.id).tolist()


def test_the_session_and_others_go_on_while_the_disk_is_slow(
    session: RawSession, channel: InMemoryChannel, disk: SlowDisk, pool: ThreadPoolExecutor
) -> None:
    x = session.make("zeros", [3])
    keeping = pool.submit(keep, session, "x", x)
    assert disk.begun.acquire(timeout=TIMEOUT_S)
    # The same session writes to what is being kept; another one works, and lists names.
    session.run(session.call(0, "Tensor.add_", x, 1.0)).clean()
    assert session.get(x).tolist() == [1.0, 1.0, 1.0]
    with Raw("in memory", channel=channel).open_session() as other:
        assert other.get(other.make("ones", [2])).tolist() == [1.0, 1.0]
        assert list(other.ask("ListNames").names) == []
    assert not keeping.done()
    disk.may_go_on.set()
    assert keeping.result(TIMEOUT_S).tensors == 1
    assert recalled(session, "x") == [0.0, 0.0, 0.0]


def test_what_a_session_was_keeping_when_it_ended_is_kept(
    session: RawSession, channel: InMemoryChannel, disk: SlowDisk, pool: ThreadPoolExecutor
) -> None:
    with Raw("in memory", channel=channel).open_session() as other:
        keeping = pool.submit(keep, other, "x", other.make("ones", [3]))
        assert disk.begun.acquire(timeout=TIMEOUT_S)
    disk.may_go_on.set()
    keeping.result(TIMEOUT_S)
    assert recalled(session, "x") == [1.0, 1.0, 1.0]


def test_a_caller_keeps_so_many_at_once_and_no_more(
    session: RawSession, disk: SlowDisk, pool: ThreadPoolExecutor
) -> None:
    x = session.make("ones", [3])
    keeping = [pool.submit(keep, session, f"x{number}", x) for number in range(17)]
    # One of them is refused, while all others wait.
    first = next(as_completed(keeping, timeout=TIMEOUT_S))
    with refused(Code.RESOURCE_EXHAUSTED, reason="RESOURCE_EXHAUSTED", naming="retry later"):
        first.result()
    disk.may_go_on.set()
    done = [each.result(TIMEOUT_S) for each in keeping if each is not first]
    assert len(done) == 16
    assert keep(session, "again", x).tensors == 1


def test_what_a_caller_does_not_wait_for_counts_until_it_is_done(
    session: RawSession, disk: SlowDisk, pool: ThreadPoolExecutor
) -> None:
    x = session.make("ones", [3])
    for number in range(16):
        with pytest.raises(grpc.RpcError, match="Deadline Exceeded"):
            keep(session, f"x{number}", x, timeout_s=0.05)
    with refused(Code.RESOURCE_EXHAUSTED, reason="RESOURCE_EXHAUSTED", naming="retry later"):
        keep(session, "one more", x)
    disk.may_go_on.set()
    wait_until(lambda: len(session.ask("ListNames").names) == 16, TIMEOUT_S, "names are kept")
    assert keep(session, "again", x).tensors == 1


def test_the_same_request_again_is_answered_as_done(session: RawSession) -> None:
    """As a client asks whose connection broke before it had the answer."""
    x = session.make("ones", [3])
    first = keep(session, "x", x, token="of this request")
    session.run(session.call(0, "Tensor.add_", x, 1.0)).clean()
    assert keep(session, "x", x, token="of this request") == first
    assert recalled(session, "x") == [1.0, 1.0, 1.0]
    with refused(Code.ALREADY_EXISTS):
        keep(session, "x", x, token="of another request")


def test_what_is_recalled_counts_as_what_the_session_holds(session: RawSession) -> None:
    x = session.make("ones", [100_000])
    keep(session, "x", x)
    first = session.ask("Recall", name="x").tensors[0].tensor.id
    with refused(Code.RESOURCE_EXHAUSTED, reason="QUOTA_EXCEEDED", naming="free tensors"):
        session.ask("Recall", name="x")
    assert session.held() == (2, 800_000)
    session.ask("FreeTensors", tensors=[first])
    session.ask("Recall", name="x")
    assert session.held() == (2, 800_000)
