"""What is said on a connection of the data endpoint."""

from __future__ import annotations

import hmac
import struct

import pytest

from tensorcompute.wire import data_endpoint as said

_KEY, _NONCES = b"k" * 32, bytes(range(2 * said.NONCE_BYTES))


def test_a_proof_is_a_digest_of_the_side_and_both_nonces() -> None:
    made = said.proof(_KEY, "server", _NONCES)
    assert made == hmac.new(_KEY, b"server" + _NONCES, "sha256").digest()
    assert len(made) == said.PROOF_BYTES
    assert said.proves(made, _KEY, "server", _NONCES)


@pytest.mark.parametrize(
    "claimed",
    [
        pytest.param(said.proof(_KEY, "client", _NONCES), id="the other side's"),
        pytest.param(said.proof(b"x" * 32, "server", _NONCES), id="of another key"),
        pytest.param(said.proof(_KEY, "server", _NONCES[::-1]), id="of other nonces"),
        pytest.param(b"", id="nothing"),
        pytest.param(said.proof(_KEY, "server", _NONCES)[:-1], id="cut"),
    ],
)
def test_what_is_no_proof_is_refused(claimed: bytes) -> None:
    assert not said.proves(claimed, _KEY, "server", _NONCES)


def test_a_message_has_its_length_before_it_and_none_has_the_length_zero() -> None:
    assert said.sized(b"abc") == struct.pack(">I", 3) + b"abc"
    assert said.sized(b"") == said.NO_ANSWER_YET
