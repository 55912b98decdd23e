"""Models belong to who made them: to others they do not exist, but for public ones, which others do not change."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tests.bulk.test_data_endpoint import exactly
from tests.bulk.test_lanes import lane_of, sized
from tests.models.networks import by_value, create, forward, relu_mlp, statistics
from tests.support.raw import METHODS, Raw, RawSession
from tests.support.refusals import refused
from tests.support.values import Kept, tensor_data, tensor_of
from tests.trust.principals import Server, oip, serving_principals
from tserver.front import metrics

Code = grpc.StatusCode
ROWS = torch.arange(8, dtype=torch.float32).reshape(2, 4)
NOBODY = "no network is named 'net'; ListMlps tells which there are"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that knows its callers."""
    with serving_principals() as server:
        yield server


@pytest.fixture
def models(server: Server) -> Iterator[Server]:
    """The same; its models are gone at the end."""
    yield server
    root = server.raw("root", "admin")
    for name in {mlp.name for mlp in root.ask("ListMlps").mlps}:
        root.ask("DeleteMlp", name=name)


def names_of(raw: Raw) -> list[tuple[str, int]]:
    return [(mlp.name, mlp.version) for mlp in raw.ask("ListMlps").mlps]


def streamed(raw: Raw, name: str, rows: torch.Tensor = ROWS) -> ms.MlpForwardAnswer:
    call = ms.MlpForwardCall(id=1, name=name, inputs=tensor_data(rows))
    (response,) = raw.send_stream("MlpForwardStream", [ms.MlpForwardStreamRequest(calls=[call]).SerializeToString()])
    (answer,) = response.answers
    assert isinstance(answer, ms.MlpForwardAnswer)
    return answer


def in_a_call(session: RawSession, name: str, rows: torch.Tensor = ROWS) -> Any:
    kept = session.make("asarray", rows)
    run = session.call(session.id(), "tc.model_forward", name, 0, kept)
    return session.run(session.call(0, "Tensor.tolist", kept), run)


def test_two_principals_have_models_of_one_name(models: Server) -> None:
    networks = {who: relu_mlp((4, 5, 2), seed=seed) for seed, who in enumerate(("alice", "bob"))}
    for who, network in networks.items():
        told = create(models.raw(who), "net", network)
        assert (told.name, told.owner, told.public) == ("net", who, False)
    for who, network in networks.items():
        raw, wanted = models.raw(who), network(ROWS)
        assert names_of(raw) == [("net", 1)]
        torch.testing.assert_close(forward(raw, "net", ROWS), wanted)
        torch.testing.assert_close(tensor_of(streamed(raw, "net").output), wanted)
        by_name = raw.ask("ModelForward", name="net", inputs=[{"name": "input", "operand": by_value(ROWS)}])
        torch.testing.assert_close(tensor_of(by_name.outputs[0].output.data), wanted)
        with raw.open_session() as session:
            session.make("asarray", ROWS)
            kept = Kept(session.id())
            session.run(session.call(kept.id, "tc.model_forward", "net", 0, Kept(1))).clean()
            torch.testing.assert_close(session.get(kept), wanted)
            of_session = session.ask("MlpForward", name="net", inputs={"tensor": Kept(1).ref})
            torch.testing.assert_close(tensor_of(of_session.output.data), wanted)
            numbered = session.ask("MlpForward", seq=session.next_seq, name="net", inputs={"tensor": Kept(1).ref})
            torch.testing.assert_close(tensor_of(numbered.output.data), wanted)
        assert statistics(raw, "net").name == "net"
        assert statistics(raw, "net").inference_count == 2 * 6


