"""What is kept, in the hands of others: another's name does not exist, and no name leads out of its folder."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tensorcompute.v1 import storage_service_pb2 as ss
from tests.support.in_memory import InMemoryChannel, serving_in_memory
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.trust.test_attach import ALICE, OTHERS, Said
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.identity import Identity

Code = grpc.StatusCode
BOB, STRANGER = OTHERS
NAMES = [
    "mine",
    "../bob/his",
    "/etc/passwd",
    "..",
    ".",
    "a/../../b",
    "%2e%2e%2f",
    ".new-0000000000000000",
    "manifest.json",
]

said = Said()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory, and nothing beside it."""
    return tmp_path_factory.mktemp("alone") / "data"


@pytest.fixture(scope="module")
def channel(data_dir: Path) -> Iterator[InMemoryChannel]:
    """A channel to services in this process, whose settings of torch they leave alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_prepare", lambda self: None)
        with serving_in_memory(Config(device="cpu", data_dir=str(data_dir)), said) as channel:
            yield channel


@pytest.fixture
def alice(channel: InMemoryChannel) -> Iterator[RawSession]:
    """Whose names they are; they are forgotten."""
    with Raw("in memory", channel=channel).open_session() as session:
        yield session
        for kept in session.ask("ListNames").names:
            session.ask("Forget", name=kept.name)


def keep(session: RawSession, name: str, number: float, *, overwrite: bool = False) -> None:
    x = session.make("tensor", [number])
    session.ask("Keep", name=name, tensors=[ss.KeptTensor(name="x", tensor=x.ref)], overwrite=overwrite)


def recalled(session: RawSession, name: str) -> float:
    (one,) = session.ask("Recall", name=name).tensors
    return float(session.get(one.tensor.id))


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: str(other.how))
def test_another_s_name_does_not_exist(alice: RawSession, channel: InMemoryChannel, other: Identity) -> None:
    keep(alice, "mine", 1.0)
    with said.by(other), Raw("in memory", channel=channel).open_session() as session:
        assert list(session.ask("ListNames").names) == []
        for method in ("Recall", "Forget"):
            with refused(Code.NOT_FOUND, reason="NOT_FOUND") as taken:
                session.ask(method, name="mine")
            with refused(Code.NOT_FOUND, reason="NOT_FOUND") as free:
                session.ask(method, name="none")
            assert taken.message.replace("mine", "none") == free.message
        # Not taken for others either; and what they keep is theirs.
        keep(session, "mine", 2.0)
        assert recalled(session, "mine") == 2.0
        session.ask("Forget", name="mine")
    assert recalled(alice, "mine") == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_its_folder(
    alice: RawSession, channel: InMemoryChannel, data_dir: Path, name: str
) -> None:
    with said.by(BOB), Raw("in memory", channel=channel).open_session() as bob:
        keep(bob, "his", 5.0, overwrite=True)
    keep(alice, name, 1.0)
    assert recalled(alice, name) == 1.0
    assert {path.name for path in data_dir.parent.iterdir()} == {"data"}
    assert {path.name for path in (data_dir / "names").iterdir()} <= {"alice", "mallory", "anonymous%40ipv4%3A10.0.0.1"}
    alice.ask("Forget", name=name)
    with said.by(BOB), Raw("in memory", channel=channel).open_session() as bob:
        assert recalled(bob, "his") == 5.0


def test_a_tensor_of_another_session_is_not_kept(alice: RawSession, channel: InMemoryChannel) -> None:
    x = alice.make("ones", [2])
    with said.by(BOB), Raw("in memory", channel=channel).open_session() as bob:
        with refused(Code.NOT_FOUND, reason="UNKNOWN_ID"):
            bob.ask("Keep", name="stolen", tensors=[ss.KeptTensor(name="x", tensor=x.ref)])
        with refused(Code.UNAUTHENTICATED):
            alice.ask("Keep", name="stolen", tensors=[ss.KeptTensor(name="x", tensor=x.ref)])


def test_nobody_else_of_the_machine_reads_what_is_kept(alice: RawSession, data_dir: Path) -> None:
    keep(alice, "mine", 1.0)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (data_dir, *data_dir.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert ALICE.principal in {path.name for path in modes}
