"""Models of a whole house, as the command line starts it: other protocols, the ends of processes, and restarts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.oip import inference_pb2 as oip
from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import create, forward, relu_mlp, statistics
from tests.support.http import Caller
from tests.support.listeners import listener
from tests.support.raw import Raw
from tests.support.serving import ServerProcess, child_named, wait_until

OPTIONS = ("--engines", "2", "--drain-s", "2")
LISTENERS = ("--oip-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
ROWS = torch.linspace(-1, 1, 12).reshape(2, 6)


def replicas_of(raw: Raw, name: str) -> list[str]:
    """Where a model serves."""
    mlp = raw.ask("DescribeMlp", name=name).mlp
    return [replica.engine for replica in mlp.replicas if replica.state == ms.MLP_STATE_READY]


def wait_for_rows(raw: Raw, name: str, count: int) -> None:
    """Wait until so many rows more were run."""
    before = statistics(raw, name).inference_count
    wait_until(lambda: statistics(raw, name).inference_count > before + count, 30.0, "rows are run")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A house of two engines, which tests may end one by one."""
    data_dir = tmp_path_factory.mktemp("data")
    with ServerProcess(*OPTIONS, *LISTENERS, "--data-dir", str(data_dir)) as house:
        yield house


def test_the_open_inference_protocol_answers_on_while_engines_end(house: ServerProcess) -> None:
    network = relu_mlp([6, 5, 3])
    wanted = network(ROWS)
    request = oip.ModelInferRequest(model_name="net", raw_input_contents=[ROWS.numpy().tobytes()])
    request.inputs.add(name="input", datatype="FP32", shape=[2, 6])
    inputs = [{"name": "input", "datatype": "FP32", "shape": [2, 6], "data": ROWS.flatten().tolist()}]
    body = json.dumps({"inputs": inputs}).encode()
    stop = threading.Event()

    def ask_grpc() -> int:
        asked = 0
        kind = oip.ModelInferResponse.FromString
        with grpc.insecure_channel(listener(house, "oip"), [("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, kind)
            while not stop.is_set():
                answer = infer(request.SerializeToString(), timeout=60.0)
                found = torch.frombuffer(bytearray(answer.raw_output_contents[0]), dtype=torch.float32)
                torch.testing.assert_close(found.reshape(2, 3), wanted)
                asked += 1
        return asked

    def ask_http() -> int:
        asked = 0
        with Caller(listener(house, "http"), timeout_s=60.0) as http:
            while not stop.is_set():
                reply = http.ask("POST", "/v2/models/net/infer", body)
                assert reply.status == 200, reply.body
                found = torch.tensor(reply.json["outputs"][0]["data"])
                torch.testing.assert_close(found.reshape(2, 3), wanted)
                asked += 1
        return asked

    with Raw(house.address) as raw, ThreadPoolExecutor(64) as pool:
        create(raw, "net", network)
        asking = [pool.submit(ask) for ask in (ask_grpc, ask_http) * 32]
        try:
            for engine in ("0", "1"):
                wait_for_rows(raw, "net", 200)
                os.kill(child_named(house.pid, f"tserver:{engine}"), signal.SIGKILL)
                wait_until(lambda: len(replicas_of(raw, "net")) < 2, 10.0, "the end of an engine is known")
                wait_until(lambda: len(replicas_of(raw, "net")) == 2, 60.0, "its successor has the model", 0.1)
        finally:
            stop.set()
        assert all(done.result(60.0) > 0 for done in asking)


def test_models_are_known_again_when_the_front_was_killed(house: ServerProcess) -> None:
    network = relu_mlp([6, 4, 3], seed=3)
    with Raw(house.address) as raw:
        create(raw, "known", network, replicas=1)
        before = raw.ask("DescribeMlp", name="known").mlp
    os.kill(child_named(house.pid, "tserver-front"), signal.SIGKILL)

    def is_back() -> bool:
        with contextlib.suppress(grpc.RpcError), Raw(house.address) as raw:
            return bool(raw.ask("DescribeMlp", name="known").mlp == before)
        return False

    wait_until(is_back, 30.0, "the next front knows the model", 0.1)
    with Raw(house.address) as raw:
        torch.testing.assert_close(forward(raw, "known", ROWS), network(ROWS))


def test_a_directory_of_models_is_a_house_s_and_a_lone_server_s_in_turn(tmp_path: Path) -> None:
    first, second = relu_mlp([6, 5, 3], seed=1), relu_mlp([6, 2], seed=2)
    data_dir = ("--data-dir", str(tmp_path))
    with ServerProcess(*OPTIONS, *data_dir) as house, Raw(house.address) as raw:
        create(raw, "first", first, replicas=1, batching={"max_batch_size": 7})
        # Without a chance to say goodbye: what was answered is on disk.
        house.kill()
    with ServerProcess(*data_dir) as alone, Raw(alone.address) as raw:
        torch.testing.assert_close(forward(raw, "first", ROWS), first(ROWS))
        told = raw.ask("DescribeMlp", name="first").mlp
        assert (told.batching.max_batch_size, told.wanted_replicas, list(told.replicas)) == (7, 1, [])
        create(raw, "second", second)
    with ServerProcess(*OPTIONS, *data_dir) as house, Raw(house.address) as raw:
        assert (len(replicas_of(raw, "first")), replicas_of(raw, "second")) == (1, ["0", "1"])
        torch.testing.assert_close(forward(raw, "first", ROWS), first(ROWS))
        torch.testing.assert_close(forward(raw, "second", ROWS), second(ROWS))
        third = ServerProcess(*data_dir)
        assert third.wait(60.0) != 0
        assert "another server uses the data directory" in third.log()


def test_a_model_outlives_the_engine_of_the_session_that_made_it() -> None:
    network = relu_mlp([6, 5, 3], seed=4)
    with ServerProcess("--isolation", "session", "--drain-s", "2") as house, Raw(house.address) as raw:
        with raw.open_session() as session:
            create(session, "net", network, replicas=1)
            (home,) = replicas_of(raw, "net")
        wait_until(lambda: home not in [each.id for each in raw.ask("GetServerInfo").engines], 30.0, "its end", 0.1)
        assert replicas_of(raw, "net") not in ([], [home])
        torch.testing.assert_close(forward(raw, "net", ROWS), network(ROWS))
