"""Whose each model is, and what callers call it. Their names become those of the registry here alone, and back.

A model of a principal's own is OWNER/NAME in the registry, on disk and between the processes of a house; NAME alone is
public. A caller's NAME is its own model where it has one of that name, and else the public one. Administrators name
models as the registry does, and make public ones alone: so does everybody where no credentials are set up.

Whoever serves callers asks here first, and gives to nobody else what a caller has said. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol, TypeVar

from tserver.errors import PermissionDenied
from tserver.identity import LOCAL, Identity, Role
from tserver.models import names

_NOT_THE_OWNER = "NOT_THE_OWNER"
_NOT_A_PUBLISHER = "NOT_A_PUBLISHER"


class Owned(Protocol):
    """A version of a model, as far as it is looked at here."""

    name: str
    version: int
    # Who may change it, of a public one; empty for administrators alone.
    owner: str


Any_ = TypeVar("Any_", bound=Owned)
Found = TypeVar("Found")
Claim = Callable[[Mapping[int, Owned]], str]
"""The owner of a new version beside those that its name has. Raises: PermissionDenied."""


class Owners:
    """The names of one registry, as callers have them."""

    def __init__(self, has: Callable[[str], bool]) -> None:
        """`has` says whether there is a name in the registry, here or on another engine. From any thread."""
        self._has = has

    def qualified(self, name: str, identity: Identity) -> str:
        """The registry's name of what a caller means. Raises: NotFound where it sees nothing of that name."""
        return self.within(identity.namespace, name)

    def within(self, namespace: str, name: str) -> str:
        """The same for a caller whose own models are named so. From any thread."""
        if not namespace:
            return name
        if self._has(own := namespace + name):
            return own
        if "/" in name or not self._has(name):
            # Of what is another's no more is said than of what is not there.
            raise names.unknown(name)
        return name

    def finder(self, find: Callable[[str, int], Found], identity: Identity) -> Callable[[str, int], Found]:
        """What finds models for one caller, as `find` does by the registry's names."""
        namespace = identity.namespace
        return find if not namespace else lambda name, version: find(self.within(namespace, name), version)

    def to_load(self, name: str, version: int, identity: Identity) -> str:
        """As `qualified`, where a model may also be on disk alone: then it is the caller's own."""
        namespace = identity.namespace
        if "/" in name and (namespace or not self._has(name)):
            raise names.unknown_anywhere(name, version)
        is_public = self._has(name) and not self._has(namespace + name)
        return name if is_public else namespace + name

    def visible(self, every: Iterable[Any_], identity: Identity) -> list[Any_]:
        """Those that a caller sees, in the order of the names that they have for it."""
        namespace = identity.namespace
        if not namespace:
            return list(every)
        own: list[Any_] = []
        public: list[Any_] = []
        for each in every:
            if each.name.startswith(namespace):
                own.append(each)
            elif names.is_public(each.name):
                public.append(each)
        hidden = {names.bare(each.name) for each in own}
        seen = [*own, *(each for each in public if each.name not in hidden)]
        return sorted(seen, key=lambda each: (names.bare(each.name), each.version))


def new_name(name: str, identity: Identity, *, public: bool) -> str:
    """The registry's name of a model that a caller makes. Raises: InvalidArgument for a name that cannot be,
    PermissionDenied for who may make no public one.
    """
    names.check_usable(name)
    if public and identity.role < Role.PUBLISHER:
        raise PermissionDenied(
            f"{name!r} is to be public, but {identity.principal[:200]!r} has the role {identity.role.name.lower()}: "
            "leave public out, or have whoever runs the server give it the role publisher",
            reason=_NOT_A_PUBLISHER,
        )
    return name if public else identity.namespace + name


def told_name(name: str, identity: Identity) -> str:
    """What a caller is told that a model is called, which it sees."""
    return names.bare(name) if identity.namespace else name


def check_may_change(every: Iterable[Owned], identity: Identity) -> None:
    """Whether a caller may change models that it sees. Raises: PermissionDenied."""
    namespace = identity.namespace
    for each in every:
        if namespace and names.is_public(each.name) and each.owner != identity.principal:
            raise PermissionDenied(
                f"{each.name!r} is public, and not yours to change; make one of your own, or ask its owner",
                reason=_NOT_THE_OWNER,
            )


def is_of(each: Owned, owner: str) -> bool:
    """Whether that is whose a model is, be it public or not; empty is nobody."""
    return (names.owner_in(each.name) or each.owner) == owner


def owner_of(identity: Identity) -> str:
    """Whose a new model becomes that a caller makes; empty is nobody."""
    return "" if identity.how in _WITHOUT_CREDENTIALS else identity.principal


def claim_of(identity: Identity) -> Claim:
    """Says whose a model becomes that a caller makes: all versions of a name have one owner."""

    def owner(versions: Mapping[int, Owned]) -> str:
        check_may_change(versions.values(), identity)
        for each in versions.values():
            return each.owner
        return owner_of(identity)

    return owner


# How callers are known whose models are whoever's who comes.
_WITHOUT_CREDENTIALS: Collection[str] = (LOCAL, "anonymous", "house")