def test_a_model_of_another_s_is_not_there(models: Server) -> None:
    create(models.raw("alice"), "net", relu_mlp((4, 5, 2)))
    bob = models.raw("bob")
    assert names_of(bob) == []
    asked: dict[str, dict[str, Any]] = {
        "MlpForward": {"inputs": by_value(ROWS)},
        "ModelForward": {"inputs": [{"name": "input", "operand": by_value(ROWS)}]},
        "DescribeMlp": {},
        "UpdateMlp": {},
        "UnloadMlp": {},
        "DeleteMlp": {},
        "DownloadMlp": {},
        "GetMlpStatistics": {},
    }
    for method, fields in asked.items():
        for name in ("net", "alice/net"):
            with refused(Code.NOT_FOUND, reason="NOT_FOUND") as told:
                if METHODS[method].server_streaming:
                    bob.send_stream(method, [bob.request(method, name=name, **fields).SerializeToString()])
                else:
                    bob.ask(method, name=name, **fields)
            assert told.message == NOBODY.replace("net'", f"{name}'"), method
    with refused(Code.NOT_FOUND, naming="no network is named 'net'"):
        bob.ask("LoadMlp", name="net")
    assert streamed(bob, "net").failure.message == NOBODY
    assert "'alice/net'" in streamed(bob, "alice/net").failure.message
    with bob.open_session() as session:
        assert NOBODY in in_a_call(session, "net").error(1).message
        assert "'alice/net'" in in_a_call(session, "alice/net").error(1).message
    assert models.raw("alice").ask("DescribeMlp", name="net").mlp.state == ms.MLP_STATE_READY


def test_a_lane_finds_what_its_session_s_principal_sees(models: Server) -> None:
    networks = {who: relu_mlp((4, 5, 2), seed=seed) for seed, who in enumerate(("alice", "bob"))}
    create(models.raw("alice"), "secret", networks["alice"])
    for who, network in networks.items():
        create(models.raw(who), "net", network)
    for who, network in networks.items():
        with models.raw(who).open_session() as session:
            port = int(session.opened.data_endpoint.rpartition(":")[2])
            calls = [
                ms.MlpForwardCall(id=number, name=name, inputs=tensor_data(ROWS))
                for number, name in enumerate(("net", "secret", "alice/net"))
            ]
            with lane_of(session, port, "forwards") as lane:
                lane.sendall(sized(ms.MlpForwardStreamRequest(calls=calls).SerializeToString()))
                answers: dict[int, ms.MlpForwardAnswer] = {}
                while len(answers) < len(calls):
                    (length,) = struct.unpack(">I", exactly(lane, 4))
                    response = ms.MlpForwardStreamResponse.FromString(exactly(lane, length))
                    answers.update({answer.id: answer for answer in response.answers})
        torch.testing.assert_close(tensor_of(answers[0].output), network(ROWS))
        assert answers[1].HasField("failure") == (who == "bob")
        assert answers[2].failure.message == NOBODY.replace("net'", "alice/net'")


def test_a_session_names_no_more_than_its_caller_may_now(models: Server) -> None:
    create(models.raw("alice"), "net", relu_mlp((4, 2)))
    with models.raw("bob", "admin").open_session() as session:
        in_a_call(session, "alice/net").clean()
        demoted = RawSession.__new__(RawSession)
        demoted.__dict__.update(session.__dict__, channel=models.raw("bob").channel)
        assert "no network is named 'alice/net'" in in_a_call(demoted, "alice/net").error(1).message
    admin, user = models.raw("carl", "admin"), models.raw("carl")
    kept = admin.create(data=tensor_data(ROWS)).id
    assert admin.ask("MlpForward", name="alice/net", inputs={"tensor": kept}).version == 1
    with refused(Code.NOT_FOUND, naming="'alice/net'"):
        user.ask("MlpForward", name="alice/net", inputs={"tensor": kept})


def test_a_public_model_is_seen_by_all_and_changed_by_its_owner(models: Server) -> None:
    network = relu_mlp((4, 5, 2))
    ann = models.raw("ann", "publisher")
    assert create(ann, "net", network, public=True).public
    bob = models.raw("bob")
    told = bob.ask("DescribeMlp", name="net").mlp
    assert (told.name, told.owner, told.public) == ("net", "ann", True)
    torch.testing.assert_close(forward(bob, "net", ROWS), network(ROWS))
    for method in ("UpdateMlp", "UnloadMlp", "LoadMlp", "DeleteMlp"):
        with refused(Code.PERMISSION_DENIED, reason="NOT_THE_OWNER", naming="'net'"):
            bob.ask(method, name="net")
    cat = models.raw("cat", "publisher")
    with refused(Code.PERMISSION_DENIED, reason="NOT_THE_OWNER"):
        create(cat, "net", network, public=True, version=2)
    ann.ask("UpdateMlp", name="net", batching={"max_batch_size": 5})
    root = models.raw("root", "admin")
    # An administrator's version of a name is the owner's, too.
    assert create(root, "net", network, version=2).owner == "ann"
    ann.ask("DeleteMlp", name="net")
    assert names_of(bob) == []


