"""The least that two processes can say to each other: 16 bytes over TCP, and the same bytes back."""

from __future__ import annotations

import socket

SIZE_BYTES = 16


def main() -> None:
    """Serve on a free port, one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                while data := connection.recv(SIZE_BYTES):
                    connection.sendall(data)


if __name__ == "__main__":
    main()
