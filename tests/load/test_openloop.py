"""The generator against a real server: every answer is checked, every failure has a name."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import numpy as np
import pytest

from tests.load.arrivals import Offered, offer, schedule
from tests.load.openloop import FAILURES, SENDERS, generators
from tests.load.workload import OPTIONS, Rows, TensorWork, WrongAnswer, create_network, data_of
from tests.support.serving import HasAddress

SECONDS = 0.3


def offered_here(address: str, rpc: str, rows: Rows) -> Offered:
    """An open loop in this process."""

    async def run() -> Offered:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel, SENDERS[rpc](channel, rows) as send:
            return await offer(send, schedule(100, SECONDS), SECONDS, patience_s=5.0)

    return asyncio.run(run())


@pytest.fixture
def with_network(server: HasAddress) -> str:
    """The address of a server that has the network."""
    with grpc.insecure_channel(server.address, options=OPTIONS) as channel:
        create_network(channel)
        create_network(channel)  # twice is no error
    return server.address


@pytest.mark.parametrize("rpc", SENDERS)
def test_all_requests_are_answered_and_right(rpc: str, with_network: str) -> None:
    offered = offered_here(with_network, rpc, Rows())
    assert not offered.failures
    assert len(offered.latencies_s) == 30


@pytest.mark.parametrize("rpc", SENDERS)
def test_a_wrong_answer_is_a_failure(rpc: str, with_network: str) -> None:
    rows = Rows()
    rows.expected = rows.expected + np.float32(0.01)
    assert offered_here(with_network, rpc, rows).failures == {"WRONG ANSWER": 30}


@pytest.mark.parametrize("rpc", SENDERS)
def test_a_server_that_is_not_there_is_a_failure_and_no_hang(rpc: str) -> None:
    offered = offered_here("127.0.0.1:1", rpc, Rows())
    assert offered.failures == {"UNAVAILABLE": 30}
    assert set(offered.failures) <= set(FAILURES)


def test_two_processes_share_a_rate(with_network: str) -> None:
    with generators(with_network, "stream", 2) as generating:
        offered = generating.offer(100, SECONDS, warm_up_s=0.2)
    assert not offered.failures
    assert offered.count == pytest.approx(30, abs=2)
    assert 0 < offered.quantile_s(0.5) < 1


def test_an_answer_to_another_row_is_wrong() -> None:
    rows = Rows()
    rows.check(1, data_of(rows.expected[1:2]))
    with pytest.raises(WrongAnswer, match="row 2"):
        rows.check(2, data_of(rows.expected[1:2]))


def test_the_mixed_work_runs_again_and_again_in_a_session(server: HasAddress) -> None:
    with grpc.insecure_channel(server.address, options=OPTIONS) as channel:
        work = TensorWork(channel)
        names = [name for _ in range(2) for name, step in work.steps() if step() is not None]
        work.close()
    assert names == ["CreateTensor", "Transpose", "Add", "Reshape", "GetTensor", "Execute", "FreeTensors"] * 2
