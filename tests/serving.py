"""A server of files on this machine that does as it is told, also wrong things."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Way = Callable[["_Handler", bytes], None]
"""A way to answer a request for a file of this content."""


@dataclass
class Asked:
    """One request, and how it was answered."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Server:
    """The server.

    Attributes:
        url: Its address, without the last slash.
        files: Content by path; another path is answered with 404.
        ways: How to answer the next requests for a path; then, or without any, as one should.
        tags: Entity tags by path; None: no mark at all. By default one that follows from the content.
        asked: All requests.
        go_on: Lets those that hang go on.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    ways: dict[str, list[Way]] = field(default_factory=lambda: defaultdict(list))
    tags: dict[str, str | None] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def sent(self, path: str) -> int:
        """How many bytes of a file were sent, in all."""
        return sum(asked.sent for asked in self.asked if asked.path == path)


class _Handler(BaseHTTPRequestHandler):
    served: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
        self.served.asked.append(self.asked)
        ways = self.served.ways[self.path]
        if ways:
            ways.pop(0)(self, self.served.files.get(self.path, b""))
        elif self.path in self.served.files:
            right(self, self.served.files[self.path])
        else:
            status(404)(self, b"")

    def head(self, code: int, length: int | None, **headers: str) -> None:
        self.asked.status = code
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), 4096):
                self.wfile.write(data[start : start + 4096])
                self.asked.sent += len(data[start : start + 4096])
        except OSError:
            pass  # nobody listens any more

    def marks(self, content: bytes) -> dict[str, str]:
        tag = self.served.tags.get(self.path, f'"{hash(content):x}"')
        return {} if tag is None else {"ETag": tag}


def right(handler: _Handler, content: bytes, upto: int | None = None, announced: int = 0) -> None:
    """All of the file, or the rest that was asked for; ``upto`` so many bytes of it, ``announced`` as so many more."""
    marks, start, code = handler.marks(content), 0, 200
    wanted, only_if = handler.asked.headers.get("range"), handler.asked.headers.get("if-range")
    if wanted is not None and (only_if is None or only_if == marks.get("ETag")):
        start, code = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
        if start >= len(content):
            handler.head(416, 0, Content_Range=f"bytes */{len(content)}")
            return
        marks["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    rest = content[start:]
    handler.head(code, len(rest) + announced, Connection="close", **marks)
    handler.body(rest if upto is None else rest[:upto])


def drop(upto: int) -> Way:
    """Ends the connection after so many bytes."""
    return lambda handler, content: right(handler, content, upto)


def reset(upto: int) -> Way:
    """Resets the connection after so many bytes."""

    def way(handler: _Handler, content: bytes) -> None:
        right(handler, content, upto)
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return way


def announce(more: int) -> Way:
    """Announces so many bytes more than there are, or less."""
    return lambda handler, content: right(handler, content, announced=more)


def hang(upto: int) -> Way:
    """Says nothing after so many bytes, until told to go on."""

    def way(handler: _Handler, content: bytes) -> None:
        right(handler, content, upto)
        handler.wfile.flush()
        handler.served.go_on.wait(20)

    return way


def whole(handler: _Handler, content: bytes) -> None:
    """All of the file, whatever was asked for."""
    handler.head(200, len(content), **handler.marks(content))
    handler.body(content)


def unannounced(upto: int | None = None) -> Way:
    """All of the file or a part of it, of unknown length."""

    def way(handler: _Handler, content: bytes) -> None:
        handler.head(200, None, Connection="close", **handler.marks(content))
        handler.body(content[:upto])

    return way


def other(content: bytes) -> Way:
    """Another file."""
    return lambda handler, _: right(handler, content)


def other_part(handler: _Handler, content: bytes) -> None:
    """Another part of the file than was asked for."""
    handler.head(206, len(content) - 7, Content_Range=f"bytes 7-{len(content) - 1}/{len(content)}")
    handler.body(content[7:])


def page(handler: _Handler, content: bytes) -> None:
    """A web page, called a file."""
    text = b"\n<!DOCTYPE html><html><body>please log in</body></html>"
    handler.head(200, len(text), Content_Type="application/octet-stream")
    handler.body(text)


def status(code: int, **headers: str) -> Way:
    """Nothing but a status."""
    return lambda handler, _: handler.head(code, 0, **headers)


def redirect(to: str, code: int = 302) -> Way:
    """Sends elsewhere."""
    return status(code, Location=to)


@contextmanager
def serving(version: str = "HTTP/1.0") -> Iterator[Server]:
    """Yields a server that speaks this version."""
    handler = type("Handler", (_Handler,), {"protocol_version": version})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        server = Server(f"http://127.0.0.1:{http.server_address[1]}")
        handler.served = server  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            http.shutdown()
            thread.join()
