"""torch.masked, run by the server: reductions and normalizations of the elements that a mask lets through."""

from __future__ import annotations

from typing import Any

from tclient._namespace import functions, missing

globals().update(functions("masked."))


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
