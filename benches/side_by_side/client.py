"""One request at a time over one connection: to check what a proxy answers, and to count its instructions."""

import http.client
import socket


class Connection:
    """A keep-alive connection to `ip:port`."""

    def __init__(self, authority: str) -> None:
        host, port = authority.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Sends the request in one write, as load generators do, and reads the whole answer: status and body."""
        self._socket.sendall(request)
        answer = http.client.HTTPResponse(self._socket, method=request.split(b" ", 1)[0].decode())
        try:
            answer.begin()
            return answer.status, answer.read()
        finally:
            answer.close()


def fetch(authority: str, request: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    with Connection(authority) as connection:
        return connection.exchange(request)
