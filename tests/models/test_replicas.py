"""Models on two engines behind one front: one name, one answer, whichever engine is asked and whichever ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import numpy
import pytest
import torch
from safetensors.torch import load

import tclient
from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.house import HouseUnderTest
from tests.models.networks import by_value, create, forward, relu_mlp, statistics
from tests.support.raw import Raw, RawSession, path_of
from tests.support.refusals import refused
from tests.support.serving import wait_until
from tests.support.values import tensor_data, tensor_of

Code = grpc.StatusCode
ROWS = torch.linspace(-1, 1, 12).reshape(2, 6)


@pytest.fixture(scope="module")
def house() -> Iterator[HouseUnderTest]:
    """Two engines, which tests leave as they were."""
    with HouseUnderTest() as house:
        yield house


@pytest.fixture
def front(house: HouseUnderTest) -> Iterator[Raw]:
    """A connection to the front; all models are gone at the end."""
    with Raw(house.address) as raw:
        yield raw
        for name in {mlp.name for mlp in raw.ask("ListMlps").mlps}:
            raw.ask("DeleteMlp", name=name)


@pytest.fixture
def sessions(house: HouseUnderTest) -> Iterator[list[RawSession]]:
    """A session on each engine."""
    opened = [RawSession(each.address) for each in house.engines.values()]
    yield opened
    for session in opened:
        session.close()


def engines_of(mlp: ms.MlpSummary) -> list[str]:
    """Where a model serves."""
    return [replica.engine for replica in mlp.replicas if replica.state == ms.MLP_STATE_READY]


def test_a_model_made_on_one_engine_answers_on_all(front: Raw, sessions: list[RawSession]) -> None:
    network = relu_mlp([6, 5, 3])
    made = create(sessions[0], "net", network)
    assert engines_of(made) == ["0", "1"]
    for session in sessions:
        assert session.ask("DescribeMlp", name="net").mlp == made
        assert list(session.ask("ListMlps").mlps) == [made]
        torch.testing.assert_close(forward(session, "net", ROWS), network(ROWS))
        here = session.create(data=tensor_data(ROWS))
        answer = session.ask("MlpForward", name="net", inputs={"tensor": here.id})
        torch.testing.assert_close(tensor_of(answer.output.data), network(ROWS))
    torch.testing.assert_close(forward(front, "net", ROWS), network(ROWS))
    assert front.ask("DescribeMlp", name="net").mlp == made


def test_versions_are_given_once_and_the_latest_answers_everywhere(front: Raw, sessions: list[RawSession]) -> None:
    first, second = relu_mlp([6, 3], seed=1), relu_mlp([6, 3], seed=2)
    create(sessions[0], "net", first, replicas=1)
    with refused(Code.ALREADY_EXISTS, naming="version 2"):
        create(sessions[1], "net", second)
    create(sessions[1], "net", second, version=2, replicas=1)
    for caller in (*sessions, front):
        torch.testing.assert_close(forward(caller, "net", ROWS), second(ROWS))
        torch.testing.assert_close(forward(caller, "net", ROWS, version=1), first(ROWS))
        with refused(Code.NOT_FOUND, naming="it has 1, 2"):
            forward(caller, "net", ROWS, version=3)


def test_a_model_that_is_elsewhere_takes_arrays_and_says_why_it_takes_no_tensor(
    house: HouseUnderTest, front: Raw, sessions: list[RawSession]
) -> None:
    network = relu_mlp([6, 3])
    made = create(sessions[0], "net", network, replicas=1)
    assert (engines_of(made), made.wanted_replicas) == (["0"], 1)
    torch.testing.assert_close(forward(sessions[1], "net", ROWS), network(ROWS))
    here = sessions[1].create(data=tensor_data(ROWS))
    with refused(Code.FAILED_PRECONDITION, reason="MODEL_ELSEWHERE", naming="arrays"):
        sessions[1].ask("MlpForward", name="net", inputs={"tensor": here.id})
    assert engines_of(sessions[1].ask("UpdateMlp", name="net", replicas=2).mlp) == ["0", "1"]
    answer = sessions[1].ask("MlpForward", name="net", inputs={"tensor": here.id})
    torch.testing.assert_close(tensor_of(answer.output.data), network(ROWS))
    assert len(engines_of(front.ask("UpdateMlp", name="net", replicas=1).mlp)) == 1


def test_a_client_s_stream_and_lane_reach_a_model_that_is_elsewhere(
    house: HouseUnderTest, front: Raw, sessions: list[RawSession]
) -> None:
    network = relu_mlp([6, 3])
    create(sessions[0], "net", network, replicas=1)
    with tclient.connect(house.engines["1"].address):
        served = tclient.models.get("net")
        with ThreadPoolExecutor(8) as pool:
            for outputs in pool.map(lambda _: served(ROWS.numpy()), range(64)):
                torch.testing.assert_close(torch.from_numpy(outputs), network(ROWS))
        with pytest.raises(ValueError, match="takes 6 inputs"):
            served(ROWS.numpy()[:, :4])
        with pytest.raises(KeyError, match="no network is named"):
            tclient.models.get("nothing")


def test_a_program_made_and_configured_by_a_client_is_on_as_many_engines_as_it_says(
    house: HouseUnderTest, front: Raw
) -> None:
    with tclient.connect(house.engines["0"].address):
        tclient.manual_seed(3)
        network = tclient.nn.Sequential(tclient.nn.Linear(6, 8), tclient.nn.LayerNorm(8), tclient.nn.Linear(8, 3))
        served = tclient.models.create("program", network, tclient.models.Input(("batch", 6)), replicas=1)
        wanted = network(tclient.from_numpy(ROWS.numpy())).detach().numpy()
        assert "1 replica, " in repr(tclient.models.list())
    with tclient.connect(house.engines["1"].address):
        served = tclient.models.get("program")
        numpy.testing.assert_allclose(served(ROWS.numpy()), wanted, rtol=1e-5, atol=1e-6)
        with pytest.raises(RuntimeError, match="give arrays in the place of tensors"):
            print(served(tclient.from_numpy(ROWS.numpy())))
        served.configure(replicas=0)
        assert "2 replicas, " in repr(served)
        numpy.testing.assert_allclose(served(tclient.from_numpy(ROWS.numpy())).numpy(), wanted, rtol=1e-5, atol=1e-6)
        inputs = [{"name": "input", "operand": by_value(ROWS)}]
        for _ in range(4):
            answer = front.ask("ModelForward", name="program", inputs=inputs)
            numpy.testing.assert_allclose(
                tensor_of(answer.outputs[0].output.data).numpy(), wanted, rtol=1e-5, atol=1e-6
            )


def test_statistics_are_those_of_all_engines_together(front: Raw, sessions: list[RawSession]) -> None:
    create(front, "net", relu_mlp([6, 3]))
    for session in (*sessions, sessions[0], front):
        forward(session, "net", ROWS)
    for caller in (*sessions, front):
        told = statistics(caller, "net")
        assert (told.inference_count, told.success.count, told.execution_count) == (8, 4, 4)
        assert [(batch.batch_size, batch.compute_infer.count) for batch in told.batches] == [(2, 4)]


def test_settings_unloading_loading_and_deleting_are_for_all_engines(front: Raw, sessions: list[RawSession]) -> None:
    network = relu_mlp([6, 3])
    create(front, "net", network)
    changed = sessions[1].ask("UpdateMlp", name="net", batching={"max_batch_size": 5}).mlp
    assert changed.batching.max_batch_size == 5
    sessions[0].ask("UnloadMlp", name="net")
    for caller in (*sessions, front):
        assert caller.ask("DescribeMlp", name="net").mlp.state == ms.MLP_STATE_UNAVAILABLE
        with refused(Code.FAILED_PRECONDITION, reason="MODEL_NOT_READY", naming="unloaded"):
            forward(caller, "net", ROWS)
    assert engines_of(sessions[1].ask("LoadMlp", name="net").mlp) == ["0", "1"]
    for caller in (*sessions, front):
        assert caller.ask("DescribeMlp", name="net").mlp.batching.max_batch_size == 5
        torch.testing.assert_close(forward(caller, "net", ROWS), network(ROWS))
    sessions[0].ask("DeleteMlp", name="net")
    for caller in (*sessions, front):
        with refused(Code.NOT_FOUND, naming="no network is named 'net'"):
            forward(caller, "net", ROWS)


def test_a_model_can_be_downloaded_from_anywhere(front: Raw, sessions: list[RawSession]) -> None:
    network = relu_mlp([6, 3])
    made = create(sessions[1], "net", network, replicas=1)
    for caller in (*sessions, front):
        request = caller.request("DownloadMlp", name="net").SerializeToString()
        parts = caller.send_stream("DownloadMlp", [request])
        assert parts[0].header.mlp == made
        again = relu_mlp([6, 3], seed=9)
        again.load_state_dict(load(b"".join(part.chunk for part in parts[1:-1])))
        torch.testing.assert_close(again(ROWS), network(ROWS))


def test_a_request_goes_where_the_fewest_rows_are_under_way(house: HouseUnderTest, front: Raw) -> None:
    network = relu_mlp([6, 3])
    create(front, "net", network, batching={"max_queue_delay_us": 60_000_000})

    def rows() -> list[int]:
        record = house.front.coordinator.records.find("net")
        return sorted(replica.rows for replica in record.replicas.values())

    def is_under_way(count: int) -> bool:
        return sum(rows()) == count

    counts = [5, 1, 1, 1, 1, 1, 2]
    with ThreadPoolExecutor(len(counts)) as pool:
        asking = []
        for number, count in enumerate(counts):
            given = torch.full((count, 6), float(number))
            asking.append((given, pool.submit(forward, front, "net", given)))
            wait_until(partial(is_under_way, sum(counts[: number + 1])), 10.0, "it is under way")
        # The first alone, until the others are as many; then in turn.
        assert rows() == [5, 7]
        front.ask("UpdateMlp", name="net", batching={})
        for given, answer in asking:
            torch.testing.assert_close(answer.result(20.0), network(given))
    assert rows() == [0, 0]


def test_a_request_that_a_full_replica_refuses_is_asked_of_the_other(house: HouseUnderTest, front: Raw) -> None:
    network = relu_mlp([6, 3])
    holding = {"max_queue_delay_us": 60_000_000, "default_queue_policy": {"max_queue_size": 1}}
    create(front, "net", network, batching=holding)
    replicas = house.front.coordinator.records.find("net").replicas.values()
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(forward, front, "net", ROWS) for _ in range(2)]
        wait_until(lambda: [replica.rows for replica in replicas] == [2, 2], 10.0, "one waits on each engine")
        wait_until(lambda: statistics(front, "net").waiting == 2, 10.0, "both are in their queues")
        with refused(Code.RESOURCE_EXHAUSTED, reason="QUEUE_FULL") as told:
            forward(front, "net", ROWS)
        assert told.retry_after_s
        # Each has refused it once.
        assert statistics(front, "net").rejected == 2
        call = ms.MlpForwardCall(id=1, name="net", inputs=tensor_data(ROWS))
        (answer,) = front.send_stream(
            "MlpForwardStream", [ms.MlpForwardStreamRequest(calls=[call]).SerializeToString()]
        )
        assert answer.answers[0].failure.reason == "QUEUE_FULL"
        assert answer.answers[0].failure.retry_after_s > 0
        assert statistics(front, "net").rejected == 4
        front.ask("UpdateMlp", name="net", batching={})
        for each in held:
            torch.testing.assert_close(each.result(20.0), network(ROWS))


def test_no_forward_fails_when_an_engine_ends(house: HouseUnderTest, front: Raw) -> None:
    network = relu_mlp([6, 5, 3])
    create(front, "net", network)
    wanted = network(ROWS)
    stop = threading.Event()

    def ask(_: int) -> int:
        asked = 0
        with Raw(house.address) as raw:
            while not stop.is_set():
                torch.testing.assert_close(forward(raw, "net", ROWS), wanted)
                asked += 1
        return asked

    def stream(number: int) -> int:
        sent = 0

        def requests() -> Iterator[bytes]:
            nonlocal sent
            while not stop.is_set():
                sent += 1
                call = ms.MlpForwardCall(id=sent, name="net", inputs=tensor_data(ROWS))
                yield ms.MlpForwardStreamRequest(calls=[call]).SerializeToString()

        with Raw(house.address) as raw:
            kind = ms.MlpForwardStreamResponse.FromString
            got = 0
            for message in raw.channel.stream_stream(path_of("MlpForwardStream"), None, kind)(requests()):
                for answer in message.answers:
                    torch.testing.assert_close(tensor_of(answer.output), wanted)
                    got += 1
        assert got == sent
        return got

    with ThreadPoolExecutor(20) as pool:
        asking = [pool.submit(ask, number) for number in range(16)]
        asking += [pool.submit(stream, number) for number in range(4)]
        wait_until(lambda: statistics(front, "net").inference_count > 200, 20.0, "work is under way")
        house.kill("0")
        before = statistics(front, "net").inference_count
        wait_until(lambda: statistics(front, "net").inference_count > before + 200, 20.0, "the other one goes on")
        assert engines_of(front.ask("DescribeMlp", name="net").mlp) == ["1"]
        house.start("0")
        assert engines_of(front.ask("DescribeMlp", name="net").mlp) == ["0", "1"]
        house.kill("1")
        before = statistics(front, "net").inference_count
        wait_until(lambda: statistics(front, "net").inference_count > before + 200, 20.0, "the successor goes on")
        house.start("1")
        stop.set()
        assert all(done.result(30.0) > 0 for done in asking)


def test_a_reload_under_load_fails_no_request_and_mixes_none(tmp_path: Path) -> None:
    old, new = relu_mlp([6, 64, 3], seed=1), relu_mlp([6, 64, 3], seed=2)
    data_dir, other_dir = tmp_path / "data", tmp_path / "other"
    for network, directory in ((new, other_dir), (old, data_dir)):
        with HouseUnderTest(1, directory) as house, Raw(house.address) as raw:
            create(raw, "net", network)
    rows = torch.randn(16, 6)
    with HouseUnderTest(2, data_dir) as house, Raw(house.address) as front:
        made = front.ask("DescribeMlp", name="net").mlp
        assert (engines_of(made), made.is_persistent) == (["0", "1"], True)
        stop = threading.Event()

        def ask(address: str) -> list[bool]:
            seen = []
            with Raw(address) as raw:
                while not stop.is_set():
                    outputs = forward(raw, "net", rows)
                    is_new = torch.allclose(outputs, new(rows), atol=1e-5)
                    assert is_new or torch.allclose(outputs, old(rows), atol=1e-5)
                    seen.append(is_new)
            return seen

        addresses = [house.address, *(each.address for each in house.engines.values())]
        with ThreadPoolExecutor(12) as pool:
            asking = [pool.submit(ask, address) for address in addresses * 4]
            wait_until(lambda: statistics(front, "net").inference_count > 500, 20.0, "work is under way")
            here, there = (directory / "models/net/1" for directory in (data_dir, other_dir))
            here.rename(tmp_path / "away")
            there.rename(here)
            front.ask("LoadMlp", name="net")
            before = statistics(front, "net").inference_count
            wait_until(lambda: statistics(front, "net").inference_count > before + 500, 20.0, "work goes on")
            stop.set()
            seen = [done.result(30.0) for done in asking]
        # Each has seen the old ones and then the new ones.
        assert all(each[-1] and not each[0] for each in seen)
        assert {replica.state for replica in front.ask("DescribeMlp", name="net").mlp.replicas} == {ms.MLP_STATE_READY}
        torch.testing.assert_close(forward(front, "net", rows), new(rows))


def test_models_outlive_engines_fronts_and_the_whole_house(tmp_path: Path) -> None:
    network, other = relu_mlp([6, 5, 3]), relu_mlp([6, 2])
    with HouseUnderTest(2, tmp_path) as house:
        with Raw(house.address) as raw:
            create(raw, "net", network, batching={"max_batch_size": 7})
            create(raw, "other", other, replicas=1)
            before = list(raw.ask("ListMlps").mlps)
            assert [(mlp.is_persistent, len(mlp.replicas)) for mlp in before] == [(True, 2), (True, 1)]
            house.kill("0")
            torch.testing.assert_close(forward(raw, "other", ROWS), other(ROWS))
            house.start("0")
        house.restart_front()
        with Raw(house.address) as raw:
            told = list(raw.ask("ListMlps").mlps)
            assert [(mlp.name, len(mlp.replicas)) for mlp in told] == [("net", 2), ("other", 1)]
            assert told[0] == before[0]
            raw.ask("UnloadMlp", name="net")
            house.restart_front()
        with Raw(house.address) as raw:
            assert raw.ask("DescribeMlp", name="net").mlp.state == ms.MLP_STATE_UNAVAILABLE
            raw.ask("LoadMlp", name="net")
            torch.testing.assert_close(forward(raw, "net", ROWS), network(ROWS))
    with HouseUnderTest(2, tmp_path) as house, Raw(house.address) as raw:
        again = list(raw.ask("ListMlps").mlps)
        assert [(mlp.name, len(mlp.replicas)) for mlp in again] == [("net", 2), ("other", 1)]
        assert again[0] == before[0]
        torch.testing.assert_close(forward(raw, "net", ROWS), network(ROWS))
        torch.testing.assert_close(forward(raw, "other", ROWS), other(ROWS))
