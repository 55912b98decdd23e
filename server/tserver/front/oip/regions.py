"""System shared memory that callers on this machine have registered: inputs are read from it, outputs written to it.

A region is read and written through its file, not mapped: a caller who makes the object smaller afterwards gets an
error, where a mapping would end the process (SIGBUS). AllRegions are counted by the requests that use them, so that one
may be unregistered at any time. Knows neither gRPC nor protobuf; only the event loop's thread registers and forgets.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tserver.errors import AlreadyExists, Exhausted, InvalidArgument, NotFound, ServerError

T = TypeVar("T")

# Where shm_open(3) keeps its objects on Linux.
_HOME = Path("/dev/shm")
_KEY = re.compile(r"/?[^/\0]{1,254}")
# Those of Triton's own Python backends, where one runs on this machine: no caller's business.
_RESERVED = "triton_python_backend_shm_region_"
# Each takes a file descriptor: of one principal, and of all together.
_MAX_REGIONS = 256
_MAX_REGIONS_OF_ALL = 1024
_MAX_IO_BYTES = 1 << 30


class Region:
    """A part of a shared memory object."""

    def __init__(self, name: str, key: str, descriptor: int, offset: int, byte_size: int) -> None:
        self.name, self.key = name, key
        self.offset, self.byte_size = offset, byte_size
        self._descriptor = descriptor
        self._place = _place(descriptor)
        self._users = 1

    def is_in(self, place: tuple[int, int]) -> bool:
        """Whether it is in that object."""
        return self._place == place

    def check(self, offset: int, size: int) -> None:
        """Refuse a range that is not in the region. Raises: InvalidArgument."""
        if offset > self.byte_size or size > self.byte_size - offset:
            raise InvalidArgument(
                f"{size} bytes at offset {offset} are not within the region {self.name!r}, which has {self.byte_size}"
            )

    def read(self, offset: int, size: int) -> bytes:
        """A copy of a range that was checked. From any thread, while in use. Raises: ServerError."""
        parts = []
        begin = self.offset + offset
        end = begin + size
        while begin < end:
            part = os.pread(self._descriptor, min(end - begin, _MAX_IO_BYTES), begin)
            if not part:
                raise self._shrunk()
            parts.append(part)
            begin += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Fill a range that was checked. From any thread, while in use. Raises: ServerError."""
        begin = self.offset + offset
        rest = memoryview(data)
        if os.fstat(self._descriptor).st_size < begin + len(rest):
            raise self._shrunk()
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest[:_MAX_IO_BYTES], begin)
                begin, rest = begin + written, rest[written:]
        except OSError as error:
            raise ServerError(f"the region {self.name!r} could not be written: {error.strerror}") from error

    async def by_thread(self, copy: Callable[..., T], *arguments: Any) -> T:
        """A copy by a thread, which has the region open until it is done: also where nobody waits for it any more."""
        copying = asyncio.get_running_loop().run_in_executor(None, partial(copy, *arguments))

        def done(_: asyncio.Future[T]) -> None:
            self.release()
            if not copying.cancelled():
                # Looked at here, should nobody else do so.
                copying.exception()

        self._users += 1
        copying.add_done_callback(done)
        return await asyncio.shield(copying)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the region open, whoever unregisters it meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """One user less; after the last one it is closed."""
        self._users -= 1
        if not self._users:
            os.close(self._descriptor)

    def _shrunk(self) -> ServerError:
        return ServerError(
            f"the object {self.key!r} of the region {self.name!r} was made smaller after it was registered"
        )


class AllRegions:
    """The regions of all principals. To each there are only its own."""

    def __init__(self) -> None:
        self._of: dict[str, Regions] = {}

    def of(self, principal: str) -> Regions:
        """Those of one principal."""
        return self._of.get(principal) or Regions(self, principal)

    def check_room(self) -> None:
        """Raises: Exhausted where no more are opened for anybody."""
        if sum(map(len, self._of.values())) >= _MAX_REGIONS_OF_ALL:
            raise Exhausted("too many regions are registered on this server; try again later", retry_after_s="5")

    def is_of_another(self, principal: str, descriptor: int) -> bool:
        """Whether an object has a region of another principal, who alone is to read and write there."""
        opened = _place(descriptor)
        return any(
            region.is_in(opened) for whose, own in self._of.items() if whose != principal for region in own.all()
        )

    def keep(self, principal: str, own: Regions) -> None:
        """Remember a principal that has regions, and no other."""
        if len(own):
            self._of[principal] = own
        else:
            self._of.pop(principal, None)


class Regions:
    """The regions of one principal, by name."""

    def __init__(self, every: AllRegions | None = None, principal: str = "") -> None:
        """`every` are those of all principals."""
        self._every, self._principal = every or AllRegions(), principal
        self._by_name: dict[str, Region] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Region:
        """A region. Raises: NotFound."""
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(f"no region of shared memory is registered as {name[:200]!r}; register it first") from None

    def all(self) -> list[Region]:
        """Every region, in the order of their names."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a part of an object known under a name.

        Raises: AlreadyExists, InvalidArgument, Exhausted; ServerError where the object cannot be opened.
        """
        if not name or len(name) > 1024:
            raise InvalidArgument(f"a region has a name of 1 to 1024 characters, not {len(name)}")
        if name in self._by_name:
            raise AlreadyExists(
                f"a region of shared memory is registered as {name[:200]!r} already; unregister it first"
            )
        if len(self._by_name) >= _MAX_REGIONS:
            raise Exhausted(f"{len(self._by_name)} regions are registered, which is the limit; unregister some")
        self._every.check_room()
        if not byte_size:
            raise InvalidArgument(f"the region {name[:200]!r} has 0 bytes; give at least 1")
        descriptor = _open(key)
        try:
            if self._every.is_of_another(self._principal, descriptor):
                raise _not_opened(key, os.strerror(errno.ENOENT))
            size = os.fstat(descriptor).st_size
            if offset > size or byte_size > size - offset:
                raise InvalidArgument(
                    f"{byte_size} bytes at offset {offset} are not within the object {key!r}, which has {size}"
                )
        except BaseException:
            os.close(descriptor)
            raise
        self._by_name[name] = Region(name, key, descriptor, offset, byte_size)
        self._every.keep(self._principal, self)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them. One that is not there is forgotten already."""
        for each in [name] if name else list(self._by_name):
            region = self._by_name.pop(each, None)
            if region is not None:
                region.release()
        self._every.keep(self._principal, self)


def _place(descriptor: int) -> tuple[int, int]:
    """What tells an object from all others, whatever it is called."""
    told = os.fstat(descriptor)
    return told.st_dev, told.st_ino


def _not_opened(key: str, cause: str | None) -> ServerError:
    return ServerError(f"unable to open the shared memory object {key!r}: {cause}")


def _open(key: str) -> int:
    """A descriptor of a shared memory object. Raises: InvalidArgument for what is no key, ServerError."""
    bare = key.removeprefix("/")
    if not _KEY.fullmatch(key) or bare in (".", ".."):
        raise InvalidArgument(f"the key {key[:200]!r} is not the name of a shared memory object, such as '/input'")
    if bare.startswith(_RESERVED):
        raise InvalidArgument(f"keys that begin with {_RESERVED!r} are reserved; choose another")
    try:
        # Not blocking: opening a FIFO would.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(_HOME / bare, flags)
    except (OSError, UnicodeEncodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text"
        raise _not_opened(key, cause) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidArgument(f"{key!r} is not a shared memory object")
    return descriptor
