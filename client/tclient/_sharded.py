"""State dicts that lie in several files: an index says which tensor is in which of the files beside it.

    {"metadata": {"total_size": 14}, "weight_map": {"a.weight": "model-00001-of-00002.safetensors", …}}

Knows the format of Hugging Face's `model.safetensors.index.json`; opens no file. The index is somebody else's: it names
files of its own folder, and no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorcompute.wire.safetensors import Damaged, load_json

# As much as the header of a safetensors file may have: it names as many tensors.
_MAX_INDEX_BYTES = 100_000_000


def is_index(content: memoryview) -> bool:
    """Whether this is JSON. A safetensors file begins with its header's length, and none is so long that it is text."""
    return bytes(content[:1]) == b"{" and bytes(content[7:8]) != b"\0"


def shards_of(content: memoryview, folder: Path) -> dict[Path, list[str]]:
    """The files that an index of this folder names, and the names of the tensors in each. Raises: Damaged."""
    if len(content) > _MAX_INDEX_BYTES:
        raise Damaged(f"it has {len(content)} bytes, and an index at most {_MAX_INDEX_BYTES}")
    try:
        said = load_json(content)
    except ValueError as error:
        raise Damaged(f"it is not JSON: {error}") from None
    places: Any = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise Damaged("it has no weight_map that tells the file of each tensor")
    found: dict[Path, list[str]] = {}
    for name, file in places.items():
        found.setdefault(_within(folder, file), []).append(name)
    return found


def _within(folder: Path, file: str) -> Path:
    """A file below the folder. It may be a link that leads elsewhere: that was made here, and not by the index."""
    path = Path(file)
    if path.anchor or ".." in path.parts or not path.parts or "\0" in file:
        raise Damaged(f"its weight_map names {file[:200]!r}, which is no file of its folder")
    return folder / path
