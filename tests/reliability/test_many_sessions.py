"""Sessions beside each other: isolated, served fairly, many at once; and what an idle client drops is gone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import torch

import tclient
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.serving import HasAddress, serving, wait_until
from tests.support.values import Kept


def held(raw: Raw, session: Any) -> int:
    """How many tensors the server holds for a session of the client."""
    total: int = raw.ask("ListTensors", context={"session": session.secret}).total_tensors
    return total


def test_two_sessions_have_each_their_own_random_state(server: HasAddress) -> None:
    with tclient.connect(server.address) as a, tclient.connect(server.address) as b:
        drawn: dict[int, list[torch.Tensor]] = {1: [], 2: []}
        for seed, session in ((1, a), (2, b)):
            with session.use():
                tclient.manual_seed(seed)
        for _ in range(5):
            for seed, session in ((1, a), (2, b)):
                with session.use():
                    drawn[seed].append(torch.from_numpy(tclient.rand(3).numpy()))
                    drawn[seed].append(torch.from_numpy(tclient.nn.functional.dropout(tclient.ones(8), 0.5).numpy()))
        for seed, mine in drawn.items():
            torch.manual_seed(seed)
            expected = [make() for _ in range(5) for make in (lambda: torch.rand(3), dropout)]
            assert all(torch.equal(got, want) for got, want in zip(mine, expected, strict=True))


def dropout() -> torch.Tensor:
    return torch.nn.functional.dropout(torch.ones(8), 0.5)


def test_two_sessions_have_each_their_own_default_dtype_and_print_options(server: HasAddress) -> None:
    with tclient.connect(server.address) as a, tclient.connect(server.address) as b:
        with a.use():
            tclient.set_default_dtype(tclient.float64)
            tclient.set_printoptions(precision=2)
        with b.use():
            assert tclient.ones(1).dtype == tclient.float32
            assert str(tclient.tensor([1 / 3])) == str(torch.tensor([1 / 3]))
        with a.use():
            assert tclient.ones(1).dtype == tclient.float64
            assert str(tclient.tensor([1 / 3])) == "tensor([0.33])"


def test_an_error_of_one_session_is_not_raised_in_another(server: HasAddress) -> None:
    with tclient.connect(server.address) as a, tclient.connect(server.address) as b:
        with a.use():
            x = tclient.ones(3)
            x.add_(tclient.ones(2))
        with b.use():
            assert tclient.ones(2).tolist() == [1, 1]
            b.synchronize()
        with a.use(), pytest.raises(RuntimeError, match="size"):
            a.synchronize()


def test_the_end_of_one_session_leaves_the_other(server: HasAddress) -> None:
    with tclient.connect(server.address) as a:
        x = tclient.ones(3)
        with tclient.connect(server.address):
            y = tclient.zeros(3)
            y.tolist()
        assert x.tolist() == [1, 1, 1]
        assert a.stats.waits >= 1


def test_a_long_chain_of_one_session_does_not_starve_another(server: HasAddress) -> None:
    with RawSession(server.address) as busy, RawSession(server.address) as quick:
        x, y = busy.make("eye", 300), quick.make("ones", 2)
        with busy.stream() as chain, quick.stream() as single:
            for _ in range(20):
                chain.send(
                    busy.batch(*(busy.call(0, "matmul", x, x) for _ in range(200)), busy.call(0, "Tensor.dim", x))
                )
            answered = 0
            for _ in range(5):
                single.send(quick.batch(quick.call(0, "Tensor.add_", y, 1), quick.call(0, "tc.read", y)))
                answered = single.receive().value(1)[0].item()
            assert answered == 6
            assert chain.answered() < 20, "five round trips fit well into the chain"
            chain.cancel()


def test_64_sessions_at_once_are_all_served_and_all_apart(server: HasAddress) -> None:
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(RawSession(server.address)) for _ in range(64)]
        streams = [stack.enter_context(session.stream()) for session in sessions]
        for seed, (session, stream) in enumerate(zip(sessions, streams, strict=True)):
            stream.send(
                session.batch(session.call(0, "manual_seed", seed), session.call(1, "rand", 4)),
                session.batch(session.call(2, "Tensor.__add__", Kept(1), seed), session.call(0, "tc.read", Kept(2))),
            )
        for seed, stream in enumerate(streams):
            stream.receive().clean()
            expected = torch.rand(4, generator=torch.Generator().manual_seed(seed)) + seed
            assert torch.equal(stream.receive().value(1), expected)


def test_a_session_beyond_the_bound_is_refused_and_the_others_go_on() -> None:
    with serving("--max-sessions", "3") as server, contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(RawSession(server.address)) for _ in range(3)]
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, naming="3") as told:
            RawSession(server.address)
        assert told.retry_after_s
        with pytest.raises(tclient.ServerBusy):
            tclient.connect(server.address, timeout_s=0.5)
        assert sessions[0].read(sessions[0].make("ones", 1)).tolist() == [1]
        sessions.pop().close()
        RawSession(server.address).close()


DROPS: dict[str, Callable[[Any], Any]] = {
    "a client that just worked": lambda session: None,
    "a client that dozes": lambda session: wait_until(lambda: session.queue.dozing, 10.0, "the client to doze"),
}


@pytest.mark.parametrize("idle", DROPS.values(), ids=DROPS)
def test_what_an_idle_client_drops_is_gone_within_100_ms(
    server: HasAddress, raw: Raw, idle: Callable[[Any], Any]
) -> None:
    took = []
    with tclient.connect(server.address) as session:
        keep = tclient.ones(2)
        for _ in range(2):
            x = tclient.ones(1000) + 1
            assert x.sum().item() == 2000
            wait_until(lambda: held(raw, session) == 2, 5.0, "the end of the temporary")
            idle(session)
            del x
            took.append(wait_until(lambda: held(raw, session) == 1, 5.0, "the end of the dropped tensor", 0.002))
        assert keep.tolist() == [1, 1]
    assert min(took) < 0.1, took


def test_a_chain_of_a_thousand_holds_as_many_tensors_as_in_torch(server: HasAddress, raw: Raw) -> None:
    with tclient.connect(server.address) as session:
        x, y = tclient.ones(4), tclient.zeros(4)
        for _ in range(1000):
            y = y + x
        assert y.tolist() == [1000] * 4
        listed = raw.ask("ListTensors", context={"session": session.secret})
        assert listed.total_tensors == 2
        assert listed.total_bytes == 32
        assert listed.peak_results <= 4, "x, the y before, and the y after; one more may wait for its place in the line"


def test_a_closed_session_of_the_client_is_closed_on_the_server(server: HasAddress, raw: Raw) -> None:
    before = raw.ask("GetServerInfo").sessions
    with tclient.connect(server.address):
        tclient.ones(3).tolist()
        assert raw.ask("GetServerInfo").sessions == before + 1
    assert raw.ask("GetServerInfo").sessions == before


def test_threads_of_one_client_share_its_session(server: HasAddress) -> None:
    with tclient.connect(server.address):
        sums: list[float] = []

        def work(start: int) -> None:
            y = tclient.zeros(3)
            for step in range(200):
                y = y + (start + step)
            sums.append(y.sum().item())

        threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
        assert sorted(sums) == [3.0 * sum(range(start, start + 200)) for start in range(8)]


def test_each_thread_means_its_own_session(server: HasAddress) -> None:
    with tclient.connect(server.address) as a, tclient.connect(server.address) as b:
        inside = threading.Barrier(2, timeout=10.0)

        def work(session: tclient.Session) -> bool:
            with session.use():
                inside.wait()
                x = tclient.arange(3)
                fast = tclient.compile(lambda x: x * 2 + 1)
                inside.wait()
                assert (fast(x) + fast(x)).tolist() == [2, 6, 10]
            return x._ref.session is session

        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(work, (a, b)))
        # A function that is recorded for the tensors of one session, while another is the current one.
        with a.use():
            x = tclient.arange(3)
        twice = tclient.compile(lambda x: x * 2)
        assert [twice(x).tolist() for _ in range(2)] == [[0, 2, 4]] * 2


def test_a_session_opened_within_another_is_meant_until_it_ends(server: HasAddress) -> None:
    def meant() -> object:
        return tclient.ones(1)._ref.session

    with tclient.connect(server.address) as a, tclient.connect(server.address) as b, a.use():
        assert meant() is a
        with tclient.connect(server.address) as c:
            assert meant() is c
            with b.use():
                assert meant() is b
            assert meant() is c
        assert meant() is a


def test_each_task_means_its_own_session(server: HasAddress) -> None:
    async def work(session: tclient.Session, turn: asyncio.Event, next_turn: asyncio.Event) -> bool:
        with session.use():
            next_turn.set()
            await turn.wait()
            return tclient.ones(1)._ref.session is session

    async def both(a: tclient.Session, b: tclient.Session) -> list[bool]:
        one, two = asyncio.Event(), asyncio.Event()
        return list(await asyncio.gather(work(a, one, two), work(b, two, one)))

    with tclient.connect(server.address) as a, tclient.connect(server.address) as b:
        assert asyncio.run(both(a, b)) == [True, True]
