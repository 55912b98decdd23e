"""A child of the supervisor: its beats, and why it ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from logging import getLogger
from pathlib import Path

from tserver.supervisor.environment import environment
from tserver.supervisor.watch import TICK_S, Watch

log = getLogger("tserver.supervisor")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None).prctl
# A Python that ends sooner than this after its start would only end again.
HEALTHY_AFTER_S = 5.0
# How much later than by itself it is ended.
GRACE_S = 5.0


class Process:
    """One run of a child."""

    def __init__(self, watch: Watch, name: str, cause_file: Path, hang_s: float) -> None:
        """`name` is what it is called in words. It is ended when it has given no sign for a while longer than `hang_s`;
        0 is never.
        """
        self.name, self.cause_file = name, cause_file
        # While it runs; and whether it ever did.
        self.pid = 0
        self.has_begun = False
        self._started_at = time.monotonic()
        # Why it was ended here, if it was.
        self.ended_for = ""
        # Told to stop: it may stand still.
        self.is_stopping = False
        self._watch = watch
        self._silence_s = hang_s + min(hang_s, GRACE_S)
        # Counted in looks, not by the clock: if this process was stopped itself, it has missed nothing.
        self._silent, self._is_alive = 0, False
        self._beats, self.beats_to = os.pipe()
        os.set_blocking(self._beats, False)
        cause_file.unlink(missing_ok=True)
        watch.read(self._beats, self._beat)
        watch.each_tick(self._look)

    @property
    def age_s(self) -> float:
        """How long it runs by now."""
        return time.monotonic() - self._started_at

    def begin(
        self, module: str, argument: str, *, pass_fds: Sequence[int] = (), is_read: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a Python that runs a module, which has the beats and these descriptors. `is_read` is whether what it
        prints comes here. Its end is to be awaited by `at_end`.
        """
        parent = os.getpid()
        try:
            return subprocess.Popen(
                # -P: what lies in the working directory is not imported.
                [sys.executable, "-P", "-m", module, argument],
                stdout=subprocess.PIPE if is_read else None,
                pass_fds=[self.beats_to, *pass_fds],
                # A stop signal to the terminal's process group must reach the child through us, once.
                start_new_session=True,
                env=environment(os.environ),
                preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 - no threads have been started yet
            )
        finally:
            os.close(self.beats_to)

    def at_end(self, pid: int, function: Callable[[int], None]) -> None:
        """It is that process: call a function with its exit code."""

        def ended(code: int) -> None:
            self.pid = 0
            self.over()
            function(code)

        self.pid, self._started_at = pid, time.monotonic()
        self.has_begun = True
        self._watch.at_end(pid, ended)

    def over(self) -> None:
        """It has ended, or never came to be."""
        self._watch.no_tick(self._look)
        if self._beats >= 0:
            self._watch.forget(self._beats)
            os.close(self._beats)
            self._beats = -1

    def tell_to_stop(self) -> None:
        """Have it end by itself."""
        self.is_stopping = True
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)

    def end(self, cause: str) -> None:
        """End it at once."""
        if self.pid and not self.ended_for:
            self.ended_for = cause
            log.error("%s is ended", self.name, extra={"cause": cause})
            os.kill(self.pid, signal.SIGKILL)

    def cause(self, code: int) -> str:
        """Why it has ended, in words."""
        if self.ended_for:
            return self.ended_for
        with contextlib.suppress(OSError):
            text = self.cause_file.read_text().strip()
            if text:
                return text
        if code < 0:
            return f"{self.name} was ended by {signal.Signals(-code).name}"
        return f"{self.name} ended with exit code {code}"

    def _beat(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._beats, 1 << 12):
                self._silent, self._is_alive = 0, True
            # Nobody holds the other end any more.
            self._watch.forget(self._beats)

    def _look(self) -> None:
        self._silent += 1
        if self._is_alive and not self.is_stopping and 0 < self._silence_s < self._silent * TICK_S:
            self.end(f"{self.name} hung: nothing of it has run for {self._silent * TICK_S:.0f} s")


def adopt() -> None:
    """Be the parent of what children of this process leave behind, from now on."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with(parent: int) -> None:
    """In the child, before it becomes Python again: end when the supervisor ends, however that happens."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
