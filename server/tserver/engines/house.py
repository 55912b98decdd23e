"""What an engine knows that stands behind one address together with others."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import Any

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class House:
    """The engine's place. It travels over sockets of the house alone: the key is a secret."""

    # Its id. Its successor has the same.
    engine: str
    # Who has it, speaks for the front, or is an engine of it.
    key: str
    # Where it listens for the front, and where the front listens for it, as gRPC names addresses.
    internal: str
    front: str
    # What it runs on, as the house counts devices.
    device: str = ""
    # Where names are kept, which all engines of the house share; empty is nowhere.
    data_dir: str = ""

    def message(self) -> dict[str, Any]:
        """What is sent of it."""
        return asdict(self)


def new_key() -> str:
    """What proves that one is of the house."""
    return secrets.token_hex(_KEY_BYTES)
