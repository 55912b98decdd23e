"""Sessions on disk: whose they are, once and for a time; and batches that are stopped in the middle."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.engine.rest import Rest
from tserver.engine.session_queue import SessionQueue
from tserver.session.keeping import Head, KeptSessions
from tserver.storage import files

SECRET = bytes(range(24))
HEAD = Head(
    principal="me",
    lease_s=30.0,
    expires_unix_s=time.time() + 1000.0,
    received=7,
    acked=5,
    kept={6: b"six", 7: b"seven"},
    begun=None,
    files={},
)


@pytest.fixture
def kept(tmp_path: Path) -> KeptSessions:
    """A data directory for sessions."""
    return KeptSessions(tmp_path)


def put(kept: KeptSessions, head: Head = HEAD) -> Path:
    """Keep a session; its folder."""
    folder = kept.begin()
    (folder / "blob").write_bytes(b"1234")
    kept.finish(folder, SECRET, replace(head, files={"blob": (4, "0")}))
    (found,) = (each for each in folder.parent.iterdir() if not each.name.startswith("."))
    return found


def test_a_session_is_taken_once(kept: KeptSessions) -> None:
    put(kept)
    found = kept.find(SECRET, "me")
    assert found is not None
    assert (found.received, found.acked, found.kept, found.files) == (7, 5, HEAD.kept, {"blob": (4, "0")})
    folder = kept.take(SECRET)
    assert folder is not None
    assert (folder / "blob").read_bytes() == b"1234"
    assert kept.take(SECRET) is None
    assert kept.find(SECRET, "me") is None
    kept.drop(folder)
    assert not folder.exists()


def test_a_kept_session_of_another_does_not_exist(kept: KeptSessions) -> None:
    put(kept)
    assert kept.find(SECRET, "somebody else") is None
    assert kept.find(SECRET[:-1] + b"?", "me") is None
    assert kept.find(SECRET, "me") is not None


def test_a_secret_is_nowhere_on_disk_and_nobody_else_reads_there(kept: KeptSessions) -> None:
    folder = put(kept)
    for path in (folder.parent, folder, *folder.iterdir()):
        assert SECRET.hex() not in str(path)
        if path.name != "blob":
            assert path.stat().st_mode & 0o077 == 0
    head = (folder / "session.json").read_bytes()
    assert SECRET not in head
    assert SECRET.hex().encode() not in head


def test_the_lease_goes_on_on_disk(kept: KeptSessions) -> None:
    folder = put(kept, replace(HEAD, expires_unix_s=time.time() - 1.0))
    assert kept.find(SECRET, "me") is None
    kept.sweep()
    assert not folder.exists()


def test_those_that_wait_are_counted_for_whose_they_are(kept: KeptSessions) -> None:
    put(kept)
    assert kept.waiting("me") == 0, "nobody has looked yet"
    kept.sweep()
    assert (kept.waiting("me"), kept.waiting("somebody else")) == (1, 0)
    kept.take(SECRET)
    assert kept.waiting("me") == 0


def test_what_a_server_left_in_the_middle_is_swept_away_later(kept: KeptSessions) -> None:
    begun = kept.begin()
    whole = put(kept)
    kept.sweep()
    assert begun.exists()
    os.utime(begun, (0, 0))
    kept.sweep()
    assert not begun.exists()
    assert whole.exists()


TAMPERED: dict[str, Any] = {
    "without its digest": lambda said: json.dumps({**said, "received": 8}).encode(),
    # Nothing but the digest tells of it.
    "with more time": lambda said: json.dumps({**said, "expires_unix_s": said["expires_unix_s"] + 1e6}).encode(),
    "no JSON": lambda said: b"{",
    "a list": lambda said: b"[]",
    "of another version": lambda said: files.seal({**said, "format_version": 2}),
    "of another session": lambda said: files.seal({**said, "session_sha256": "0" * 64}),
    "a reply too few": lambda said: files.seal({**said, "kept": said["kept"][1:]}),
    "a reply that is none": lambda said: files.seal({**said, "kept": [[6, "?"], [7, ""]]}),
    "numbers the wrong way round": lambda said: files.seal({**said, "acked": 8, "kept": []}),
    "no files": lambda said: files.seal({name: value for name, value in said.items() if name != "files"}),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_a_head_that_was_tampered_with_is_a_session_that_is_gone(kept: KeptSessions, tamper: Any) -> None:
    folder = put(kept)
    path = folder / "session.json"
    path.write_bytes(tamper(json.loads(path.read_bytes())))
    assert kept.find(SECRET, "me") is None
    assert not folder.exists()


# ---- batches that are stopped ----------------------------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that runs."""
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    made = Engine(Config(device="cpu"), on_fatal=pytest.fail)
    made.start()
    yield made
    made.stop()


