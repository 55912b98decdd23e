"""Bytes over plain TCP: the most that a socket between two Python processes moves.

A request is one letter and a length; an upload is answered by one byte, a download by its bytes. Memory is kept
between requests, so no page is touched for the first time while the clock runs.
"""

from __future__ import annotations

import socket
import struct

UPLOAD, DOWNLOAD = b"U", b"D"
HEADER = struct.Struct("<cQ")


def header(kind: bytes, size_bytes: int) -> bytes:
    """What a request begins with."""
    return HEADER.pack(kind, size_bytes)


def answer(connection: socket.socket) -> None:
    """Answer requests until the other side leaves."""
    memory = memoryview(bytearray())
    while received := connection.recv(HEADER.size, socket.MSG_WAITALL):
        kind, size_bytes = HEADER.unpack(received)
        if len(memory) < size_bytes:
            memory = memoryview(bytearray(b"\1") * size_bytes)
        if kind == UPLOAD:
            place = 0
            while place < size_bytes:
                place += connection.recv_into(memory[place:size_bytes])
            connection.sendall(b".")
        else:
            connection.sendall(memory[:size_bytes])


def main() -> None:
    """Serve one connection after the other on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answer(connection)


if __name__ == "__main__":
    main()
