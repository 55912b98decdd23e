"""All sessions of a server: made, found by their secret, ended when their lease runs out.

A secret begins with the boot id, so that a secret of an earlier run is told from one that never was.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING

from tserver.config import MAX_PROTOCOL, MIN_PROTOCOL, Config
from tserver.errors import Exhausted, SessionLost, Stopping, Unauthenticated, Unreachable, VersionMismatch
from tserver.identity import Identity
from tserver.session.attachment import post
from tserver.session.keeping import KeptSessions
from tserver.session.secret import BOOT_BYTES, RANDOM_BYTES, SECRET_BYTES, boot_of, of_an_earlier_run
from tserver.session.session import Session, Taken, taken_over

if TYPE_CHECKING:
    from tserver.engine.engine import Engine
    from tserver.limits.account import Accounts

log = logging.getLogger("tserver.session")

# How many ended sessions are remembered, so that their clients can be told why.
_REMEMBERED = 4096
# How long new sessions are refused at least, before gRPC stops.
_REFUSING_S = 0.5
# How many secrets of a session are remembered that it had before somebody attached to it.
_FORMER = 16
# Of the time there is to stop, what may be used to keep sessions; and of that, to find a point where they may rest.
_KEEPING_SHARE = 0.8
_RESTING_SHARE = 0.4
# How often it is looked for kept sessions whose time is over.
_SWEEP_S = 60.0


class Sessions:
    """The sessions of one run of the server."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        *,
        previous_end: str,
        accounts: Accounts,
        kept: KeptSessions | None = None,
        is_of_house: bool = False,
    ) -> None:
        """`kept` is where those are that an earlier process has kept, and where they go when this one ends. In a house
        its front says which engine goes on with one.
        """
        self.boot_id = secrets.token_hex(BOOT_BYTES)
        self._config = config
        self._engine = engine
        self._previous_end = previous_end
        self._by_secret: dict[bytes, Session] = {}
        self._shared: dict[str, Session] = {}
        # By the secrets that they had before somebody attached to them.
        self._by_former: dict[bytes, Session] = {}
        # Why those ended that are not there any more, and whose they were.
        self._ended: dict[bytes, tuple[str, str]] = {}
        self._stopping = False
        self._kept = kept
        self._is_of_house = is_of_house
        # Whose limits hold for whose sessions.
        self._accounts = accounts

    def __len__(self) -> int:
        return len(self._by_secret)

    def open(self, identity: Identity, min_protocol: int, max_protocol: int) -> tuple[Session, int]:
        """A new session, and the protocol version that both speak.

        Raises: VersionMismatch, Exhausted, Stopping.
        """
        protocol = _agreed(min_protocol, max_protocol)
        return self._make(identity), protocol

    async def attach(
        self, secret: bytes, identity: Identity, attempt: bytes, min_protocol: int, max_protocol: int
    ) -> tuple[Taken, int]:
        """The session with that secret, or that had it once, for somebody new; and the protocol that both speak.

        Who had it is fenced at once. Raises: VersionMismatch; as `find`.
        """
        protocol = _agreed(min_protocol, max_protocol)
        session = self._by_former.get(secret)
        if session is None or not _is_of(session, identity):
            session = self.find(secret, identity)
        if session.taking is None or not attempt or session.attempt != attempt:
            session = self._succeed(session)
            session.attempt = attempt
            session.taking = asyncio.create_task(_take(session))
        # Shielded: whoever asks again for the same is given the same.
        return await asyncio.shield(session.taking), protocol

    def _succeed(self, before: Session) -> Session:
        """The same session under another secret, in the place of who had it."""
        session = Session(self._new_secret(), before.principal, before.queue, config=self._config, before=before)
        session.shared_by = before.shared_by
        former = [*before.former, before.secret]
        # The first one may be all that somebody has, and the last ones are in use.
        session.former = tuple(former if len(former) <= _FORMER else [former[0], *former[1 - _FORMER :]])
        self._by_secret.pop(before.secret, None)
        for each in before.former:
            self._by_former.pop(each, None)
        self._by_secret[session.secret] = session
        self._by_former.update(dict.fromkeys(session.former, session))
        return session

    def find(self, secret: bytes, identity: Identity) -> Session:
        """The session with that secret.

        Raises: SessionLost if it ended, or was of an earlier run; Superseded if somebody has attached to it;
        Unauthenticated if it never was, or is another's.
        """
        session = self._by_secret.get(secret)
        # Looked up by hash, then compared in constant time: the time it takes tells nothing about a secret.
        if session is not None and hmac.compare_digest(session.secret, secret) and _is_of(session, identity):
            return _as_of_now(session, identity)
        successor = self._by_former.get(secret)
        if successor is not None and _is_of(successor, identity):
            raise taken_over()
        principal, cause = self._ended.get(secret, ("", ""))
        if principal and principal == identity.principal:
            raise SessionLost(f"the session ended: {cause}; open a new one", cause=cause)
        if len(secret) == SECRET_BYTES and boot_of(secret) != self.boot_id:
            if self._kept is not None and self._is_of_house:
                # Another engine may have it by now, which had not this place before.
                raise Unreachable("the session is not here; its house knows where it is: ask at its address")
            return self._go_on(secret, identity)
        raise Unauthenticated("no session has this secret; open a session")

    def has(self, secret: bytes, identity: Identity) -> bool:
        """Whether the session of a caller is here."""
        session = self._by_secret.get(secret) or self._by_former.get(secret)
        return session is not None and _is_of(session, identity)

    def bring_back(self, secret: bytes, identity: Identity) -> None:
        """Go on with a session that an engine of the house has kept, if it is not here yet.

        Raises: SessionLost where nothing is kept of it, or another one is quicker; Stopping, Exhausted.
        """
        if not self.has(secret, identity):
            self._go_on(secret, identity)

    def find_to_close(self, secret: bytes, identity: Identity) -> Session | None:
        """As `find`, but None for a session that has ended: closing it again is no error."""
        try:
            return self.find(secret, identity)
        except SessionLost:
            return None

    def resolve(self, secret: bytes, identity: Identity) -> Session:
        """The session with that secret, or without one, the session that the principal's callers share."""
        return self.find(secret, identity) if secret else self.shared(identity)

    def shared(self, identity: Identity) -> Session:
        """The session of all callers of a principal who have none of their own; of an anonymous one's connection."""
        whose = identity.without_session
        session = self._shared.get(whose)
        if session is None or session.secret not in self._by_secret:
            session = self._shared[whose] = self._make(identity)
            session.shared_by = whose
        return _as_of_now(session, identity)

    def visible(self, identity: Identity) -> list[Session]:
        """The sessions that a caller may be shown: its own, and to an administrator all."""
        return [each for each in self._by_secret.values() if identity.sees(each.principal)]

    def close(self, session: Session, cause: str) -> None:
        """End a session."""
        self._by_secret.pop(session.secret, None)
        if self._shared.get(session.shared_by) is session:
            del self._shared[session.shared_by]
        session.end(cause)
        log.info("session ended", extra={"session": session.id, "principal": session.principal, "cause": cause})
        for each in session.former:
            self._by_former.pop(each, None)
            self._ended[each] = session.principal, cause
        self._ended[session.secret] = session.principal, cause
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def _go_on(self, secret: bytes, identity: Identity) -> Session:
        """A session of an earlier run, if that has kept it. Raises: SessionLost, Stopping, Exhausted."""
        head = None if self._kept is None else self._kept.find(secret, identity.principal)
        if self._kept is None or head is None:
            raise of_an_earlier_run(self._previous_end)
        self._check_room()
        kept, folder = self._kept, self._kept.take(secret)
        if folder is None:
            raise of_an_earlier_run(self._previous_end)
        queue = self._engine.open_queue(head.principal, identity.namespace)
        session = Session(secret, head.principal, queue, config=self._config)
        self._by_secret[secret] = session
        loop = asyncio.get_running_loop()

        def done(cause: str) -> None:
            if cause:
                log.error("a session could not be brought back", extra={"session": session.id, "cause": cause})
                post(loop, self.close, session, cause)
            post(loop, loop.run_in_executor, None, kept.drop, folder)

        session.go_on(head, folder, done)
        log.info("session goes on after a restart", extra={"session": session.id, "sessions": len(self._by_secret)})
        return session

    async def expire(self) -> None:
        """End sessions whose lease has run out, and give back memory that nobody needs, for ever."""
        swept_at = -math.inf
        while True:
            if self._kept is not None and time.monotonic() > swept_at + _SWEEP_S:
                swept_at = time.monotonic()
                await asyncio.to_thread(self._kept.sweep)
            await asyncio.sleep(min(1.0, self._config.lease_s / 4))
            now = time.monotonic()
            for session in [session for session in self._by_secret.values() if session.expired(now)]:
                self.close(session, f"its lease of {session.lease_s:g} s ran out with no client attached")
            self._engine.memory.trim()
            if self._accounts.look():
                self._engine.limits_changed()

    async def drain(self, timeout_s: float) -> None:
        """Take no new sessions, and wait until no batch is under way, or all sessions are kept for the next process."""
        self._stopping = True
        began = time.monotonic()
        sessions = list(self._by_secret.values())
        if self._kept is not None:
            kept = [session for session in sessions if not session.shared_by]
            await self._keep(self._kept, kept, began + timeout_s * _KEEPING_SHARE)
        for session in sessions:
            await session.idle(began + timeout_s - time.monotonic())
        if self._by_secret:
            # gRPC only cancels what comes while it stops; clients that are there should hear the reason.
            await asyncio.sleep(began + min(timeout_s, _REFUSING_S) - time.monotonic())

    async def _keep(self, kept: KeptSessions, sessions: list[Session], until: float) -> None:
        """Bring sessions to rest, and write down those that do so in time."""
        now = time.monotonic()
        resting = [(session, *session.come_to_rest()) for session in sessions]
        if not resting:
            return
        # Most of the time is for writing.
        patience_s = max(0.0, until - now) * _RESTING_SHARE
        await asyncio.wait([rested for _, _, rested in resting], timeout=patience_s)
        for _, rest, _ in resting:
            rest.now()
        number, device = 0, str(self._engine.device).partition(":")[0]
        for session, _, rested in resting:
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await rested
                    await session.idle(until - time.monotonic())
                    folder = await asyncio.to_thread(kept.begin)
                    try:
                        head = await session.save(folder, device)
                        await asyncio.to_thread(kept.finish, folder, session.secret, head)
                        number += 1
                    except BaseException:
                        kept.drop(folder)
                        raise
            except TimeoutError:
                log.warning("there was no time to keep a session", extra={"session": session.id})
            except Exception:
                log.exception("a session could not be kept", extra={"session": session.id})
        log.info("sessions are kept for the next process", extra={"kept": number, "of": len(sessions)})

    def _check_room(self) -> None:
        """Raises: Stopping, Exhausted."""
        if self._stopping:
            raise Stopping("the server is stopping; retry later")
        if len(self._by_secret) >= self._config.max_sessions:
            raise Exhausted(
                f"{len(self._by_secret)} sessions are open, which is the limit; close one, or retry later",
                retry_after_s="1",
            )

    def _make(self, identity: Identity) -> Session:
        self._check_room()
        account = self._accounts.of(identity.principal)
        account.check("sessions", self.count_of(identity.principal))
        queue = self._engine.open_queue(identity.principal, identity.namespace)
        session = Session(self._new_secret(), identity.principal, queue, config=self._config)
        self._by_secret[session.secret] = session
        return session

    def count_of(self, principal: str) -> int:
        """How many sessions a principal has, with those on disk that it may come back to."""
        waiting = 0 if self._kept is None or self._is_of_house else self._kept.waiting(principal)
        return waiting + sum(each.principal == principal for each in self._by_secret.values())

    def by_principal(self) -> Counter[str]:
        """How many sessions each principal has that are open."""
        return Counter(each.principal for each in self._by_secret.copy().values())

    def _new_secret(self) -> bytes:
        return bytes.fromhex(self.boot_id) + secrets.token_bytes(RANDOM_BYTES)


def _is_of(session: Session, identity: Identity) -> bool:
    """Whether the caller is whose session it is."""
    return session.principal == identity.principal


def _as_of_now(session: Session, identity: Identity) -> Session:
    """The session; what its calls may name follows the role of who calls, which may be another one than it was."""
    session.queue.store.namespace = identity.namespace
    return session


def _agreed(min_protocol: int, max_protocol: int) -> int:
    """The protocol version that both speak. Raises: VersionMismatch."""
    if min_protocol > MAX_PROTOCOL or max_protocol < MIN_PROTOCOL:
        raise VersionMismatch(
            f"the client speaks protocol {min_protocol} to {max_protocol}, "
            f"this server {MIN_PROTOCOL} to {MAX_PROTOCOL}; upgrade the older side"
        )
    return min(max_protocol, MAX_PROTOCOL)


async def _take(session: Session) -> Taken:
    """What is told to the new holder of a session, when all has run that came from the one before."""
    errors = await session.taken()
    return Taken(session, session.received, await session.begin_anew(), errors)
