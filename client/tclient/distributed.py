"""torch.distributed: there is none. A program is one process, and other processes open sessions of their own."""

from __future__ import annotations

import enum
from typing import Any, NoReturn

from tclient._namespace import missing


def is_available() -> bool:
    """False: there are no groups of processes."""
    return False


def is_initialized() -> bool:
    """False: there are no groups of processes."""
    return False


def is_nccl_available() -> bool:
    """False: there are no groups of processes."""
    return False


def is_gloo_available() -> bool:
    """False: there are no groups of processes."""
    return False


def is_mpi_available() -> bool:
    """False: there are no groups of processes."""
    return False


class ReduceOp(enum.Enum):
    """The ways to reduce that functions of a caller name as defaults."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4
    BAND = 5
    BOR = 6
    BXOR = 7
    PREMUL_SUM = 8


def is_torchelastic_launched() -> bool:
    """False: there are no groups of processes."""
    return False


def init_process_group(*args: Any, **kwargs: Any) -> NoReturn:
    """Always raises: there are no groups of processes."""
    raise RuntimeError(
        "torch.distributed is not available on a tensor server: there are no groups of processes. Run the script as one"
    )


def get_rank(group: Any = None) -> int:
    """Raises: ValueError, as without a group of processes; -1 for a group that is given."""
    return _without_group(group)


def get_world_size(group: Any = None) -> int:
    """Raises: ValueError, as without a group of processes; -1 for a group that is given."""
    return _without_group(group)


def barrier(group: Any = None, **kwargs: Any) -> None:
    """Raises: ValueError, as without a group of processes."""
    _without_group(None)


def destroy_process_group(group: Any = None) -> None:
    """Nothing: there is none."""


def _without_group(group: Any) -> int:
    if group is not None:
        return -1
    raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
