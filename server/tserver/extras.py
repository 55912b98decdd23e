"""What is said where a package is missing that the server needs. Needs none itself."""

from __future__ import annotations

_OURS = frozenset({"tserver", "tclient", "tensorcompute"})


def told(error: ModuleNotFoundError) -> str:
    """How to get what is missing. Raises the error again if it is a part of this project, which is then broken."""
    name = (error.name or "").partition(".")[0]
    if not name or name in _OURS:
        raise error
    return f"tserver: {name} is not installed; the server needs: pip install 'tclient[server]'"
