"""What a principal may use: it may not have more, and others have theirs meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import tclient
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused, status_of
from tests.support.serving import ServerProcess, serving, wait_until
from tests.support.values import Kept

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The limits of the server below."""
    path = tmp_path_factory.mktemp("limits") / "limits.toml"
    path.write_text("")
    return path


@pytest.fixture(scope="module")
def limited(file: Path) -> Iterator[ServerProcess]:
    """A server with such a file."""
    with serving("--limits", str(file), "--lease-s", "4") as server:
        yield server


def limit(file: Path, server: ServerProcess, text: str) -> None:
    """Have other limits hold: all sessions are of one principal here, `local`."""
    file.write_text(text)
    time.sleep(1.2)
    del server


def test_one_principal_does_not_take_all_sessions(file: Path, limited: ServerProcess) -> None:
    with RawSession(limited.address) as one, RawSession(limited.address):
        limit(file, limited, "[default]\nsessions = 2")
        with refused(Code.RESOURCE_EXHAUSTED, reason="LIMIT", naming="you use 2, and may use 2") as told:
            RawSession(limited.address)
        assert (told.metadata["name"], told.metadata["limit"], told.metadata["used"]) == ("sessions", "2", "2")
        assert told.retry_after_s is not None
        info = one.ask("GetServerInfo")
        own = {each.name: (each.limit, each.used) for each in info.own_limits}
        assert own["sessions"] == (2, 2)
        assert own["calls_per_s"][0] == 0
        assert 0 < info.used_memory_bytes < info.max_memory_bytes
        limit(file, limited, "")
        with RawSession(limited.address):
            pass


def test_one_principal_does_not_open_streams_without_end(file: Path, limited: ServerProcess) -> None:
    with RawSession(limited.address) as one, RawSession(limited.address) as other:
        stream = one.stream()
        stream.send(one.batch(one.call(1, "ones", 1)))
        stream.receive()
        limit(file, limited, "[default]\nstreams = 1")
        second = other.stream()
        with refused(Code.RESOURCE_EXHAUSTED, reason="LIMIT", naming="streams"):
            second.receive()
        stream.finish()
        wait_until(lambda: _streams(other), 10.0, "a stream, when the other has ended")
        limit(file, limited, "")


def _work(session: RawSession, large: Kept) -> None:
    calls = (session.call(0, "matmul", large, large) for _ in range(20))
    session.execute(session.batch(*calls), timeout_s=3.0)


def _streams(session: RawSession) -> bool:
    """Whether there may be a stream now."""
    stream = session.stream()
    try:
        stream.finish()
    except grpc.RpcError:
        return False
    return True


def test_who_sends_more_calls_than_its_rate_is_made_to_wait(file: Path, limited: ServerProcess) -> None:
    with RawSession(limited.address) as session:
        limit(file, limited, "[default]\ncalls_per_s = 40")
        stream = session.stream()
        began = time.monotonic()
        stream.send(*(session.batch(*(session.call(0, "manual_seed", 1) for _ in range(20))) for _ in range(5)))
        for _ in range(5):
            stream.receive()
        # 100 calls, of which 40 come at once, and the last batch of which makes a debt.
        assert 0.8 < time.monotonic() - began < 5
        batch = session.batch(*(session.call(0, "manual_seed", 1) for _ in range(80)))
        stream.send(batch)
        stream.receive()
        with refused(Code.RESOURCE_EXHAUSTED, reason="LIMIT", naming="calls_per_s") as told:
            session.execute(session.batch(session.call(0, "manual_seed", 1)))
        assert told.retry_after_s
        assert 0 < told.retry_after_s < 3
        limit(file, limited, "")


def test_who_sends_over_a_lane_is_made_to_wait_too(file: Path, limited: ServerProcess) -> None:
    with tclient.connect(limited.address):
        x = tclient.ones(3)
        x.sum().item()
        limit(file, limited, "[default]\ncalls_per_s = 100")
        began = time.monotonic()
        for _ in range(100):
            x.add_(1).sum().item()
        assert x[0].item() == 101
        # At least 200 calls, of which 100 come at once.
        assert 0.8 < time.monotonic() - began < 10
        limit(file, limited, "")


def test_limits_of_memory_come_and_go_while_sessions_hold_something(file: Path, limited: ServerProcess) -> None:
    with tclient.connect(limited.address):
        x = tclient.ones(100_000)
        tclient.synchronize()
        # Sessions of the tests before end in their time.
        wait_until(lambda: _own("device_bytes") == (0, 400_000), 10.0, "no other session")
        limit(file, limited, "[default]\ndevice_bytes = 1_000_000\ntensors = 3")
        y = x + 1
        tclient.synchronize()
        assert (_own("device_bytes"), _own("tensors")) == ((1_000_000, 800_000), (3, 2))
        with pytest.raises(tclient.MemoryLimitReached, match="device_bytes"):
            (x + 1).sum().item()
        limit(file, limited, "")
        assert (x + y).sum().item() == 300_000
        del x, y
        wait_until(lambda: (_own("device_bytes"), _own("tensors")) == ((0, 0), (0, 0)), 10.0, "that nothing is held")


def _own(name: str) -> tuple[float, float]:
    """A limit, and what is used of it."""
    return next((each.limit, each.used) for each in tclient.server_info().limits if each.name == name)


@pytest.mark.parametrize("lane", [True, False], ids=["data endpoint", "gRPC"])
def test_bytes_that_are_uploaded_and_downloaded_are_part_of_the_rate(
    file: Path, limited: ServerProcess, *, lane: bool
) -> None:
    with tclient.connect(limited.address, lane=lane):
        data = np.ones(8 << 20, "u1")
        x = tclient.tensor(data)
        x.numpy()
        limit(file, limited, "[default]\nbytes_per_s = 16_000_000")
        began = time.monotonic()
        for _ in range(2):
            x = tclient.tensor(data)
            assert x.numpy().sum() == len(data)
        # 32 MiB, of which a half comes at once, and the last begins when those before it are paid for.
        assert 0.5 < time.monotonic() - began < 10
        limit(file, limited, "")


def test_who_has_used_its_time_of_the_engine_waits_and_others_go_on(file: Path, limited: ServerProcess) -> None:
    with Raw(limited.address) as raw, RawSession(limited.address) as session:
        limit(file, limited, "[default]\ncompute_s_per_min = 0.05")
        large = session.make("ones", 500, 500)
        assert Code.DEADLINE_EXCEEDED in (status_of(lambda: _work(session, large)) for _ in range(100))
        assert raw.ask("GetServerInfo").sessions
        limit(file, limited, "")