class Runs:
    """A queue, and the replies to its batches."""

    def __init__(self, engine: Engine) -> None:
        self.queue: SessionQueue = engine.open_queue("me")
        self.replies: list[pb.BatchReply] = []
        self._answered = threading.Semaphore(0)

    def submit(self, batch: pb.Batch) -> None:
        """Have a batch run."""
        self.queue.submit(batch, self._take)

    def _take(self, reply: bytes) -> None:
        self.replies.append(pb.BatchReply.FromString(reply))
        self._answered.release()

    def wait(self) -> None:
        """Wait for one more answer."""
        assert self._answered.acquire(timeout=20)


def _batch(seq: int) -> pb.Batch:
    """A step of a training: the square of the weight 1, its sum, a backward, a call that fails, and what is read."""
    names = ["Tensor.mul", "Tensor.sum", "Tensor.backward", "Tensor.add_", "tc.numpy", "no_such_name"]
    batch = pb.Batch(seq=seq, define_operations=names if seq == 1 else [])

    def call(operation: int, call_id: int, *args: int) -> None:
        made = batch.calls.add(operation=operation, id=call_id)
        for each in args:
            made.args.add(result=each)

    base = 10 * seq
    call(0, base + 2, 1, 1)
    call(1, base + 3, base + 2)
    call(2, 0, base + 3)
    call(5, 0, 1)
    call(3, 0, 8, 9)
    call(4, base + 5, 8)
    return batch


def test_a_batch_is_stopped_behind_its_backward_and_goes_on_in_another_process(engine: Engine, tmp_path: Path) -> None:
    first, second, whole = Runs(engine), Runs(engine), Runs(engine)
    for each in (first, whole):

        def hold(store: Any) -> None:
            store.keep(1, torch.tensor([1.0, 2.0], requires_grad=True))
            store.keep(8, torch.zeros(2))
            store.keep(9, torch.ones(2))

        each.queue.run(hold).result(20)
    stopped: list[Any] = []
    rests = threading.Event()

    def end(seqs: list[int], begun: dict[str, Any] | None) -> None:
        stopped.append((seqs, begun))
        rests.set()

    # A graph is needed from now on, until the backward of the batch.
    extra = torch.ones(2, requires_grad=True).exp()
    first.queue.run(lambda store: store.keep(7, extra)).result(20)
    first.queue.come_to_rest(Rest(lambda: None, end))
    first.queue.run(lambda store: None).result(20)
    assert not rests.is_set()
    batch = _batch(1)
    batch.calls[2].frees.append(7)
    first.submit(batch)
    first.submit(_batch(2))
    assert rests.wait(20)
    (seqs, begun), *others = stopped
    assert not others
    assert seqs == [1, 2]
    assert begun is not None
    # Behind the backward, as soon as it was looked: a call may have run meanwhile.
    assert 3 <= begun["index"] < len(batch.calls)
    assert first.replies == []
    saved = first.queue.save(tmp_path).result(20)
    second.queue.load(tmp_path, saved.files, json.loads(json.dumps(begun))).result(20)
    for each in (second, whole):
        for seq in (1, 2):
            each.submit(_batch(seq))
            each.wait()
    assert second.replies == whole.replies
    assert len(whole.replies[0].results) >= 3
    for call_id in (1, 8):
        assert second.queue.store.objects[call_id].tolist() == whole.queue.store.objects[call_id].tolist()
    weight, other = second.queue.store.objects[1], whole.queue.store.objects[1]
    assert weight.grad.tolist() == other.grad.tolist() == [4.0, 8.0]


def test_a_batch_that_is_another_than_was_begun_fails_and_nothing_else(engine: Engine) -> None:
    runs = Runs(engine)
    runs.queue.begun = {"seq": 1, "index": 9, "at": 5, "left": 0, "told": "", "rest": "", "made": [], "same": []}
    runs.submit(_batch(1))
    runs.wait()
    assert "is not the one that was begun" in runs.replies[0].results[0].error.message
    runs.submit(_batch(2))
    runs.wait()
