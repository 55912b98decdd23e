"""StorageService as any language calls it: tensors of a session, kept on disk, recalled by another after a restart."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from safetensors import safe_open

from tensorcompute.v1 import storage_service_pb2 as ss
from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.serving import ServerProcess, wait_until
from tests.support.values import Kept

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of the server of these tests."""
    return tmp_path_factory.mktemp("kept") / "data"


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[ServerProcess]:
    """A server that keeps names."""
    with ServerProcess("--data-dir", str(data_dir)) as running:
        yield running


@pytest.fixture
def session(server: ServerProcess) -> Iterator[RawSession]:
    """A session of its own; what it has kept is forgotten."""
    with RawSession(server.address) as one:
        yield one
        for kept in one.ask("ListNames").names:
            one.ask("Forget", name=kept.name)


def keep(raw: Raw, name: str, tensors: dict[str, Kept | pb.Ref], **fields: Any) -> ss.KeptName:
    refs = {each: ref if isinstance(ref, pb.Ref) else pb.Ref(id=ref.id) for each, ref in tensors.items()}
    named = [ss.KeptTensor(name=each, tensor=ref) for each, ref in refs.items()]
    answer: ss.KeepResponse = raw.ask("Keep", name=name, tensors=named, **fields)
    return answer.kept


def recall(raw: Raw, name: str, **fields: Any) -> dict[str, Any]:
    answer: ss.RecallResponse = raw.ask("Recall", name=name, **fields)
    return {each.name: raw.get(each.tensor.id) for each in answer.tensors}


def test_tensors_are_back_in_another_session(session: RawSession, server: ServerProcess) -> None:
    weight = session.make("tensor", [[1.0, 2.0], [3.0, 4.0]])
    view = session.make("transpose", weight, 0, 1)
    told = keep(session, "net", {"weight": weight, "view": view}, kind="state_dict", metadata={"format": "pt"})
    assert (told.name, told.kind, told.tensors) == ("net", "state_dict", 2)
    with RawSession(server.address) as other:
        answer = other.ask("Recall", name="net", id=77)
        assert dict(answer.metadata) == {"format": "pt"}
        assert answer.kept == told
        assert [each.name for each in answer.tensors] == ["weight", "view"]
        assert [(each.tensor.id.id, list(each.tensor.id.path)) for each in answer.tensors] == [(77, [0]), (77, [1])]
        assert other.get(answer.tensors[0].tensor.id).tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert other.get(answer.tensors[1].tensor.id).tolist() == [[1.0, 3.0], [2.0, 4.0]]
        # A call takes them as any others, and the same request again brings the same.
        other.make("add", Kept(77, (0,)), Kept(77, (1,)))
        assert other.ask("Recall", name="net", id=77) == answer


def test_the_file_is_what_safetensors_reads(session: RawSession, data_dir: Path) -> None:
    keep(session, "plain", {"b": session.make("arange", 3), "a": session.make("ones", 2)}, metadata={"by": "me"})
    (path,) = (data_dir / "names" / "local" / "plain").glob("*.safetensors")
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"by": "me"}
        assert torch.equal(file.get_tensor("b"), torch.arange(3))
        assert torch.equal(file.get_tensor("a"), torch.ones(2))


def test_what_is_kept_is_what_was_there_when_it_was_asked_for(session: RawSession) -> None:
    x = session.make("zeros", 1 << 18)
    keep(session, "before", {"x": x})
    one = session.make("ones", 1 << 18)
    session.run(session.call(0, "Tensor.add_", x, one)).clean()
    keep(session, "after", {"x": x})
    assert recall(session, "before")["x"].sum() == 0
    assert recall(session, "after")["x"].sum() == 1 << 18


def test_names_are_listed_in_order_and_by_page(session: RawSession) -> None:
    x = session.make("ones", 4)
    for name in ("b", "a/c", "C"):
        keep(session, name, {"x": x}, kind="tensor")
    found = session.ask("ListNames").names
    assert [each.name for each in found] == ["C", "a/c", "b"]
    assert {(each.kind, each.tensors) for each in found} == {("tensor", 1)}
    assert all(each.size_bytes > 16 and each.kept_unix_s > 1e9 for each in found)
    page = session.ask("ListNames", page_size=2)
    assert [each.name for each in page.names] == ["C", "a/c"]
    page = session.ask("ListNames", page_size=2, page_token=page.next_page_token)
    assert ([each.name for each in page.names], page.next_page_token) == (["b"], "")


def test_a_caller_without_a_session_keeps_too(server: ServerProcess, session: RawSession) -> None:
    with Raw(server.address) as anyone:
        keep(anyone, "loose", {"x": anyone.create(ones={}, shape=[2], dtype=pb.D_TYPE_FLOAT32).id})
        assert recall(anyone, "loose")["x"].tolist() == [1.0, 1.0]
        anyone.ask("Forget", name="loose")