def test_one_s_own_model_goes_before_a_public_one_of_its_name(models: Server) -> None:
    public, own = relu_mlp((4, 5, 2), seed=1), relu_mlp((4, 3), seed=2)
    create(models.raw("ann", "publisher"), "net", public, public=True, version=7)
    bob = models.raw("bob")
    create(bob, "net", own)
    create(bob, "a", own)
    assert names_of(bob) == [("a", 1), ("net", 1)]
    torch.testing.assert_close(forward(bob, "net", ROWS), own(ROWS))
    torch.testing.assert_close(forward(models.raw("cat"), "net", ROWS), public(ROWS))
    bob.ask("DeleteMlp", name="net")
    assert names_of(bob) == [("a", 1), ("net", 7)]
    torch.testing.assert_close(forward(bob, "net", ROWS), public(ROWS))


def test_a_public_model_takes_the_role_of_a_publisher(models: Server) -> None:
    with refused(Code.PERMISSION_DENIED, reason="NOT_A_PUBLISHER", naming="give it the role publisher"):
        create(models.raw("bob"), "net", relu_mlp((4, 2)), public=True)
    assert names_of(models.raw("bob")) == []


def test_no_name_leads_to_the_models_of_another(models: Server) -> None:
    alice = models.raw("alice")
    create(alice, "net", relu_mlp((4, 2)))
    for name in ("alice/net", "bob/net", "/net", "../alice/net", "@alice/net"):
        for role in ("user", "publisher", "admin"):
            with refused(Code.INVALID_ARGUMENT, naming="is not usable"):
                create(models.raw("bob", role), name, relu_mlp((4, 2)), version=2)
    assert names_of(alice) == [("net", 1)]


def test_principals_are_told_apart_whatever_they_are_called(models: Server) -> None:
    networks = {who: relu_mlp((4, 2), seed=seed) for seed, who in enumerate(("a", "a/b", "a%2Fb", "..", "b/net"))}
    for who, network in networks.items():
        create(models.raw(who), "net", network)
    for who, network in networks.items():
        assert names_of(models.raw(who)) == [("net", 1)]
        torch.testing.assert_close(forward(models.raw(who), "net", ROWS), network(ROWS))
        assert models.raw(who).ask("DescribeMlp", name="net").mlp.owner == who


def test_an_administrator_sees_and_changes_all(models: Server) -> None:
    create(models.raw("alice"), "net", relu_mlp((4, 2)))
    root = models.raw("root", "admin")
    create(root, "net", relu_mlp((4, 3)))
    assert names_of(root) == [("alice/net", 1), ("net", 1)]
    assert root.ask("DescribeMlp", name="net").mlp.owner == "root"
    assert root.ask("DescribeMlp", name="alice/net").mlp.owner == "alice"
    root.ask("DeleteMlp", name="alice/net")
    assert [mlp.owner for mlp in models.raw("alice").ask("ListMlps").mlps] == ["root"]


