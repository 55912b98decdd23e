"""A disk that fails at a chosen step, or a process that is killed there.

A step is any call by which the server changes what is on disk. Run as a program, it keeps a name in a process that is
killed at the first step, then at the second, and so on; it says what was there afterwards each time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tserver.storage.store import Store

PRINCIPAL = "somebody"
STEPS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "close")
OLD, NEW, OTHER = b"old" * 1000, b"new" * 3000, b"other" * 10
Failing = Callable[[str, tuple[Any, ...]], None]


@contextlib.contextmanager
def steps(failing: Failing) -> Iterator[list[str]]:
    """Have a function called before each step, with its name and its arguments; the steps so far."""
    done: list[str] = []
    real = {name: getattr(os, name) for name in STEPS}

    def watched(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            failing(name, args)
            done.append(name)
            return real[name](*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, watched(name))
    try:
        yield done
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def keep(store: Store, name: str, data: bytes, *, overwrite: bool = True) -> None:
    """Keep two files that say the same."""
    halves = [data[: len(data) // 2], data[len(data) // 2 :]]
    contents = {"first.bin": iter(halves), "second.bin": iter(halves)}
    store.write(PRINCIPAL, name, contents, size_bytes=2 * len(data), about={"all": data.decode()}, overwrite=overwrite)


def kept(store: Store, name: str) -> bytes:
    """What is kept under a name: the same in both files, and in what is said of them."""
    with store.reading(PRINCIPAL, name) as reading:
        first, second = (b"".join(reading.chunks(file)) for file in ("first.bin", "second.bin"))
        assert first == second == reading.kept.about["all"].encode()
    return first


ACTIONS: dict[str, Callable[[Store], None]] = {
    "keep": lambda store: keep(store, "new", NEW),
    "overwrite": lambda store: keep(store, "old", NEW),
    "forget": lambda store: store.forget(PRINCIPAL, "old"),
}


def left_in(directory: Path) -> list[str]:
    """The files of the principal, but for locks."""
    home = directory / "names" / PRINCIPAL
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.name != ".lock")


def killed_at(step: int, action: Callable[[Store], None], store: Store) -> bool:
    """Whether a process that does it was killed at that step: half way through, where it writes."""
    pid = os.fork()
    if not pid:
        count = itertools.count()
        write = os.write

        def fail(name: str, args: tuple[Any, ...]) -> None:
            if next(count) == step:
                if name == "write":
                    write(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

        with steps(fail):
            action(store)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def main(name: str, top: Path) -> None:
    """Print what is there after each end."""
    fresh = top / "fresh"
    store = Store(fresh)
    keep(store, "old", OLD)
    keep(store, "other", OTHER)
    for step in itertools.count():
        directory = top / str(step)
        shutil.copytree(fresh, directory)
        was_killed = killed_at(step, ACTIONS[name], Store(directory))
        again = Store(directory)
        told = {each.name: kept(again, each.name).decode() for each in again.names(PRINCIPAL)}
        print(json.dumps({"killed": was_killed, "kept": told, "left": left_in(directory)}))
        if not was_killed:
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
