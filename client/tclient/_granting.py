"""Memory that another principal may have until that is revoked: `share(x, with_="name")`, and `borrow` there.

Knows tensors and sessions; does not know how bytes travel.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Any

from tclient._exceptions import TensorTypeError, TensorValueError
from tclient._issue import call_builtin
from tclient._session.current import current
from tclient._session.modes import MODES
from tclient._session.session import Session
from tclient._tensor import Tensor, describe

_PREFIX = "tcgrant1."


class Grant:
    """Tensors that one other principal may take, with `tclient.borrow(grant.text())`.

    It holds until `revoke()`, or until the session ends.
    """

    def __init__(self, session: Session, loan: Any, name: str, to: str, writes: bool, keys: list[str] | None) -> None:
        """Made by `share`."""
        self.to, self.writes = to, writes
        self._session, self._loan, self._name, self._keys = session, loan, name, keys
        # Whoever forgets the object has not taken anything back.
        session.held.append(self)

    def text(self) -> str:
        """What the other principal needs, as one word. To others it is of no use."""
        told = {"name": self._name, "boot": self._session.opened.boot_id, "keys": self._keys}
        data = json.dumps(told, separators=(",", ":")).encode()
        return _PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")

    def revoke(self) -> None:
        """Take the tensors back: whoever has them gets a RuntimeError from the next call on them, or on a view of them.

        Waits until that is so. What was computed from them stays. Twice is no error.
        """
        if self._loan is None:
            return
        with self._session.use():
            call_builtin("tc.revoke", self._name)
        self._loan = None
        self._session.held.remove(self)

    def __repr__(self) -> str:
        what = "revoked" if self._loan is None else "to write" if self.writes else "to read"
        return f"<tclient.Grant for {self.to!r}, {what}>"


def granted(tensors: Any, to: Any, write: bool) -> Grant:
    """See `tclient.share`. Waits."""
    if MODES.recorder is not None:
        raise MODES.recorder.refused("share", "shares a tensor with another principal")
    if not isinstance(to, str) or not to:
        raise TensorTypeError(f"share: with_ is the name of a principal, not {to!r}")
    keys: list[str] | None = None
    if isinstance(tensors, Mapping):
        keys, leaves = [str(key) for key in tensors], list(tensors.values())
    else:
        leaves = [tensors]
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise TensorTypeError("share: a tensor, or a dict of tensors such as a state_dict, is shared by a principal")
    session: Session = leaves[0]._ref.session
    if any(leaf._ref.session is not session for leaf in leaves):
        raise TensorValueError("share: the tensors are of several sessions; share those of each")
    name = secrets.token_hex(16)
    with session.use():
        loan = call_builtin("tc.grant", name, leaves, to, bool(write))
    return Grant(session, loan, name, to, bool(write), keys)


def borrowed(grant: Any) -> Any:
    """See `tclient.borrow`. Waits."""
    if MODES.recorder is not None:
        raise MODES.recorder.refused("borrow", "takes a tensor of another principal")
    name, boot, keys = _read(grant)
    session = current()
    if boot != session.opened.boot_id:
        raise TensorValueError(
            "borrow: memory is shared within one engine, and this session is of another one than the grant; its owner "
            "may send the elements instead, or keep them where both can read them"
        )
    taken: list[Tensor] = [call_builtin("tc.granted", name, index) for index in range(1 if keys is None else len(keys))]
    describe(taken)
    return taken[0] if keys is None else dict(zip(keys, taken, strict=True))


def _read(grant: Any) -> tuple[str, str, list[str] | None]:
    if isinstance(grant, Grant):
        grant = grant.text()
    if not isinstance(grant, str):
        raise TensorTypeError(f"borrow: what Grant.text() gives is a str, not {type(grant).__name__}")
    encoded = grant.strip().removeprefix(_PREFIX)
    try:
        if encoded == grant.strip():
            raise ValueError
        told = json.loads(base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True))
        name, boot, keys = told["name"], told["boot"], told["keys"]
        if not (isinstance(name, str) and (keys is None or all(isinstance(key, str) for key in keys))):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise TensorValueError("borrow: this is not what Grant.text() has made; take it from there again") from None
    return name, boot, keys
