"""What is said on a connection of the data endpoint, beside the bytes that are moved.

    client: OPENING, ticket, nonce      server: OPENING, nonce, proof       client: proof

and then, transfer after transfer,

    client: length, OpenTransferRequest
    upload      client: bytes                                       server: WAIT now and then, DONE or FAILED
    download    server: NO_ANSWER_YET now and then, length, OpenTransferResponse, bytes, DONE or FAILED

A server that sends to another one is the client there. Its ticket follows from the key, so that whoever has it connect
somewhere does not choose what it says.

Over memory that is shared, the server says after the proofs how many slots there are and how large they are, and SLOT
in place of the bytes of a slot. Knows no sockets.
"""

from __future__ import annotations

import hmac
import struct
from typing import Literal

OPENING = b"tdt2"
TICKET_BYTES = 16
KEY_BYTES = 32
NONCE_BYTES = 16
PROOF_BYTES = 32
# A peer that neither sends nor takes anything for so long has gone: one that is busy says so more often.
STALL_S = 20.0

DONE, FAILED, WAIT = b"\0", b"\1", b"\2"
# The length of what comes behind it; one of 0 says that an answer will come.
LENGTH = struct.Struct(">I")
NO_ANSWER_YET = LENGTH.pack(0)

# How many slots the memory has, and their bytes.
SHAPE = struct.Struct(">II")
# A slot was filled, or emptied.
SLOT = b"\0"


def ticket_of(key: bytes) -> bytes:
    """The ticket that goes with a key."""
    return hmac.digest(key, b"ticket", "sha256")[:TICKET_BYTES]


def proof(key: bytes, side: Literal["client", "server"], nonces: bytes) -> bytes:
    """What shows that a side has the key of the ticket; `nonces` are the client's and then the server's."""
    return hmac.digest(key, side.encode() + nonces, "sha256")


def proves(said: bytes, key: bytes, side: Literal["client", "server"], nonces: bytes) -> bool:
    """Whether these bytes are that side's proof."""
    return hmac.compare_digest(said, proof(key, side, nonces))


def sized(message: bytes) -> bytes:
    """A message with its length before it."""
    return LENGTH.pack(len(message)) + message
