"""Certificates and keys in PEM: the first of a file, from when to when it is good, and why a pair cannot be used.

Read by what Python has. For servers and clients alike, whoever has shown them.
"""

from __future__ import annotations

import calendar
import ssl
import time

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# Of DER: what a sequence begins with, the version of a certificate, and a time with four digits for the year.
_SEQUENCE, _VERSION, _LONG_TIME = 0x30, 0xA0, 0x18


def pair_fault(cert: str, key: str) -> str:
    """Why a certificate and a key cannot be used together; empty where they can."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=no_password)
    except ssl.SSLError as error:
        return fault(error)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def fault(error: ssl.SSLError) -> str:
    """Why files cannot be used, in words."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return f"a file is not what it should be in PEM ({error.reason or error})"


def no_password() -> str:
    """What ssl is given to ask for a password by: without it, an encrypted key would have it ask on the terminal.

    Raises: ValueError.
    """
    raise ValueError("the key is encrypted; decrypt it, and keep the file private")


def first(pem: bytes) -> bytes:
    """The first certificate of a chain, in DER. Raises: ValueError."""
    text = pem.decode("ascii", "replace")
    begin, end = text.find(_BEGIN), text.find(_END)
    if begin < 0 or end < begin:
        raise ValueError("there is no certificate in it")
    return ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)])


def validity(der: bytes) -> tuple[float, float]:
    """From when to when a certificate is good, in seconds since 1970 (RFC 5280, section 4.1). Raises: ValueError."""
    try:
        _, at, _ = _element(der, 0)
        tag, at, _ = _element(der, at)
        if tag != _SEQUENCE:
            raise IndexError
        if der[at] == _VERSION:
            at = _element(der, at)[2]
        # The serial number, the kind of signature, and who has signed.
        for _ in range(3):
            at = _element(der, at)[2]
        _, at, _ = _element(der, at)
        tag, at, then = _element(der, at)
        from_s = _moment(tag, der[at:then])
        tag, at, end = _element(der, then)
        return from_s, _moment(tag, der[at:end])
    except (IndexError, ValueError):
        raise ValueError("it is no certificate") from None


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of what begins there, where its content begins, and where it ends."""
    tag, length = der[at], der[at + 1]
    at += 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[at : at + count], "big")
        at += count
    return tag, at, at + length


def _moment(tag: int, text: bytes) -> float:
    form = "%Y%m%d%H%M%SZ" if tag == _LONG_TIME else "%y%m%d%H%M%SZ"
    found = time.strptime(text.decode("ascii", "replace"), form)
    # Two digits are of 1950 to 2049; Python takes 69 to 99 for 1969 to 1999, and what is before for 2000 on.
    year = found.tm_year - 100 if tag != _LONG_TIME and found.tm_year >= 2050 else found.tm_year
    return float(calendar.timegm((year, *found[1:6], 0, 1, 0)))
