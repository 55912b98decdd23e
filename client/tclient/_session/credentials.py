"""What somebody needs to take a session over from another process: where it is, and its secret.

Knows files; does not know sessions. The token of who may use it is not in it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
import stat
from dataclasses import asdict, dataclass, field

# What the text begins with, and the version of what follows.
_PREFIX = "tcsession1."
_PRIVATE = 0o600
_MAX_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class SessionCredentials:
    """A session that another process may take over with `tclient.attach`, as can who has these and is of its principal.

    What is printed does not show the secret; `text()` and `save` do.
    """

    address: str
    secret: bytes = field(repr=False)
    # As that of connect: empty is plain text, "1" the authorities that the machine knows, else a PEM file of those.
    tls: str = ""

    @property
    def trusts(self) -> bool | str:
        """What `connect` is given as tls."""
        return self.tls == "1" or self.tls or False

    def text(self) -> str:
        """All of it as one word, such as a variable of the environment may hold."""
        told = {**asdict(self), "secret": self.secret.hex()}
        data = json.dumps(told, separators=(",", ":")).encode()
        return _PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> SessionCredentials:
        """What `text` made. Raises: ValueError."""
        text = text.strip()
        encoded = text.removeprefix(_PREFIX)
        try:
            if encoded == text:
                raise ValueError
            told = json.loads(base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True))
            address, secret, tls = told["address"], told["secret"], told["tls"]
            if not (isinstance(address, str) and isinstance(tls, str)):
                raise ValueError
            return cls(address, bytes.fromhex(secret), tls)
        except (ValueError, KeyError, TypeError, binascii.Error):
            # Without a cause: what was given may be nearly a secret.
            raise ValueError("this is not what SessionCredentials.text() has made; take it from there again") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file that its owner alone can read, in the place of one that is there. Raises: OSError."""
        path = os.fspath(path)
        beside = f"{path}.{secrets.token_hex(4)}"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(self.text() + "\n")
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SessionCredentials:
        """What `save` has written. Raises: OSError; PermissionError if others may read the file; ValueError."""
        path = os.fspath(path)
        with open(path, encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
                raise PermissionError(f"others may read {path}, which holds the secret of a session: chmod 600 {path}")
            text = file.read(_MAX_CHARACTERS)
        try:
            return cls.of(text)
        except ValueError:
            raise ValueError(f"{path} does not hold credentials that SessionCredentials.save() has written") from None


def given_credentials(given: SessionCredentials | str | os.PathLike[str]) -> SessionCredentials:
    """Credentials, their text, or the file that they are in. Raises: OSError, ValueError, TypeError."""
    if isinstance(given, SessionCredentials):
        return given
    if isinstance(given, str) and given.strip().startswith(_PREFIX):
        return SessionCredentials.of(given)
    if isinstance(given, (str, os.PathLike)):
        return SessionCredentials.load(given)
    raise TypeError(f"credentials are SessionCredentials, their text, or a path, not {type(given).__name__}")
