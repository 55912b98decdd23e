"""Children that play, and who watches them: how each ended, at which call, and the fewest calls that do it again."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.fuzz import draw
from tests.fuzz.draw import CONTEXTS, NAMES, Drawer, Part
from tests.fuzz.journal import Journal
from tests.fuzz.stage import MARKS, Stage, touched
from tests.fuzz.texts import last_name

_PER_CHILD = 4000
_PER_SEQUENCE = 30
_SLOW_S = 1.0
# So often without a gradient, an operation is taken to have none.
_TRIES = 2
_POLL_S = 0.005
# So many times longer than a call may work, a child may do nothing.
_PATIENCE = 10
_TICKS = os.sysconf("SC_CLK_TCK")
# The exit status of a child that has written down what it found.
_FOUND = 3
# A sequence that is shortened is played at most so often.
_ATTEMPTS = 120


@dataclass(frozen=True)
class Finding:
    """What went wrong, in which sequence, and the batches that do it again."""

    kind: str
    detail: str
    sequence: str
    batches: list[pb.Batch]
    # Whether they alone did it again.
    repeats: bool


class Watch:
    """Plays sequences of one seed in children."""

    def __init__(
        self,
        seed: str,
        *,
        samples: int = 6,
        hang_s: float = 30.0,
        tampering: float = 0.3,
        sparse: float = 0.15,
        twice: float = 0.1,
        only: str = "",
    ) -> None:
        """`tampering` is the share of sequences that change things between forward and backward, `sparse` of those with
        sparse tensors, `twice` of those that are played twice, to see what depends on unwritten memory.
        """
        torch.set_num_threads(1)
        self._seed = seed
        self._hang_s = hang_s
        self._tampering, self._sparse = tampering, sparse
        self._twice = twice
        self._most_samples = samples
        self._only = only
        self._journal = Journal()
        # Where a child that hangs says where it is.
        self._stacks = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as this lives
        self._known: set[tuple[str, str]] = set()
        # How often an operation that was tampered with had no gradient, and had one.
        self._bore: dict[str, list[int]] = {}
        self.drawn = self.tampered = 0
        self.slow: dict[str, float] = {}
        # What the last child did without trouble, a sequence each.
        self.last: list[list[pb.Batch]] = []

    def run(self, calls: int, seconds: float) -> Iterator[Finding]:
        """Play until so many calls are drawn or the time is up."""
        # It takes seconds to make them.
        self._samples = draw.samples(self._most_samples)
        if self._only:
            self._samples = {name: calls for name, calls in self._samples.items() if name in self._only.split(",")}
        until = time.monotonic() + seconds
        chunk = 0
        while self.drawn < calls and time.monotonic() < until:
            most = min(_PER_CHILD, calls - self.drawn)
            how = self._in_child(lambda: self._play(chunk, most, until))  # noqa: B023  called before the next turn
            drawn, tampered = self._journal.counts()
            self.drawn += drawn
            self.tampered += tampered
            self._learn()
            if how:
                yield self._examined(how)
            else:
                self.last = [batches for _, batches in self._sequences()]
            chunk += 1

    def again(self, batches: Sequence[pb.Batch]) -> str:
        """Play these batches in a child; how it went wrong, or ""."""
        return self._in_child(lambda: self._replay(batches))

    def _play(self, chunk: int, most: int, until: float) -> None:
        stage = Stage()
        sequence = 0
        while self._journal.counts()[0] < most and not self._journal.is_full() and time.monotonic() < until:
            name = f"{self._seed}:{chunk}:{sequence}"
            self._journal.write(b"s", name.encode())
            trouble, culprit = self._play_sequence(stage, name)
            if trouble and (_kind(trouble), culprit) not in self._known:
                self._journal.write(b"f", trouble.encode())
                os._exit(_FOUND)
            sequence += 1

    def _play_sequence(self, stage: Stage, name: str) -> tuple[str, str]:
        stage.begin(NAMES, CONTEXTS)
        drawer = Drawer(
            name, self._samples, stage.objects, tampering=self._tampering, sparse=self._sparse, barren=self._barren()
        )
        batches: list[pb.Batch] = []
        sums: list[int] = []
        for part, batch in drawer.steps(_PER_SEQUENCE):
            batches.append(batch)
            trouble, total = self._step(stage, part, batch)
            sums.append(total)
            if trouble:
                return trouble, last_name(batch)
        for tried, had_gradient in drawer.bore:
            self._journal.write(b"g", f"{int(had_gradient)} {tried}".encode())
        trouble = stage.look_around()
        if trouble:
            return trouble, last_name(batches[-1])
        if drawer.chance.random() < self._twice:
            return self._depends(stage, batches, sums)
        return "", ""

    def _step(self, stage: Stage, part: Part, batch: pb.Batch) -> tuple[str, int]:
        drawn, tampered = int(part is not Part.PREPARES), int(part is Part.TAMPERED)
        self._journal.write(b"c", batch.SerializeToString(), drawn=drawn, tampered=tampered)
        began = time.process_time()
        reply = stage.run(batch)
        took_s = time.process_time() - began
        if took_s > _SLOW_S:
            self._journal.write(b"t", f"{took_s:.1f} {last_name(batch)}".encode())
        return stage.look(batch, reply)

    def _depends(self, stage: Stage, batches: list[pb.Batch], sums: list[int]) -> tuple[str, str]:
        """Whether the results are others where unwritten memory is: with another mark, but not with the same."""
        marked_otherwise = self._sums(stage, batches, MARKS[1])
        if marked_otherwise == sums:
            return "", ""
        same = self._sums(stage, batches, MARKS[0])
        for index, batch in enumerate(batches):
            if same[index] != sums[index]:
                return "", ""
            if marked_otherwise[index] != sums[index]:
                return "depends: a result depends on memory that was not written", last_name(batch)
        return "", ""

    def _sums(self, stage: Stage, batches: list[pb.Batch], mark: int) -> list[int]:
        stage.begin(NAMES, CONTEXTS, mark)
        return [self._step(stage, Part.PREPARES, batch)[1] for batch in batches]

    def _replay(self, batches: Sequence[pb.Batch]) -> None:
        stage = Stage()
        for sequence in _split(batches):
            self._journal.write(b"s", b"again")
            stage.begin(NAMES, CONTEXTS)
            sums = []
            trouble = ""
            for batch in sequence:
                trouble, total = self._step(stage, Part.DRAWN, batch)
                sums.append(total)
                if trouble:
                    break
            trouble = trouble or stage.look_around() or self._depends(stage, sequence, sums)[0]
            if trouble:
                self._journal.write(b"f", trouble.encode())
                os._exit(_FOUND)

    def _in_child(self, play: Callable[[], None]) -> str:
        """How a child ended that ran this: "" for well."""
        self._journal.clear()
        self._stacks.truncate(0)
        child = os.fork()
        if child == 0:
            faulthandler.register(signal.SIGUSR1, self._stacks)
            try:
                play()
            except BaseException:
                self._journal.write(b"f", f"fuzz: {traceback.format_exc()}".encode())
                os._exit(_FOUND)
            os._exit(0)
        seen, since_s, polls = 0, 0.0, 0
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if self._journal.position() != seen:
                seen, since_s, polls = self._journal.position(), _used_s(child), 0
            time.sleep(_POLL_S)
            polls += 1
            # By the time it had, and not by the clock: a child that others keep from working does not hang. One that
            # waits for nothing is found by the times that it was looked at.
            if _used_s(child) - since_s > self._hang_s or polls * _POLL_S > _PATIENCE * self._hang_s:
                return f"blocked: no answer for {self._hang_s} s\n{self._end(child)}"
        if status == 0:
            return ""
        if os.WIFSIGNALED(status):
            return f"signal {os.WTERMSIG(status)}: the engine died"
        if os.WEXITSTATUS(status) == _FOUND:
            return next(record.content for record in self._journal.records() if record.kind == b"f").decode()
        return f"exit {os.WEXITSTATUS(status)}: the engine ended"

    def _end(self, child: int) -> str:
        """End a child that hangs; where it was, if it can still say so."""
        os.kill(child, signal.SIGUSR1)
        time.sleep(0.5)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self._stacks.seek(0)
        return self._stacks.read()

    def _sequences(self) -> list[tuple[str, list[pb.Batch]]]:
        found: list[tuple[str, list[pb.Batch]]] = []
        for record in self._journal.records():
            if record.kind == b"s":
                found.append((record.content.decode(), []))
            elif record.kind == b"c":
                found[-1][1].append(pb.Batch.FromString(record.content))
        return found

    def _learn(self) -> None:
        """What the last child has seen of times and gradients."""
        for record in self._journal.records():
            if record.kind in (b"t", b"g"):
                number, name = record.content.decode().split()
                if record.kind == b"t":
                    self.slow[name] = max(float(number), self.slow.get(name, 0.0))
                else:
                    self._bore.setdefault(name, [0, 0])[int(number)] += 1

    def _barren(self) -> set[str]:
        return {name for name, (without, having) in self._bore.items() if without >= _TRIES and not having}

    def _examined(self, how: str) -> Finding:
        """The finding that ended the last child, made as short as it gets."""
        kind, _, detail = how.partition(": ")
        sequences = self._sequences()
        if kind == "fuzz" or not sequences or not sequences[-1][1]:
            return Finding(kind, detail, *(sequences[-1] if sequences else ("none", [])), repeats=False)
        name, last = sequences[-1]
        self._known.add((kind, last_name(last[-1])))
        # Where the last sequence alone does not do it, those before it had a share in it.
        for before in (0, 3, len(sequences)) if kind != "blocked" else (0,):
            batches = _joined([batches for _, batches in sequences[-1 - before :]])
            if _kind(self.again(batches)) == kind:
                batches = self._shortened(batches, kind)
                self._known.add((kind, last_name(batches[-1])))
                return Finding(kind, detail, name, batches, repeats=True)
        return Finding(kind, detail, name, last, repeats=False)

    def _shortened(self, batches: list[pb.Batch], kind: str) -> list[pb.Batch]:
        needed = _needed(batches)
        if len(needed) < len(batches) and _kind(self.again(needed)) == kind:
            batches = needed
        if kind == "blocked":
            return batches
        attempts = _ATTEMPTS
        size = max(1, len(batches) // 2)
        while size and attempts > 0:
            position = len(batches)
            while position > 0 and attempts > 0:
                fewer = batches[: max(0, position - size)] + batches[position:]
                attempts -= 1
                if fewer and _kind(self.again(fewer)) == kind:
                    batches = fewer
                position -= size
            size //= 2
        return batches


_NEW_SESSION = pb.Batch()
"""Stands between the batches of two sequences."""


def _joined(sequences: Sequence[list[pb.Batch]]) -> list[pb.Batch]:
    return [batch for sequence in sequences for batch in (_NEW_SESSION, *sequence)][1:]


def _split(batches: Sequence[pb.Batch]) -> list[list[pb.Batch]]:
    sequences: list[list[pb.Batch]] = [[]]
    for batch in batches:
        if batch != _NEW_SESSION:
            sequences[-1].append(batch)
        else:
            sequences.append([])
    return sequences


def _used_s(child: int) -> float:
    """The processor's time that a child has had, in seconds."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _kind(how: str) -> str:
    return how.partition(": ")[0]


def _needed(batches: Sequence[pb.Batch]) -> list[pb.Batch]:
    """The last batch, and all that touches what it depends on."""
    wanted = set(touched(batches[-1]))
    kept = [batches[-1]]
    for batch in reversed(batches[:-1]):
        if not wanted.isdisjoint(ids := touched(batch)):
            wanted.update(ids)
            kept.append(batch)
    return kept[::-1]


def marked() -> None:
    """Start this program anew with settings of the C library that let marks reach all memory, unless it has them."""
    wanted = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
