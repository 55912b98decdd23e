"""Whatever a program sends, in whatever sizes, fits the limits that the server named; what cannot is an error of its
call, and nothing else is lost.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tclient
from tclient._session import current as _state
from tclient._session.session import Session
from tclient._transport.channel import TENSOR_SERVICE, Channel
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tests.support.serving import ServerProcess, serving, wait_until

SMALL_BYTES = 16 << 10


@pytest.fixture(scope="module")
def small() -> Iterator[ServerProcess]:
    """A server that takes small messages, and says so."""
    options = {"message": SMALL_BYTES, "inline": 1 << 20, "chunk": 1 << 20, "unacked": 32 << 10}
    with serving(
        *itertools.chain.from_iterable((f"--max-{name}-bytes", str(of)) for name, of in options.items())
    ) as it:
        yield it


@contextmanager
def told(monkeypatch: pytest.MonkeyPatch, message_bytes: int) -> Iterator[None]:
    """Within it servers name another limit than theirs: so it is behind a proxy that takes less than the server.

    One of gRPC: it takes less of gRPC's messages.
    """
    opened = Channel.open_session

    def open_session(self: Channel, client: str, timeout_s: float, device: str = "") -> rpc.OpenSessionResponse:
        response = opened(self, client, timeout_s, device)
        response.limits.max_message_bytes = message_bytes
        return response

    with monkeypatch.context() as patch:
        patch.setattr(Channel, "open_session", open_session)
        patch.setenv("TCLIENT_LANE", "0")
        yield


def busy(t: ModuleType) -> None:
    """Give the server something to do, so that calls gather."""
    x = t.rand(1200, 1200)
    for _ in range(4):
        x = x @ x


def held(session: Session) -> int:
    """How many tensors the server holds for a session."""
    request = rpc.ListTensorsRequest(context=rpc.SessionContext(session=session.secret), page_size=1)
    answer: rpc.ListTensorsResponse = session.channel.call(
        TENSOR_SERVICE + "ListTensors", request, rpc.ListTensorsResponse
    )
    return answer.total_tensors


def test_calls_that_gather_while_the_server_is_busy_go_in_messages_that_it_takes(tc: ModuleType) -> None:
    busy(tc)
    row = [float(number) for number in range(300)]
    made = [tc.tensor(row) for _ in range(6000)]
    assert made[-1].sum().item() == sum(row)
    assert made[0].tolist() == row
    assert _state.current().stats.batches > 6000 * 2400 >> 20


def test_tensors_let_go_by_the_hundred_thousand_go_in_messages_that_the_server_takes(small: ServerProcess) -> None:
    with tclient.connect(small.address) as session:
        made = tclient.zeros(20_000).unbind()
        tclient.synchronize()
        before = held(session)
        del made
        gc.collect()
        wait_until(lambda: held(session) <= before - 20_000, 20.0, "all are let go while nothing is asked")


def test_a_call_that_no_message_can_carry_is_an_error_of_that_call(small: ServerProcess) -> None:
    with tclient.connect(small.address) as session:
        x = tclient.ones(3)
        dropped = [tclient.ones(1) for _ in range(50)]
        tclient.synchronize()
        before = held(session)
        dropped.clear()
        with pytest.raises(tclient.RequestRefused, match=f"{SMALL_BYTES}.* in parts") as caught:
            # Numbers would go as an array, however many; tensors of the server are named one by one.
            x.add_(tclient.tensor([x] * SMALL_BYTES))
        assert caught.value.operation == "tensor"
        assert caught.value.filename == __file__
        assert caught.value.reason == "MESSAGE_TOO_LARGE"
        # However little a message has.
        session.channel.bound_messages(2500)
        with pytest.raises(tclient.RequestRefused, match="2500"):
            tclient.tensor([x] * 500)
        assert x.add_(1).tolist() == [2.0] * 3
        wait_until(lambda: held(session) <= before - 50, 10.0, "what was dropped goes with another call")


@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy")
def test_arrays_that_are_too_many_for_a_message_go_by_themselves(small: ServerProcess) -> None:
    arrays = [np.full(900, number, "float32") for number in range(40)]
    with tclient.connect(small.address) as session:
        assert np.array_equal(tclient.tensor(arrays).numpy(), np.stack(arrays))
        assert session.stats.uploads > 0


def test_a_program_that_no_message_can_carry_goes_by_itself(small: ServerProcess) -> None:
    constant = np.arange(1500.0)
    with tclient.connect(small.address) as session:

        @tclient.compile
        def function(x: Any) -> Any:
            for _ in range(1000):
                x = x + 1
            return x + tclient.tensor(constant)

        x = tclient.zeros(1500, dtype=tclient.float64)
        for _ in range(3):
            assert np.array_equal(function(x).numpy(), constant + 1000)
        # The constant, when the function itself ran; and the program, with the constant in it.
        assert session.stats.uploads == 2


@pytest.mark.parametrize("named", [4 << 20, 64 << 10])
def test_behind_a_proxy_that_takes_less_than_the_server_only_the_calls_that_are_too_large_fail(
    small: ServerProcess, monkeypatch: pytest.MonkeyPatch, named: int
) -> None:
    with told(monkeypatch, named), tclient.connect(small.address) as session:
        tclient.zeros(1).tolist()
        busy(tclient)
        x = tclient.ones(3)
        row = [float(number) for number in range(300)]
        rows = [tclient.tensor(row) for _ in range(50)]
        large = tclient.tensor(np.arange(4000.0))
        behind = large + 1
        x.add_(large[:3])
        last = [tclient.tensor(row) for _ in range(50)]
        with pytest.raises(tclient.RequestRefused, match="tensor: the call takes 32") as caught:
            behind.tolist()
        assert caught.value.operation == "tensor"
        assert caught.value.filename == __file__
        assert all(each.tolist() == row for each in (*rows, *last))
        # The effect that was skipped has been told of: its root was raised.
        assert x.tolist() == [1.0] * 3
        # From here on the limit is known, and the same array goes by itself.
        assert (tclient.tensor(np.arange(4000.0)) + 1).tolist() == [number + 1.0 for number in range(4000)]
        assert not session.dead
        assert session.queue.heavy == 0


def test_a_large_call_that_was_under_way_when_it_was_refused_is_counted_no_more(
    small: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with told(monkeypatch, 4 << 20), tclient.connect(small.address) as session:
        dropped = [tclient.zeros(1) for _ in range(9)]
        assert dropped[-1].tolist() == [0.0]
        # They are let go of with the next call, in another way than protobuf would write it.
        del dropped
        with pytest.raises(tclient.RequestRefused, match="tensor: the call takes 32"):
            (tclient.tensor(np.arange(4000.0)) + 1).tolist()
        assert session.queue.heavy == 0


def test_an_effect_of_a_call_that_a_proxy_refused_is_told(
    small: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with told(monkeypatch, 4 << 20), tclient.connect(small.address):
        x = tclient.ones(4000)
        x[np.arange(4000)] = 2.0
        with pytest.raises(tclient.RequestRefused, match="__setitem__: the call takes"):
            tclient.synchronize()
        assert x.sum().item() == 4000.0
    with told(monkeypatch, 4 << 20), tclient.connect(small.address):
        x = tclient.ones(4000)
        tclient.ones([1] * 10_000, out=x)
        with pytest.raises(tclient.RequestRefused, match="ones: the call takes"):
            tclient.synchronize()
        assert x.sum().item() == 4000.0


def test_uploads_go_in_chunks_that_a_proxy_takes(small: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    elements = np.arange(300_000.0)
    with told(monkeypatch, 4 << 20), tclient.connect(small.address) as session:
        session.checksums = True
        session.channel.max_inline = 1 << 10
        assert np.array_equal(tclient.tensor(elements).numpy(), elements)
        assert session.channel.max_message == SMALL_BYTES


def test_replies_that_fill_what_the_server_keeps_are_acknowledged_and_all_come(small: ServerProcess) -> None:
    """The server refuses batches until replies are acknowledged, and those behind the refused one say so."""
    with tclient.connect(small.address) as session:

        async def read(number: int) -> float:
            return float((await tclient.full((1500,), number).numpy_async()).sum())

        async def read_all() -> list[float]:
            return await asyncio.gather(*[read(number) for number in range(200)])

        session.channel.max_inline = 1 << 20
        assert asyncio.run(read_all()) == [1500.0 * number for number in range(200)]


def test_a_first_message_that_has_no_room_for_the_names_of_its_operations_is_several(small: ServerProcess) -> None:
    # A process that has used many operations names them all to a new session.
    with tclient.connect(small.address), tclient.no_grad():
        tclient.zeros(1).tolist()
    from tclient._codec.operations import TABLE, USED

    for operation in [*TABLE.values()][:1500]:
        operation.intern()
    assert sum(map(len, USED)) > SMALL_BYTES
    with tclient.connect(small.address):
        assert tclient.ones(3).add(1).tolist() == [2.0] * 3


# ---- drawn sessions --------------------------------------------------------------------------------------------------


def drawn_limits(rng: random.Random) -> dict[str, int]:
    """Limits of a server: any of them may be the smallest."""

    def size(low: int, high: int) -> int:
        return int(low * (high / low) ** rng.random())

    return {
        "message-bytes": size(2 << 10, 1 << 20),
        "inline-bytes": size(256, 1 << 20),
        "chunk-bytes": size(256, 1 << 20),
        "unacked-bytes": size(2 << 10, 1 << 20),
        "batches-in-flight": rng.randint(1, 16),
        "nesting": rng.randint(3, 64),
    }


class Drawn:
    """Steps of a program in a session, each with its value; what is refused must be too large for a message."""

    def __init__(self, rng: random.Random, session: Session) -> None:
        self.rng = rng
        self.session = session
        self.most = session.limits.max_message_bytes

    def count(self) -> int:
        """Of float64 elements: from none to several messages."""
        return int((4 * self.most / 8) ** self.rng.random()) - 1

    def array(self) -> np.ndarray[Any, Any]:
        return np.arange(float(self.count()))

    def one_array(self) -> None:
        array = self.array()
        assert np.array_equal(tclient.tensor(array).numpy(), array)

    def many_arrays(self) -> None:
        arrays = [self.array() for _ in range(self.rng.randint(2, 30))]
        made = [tclient.tensor(array) for array in arrays]
        self.rng.shuffle(picked := [*zip(made, arrays, strict=True)])
        assert all(np.array_equal(one.numpy(), array) for one, array in picked[:5])

    def arrays_in_a_list(self) -> None:
        arrays = [np.full(1 + self.count() // 8, float(number)) for number in range(self.rng.randint(2, 12))]
        arrays = [array[: min(map(len, arrays))] for array in arrays]
        assert np.array_equal(tclient.tensor(arrays).numpy(), np.stack(arrays))

    def a_mixed_list(self) -> None:
        numbers = [1, 2.5] * (self.count() // 2)
        try:
            made = tclient.tensor(numbers)
        except tclient.RequestRefused:
            assert 9 * len(numbers) > self.most / 2
            return
        assert made.sum().item() == sum(numbers)

    def numbers_and_a_chain(self) -> None:
        x = tclient.zeros(3)
        for _ in range(self.rng.randint(1, 3000)):
            x = x + 1
        assert x.tolist() == [x[0].item()] * 3

    def a_write(self) -> None:
        index = self.array().astype(int)
        x = tclient.zeros(len(index) + 1)
        x[index] = 2.0
        assert x.sum().item() == 2.0 * len(index)

    def many_dropped(self) -> None:
        made = [*tclient.zeros(self.rng.randint(1, 3000)).unbind()]
        self.rng.shuffle(made)
        del made[:: self.rng.randint(1, 5)]
        assert not made or tclient.stack(made[:100]).sum().item() == 0.0

    def many_reads(self) -> None:
        count = min(self.count(), 30_000)

        async def read(number: int) -> bool:
            return bool(((await tclient.full((count,), float(number)).numpy_async()) == number).all())

        async def read_all() -> bool:
            return all(await asyncio.gather(*[read(number) for number in range(self.rng.randint(1, 40))]))

        assert asyncio.run(read_all())

    def a_text(self) -> None:
        text = "i" * self.count()
        with pytest.raises((RuntimeError, ValueError, tclient.RequestRefused)) as caught:
            tclient.einsum(text + "->q", tclient.ones(3)).tolist()
        assert not isinstance(caught.value, tclient.RequestRefused) or len(text) > self.most / 2

    def nested(self) -> None:
        depth = self.rng.randint(1, 100)
        value: Any = 1.5
        for _ in range(depth):
            value = [value]
        with pytest.raises((TypeError, ValueError)):
            tclient.cat(value).tolist()

    def recorded(self) -> None:
        length, array = self.rng.randint(1, 300), self.array()[:2000]

        @tclient.compile
        def function(x: Any) -> Any:
            for _ in range(length):
                x = x + 1
            return x

        x = tclient.tensor(array)
        for _ in range(2):
            assert np.array_equal(function(x).numpy(), array + length)

    def run(self, steps: int) -> None:
        every: list[Callable[[], None]] = [
            self.one_array, self.many_arrays, self.arrays_in_a_list, self.a_mixed_list, self.numbers_and_a_chain,
            self.a_write, self.many_dropped, self.many_reads, self.a_text, self.nested, self.recorded,
        ]  # fmt: skip
        for _ in range(steps):
            self.session.checksums = self.rng.random() < 0.5
            if self.rng.random() < 0.3:
                busy(tclient)
            self.rng.choice(every)()
            assert tclient.ones(2).tolist() == [1.0, 1.0]
        assert self.session.queue.heavy == 0


def run_drawn(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    limits = drawn_limits(rng)
    options = itertools.chain.from_iterable((f"--max-{name}", str(of)) for name, of in limits.items())
    with serving(*options) as server, tclient.connect(server.address) as session:
        session.progress = False
        Drawn(rng, session).run(steps)


@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sessions_of_drawn_sizes_on_servers_of_drawn_limits_end_right(seed: int) -> None:
    run_drawn(seed, steps=15)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy")
@pytest.mark.parametrize("seed", range(100, 160))
def test_more_sessions_of_drawn_sizes_on_servers_of_drawn_limits_end_right(seed: int) -> None:
    run_drawn(seed, steps=60)
