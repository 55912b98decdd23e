"""Regions of system shared memory: what is refused, and that no caller can take the server down with one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tserver.errors import AlreadyExists, Exhausted, InvalidArgument, NotFound, ServerError
from tserver.front.oip.regions import Regions

HOME = Path("/dev/shm")


@pytest.fixture
def key() -> Iterator[str]:
    """A shared memory object of 4096 bytes: 0, 1, 2, …"""
    path = HOME / f"tserver-test-{os.getpid()}"
    path.write_bytes(bytes(index % 256 for index in range(4096)))
    yield f"/{path.name}"
    path.unlink(missing_ok=True)


def test_a_part_of_an_object_is_read_and_written(key: str) -> None:
    regions = Regions()
    regions.register("r", key, 100, 1000)
    region = regions.find("r")
    assert region.read(10, 5) == bytes(range(110, 115))
    region.write(20, memoryview(b"hello"))
    assert (HOME / key[1:]).read_bytes()[120:125] == b"hello"
    regions.unregister()
    assert regions.all() == []


REFUSED: dict[str, tuple[str, int, int, type[ServerError]]] = {
    "more than there is": ("", 0, 4097, InvalidArgument),
    "an offset beyond the end": ("", 4097, 1, InvalidArgument),
    "a sum beyond 64 bits": ("", 4000, (1 << 64) - 1, InvalidArgument),
    "an offset of 64 bits": ("", (1 << 64) - 1, 2, InvalidArgument),
    "nothing": ("", 0, 0, InvalidArgument),
    "an object that is not there": ("/tserver-not-there", 0, 1, ServerError),
    "a path": ("/../etc/passwd", 0, 1, InvalidArgument),
    "another path": ("etc/passwd", 0, 1, InvalidArgument),
    "the parent": ("/..", 0, 1, InvalidArgument),
    "the directory": ("/.", 0, 1, InvalidArgument),
    "no key": ("/", 0, 1, InvalidArgument),
    "a null character": ("/a\0b", 0, 1, InvalidArgument),
    "a reserved key": ("/triton_python_backend_shm_region_1", 0, 1, InvalidArgument),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_there_is_not_registered(key: str, case: tuple[str, int, int, type[ServerError]]) -> None:
    name, offset, size, error = case
    regions = Regions()
    with pytest.raises(error):
        regions.register("r", name or key, offset, size)
    assert regions.all() == []


def test_a_link_or_a_pipe_is_no_object(key: str) -> None:
    regions = Regions()
    for make in (lambda path: path.symlink_to("/etc/hostname"), os.mkfifo):
        path = HOME / f"{key[1:]}-other"
        make(path)
        try:
            with pytest.raises(ServerError):
                regions.register("r", path.name, 0, 1)
        finally:
            path.unlink()


def test_a_name_is_taken_once(key: str) -> None:
    regions = Regions()
    regions.register("r", key, 0, 10)
    with pytest.raises(AlreadyExists):
        regions.register("r", key, 0, 10)
    regions.unregister("r")
    regions.register("r", key, 0, 10)
    regions.unregister("never there")
    with pytest.raises(NotFound):
        regions.find("other")


RANGES = {"beyond": (0, 101), "behind": (101, 0), "overflow": (50, (1 << 64) - 10), "far": (1 << 63, 1)}


@pytest.mark.parametrize("part", RANGES.values(), ids=RANGES.keys())
def test_a_range_outside_its_region_is_refused(key: str, part: tuple[int, int]) -> None:
    regions = Regions()
    regions.register("r", key, 0, 100)
    with pytest.raises(InvalidArgument, match=re.escape("'r'")):
        regions.find("r").check(*part)


def test_an_object_that_shrinks_is_an_error_and_no_crash(key: str) -> None:
    regions = Regions()
    regions.register("r", key, 0, 4096)
    os.truncate(HOME / key[1:], 10)
    region = regions.find("r")
    with pytest.raises(ServerError, match="smaller"):
        region.read(0, 4096)
    with pytest.raises(ServerError, match="smaller"):
        region.write(100, b"x")


def test_a_region_in_use_outlives_its_unregistration(key: str) -> None:
    regions = Regions()
    regions.register("r", key, 0, 100)
    region = regions.find("r")
    before = len(os.listdir("/proc/self/fd"))
    with region.in_use():
        regions.unregister("r")
        assert region.read(1, 2) == b"\x01\x02"
        assert len(os.listdir("/proc/self/fd")) == before
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_copy_that_nobody_waits_for_any_more_has_the_region_open(key: str) -> None:
    regions = Regions()
    regions.register("r", key, 0, 100)
    region = regions.find("r")
    go_on = threading.Event()
    read: list[bytes] = []

    def copy(offset: int, size: int) -> None:
        assert go_on.wait(20.0)
        read.append(region.read(offset, size))

    async def use() -> None:
        with region.in_use():
            await region.by_thread(copy, 1, 2)

    async def cancelled_in_the_middle() -> None:
        using = asyncio.create_task(use())
        await asyncio.sleep(0.05)
        using.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await using
        regions.unregister("r")
        assert len(os.listdir("/proc/self/fd")) == held
        go_on.set()
        await asyncio.sleep(0.2)
        assert len(os.listdir("/proc/self/fd")) == held - 1

    with asyncio.Runner() as runner:
        runner.get_loop()
        held = len(os.listdir("/proc/self/fd"))
        runner.run(cancelled_in_the_middle())
    assert read == [b"\x01\x02"]


def test_regions_are_bounded(key: str) -> None:
    regions = Regions()
    for number in range(256):
        regions.register(str(number), key, 0, 1)
    with pytest.raises(Exhausted, match="256"):
        regions.register("one more", key, 0, 1)
    regions.unregister()
