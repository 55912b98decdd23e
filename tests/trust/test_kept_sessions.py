"""What a house has kept of sessions, and checkpoints there, are for their principal: to others they never were."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import grpc
import pytest

import tclient as tc
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.checkpoints.place import Place
from tests.support.callers import Caller, token_of
from tests.support.serving import serving
from tserver.credentials import tokens

TENSORS = "/tensorcompute.v1.TensorService"


def told(caller: Caller, secret: bytes, token: str) -> list[tuple[grpc.StatusCode, str]]:
    """What somebody hears who asks for a session in each way that there is."""
    context = ts.SessionContext(session=secret)
    asked = {
        "GetSessionProgress": ts.GetSessionProgressRequest(session=secret),
        "OpenTransfer": ts.OpenTransferRequest(lane=context),
        "AttachSession": ts.AttachSessionRequest(session=secret, min_protocol=2, max_protocol=2),
        "CancelSession": ts.CancelSessionRequest(session=secret),
    }
    return [caller.told(f"{TENSORS}/{rpc}", request.SerializeToString(), token) for rpc, request in asked.items()]


def test_a_session_that_a_house_has_kept_is_brought_back_for_its_principal_alone(tmp_path: Path) -> None:
    alice, bob = (token_of(tmp_path / tokens.NAME, name) for name in ("alice", "bob"))
    place = Place(tmp_path, "--engines", "2")
    progress = f"{TENSORS}/GetSessionProgress"
    try:
        with Caller(place.address) as caller:
            secret = caller.open(alice).session
        place.restart()
        never = secret[:8] + secrets.token_bytes(16)
        asked = ts.GetSessionProgressRequest(session=secret).SerializeToString()
        with Caller(place.address) as caller:
            assert told(caller, secret, bob) == told(caller, never, bob)
            endpoint = place.address.rpartition(":")[0] + caller.open(alice).endpoint
            with Caller(endpoint) as engine:
                # It was not told by the front that it is to go on with that one.
                assert engine.told(progress, asked, alice)[0] is grpc.StatusCode.UNAVAILABLE
                assert told(engine, secret, bob) == told(engine, never, bob)
            assert [path.name for path in place.kept()] == [hashlib.sha256(secret).hexdigest()]
            assert caller.told(progress, asked, alice)[0] is grpc.StatusCode.OK
            assert told(caller, secret, bob) == told(caller, never, bob)
            assert caller.told(progress, asked, alice)[0] is grpc.StatusCode.OK
    finally:
        place.server.__exit__(None, None, None)


def test_a_checkpoint_in_a_house_is_resumed_by_its_principal_alone(tmp_path: Path) -> None:
    alice, bob = (token_of(tmp_path / tokens.NAME, name) for name in ("alice", "bob"))
    with serving("--data-dir", str(tmp_path), "--engines", "2") as server:
        with tc.connect(server.address, token=alice) as session:
            x = tc.full((3,), 7.0)
            x.name = "x"
            session.checkpoint("monday")
        with pytest.raises(KeyError, match="nothing is kept"):
            tc.resume("monday", server.address, token=bob)
        for _ in range(3):
            # On whichever engine it is.
            with tc.resume("monday", server.address, token=alice) as resumed:
                assert resumed.tensors()["x"].tolist() == [7.0, 7.0, 7.0]
