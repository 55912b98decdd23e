"""The memory of the machine, and what of it this process has and may have. The only place that asks the system for it.

Knows neither torch nor what the memory is for.
"""

from __future__ import annotations

import resource
from pathlib import Path

# Memory that is never given to tensors, so that gRPC and the interpreter can still allocate when tensors cannot; of
# little, a part.
_RESERVE_BYTES = 512 << 20
_RESERVED_SHARE = 1 / 8


def reserve_bytes(available: int) -> int:
    """What is kept back of so many bytes."""
    return min(_RESERVE_BYTES, int(available * _RESERVED_SHARE))


def _meminfo(field: str) -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _cgroup_folders() -> list[Path]:
    """Where the limits of the cgroup of this process stand, and of those that it is in."""
    root = Path("/sys/fs/cgroup")
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [root, root / "memory"]
    folder = root / own.strip("/")
    return [*(each for each in (folder, *folder.parents) if each.is_relative_to(root)), root / "memory"]


def _cgroup() -> list[tuple[int, int]]:
    """Limit and use of each cgroup that has a limit."""
    found = []
    for folder in _FOLDERS:
        for most, current in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            try:
                limit, used = ((folder / name).read_text().strip() for name in (most, current))
            except OSError:
                continue
            if limit.isdigit() and used.isdigit():
                found.append((int(limit), int(used)))
    return found


_FOLDERS = _cgroup_folders()
# Of what this process lets itself have, what tensors are not to take.
_reserved = [0]
# What who has started this process lets it have; later it is what this process lets itself have.
_GIVEN_BYTES = resource.getrlimit(resource.RLIMIT_DATA)[0]


def total_bytes() -> int:
    """The memory of the machine, or of the cgroup of this process where that has less."""
    return min([_meminfo("MemTotal"), *(limit for limit, _ in _cgroup())])


def available_bytes() -> int:
    """What may be taken of it now, by the machine and by what this process was given."""
    available = min([_meminfo("MemAvailable"), *(max(0, limit - used) for limit, used in _cgroup())])
    if _GIVEN_BYTES != resource.RLIM_INFINITY:
        available = min(available, max(0, _GIVEN_BYTES - data_bytes()))
    return available


def limit_data(ceiling: int, reserved: int) -> None:
    """Make an allocation beyond so many bytes of this process an error of torch, instead of the end of the process.

    Of those, some are reserved for what are no tensors.
    """
    _reserved[0] = reserved
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    for most in (hard, _GIVEN_BYTES):
        if most != resource.RLIM_INFINITY:
            ceiling = min(ceiling, most)
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, hard))


def within_limit() -> int:
    """What tensors may take still within what this process lets itself have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return 1 << 62 if soft == resource.RLIM_INFINITY else max(0, soft - data_bytes() - _reserved[0])


def _statm(index: int) -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[index]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def resident_bytes() -> int:
    """What this process has in memory, but for what it shares with others."""
    return _statm(1) - _statm(2)


def data_bytes() -> int:
    """What this process has of its own, as RLIMIT_DATA counts it."""
    return _statm(5)
