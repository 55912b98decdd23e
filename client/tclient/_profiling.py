"""`session.profile()`: where the time of a program goes, on both sides, as a trace that Perfetto and Chrome open.

The server notes calls, the slices that they were run in, and kernels of a GPU; here it is noted which lines wait. The
two clocks are compared at the beginning, so that one picture shows both.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from tclient._issue import call_builtin
from tclient._session.session import Session
from tclient._transport.stats import WATCHERS

_COMPARISONS = 5
_MOST_WAITS = 200_000
# Rows of the picture, by what is in them.
_ROWS = {"slice": 1, "call": 2, "kernel": 3}
_ROW_NAMES = {"slice": "turns of the session", "call": "calls", "kernel": "kernels of the GPU"}
_HERE, _THERE = 1, 2


class Profile:
    """What is noted within `with session.profile() as profile:`. `save` writes it, and `print` shows a summary."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waits: list[tuple[str, float, float, int]] = []
        self._told: dict[str, Any] = {}
        self._ahead = 0.0
        self._began = self._ended = 0.0

    def __enter__(self) -> Self:
        """Begin. What was issued before is waited for, and not in it. Raises: RuntimeError where one is under way."""
        self._session.synchronize()
        with self._session.use():
            call_builtin("tc.profile_begin")
            self._ahead = _ahead()
        WATCHERS.append(self._note)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        """End, when all has run that was issued."""
        WATCHERS.remove(self._note)
        self._ended = time.perf_counter()
        with self._session.use():
            self._told = json.loads(bytes(call_builtin("tc.profile_end").numpy()))

    def _note(self, what: str, seconds: float) -> None:
        if len(self._waits) < _MOST_WAITS:
            from tclient._launcher.profile import place_of

            ended = time.perf_counter()
            place = place_of(sys._getframe(1), what)
            name = f"{os.path.basename(place.file)}:{place.line} {place.what}"
            self._waits.append((name, ended - seconds, seconds, threading.get_ident()))

    def trace(self) -> dict[str, Any]:
        """The trace, in the JSON format of Chrome's events; times in microseconds from the beginning."""
        events: list[dict[str, Any]] = [
            _named("process_name", _HERE, 0, "this program"),
            _named("process_name", _THERE, 0, f"server {self._session.address}"),
        ]
        threads: dict[int, int] = {}
        for name, began, seconds, thread in self._waits:
            row = threads.setdefault(thread, len(threads) + 1)
            events.append(_event(name, "wait", _HERE, row, began - self._began, seconds))
        events += [_named("thread_name", _HERE, row, f"waits of thread {row}") for row in threads.values()]
        # Within a turn, and never longer: a picture has them one in the other.
        for kind, name, began, seconds, more in self._told["events"]:
            at = began - self._ahead - self._began
            events.append({**_event(name, kind, _THERE, _ROWS[kind], at, seconds), "args": more})
        events += [_named("thread_name", _THERE, row, _ROW_NAMES[kind]) for kind, row in _ROWS.items()]
        return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"missing": self._told["missing"]}}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a file for https://ui.perfetto.dev, or Chrome's about:tracing."""
        Path(path).write_text(json.dumps(self.trace()), encoding="utf-8")

    def __repr__(self) -> str:
        if not self._told:
            return "<tclient.Profile that has not ended>"
        by_name: dict[str, list[float]] = defaultdict(list)
        for kind, name, _, seconds, _ in self._told["events"]:
            if kind == "call":
                by_name[name].append(seconds)
        waited = sum(seconds for _, _, seconds, _ in self._waits)
        ran = sum(map(sum, by_name.values()))
        lines = [
            f"{self._ended - self._began:.3f} s, of which {waited:.3f} s in {len(self._waits)} waits for the server, "
            f"which ran calls for {ran:.3f} s",
            f"{'calls':>8} {'seconds':>9} {'us each':>9}  operation",
        ]
        longest = sorted(by_name.items(), key=lambda pair: -sum(pair[1]))
        lines += [
            f"{len(each):>8} {sum(each):>9.3f} {np.mean(each) * 1e6:>9.1f}  {name}" for name, each in longest[:20]
        ]
        if self._told["missing"]:
            lines.append(f"{self._told['missing']} events are missing: there were too many")
        return "\n".join(lines)


def _ahead() -> float:
    """By how many seconds the engine's clock is ahead: of several comparisons that of the quickest answer."""
    found = []
    for _ in range(_COMPARISONS):
        asked = time.perf_counter()
        told = call_builtin("tc.profile_clock")
        answered = time.perf_counter()
        found.append((answered - asked, told - (asked + answered) / 2))
    return float(min(found)[1])


def _event(name: str, kind: str, process: int, row: int, at: float, seconds: float) -> dict[str, Any]:
    times = {"ts": round(at * 1e6, 3), "dur": round(seconds * 1e6, 3)}
    return {"name": name, "cat": kind, "ph": "X", "pid": process, "tid": row, **times}


def _named(what: str, process: int, row: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": row, "args": {"name": name}}
