"""gzip and deflate of HTTP bodies.

A few bytes may stand for gigabytes: what comes out is given in pieces, so that whoever takes them can count.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from tserver.errors import InvalidArgument, Unimplemented

# Of zlib: the window, and 16 more for gzip's header. What HTTP calls deflate is zlib's own form.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_PIECE_BYTES = 1 << 20
# Fast: tensors hardly become smaller by more work.
_LEVEL = 1


class UnsupportedEncoding(Unimplemented):
    """A body in an encoding that is not served."""

    reason = "UNSUPPORTED_ENCODING"


class Inflater:
    """What a body in an encoding says."""

    def __init__(self, encoding: str) -> None:
        """Raises: UnsupportedEncoding."""
        if encoding not in _WINDOWS:
            raise UnsupportedEncoding(
                f"bodies in the Content-Encoding {encoding[:100]!r} are not served; use gzip, deflate or none"
            )
        self._encoding = encoding
        self._stream = zlib.decompressobj(_WINDOWS[encoding])

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What more is known by more of the body, in pieces of at most a MiB. Raises: InvalidArgument."""
        rest = data
        while True:
            if self._stream.eof:
                if rest or self._stream.unused_data:
                    raise self._malformed("there is more behind its end")
                return
            try:
                piece = self._stream.decompress(rest, _PIECE_BYTES)
            except zlib.error as error:
                raise self._malformed(str(error)) from None
            rest = self._stream.unconsumed_tail
            if piece:
                yield piece
            if not rest and len(piece) < _PIECE_BYTES and not self._stream.unused_data:
                return

    def end(self) -> None:
        """The body has ended. Raises: InvalidArgument if that is in the middle."""
        if not self._stream.eof:
            raise self._malformed("it ends in the middle")

    def _malformed(self, cause: str) -> InvalidArgument:
        return InvalidArgument(f"the body is not {self._encoding}, as its Content-Encoding says: {cause}")


def wanted(accept: str) -> str:
    """The encoding that a caller with that Accept-Encoding likes best, of those that are served; empty is none."""
    found: dict[str, float] = {}
    for each in accept.lower().split(",")[:20]:
        name, *parameters = (part.strip() for part in each.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        found[name] = quality
    best = max(("gzip", "deflate"), key=lambda name: found.get(name, 0.0))
    return best if found.get(best, 0.0) > 0 else ""


def deflated(parts: Sequence[bytes | memoryview], encoding: str) -> bytes:
    """A body in that encoding."""
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[encoding])
    return b"".join([*(stream.compress(part) for part in parts), stream.flush()])