def test_the_open_inference_protocol_knows_owners_too(models: Server) -> None:
    networks = {who: relu_mlp((4, 2), seed=seed) for seed, who in enumerate(("alice", "bob"))}
    for who, network in networks.items():
        create(models.raw(who), "net", network)
    create(models.raw("ann", "publisher"), "all", relu_mlp((4, 2)), public=True)
    create(models.raw("alice"), "secret", relu_mlp((4, 2)))
    data = {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": ROWS.flatten().tolist()}
    for who, network in networks.items():
        raw, wanted = models.raw(who), network(ROWS).flatten().tolist()
        own = ["all", "net", "secret"] if who == "alice" else ["all", "net"]
        assert [model.name for model in oip(raw, "RepositoryIndex").models] == own
        assert [each["name"] for each in models.http(who, "POST", "/v2/repository/index")[1]] == own
        assert [each.name for each in oip(raw, "ModelStatistics").model_stats] == own
        assert oip(raw, "ModelMetadata", name="net").name == "net"
        assert oip(raw, "ModelConfig", name="net").config.name == "net"
        contents = {"name": "input", "datatype": "FP32", "shape": [2, 4]}
        given = [{**contents, "contents": {"fp32_contents": ROWS.flatten().tolist()}}]
        answer = oip(raw, "ModelInfer", model_name="net", inputs=given)
        assert answer.model_name == "net"
        assert torch.frombuffer(bytearray(answer.raw_output_contents[0]), dtype=torch.float32).tolist() == wanted
        status, told = models.http(who, "POST", "/v2/models/net/infer", {"inputs": [data]})
        assert (status, told["model_name"]) == (200, "net")
        torch.testing.assert_close(torch.tensor(told["outputs"][0]["data"]), torch.tensor(wanted))
    bob = models.raw("bob")
    for name in ("secret", "alice/secret"):
        assert not oip(bob, "ModelReady", name=name).ready
        for method, fields in {
            "ModelMetadata": {"name": name},
            "ModelConfig": {"name": name},
            "ModelStatistics": {"name": name},
            "ModelInfer": {"model_name": name},
            "RepositoryModelLoad": {"model_name": name},
            "RepositoryModelUnload": {"model_name": name},
        }.items():
            with pytest.raises(grpc.RpcError) as told_of:
                oip(bob, method, **fields)
            assert f"no network is named {name!r}" in str(told_of.value), method
        path = name.replace("/", "%2F")
        for method, end in (("GET", ""), ("GET", "/config"), ("GET", "/stats"), ("POST", "/infer")):
            assert models.http("bob", method, f"/v2/models/{path}{end}")[0] == 404
        for end in ("load", "unload"):
            assert models.http("bob", "POST", f"/v2/repository/models/{path}/{end}")[0] == 404
    for end in ("load", "unload"):
        assert models.http("bob", "POST", f"/v2/repository/models/all/{end}")[0] == 403
        assert models.http("ann", "POST", f"/v2/repository/models/all/{end}", role="publisher")[0] == 200


def test_owners_outlive_the_server_and_older_models_are_public(tmp_path: Path) -> None:
    networks = {who: relu_mlp((4, 2), seed=seed) for seed, who in enumerate(("alice", "b/o%b"))}
    old, public = relu_mlp((4, 2), seed=5), relu_mlp((4, 2), seed=6)
    with serving_principals(tmp_path, known=False) as server:
        assert create(server.raw(""), "old", old).owner == ""
    manifest = json.loads((tmp_path / "models/old/1/manifest.json").read_text())
    assert "owner" not in manifest
    with serving_principals(tmp_path) as server:
        for who, network in networks.items():
            create(server.raw(who), "net", network)
        create(server.raw("ann", "publisher"), "all", public, public=True)
    with serving_principals(tmp_path) as server:
        for who, network in networks.items():
            raw = server.raw(who)
            assert names_of(raw) == [("all", 1), ("net", 1), ("old", 1)]
            torch.testing.assert_close(forward(raw, "net", ROWS), network(ROWS))
            torch.testing.assert_close(forward(raw, "old", ROWS), old(ROWS))
            with refused(Code.PERMISSION_DENIED, reason="NOT_THE_OWNER"):
                raw.ask("DeleteMlp", name="all")
            raw.ask("UnloadMlp", name="net")
            torch.testing.assert_close(forward(raw, "all", ROWS), public(ROWS))
            raw.ask("LoadMlp", name="net")
            torch.testing.assert_close(forward(raw, "net", ROWS), network(ROWS))
        ann = server.raw("ann")
        assert ann.ask("DescribeMlp", name="all").mlp.owner == "ann"
        ann.ask("DeleteMlp", name="all")
        server.raw("alice").ask("DeleteMlp", name="net")
        with refused(Code.PERMISSION_DENIED):
            ann.ask("DeleteMlp", name="old")
        assert names_of(server.raw("root", "admin")) == [("b%2Fo%25b/net", 1), ("old", 1)]


def test_without_credentials_all_models_are_everybody_s() -> None:
    with serving_principals(known=False) as server:
        here, there = server.raw(""), server.raw("", peer="ipv4:192.0.2.7:1234")
        assert create(here, "net", relu_mlp((4, 2))).public
        assert names_of(there) == [("net", 1)]
        there.ask("DeleteMlp", name="net")
        assert names_of(here) == []


def test_an_owner_fills_no_metrics() -> None:
    def versions(name: str, owner: str, count: int) -> list[Any]:
        return [SimpleNamespace(name=name, owner=owner, version=version) for version in range(count)]

    every = [
        *versions("alice/net", "", 500),
        *versions("bob/net", "", 3),
        *versions("all", "ann", 500),
        *versions("old", "", 500),
    ]
    told = Counter((each.name, each.owner) for each in metrics._bounded(every))
    assert told == {("alice/net", ""): 100, ("bob/net", ""): 3, ("all", "ann"): 100, ("old", ""): 500}
