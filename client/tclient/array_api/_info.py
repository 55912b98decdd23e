"""What the namespace can do, as the standard has it asked."""

from __future__ import annotations

import tclient as tc
from tclient import device as Device
from tclient import dtype as DType
from tclient.array_api._dtypes import names_of

# torch has few operations of them; the namespace has the dtypes, and promises no function of theirs.
_NAMES_ONLY = ("uint16", "uint32", "uint64")


class Info:
    """What `__array_namespace_info__()` gives."""

    def capabilities(self) -> dict[str, bool | int | None]:
        """Whether arrays are indexed by bools, shapes may depend on values, and how many axes there are at most."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """Where new arrays go that are not told otherwise."""
        return tc.get_default_device()

    def default_dtypes(self, *, device: Device | str | None = None) -> dict[str, DType]:
        """The dtypes of new arrays that are not told otherwise."""
        floating = tc.get_default_dtype()
        return {
            "real floating": floating,
            "complex floating": floating.to_complex(),
            "integral": tc.int64,
            "indexing": tc.int64,
        }

    def dtypes(
        self, *, device: Device | str | None = None, kind: str | tuple[str, ...] | None = None
    ) -> dict[str, DType]:
        """The dtypes of a kind by their names."""
        return {name: getattr(tc, name) for name in names_of(kind) if name not in _NAMES_ONLY}

    def devices(self) -> list[Device]:
        """Where arrays can be on the server."""
        found = [tc.device("cpu")]
        return found + [tc.device("cuda", each) for each in range(tc.cuda.device_count())]


def __array_namespace_info__() -> Info:
    """What the namespace can do: its capabilities, devices and dtypes."""
    return Info()
