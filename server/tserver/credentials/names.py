"""What a principal may be called: in logs, in paths and in names of models nobody is to take it for something else."""

from __future__ import annotations

import unicodedata

_MAX_NAME = 128


def from_outside(name: str) -> str:
    """The principal that somebody else names, in whose names a "/" may be: %2F here. Raises: ValueError."""
    return checked(name.replace("%", "%25").replace("/", "%2F"))


def checked(name: str) -> str:
    """A principal's name, as it is. Raises: ValueError that says what is wrong with it."""
    if not name or len(name) > _MAX_NAME:
        raise ValueError(f"the name of a principal has 1 to {_MAX_NAME} characters, not {len(name)}")
    if "/" in name:
        raise ValueError("the name of a principal has no '/': that is between it and the name of a model")
    # Controls, surrogates, what shows nothing, what is not assigned; and other spaces than the plain one.
    if name.strip() != name or any(unicodedata.category(c)[0] in "CZ" and c != " " for c in name):
        raise ValueError("the name of a principal has no control characters, and no spaces around it")
    return name
