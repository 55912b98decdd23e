"""Calls are issued without waiting, run in order, and are let go in order."""

from __future__ import annotations

import asyncio
import gc
import linecache
import os
import signal
import sys
import threading
import time
from collections.abc import Collection
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tclient._session import current as _state
from tclient._session.session import Session
from tclient._transport.channel import TENSOR_SERVICE
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tests.support.serving import wait_until


def session_of() -> Session:
    """The session of the test."""
    return _state.current()


def held(session: Session) -> int:
    """How many tensors the server holds for a session."""
    request = rpc.ListTensorsRequest(context=rpc.SessionContext(session=session.secret), page_size=1)
    answer: rpc.ListTensorsResponse = session.channel.call(
        TENSOR_SERVICE + "ListTensors", request, rpc.ListTensorsResponse
    )
    return answer.total_tensors


@pytest.mark.parametrize("length", [1, 10, 3000])
def test_a_chain_of_any_length_and_its_read_is_one_wait(tc: ModuleType, length: int) -> None:
    x = tc.ones(4)
    y = tc.zeros(4)
    before = session_of().stats.waits
    for _ in range(length):
        y = y + x
    assert y.tolist() == [float(length)] * 4
    assert session_of().stats.waits == before + 1


READS = {
    "item": lambda x: x.sum().item(),
    "numpy": lambda x: (x + 1).numpy(),
    "tolist": lambda x: (x + 1).tolist(),
    "print": lambda x: repr(x + 1),
    "bool": lambda x: bool(x.sum() > 0),
    "int": lambda x: int(x.sum()),
    "float": lambda x: float(x.sum()),
    "index": lambda x: range(10)[x.sum().long()],
    "asarray": lambda x: np.asarray(x + 1),
    "contains": lambda x: 1.0 in (x + 1),
    "split": lambda x: (x + 1).split(2),
    "max": lambda x: (x + 1).max(dim=0).values.tolist(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_read_is_one_wait(tc: ModuleType, read: Any) -> None:
    x = tc.ones(4)
    before = session_of().stats.waits
    read(x)
    assert session_of().stats.waits == before + 1


def test_a_shape_that_is_not_known_yet_is_one_wait_at_most(tc: ModuleType) -> None:
    # The answer may be there already: what is idle sends at once.
    x = tc.ones(4)
    before = session_of().stats.waits
    assert (x + 1).shape == (4,)
    assert session_of().stats.waits <= before + 1


NO_READS = {
    "add": lambda tc, x: x + 1,
    "max with indices": lambda tc, x: x.max(dim=0).indices + 1,
    "in place": lambda tc, x: x.add_(1),
    "assignment": lambda tc, x: x.__setitem__(0, 5),
    "svd": lambda tc, x: tc.linalg.svd(tc.ones(2, 2)),
    "cat": lambda tc, x: tc.cat([x, x]),
    "function": lambda tc, x: tc.nn.functional.relu(x),
    "from numpy": lambda tc, x: tc.from_numpy(np.ones(5)),
    "out": lambda tc, x: tc.add(x, 1, out=tc.empty(4)),
    "backward": lambda tc, x: tc.ones(2, requires_grad=True).sum().backward(),
    "seed": lambda tc, x: tc.manual_seed(3),
    "to": lambda tc, x: x.to(tc.float64).reshape(2, 2).t(),
}


@pytest.mark.parametrize("call", NO_READS.values(), ids=NO_READS.keys())
def test_a_call_that_surely_returns_tensors_does_not_wait(tc: ModuleType, call: Any) -> None:
    x = tc.ones(4)
    before = session_of().stats.waits
    call(tc, x)
    assert session_of().stats.waits == before
    tc.synchronize()


def test_metadata_that_is_known_is_not_asked_again(tc: ModuleType) -> None:
    x = tc.ones(2, 3)
    x.tolist()
    before = session_of().stats.waits
    assert (x.shape, x.dtype, x.dim(), x.numel(), x.size(1), len(x)) == ((2, 3), tc.float32, 2, 6, 3, 2)
    assert session_of().stats.waits == before


def test_metadata_follows_what_changes_it(tc: ModuleType) -> None:
    x = tc.ones(2, 3)
    alias = x.detach()
    assert (x.shape, alias.shape, x.requires_grad) == ((2, 3), (2, 3), False)
    x.t_()
    x.requires_grad_()
    assert (x.shape, alias.shape, x.requires_grad) == ((3, 2), (2, 3), True)
    out = tc.empty(0)
    assert out.shape == (0,)
    tc.add(tc.ones(4), 1, out=out)
    assert out.shape == (4,)


def test_a_chain_holds_two_tensors_not_all_of_them(tc: ModuleType) -> None:
    x = tc.ones(1 << 16)
    y = tc.zeros(1 << 16)
    for _ in range(1000):
        y = y + x
    assert y[0].item() == 1000.0
    tc.synchronize()
    wait_until(lambda: held(session_of()) <= 2, 2.0, "only x and y are held")


def test_an_idle_client_s_dropped_tensors_are_gone_within_100_ms(tc: ModuleType) -> None:
    session = session_of()
    kept = [tc.ones(3) for _ in range(50)]
    parts = tc.ones(4).split(1)
    tc.synchronize()
    wait_until(lambda: held(session) == 54, 2.0, "only what is kept is held")
    gc.collect()
    kept.clear()
    del parts
    took = wait_until(lambda: held(session) == 0, 2.0, "all were let go", interval_s=0.005)
    assert took < 0.1


def test_dropped_tensors_of_a_client_that_slept_are_gone_too(tc: ModuleType) -> None:
    session = session_of()
    x = tc.ones(3)
    tc.synchronize()
    wait_until(lambda: session.queue.dozing, 5.0, "the sender sleeps")
    del x
    wait_until(lambda: held(session) == 0, 1.0, "it was let go")
    assert (tc.ones(2) + 1).tolist() == [2.0, 2.0]


def test_each_thread_s_calls_keep_their_order(tc: ModuleType) -> None:
    results: dict[int, list[float]] = {}

    def work(number: int) -> None:
        x = tc.zeros(2)
        for step in range(300):
            x.mul_(1.0)
            x.add_(number)
            if step % 100 == 0:
                x.sum().item()
        results[number] = x.tolist()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [300.0 * number] * 2 for number in range(8)}


def test_issuing_faster_than_the_server_runs_stays_bounded(tc: ModuleType) -> None:
    session = session_of()
    x = tc.ones(200_000)
    y = x
    most = 0
    for _ in range(20_000):
        y = y.add_(x) if len(session.queue.pending) % 7 else y.mul_(1)
        most = max(most, len(session.queue.pending))
        if most > 16_000:
            break
    assert most <= 17_000
    tc.synchronize()


def test_large_arrays_by_value_do_not_pile_up(tc: ModuleType) -> None:
    array = np.ones(1 << 17, np.float32)
    total = tc.zeros(())
    for _ in range(150):
        total = total + tc.from_numpy(array).sum()
    assert total.item() == 150 * (1 << 17)


def test_host_memory_may_be_reused_at_once(tc: ModuleType) -> None:
    small, large = np.zeros(3), np.zeros(1 << 18)
    tensors = [tc.tensor(small), tc.from_numpy(small), tc.from_numpy(large)]
    small[0] = large[0] = 9
    assert [each[0].item() for each in tensors] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("count", [0, 1, 1000, 1 << 18, (1 << 21) + 3], ids=["none", "one", "kB", "1 MiB", "9 MB"])
def test_arrays_of_any_size_come_back_as_they_went(tc: ModuleType, count: int) -> None:
    array = np.arange(count, dtype=np.int32)
    back = tc.from_numpy(array).numpy()
    assert back.dtype == np.int32
    assert np.array_equal(back, array)
    back[:1] = 7
    tc.synchronize()
    wait_until(lambda: held(session_of()) == 0, 2.0, "nothing of the transfer stays")


def test_ctrl_c_in_a_wait_returns_at_once_and_the_session_goes_on(tc: ModuleType) -> None:
    x = tc.ones(700, 700)
    y = x
    for _ in range(150):
        y = y @ x / 700
    # The signal arrives while the main thread waits for some seconds of matrix products.
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        y.sum().item()
    interrupted_s = time.monotonic() - began
    timer.join()
    assert y[0, 0].item() == pytest.approx(1.0, rel=1e-3)
    # However long the products take here.
    assert interrupted_s < 0.2 + (time.monotonic() - began) / 2


def test_the_asyncio_door_does_not_hold_up_the_loop(tc: ModuleType) -> None:
    async def main() -> tuple[Any, Any, Any, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        task = asyncio.create_task(tick())
        x = tc.ones(600, 600)
        for _ in range(20):
            x = x @ x / 600
        results = await asyncio.gather(x.numpy_async(), x[0].tolist_async(), x[0, 0].item_async())
        await tc.synchronize_async()
        task.cancel()
        return (*results, ticks)

    array, row, number, ticks = asyncio.run(main())
    assert array.shape == (600, 600)
    assert row[0] == number == pytest.approx(1.0, rel=1e-3)
    assert ticks > 1


def test_the_asyncio_door_raises_what_the_other_raises(tc: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="must match the size"):
        asyncio.run((tc.ones(2) + tc.ones(3)).numpy_async())
    with pytest.raises(RuntimeError, match="requires grad"):
        asyncio.run(tc.ones(2, requires_grad=True).numpy_async())


def test_ctrl_c_at_any_line_of_the_sending_loses_no_call(tc: ModuleType) -> None:
    session = session_of()
    batches = session._batches
    x = tc.zeros(1)
    tc.synchronize()
    interrupted = 0
    for line in range(90):
        for _ in range(3):
            x.add_(1)
        try:
            _interrupt_at(line, batches.flush)
        except KeyboardInterrupt:
            interrupted += 1
        x.add_(1)
    assert interrupted > 30
    assert x.tolist() == [4.0 * 90]


_OF_A_WAIT = {
    *("block", "block_for", "_block_once", "pass_on", "notify", "flush", "_form", "_commit", "send", "_flush"),
    *("read_until", "_take", "_wait", "_read", "_receive", "_let_go", "_settle", "_give_back", "add"),
}


def test_ctrl_c_at_any_line_of_a_wait_loses_no_call_and_no_answer(tc: ModuleType) -> None:
    """Over a lane the main thread itself sends, reads and takes in the answers."""
    session = session_of()
    assert session._batches._sender.lane is not None
    x = tc.zeros(1)
    x.tolist()
    interrupted = 0
    for line in range(1, 260):
        for _ in range(3):
            x.add_(1)
        try:
            _interrupt_at(line, x.tolist, _OF_A_WAIT)
        except KeyboardInterrupt:
            interrupted += 1
        x.add_(1)
        if line % 7 == 0:
            assert x.tolist() == [4.0 * line]
    assert interrupted > 60
    assert x.tolist() == [4.0 * 259]
    assert session.dead is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_of_waits_loses_no_call_and_no_answer(tc: ModuleType) -> None:
    x = tc.zeros(1)
    ends = time.monotonic() + 3.0
    main = threading.main_thread().ident
    done = threading.Event()
    # Set while the main thread waits: an interrupted `add_` may have been issued, or not.
    waits = threading.Event()

    def interrupt() -> None:
        pause_s = 0.0
        while not done.is_set() and main is not None:
            if waits.wait(0.1):
                pause_s = (pause_s + 0.000_037) % 0.001
                done.wait(pause_s)
                signal.pthread_kill(main, signal.SIGINT)
                waits.clear()

    thread = threading.Thread(target=interrupt)
    thread.start()
    added = interrupted = 0
    try:
        while time.monotonic() < ends:
            x.add_(1)
            added += 1
            try:
                waits.set()
                x.tolist()
                while waits.is_set():
                    x.tolist()
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        done.set()
        thread.join()
    try:
        time.sleep(0)
    except KeyboardInterrupt:
        pass
    assert interrupted > 50
    assert x.tolist() == [float(added)]


def _interrupt_at(count: int, function: Any, within: Collection[str] = ("_form", "_commit")) -> None:
    """Run a function and raise KeyboardInterrupt at its count-th line, counted through the functions of these names."""
    seen = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_name not in within:
            return None
        # A signal's handler does not run between the end of a `with` and what it does there, though a trace does.
        if event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(
            "with "
        ):
            seen += 1
            if seen == count:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: trace if frame.f_code.co_name in ("flush", *within) else None)
    try:
        function()
    finally:
        sys.settrace(before)
