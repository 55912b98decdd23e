"""torch.nn.functional, run by the server: the functions that the table of operations lists."""

from __future__ import annotations

from typing import Any

from tclient._namespace import functions, missing

globals().update(functions("nn.functional."))


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
