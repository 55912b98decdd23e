"""How long a program waits for its server, by the lines that wait: `tclient run --profile`.

Told of each wait by tclient._transport.stats. Knows the frames of a thread that waits; does not know how it waits.
"""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import sys
import sysconfig
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

from tclient._caller import HERE
from tclient._codec.operations import TABLE
from tclient._transport.stats import WATCHERS

# Where every call passes, so that it says nothing of what was asked for.
_CORE = tuple(
    HERE + name for name in ("_issue.py", "_tensor.py", "_namespace.py", "_session", "_trans", "nn/_hooks.py")
)
_CORE_NAMES = frozenset({"Module.__call__", "Sequential.forward", "Optimizer.step"})
_LIBRARIES = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
_SHOWN = 20
_SOURCE_WIDTH = 72
# A line that waits so often is in a loop.
_OFTEN = 5

_READS = frozenset(
    (
        *("tc.read", "tc.numpy", "Tensor.item", "Tensor.tolist", "Tensor.__repr__", "Tensor.is_nonzero", "equal"),
        *("allclose", "Tensor.equal", "Tensor.allclose", "is_nonzero"),
        *(f"Tensor.__{name}__" for name in ("bool", "float", "int", "index", "complex")),
    )
)
_ADVICE = {
    "values": "keep tensors (total += loss.detach()) and read once, behind the loop",
    "shape": "ask for the size once, before the loop, and keep it",
    "gradient": "let an optimiser of torch.optim take the step: it reads no gradient here",
    "upload": "make the tensor once, before the loop",
    "check": "it looks at tensors before it goes on; call it outside the loop, or more seldom",
    "result": "only the server knows what comes back; call it outside the loop, or more seldom",
    "everything": "one wait at the end of the loop is enough",
    "answer": "ask once, before the loop",
}


class _Place(NamedTuple):
    """One line that waits for one kind of thing."""

    file: str
    line: int
    kind: str
    what: str


class _Waits:
    """The waits of a place."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0


class Profile:
    """What a program has waited for so far, from now on."""

    def __init__(self) -> None:
        self._places: dict[_Place, _Waits] = {}
        self._began = time.perf_counter()

    def add(self, what: str, seconds: float) -> None:
        """Takes in a wait of the thread that calls this."""
        place = place_of(sys._getframe(1), what)
        waits = self._places.setdefault(place, _Waits())
        waits.count += 1
        waits.seconds += seconds

    def summary(self) -> dict[str, Any]:
        """Everything, the longest first; times in seconds."""
        found = sorted(self._places.items(), key=lambda pair: -pair[1].seconds)
        lines = [
            {
                "file": place.file,
                "line": place.line,
                "source": linecache.getline(place.file, place.line).strip(),
                "kind": place.kind,
                "what": place.what,
                "waits": waits.count,
                "seconds": waits.seconds,
            }
            for place, waits in found
        ]
        return {
            "seconds": time.perf_counter() - self._began,
            "waited_seconds": sum(waits.seconds for _, waits in found),
            "waits": sum(waits.count for _, waits in found),
            "lines": lines,
        }


def place_of(frame: FrameType | None, what: str) -> _Place:
    """The line that a wait belongs to, of the program itself where that is on the stack; and what was asked for."""
    inner: list[FrameType] = []
    while frame is not None and (frame.f_code.co_filename.startswith(HERE) and "_launcher" not in _room(frame)):
        inner.append(frame)
        frame = frame.f_back
    near = frame
    while frame is not None and frame.f_code.co_filename.startswith((*_LIBRARIES, "<", HERE)):
        frame = frame.f_back
    shown = frame or near
    kind, name = _kind_of(inner, what)
    if shown is None:
        return _Place("<end of the program>", 0, kind, name)
    return _Place(shown.f_code.co_filename, shown.f_lineno, kind, name)


def _room(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(HERE).partition(os.sep)[0]


def _kind_of(inner: list[FrameType], what: str) -> tuple[str, str]:
    """The kind of thing that is waited for, and its name."""
    if what in ("upload", "download"):
        return ("upload", "upload") if what == "upload" else ("values", "download")
    if what == "room":
        return "room", "calls that wait to be sent"
    for frame in reversed(inner):
        code = frame.f_code
        if not code.co_filename.startswith(_CORE) and code.co_qualname not in _CORE_NAMES and code.co_name[0] != "<":
            return ("everything" if code.co_name == "synchronize" else "check"), code.co_qualname
    if what == "Tensor.grad.__get__":
        return "gradient", "Tensor.grad"
    asked = [frame.f_code.co_name for frame in inner]
    if "_meta" in asked:
        outer = inner[asked.index("_meta") + 1 :]
        return "shape", outer[0].f_code.co_qualname if outer else "shape"
    if what in _READS:
        return "values", what.replace("tc.read", "Tensor.tolist").replace("tc.numpy", "Tensor.numpy")
    if what == "synchronize":
        return "everything", what
    return ("result" if what in TABLE else "answer"), what


def _text(summary: dict[str, Any]) -> str:
    """The same, for people."""
    share = summary["waited_seconds"] / summary["seconds"] if summary["seconds"] else 0.0
    said = [
        f"tclient: {summary['seconds']:.3f} s, of which {summary['waited_seconds']:.3f} s ({share:.0%}) "
        f"in {summary['waits']} waits for the server"
    ]
    if summary["lines"]:
        said.append(f"{'waits':>8} {'seconds':>9} {'ms each':>9}  line")
    for entry in summary["lines"][:_SHOWN]:
        each_ms = entry["seconds"] / entry["waits"] * 1e3
        figures = f"{entry['waits']:>8} {entry['seconds']:>9.3f} {each_ms:>9.2f}"
        said.append(f"{figures}  {_shown(entry['file'])}:{entry['line']}  {entry['source'][:_SOURCE_WIDTH]}")
        advice = _ADVICE.get(entry["kind"])
        hint = f": {advice}" if advice and entry["waits"] >= _OFTEN else ""
        said.append(f"{'':>28}  {_KINDS[entry['kind']]} ({entry['what']}){hint}")
    rest = summary["lines"][_SHOWN:]
    if rest:
        said.append(
            f"{sum(each['waits'] for each in rest):>8} {sum(each['seconds'] for each in rest):>9.3f}{'':>11}others"
        )
    return "\n".join(said)


def _shown(file: str) -> str:
    """A path as short as it can be."""
    return file.removeprefix(os.getcwd() + os.sep)


_KINDS = {
    "values": "values",
    "shape": "a shape, dtype or device",
    "gradient": "a gradient, or None",
    "upload": "an upload",
    "check": "what a function looks at",
    "result": "a result whose kind is not known before",
    "everything": "all that was asked before",
    "room": "room for more calls",
    "answer": "an answer",
}


@contextlib.contextmanager
def profiled(path: str | None) -> Iterator[None]:
    """Within it waits are counted; at its end they are told: on stderr, or as JSON in a file."""
    profile = Profile()
    process = os.getpid()
    WATCHERS.append(profile.add)
    try:
        yield
    finally:
        WATCHERS.remove(profile.add)
        if os.getpid() == process:  # a child that forked has its parent's waits, too
            summary = profile.summary()
            if path:
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(summary, file, indent=2)
                    file.write("\n")
            else:
                print(_text(summary), file=sys.stderr)
