"""Models of principals over many engines: a name leads to the same one through the front and through every engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.oip import inference_pb2 as oip
from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.house import HouseUnderTest
from tests.models.networks import create, forward, relu_mlp, statistics
from tests.support.raw import Raw
from tests.support.refusals import refused
from tests.support.values import Kept, tensor_data, tensor_of
from tests.trust.principals import serving_principals
from tserver.config import Config
from tserver.errors import NotFound
from tserver.front.health import Health
from tserver.front.oip.inference import Caller
from tserver.front.oip.protobuf_form import parse
from tserver.front.oip.service import Service
from tserver.front.replicas.choosing import Choosing
from tserver.front.replicas.inference import HouseInference
from tserver.front.rpc import house_metadata
from tserver.identity import Identity, Role

Code = grpc.StatusCode
ROWS = torch.arange(8, dtype=torch.float32).reshape(2, 4)


class _Headers(
    grpc.UnaryUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds headers to each RPC."""

    def __init__(self, headers: tuple[tuple[str, str | bytes], ...]) -> None:
        self._headers = headers

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """See gRPC."""
        return continuation(self._with(details), request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        """See gRPC."""
        return continuation(self._with(details), requests)

    def _with(self, details: Any) -> Any:
        return details._replace(metadata=(*(details.metadata or ()), *self._headers))


class House:
    """One, and callers whom a process of it speaks for."""

    def __init__(self, under_test: HouseUnderTest) -> None:
        self.under_test = under_test

    def raw(self, name: str, role: Role = Role.USER, engine: str = "") -> Raw:
        """A connection to the front, or to an engine, in the name of a principal."""
        house = self.under_test
        address = house.engines[engine].address if engine else house.address
        identity = Identity(name, role, "token", "ipv4:192.0.2.1")
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(address, options=options)
        headers = _Headers(house_metadata(house.key, identity))
        return Raw(address, channel=grpc.intercept_channel(channel, headers))

    def everywhere(self, name: str) -> Iterator[Raw]:
        """Connections of a principal to all processes."""
        for engine in ("", *self.under_test.engines):
            with self.raw(name, engine=engine) as raw:
                yield raw


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of two engines with a data directory."""
    with HouseUnderTest(2, tmp_path_factory.mktemp("data")) as under_test:
        yield House(under_test)


def streamed(raw: Raw, name: str) -> ms.MlpForwardAnswer:
    call = ms.MlpForwardCall(id=1, name=name, inputs=tensor_data(ROWS))
    (response,) = raw.send_stream("MlpForwardStream", [ms.MlpForwardStreamRequest(calls=[call]).SerializeToString()])
    answer: ms.MlpForwardAnswer = response.answers[0]
    return answer


def names_of(raw: Raw) -> list[tuple[str, str, bool]]:
    return [(mlp.name, mlp.owner, mlp.public) for mlp in raw.ask("ListMlps").mlps]


def test_a_name_is_its_caller_s_on_every_engine(house: House) -> None:
    networks = {who: relu_mlp((4, 3, 2), seed=seed) for seed, who in enumerate(("alice", "bob", "ann"))}
    for who in ("alice", "bob"):
        # On one engine: the other one asks the front.
        told = create(house.raw(who), "net", networks[who], replicas=1)
        assert (told.name, told.owner, told.public) == ("net", who, False)
    create(house.raw("ann", Role.PUBLISHER), "net", networks["ann"], public=True)
    create(house.raw("alice"), "secret", networks["alice"], replicas=1)

    def check() -> None:
        for who, network in {**networks, "zoe": networks["ann"]}.items():
            wanted = network(ROWS)
            for raw in house.everywhere(who):
                torch.testing.assert_close(forward(raw, "net", ROWS), wanted)
                torch.testing.assert_close(tensor_of(streamed(raw, "net").output), wanted)
                owner = "ann" if who == "zoe" else who
                own = [("net", owner, owner == "ann")] + [("secret", "alice", False)] * (who == "alice")
                assert names_of(raw) == own
                assert statistics(raw, "net").name == "net"
        for raw in house.everywhere("bob"):
            for name in ("secret", "alice/secret"):
                unknown = f"no network is named {name!r}; ListMlps tells which there are"
                for method in ("DescribeMlp", "UpdateMlp", "UnloadMlp", "LoadMlp", "DeleteMlp", "GetMlpStatistics"):
                    with refused(Code.NOT_FOUND) as told:
                        raw.ask(method, name=name)
                    assert told.message == unknown, method
                with refused(Code.NOT_FOUND) as told:
                    forward(raw, name, ROWS)
                assert told.message == unknown
                assert streamed(raw, name).failure.message == unknown
        for raw in house.everywhere("zoe"):
            for method in ("UpdateMlp", "UnloadMlp", "LoadMlp", "DeleteMlp"):
                with refused(Code.PERMISSION_DENIED, reason="NOT_THE_OWNER"):
                    raw.ask(method, name="net")
            with refused(Code.PERMISSION_DENIED, reason="NOT_A_PUBLISHER"):
                create(raw, "more", networks["ann"], public=True)

    check()
    # Whoever tells a front of models that was not there when they were made: engines, or the disk.
    house.under_test.restart_front()
    check()
    for engine in list(house.under_test.engines):
        house.under_test.kill(engine)
        house.under_test.start(engine)
    check()
    house.raw("alice").ask("UnloadMlp", name="net")
    with refused(Code.FAILED_PRECONDITION, naming="of 'net' is not ready"):
        forward(house.raw("alice"), "net", ROWS)
    house.raw("alice").ask("LoadMlp", name="net")
    check()
    house.raw("alice").ask("DeleteMlp", name="net")
    for raw in house.everywhere("alice"):
        torch.testing.assert_close(forward(raw, "net", ROWS), networks["ann"](ROWS))


def test_calls_of_sessions_know_whose_they_are(house: House) -> None:
    networks = {who: relu_mlp((4, 2), seed=seed) for seed, who in enumerate(("carol", "dave"))}
    for who, network in networks.items():
        create(house.raw(who), "own", network)
    for who, network in networks.items():
        for engine in house.under_test.engines:
            with house.raw(who, engine=engine).open_session() as session:
                rows = session.make("asarray", ROWS)
                kept = Kept(session.id())
                session.run(session.call(kept.id, "tc.model_forward", "own", 0, rows)).clean()
                torch.testing.assert_close(session.read(kept), network(ROWS))
                asked = session.ask("MlpForward", name="own", inputs={"tensor": rows.ref})
                torch.testing.assert_close(tensor_of(asked.output.data), network(ROWS))
                # By the front, which forwards what names a session.
                with house.raw(who) as front:
                    front.secret = session.secret
                    asked = front.ask("MlpForward", name="own", inputs={"tensor": rows.ref})
                    torch.testing.assert_close(tensor_of(asked.output.data), network(ROWS))
                    assert front.ask("DescribeMlp", name="own").mlp.owner == who


def test_the_open_inference_protocol_of_a_house_knows_owners(house: House) -> None:
    networks = {who: relu_mlp((4, 2), seed=seed) for seed, who in enumerate(("eve", "fay"))}
    for who, network in networks.items():
        create(house.raw(who), f"of-{who}", network)
        create(house.raw(who), "same", network)
    front = house.under_test.front
    choosing = Choosing(front.coordinator)
    service = front.call(
        lambda: Service(Config(), HouseInference(front.coordinator, choosing), Health(grpc.aio.server(), ()))
    )
    data = ROWS.numpy().tobytes()
    _, request = parse(
        oip.ModelInferRequest(
            inputs=[{"name": "input", "datatype": "FP32", "shape": [2, 4]}], raw_input_contents=[data]
        ).SerializeToString()
    )
    for who, network in networks.items():
        identity = Identity(who)
        told = {model.name for model in service.index("", identity, only_ready=False).models}
        assert {f"of-{who}", "same"} <= told
        assert not told & {f"of-{other}" for other in networks if other != who}
        answer = front.run(service.inferences.run("same", "", request, Caller(identity, None)))
        assert answer.model_name == "same"
        found = torch.frombuffer(bytearray(answer.outputs[0].elements), dtype=torch.float32)
        torch.testing.assert_close(found.reshape(2, 2), network(ROWS))
    with pytest.raises(NotFound, match="no network is named 'of-eve'"):
        front.run(service.inferences.run("of-eve", "", request, Caller(Identity("fay"), None)))


def test_a_house_reads_what_a_lone_server_wrote(tmp_path: Path) -> None:
    networks = {who: relu_mlp((4, 2), seed=seed) for seed, who in enumerate(("alice", "b/o", "ann"))}
    with serving_principals(tmp_path) as server:
        for who in ("alice", "b/o"):
            create(server.raw(who), "net", networks[who])
        create(server.raw("ann", "publisher"), "all", networks["ann"], public=True)
    with HouseUnderTest(1, tmp_path) as under_test:
        house = House(under_test)
        for who in ("alice", "b/o"):
            raw = house.raw(who)
            torch.testing.assert_close(forward(raw, "net", ROWS), networks[who](ROWS))
            assert names_of(raw)[0] == ("all", "ann", True)
        with refused(Code.PERMISSION_DENIED):
            house.raw("alice").ask("DeleteMlp", name="all")
        house.raw("ann").ask("DeleteMlp", name="all")
