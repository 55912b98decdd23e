"""Names, versions and states of models, and what is told of those that are not there. Knows no model.

A name is that of a public model, or OWNER/NAME; see `owners`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal
from urllib.parse import unquote

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import AlreadyExists, InvalidArgument, ModelNotReady, NotFound

State = Literal["READY", "UNLOADING", "UNAVAILABLE"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_VERSION = (1 << 31) - 1
STATES: dict[State, ms.MlpState] = {
    "READY": ms.MLP_STATE_READY,
    "UNLOADING": ms.MLP_STATE_UNLOADING,
    "UNAVAILABLE": ms.MLP_STATE_UNAVAILABLE,
}


def chosen(name: str, version: int, states: Mapping[int, State]) -> int:
    """The version that is meant, of those that a name has; 0 is the latest one that is ready, or where none is, the
    highest. Raises: NotFound.
    """
    if not states:
        raise unknown(name)
    if not version:
        ready = [number for number, state in states.items() if state == "READY"]
        return max(ready or states)
    if version not in states:
        has = ", ".join(map(str, sorted(states)))
        raise NotFound(f"{bare(name)!r} has no version {version}; it has {has}")
    return version


def free(name: str, version: int, versions: Collection[int]) -> int:
    """The version that a new model gets, beside those that its name has; 0 asks for version 1 of a new name.

    Raises: InvalidArgument for a name that cannot be, AlreadyExists.
    """
    name = bare(name)
    check_usable(name)
    if version > _MAX_VERSION:
        raise InvalidArgument(f"version {version} is too high; the highest is {_MAX_VERSION}")
    if versions and not version:
        raise AlreadyExists(
            f"a network named {name!r} exists; give version {max(versions) + 1} for a new version of it, "
            "or choose another name"
        )
    if version in versions:
        raise AlreadyExists(f"version {version} of {name!r} exists; delete it first, or give another version")
    return version or 1


def check_usable(name: str) -> None:
    """Raises: InvalidArgument for a name that no model can have."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"the name {name[:200]!r} ({len(name)} characters) is not usable: "
            "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        )


def bare(name: str) -> str:
    """A name without that of its owner: what the owner calls the model, and what texts call it."""
    return name.rpartition("/")[2]


def is_public(name: str) -> bool:
    """Whether all see the models of that name."""
    return "/" not in name


def owner_in(name: str) -> str:
    """The owner that a name tells of; empty of a public one."""
    return unquote(name.rpartition("/")[0])


def unknown(name: str) -> NotFound:
    """There is no such name."""
    return NotFound(f"no network is named {name[:200]!r}; ListMlps tells which there are")


def unknown_anywhere(name: str, version: int) -> NotFound:
    """There is no such model, on disk neither."""
    which = f"no network is named {name[:200]!r}" + (f" and has the version {version}" if version else "")
    return NotFound(f"{which}; ListMlps tells which there are")


def not_ready(name: str, version: int, state: State, reason: str) -> ModelNotReady:
    """There is such a model, and it does not serve."""
    return ModelNotReady(
        f"version {version} of {bare(name)!r} is not ready ({state.lower()}{': ' + reason if reason else ''}); "
        "load it, or ask for another version"
    )