REFUSALS: dict[str, tuple[Code, str, str, Callable[[RawSession], object]]] = {
    "no such name": (Code.NOT_FOUND, "NOT_FOUND", "nothing is kept", lambda s: s.ask("Recall", name="never")),
    "forgotten twice": (Code.NOT_FOUND, "NOT_FOUND", "nothing is kept", lambda s: s.ask("Forget", name="never")),
    "no such tensor": (Code.NOT_FOUND, "UNKNOWN_ID", "id 999", lambda s: keep(s, "x", {"x": Kept(999)})),
    "no name": (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", "empty", lambda s: keep(s, "", {})),
    "two of a name": (
        Code.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "two tensors are called 'a'",
        lambda s: s.ask("Keep", name="x", tensors=[ss.KeptTensor(name="a", tensor=pb.Ref(id=1))] * 2),
    ),
    "a tensor without a name": (
        Code.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "cannot be called ''",
        lambda s: keep(s, "x", {"": s.make("ones", 1)}),
    ),
    "complex numbers of 16 bytes": (
        Code.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "view_as_real",
        lambda s: keep(s, "x", {"c": s.make("tensor", [1j], dtype=torch.complex128)}),
    ),
    "a sparse tensor": (
        Code.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "to_dense",
        lambda s: keep(s, "x", {"c": s.make("Tensor.to_sparse", s.make("ones", 2))}),
    ),
    "no such device": (
        Code.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "no device 'cuda:9'",
        lambda s: (keep(s, "x", {"c": s.make("ones", 2)}), s.ask("Recall", name="x", device="cuda:9")),
    ),
    "an id of the server's": (
        Code.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "choose one below",
        lambda s: s.ask("Recall", name="x", id=1 << 50),
    ),
    "a taken name": (
        Code.ALREADY_EXISTS,
        "ALREADY_EXISTS",
        "'x' is taken",
        lambda s: (keep(s, "x", {}), keep(s, "x", {})),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_what_is_wrong(session: RawSession, case: str) -> None:
    code, reason, text, act = REFUSALS[case]
    with refused(code, reason=reason, naming=text):
        act(session)


def test_memory_that_was_taken_for_a_damaged_name_is_given_back(session: RawSession, data_dir: Path) -> None:
    keep(session, "much", {"x": session.make("ones", 1 << 20)})
    (path,) = (data_dir / "names" / "local" / "much").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    before = session.held()
    with refused(Code.FAILED_PRECONDITION, reason="DAMAGED", naming="'much' is damaged"):
        session.ask("Recall", name="much")
    assert session.held() == before


def test_without_a_data_directory_the_option_is_named(tmp_path: Path) -> None:
    with ServerProcess() as server, RawSession(server.address) as session:
        for act in (
            lambda: keep(session, "x", {}),
            lambda: session.ask("Recall", name="x"),
            lambda: session.ask("ListNames"),
            lambda: session.ask("Forget", name="x"),
        ):
            with refused(Code.FAILED_PRECONDITION, reason="NO_DATA_DIR", naming="--data-dir"):
                act()


def test_what_was_answered_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with ServerProcess("--data-dir", data) as server, RawSession(server.address) as session:
        x = session.make("arange", 1000)
        keep(session, "x", {"x": x})
        keep(session, "gone", {"x": x})
        session.ask("Forget", name="gone")
        # Another one is being written when the end comes.
        large = session.make("ones", 1 << 25)
        writing = threading.Thread(target=_ignoring, args=(lambda: keep(session, "late", {"x": large}),))
        writing.start()
        server.signal(signal.SIGKILL)
        server.wait()
        writing.join()
    with ServerProcess("--data-dir", data) as server, RawSession(server.address) as session:
        kept = {each.name for each in session.ask("ListNames").names}
        assert {"x"} <= kept <= {"x", "late"}
        assert recall(session, "x")["x"].tolist() == list(range(1000))
        if "late" in kept:
            assert session.ask("Recall", name="late").tensors[0].tensor.shape == [1 << 25]
    home = tmp_path / "data" / "names" / "local"
    assert {path.name for path in home.iterdir()} == {".lock", *kept}


def _ignoring(act: Callable[[], object]) -> None:
    try:
        act()
    except grpc.RpcError:
        return


def test_a_server_that_is_told_to_stop_first_keeps_what_it_was_asked_to(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with ServerProcess("--data-dir", data) as server, RawSession(server.address) as session:
        large = session.make("ones", 1 << 25)
        answers: list[ss.KeptName] = []
        writing = threading.Thread(target=lambda: answers.append(keep(session, "late", {"x": large})))
        home = tmp_path / "data" / "names" / "local"
        writing.start()
        wait_until(lambda: home.exists() and any(home.iterdir()), 20.0, "it is being kept")
        assert server.terminate() == 0
        writing.join()
    assert [each.name for each in answers] == ["late"]
    with ServerProcess("--data-dir", data) as server, RawSession(server.address) as session:
        assert session.ask("Recall", name="late").kept == answers[0]


def test_engines_of_a_house_share_names_and_a_lone_server_reads_them(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with ServerProcess("--data-dir", data, "--engines", "2") as house:
        with RawSession(house.address) as one, RawSession(house.address) as other:
            keep(one, "x", {"x": one.make("arange", 5)})
            assert recall(other, "x")["x"].tolist() == [0, 1, 2, 3, 4]
            keep(other, "x", {"x": other.make("arange", 3)}, overwrite=True)
            assert recall(one, "x")["x"].tolist() == [0, 1, 2]
        with Raw(house.address) as anyone:
            assert [each.name for each in anyone.ask("ListNames").names] == ["x"]
    with ServerProcess("--data-dir", data) as server, RawSession(server.address) as session:
        assert recall(session, "x")["x"].tolist() == [0, 1, 2]
        assert json.loads((tmp_path / "data/names/local/x/manifest.json").read_text())["tensors"] == 1
