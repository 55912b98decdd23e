"""What principals and names are called on disk: one part of a path each, which leads nowhere else."""

from __future__ import annotations

import hashlib
import unicodedata
from urllib.parse import quote, unquote

from tserver.errors import InvalidArgument

MAX_CHARACTERS = 200
# Of one part of a path on every file system, with room for what is put before or behind it.
_MAX_BYTES = 230


def check_name(name: str) -> None:
    """Refuse what is no name. Raises: InvalidArgument saying why."""
    told = repr(name[:60])
    if not name:
        raise InvalidArgument("the name is empty; give one of 1 to 200 characters")
    if len(name) > MAX_CHARACTERS:
        raise InvalidArgument(f"the name {told}... has {len(name)} characters; at most {MAX_CHARACTERS} are taken")
    if bad := next((each for each in name if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")), ""):
        raise InvalidArgument(f"the name {told} has the control character {bad!r} in it; leave that out")
    if len(_quoted(name)) > _MAX_BYTES:
        raise InvalidArgument(f"the name {told}... is too long for a file once its letters are encoded; shorten it")


def folder_of(name: str) -> str:
    """What a name that was checked is called on disk. No two have the same one."""
    return _quoted(name)


def name_of(folder: str) -> str | None:
    """The name that is called so on disk; None where nothing is."""
    name = unquote(folder, errors="surrogatepass")
    return name if folder == _quoted(name) else None


def folder_of_principal(principal: str) -> str:
    """What a principal is called on disk."""
    quoted = _quoted(principal)
    if len(quoted) > _MAX_BYTES:
        # Nobody chooses a digest.
        return f"{quoted[:100]}%{hashlib.sha256(principal.encode()).hexdigest()}"
    return quoted


def _quoted(name: str) -> str:
    quoted = quote(name, safe="", errors="surrogatepass")
    # Neither "." nor "..", nor anything that the server puts beside names.
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
