"""Names of tensors: a session keeps a tensor that has one, whether or not anybody holds it otherwise.

A tensor has one name at most, and a name one tensor: the last one that it was given to. What is named is held under an
id of the server's, like what a typed RPC has made. Knows torch; does not know calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tserver.engine.object_store import ObjectStore
from tserver.errors import Exhausted, InvalidArgument

MAX_NAMES = 100_000
MAX_CHARACTERS = 1024


def name(store: ObjectStore, tensor: Any, wanted: Any = None) -> None:
    """`tc.name`: give a tensor a name, or take the one away that it has. Raises: InvalidArgument, Exhausted."""
    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgument(f"a tensor is named, and not a {type(tensor).__name__}")
    if wanted is not None and not (isinstance(wanted, str) and 0 < len(wanted) <= MAX_CHARACTERS):
        raise InvalidArgument(f"the name of a tensor is a text of 1 to {MAX_CHARACTERS} characters")
    before = name_of(store, tensor)
    if wanted == before:
        return
    if before is not None:
        _let_go(store, before)
    if wanted is None:
        return
    _let_go(store, wanted)
    if len(store.names) >= MAX_NAMES:
        raise Exhausted(f"the session has {len(store.names)} names, which is the limit; take some away")
    number = store.new_server_id()
    store.names[wanted] = number
    store.named[id(tensor)] = wanted
    store.keep(number, tensor)


def name_of(store: ObjectStore, tensor: Any) -> str | None:
    """`tc.name_of`: the name that a tensor has."""
    found = store.named.get(id(tensor))
    # Somebody may have freed it by its id, and the memory of the object may be another's by now.
    return found if found is not None and store.objects.get(store.names.get(found, 0)) is tensor else None


def names(store: ObjectStore) -> list[str]:
    """`tc.names`: all of them, in the order in which they were given."""
    return [each for each, number in store.names.items() if number in store.objects]


def named(store: ObjectStore, wanted: Any) -> torch.Tensor:
    """`tc.named`: the very tensor of a name. Raises: InvalidArgument."""
    found = store.objects.get(store.names.get(wanted, 0)) if isinstance(wanted, str) else None
    if not isinstance(found, torch.Tensor):
        raise InvalidArgument(f"no tensor of the session has the name {str(wanted)[:100]!r}")
    return found


def same(store: ObjectStore, held: Any) -> Any:
    """`tc.same`: what is held, under another id too."""
    del store
    return held


def _let_go(store: ObjectStore, wanted: str) -> None:
    number = store.names.pop(wanted, 0)
    found = store.objects.pop(number, None)
    store.version += 1
    if store.named.get(id(found)) == wanted:
        del store.named[id(found)]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "tc.name": name,
    "tc.name_of": name_of,
    "tc.names": names,
    "tc.named": named,
    "tc.same": same,
}
