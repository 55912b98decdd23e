"""Where principals have engines of their own, no process of another has a model of theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tclient as tc
from tensorcompute.v1 import model_service_pb2 as ms
from tests.support.callers import Caller, token_of
from tests.support.serving import serving, wait_until
from tserver.credentials import tokens

DESCRIBE = "/tensorcompute.v1.ModelService/DescribeMlp"
ROWS = np.ones((2, 4), np.float32)


@pytest.mark.parametrize("isolation", ["principal", "session"])
def test_a_model_of_one_s_own_is_in_no_engine_of_another(tmp_path: Path, isolation: str) -> None:
    file = tmp_path / tokens.NAME
    alice, bob, root = (token_of(file, *who) for who in (("alice", "publisher"), ("bob", "user"), ("root", "admin")))
    with (
        serving("--isolation", isolation, "--spare-engines", "1", "--tokens", str(file)) as server,
        Caller(server.address) as caller,
    ):

        def engines_of(name: str) -> set[str]:
            request = ms.DescribeMlpRequest(name=name).SerializeToString()
            told = ms.DescribeMlpResponse.FromString(caller.ask(DESCRIBE, request, root))
            return {replica.engine for replica in told.mlp.replicas}

        others = tc.Session.open(server.address, token=bob)
        session = tc.Session.open(server.address, token=alice)
        with session.use():
            network = tc.nn.Sequential(tc.nn.Linear(4, 2))
            own = tc.models.create("own", network)
            tc.models.create("seen", network, public=True)
            expected = own(ROWS)
            assert np.array_equal(tc.models.get("own")(tc.ones(2, 4)).numpy(), expected)
        # That of its maker, of bob, of root, and a spare one have what all see.
        wait_until(lambda: len(engines_of("seen")) >= 3, 20.0, "engines with the public model")
        (home,) = engines_of("alice/own")
        again = tc.Session.open(server.address, token=alice)
        with again.use():
            assert np.array_equal(tc.models.get("own")(tc.ones(2, 4)).numpy(), expected)
            assert engines_of("alice/own") == ({home} if isolation == "principal" else engines_of("alice/own") | {home})
            assert len(engines_of("alice/own")) == (1 if isolation == "principal" else 2)
        for each in (session, again):
            each.close()
        if isolation == "session":
            # Their engines end with them, and there is no disk: the front keeps what they alone had.
            wait_until(lambda: not engines_of("alice/own"), 20.0, "the end of engines")
        with tc.Session.open(server.address, token=alice) as later, later.use():
            assert np.array_equal(tc.models.get("own")(ROWS), expected)
            assert len(engines_of("alice/own")) == 1
        others.close()
