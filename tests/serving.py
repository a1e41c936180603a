"""A file server on this machine that can be made to misbehave."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Way = Callable[["_Handler", bytes], None]
"""Answers a request for a file with this content."""


@dataclass
class Request:
    """A request, and its answer."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Server:
    """The server.

    Attributes:
        url: Its URL, without a final slash.
        files: Content by path; other paths are answered with 404.
        ways: Answers to the next requests for a path; without any, the server answers correctly.
        tags: Entity tags by path; None: no tag. The default is derived from the content.
        asked: All requests.
        resume: Releases the requests that hang.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    ways: dict[str, list[Way]] = field(default_factory=lambda: defaultdict(list))
    tags: dict[str, str | None] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    resume: threading.Event = field(default_factory=threading.Event)

    def sent(self, path: str) -> int:
        """Returns the total number of bytes of a file that were sent."""
        return sum(asked.sent for asked in self.asked if asked.path == path)


class _Handler(BaseHTTPRequestHandler):
    served: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked = Request(self.path, {name.lower(): value for name, value in self.headers.items()})
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
            pass  # the client has closed the connection

    def marks(self, content: bytes) -> dict[str, str]:
        tag = self.served.tags.get(self.path, f'"{hash(content):x}"')
        return {} if tag is None else {"ETag": tag}


def right(handler: _Handler, content: bytes, upto: int | None = None, announced: int = 0) -> None:
    """Sends the file or the requested rest; only the first ``upto`` bytes, and announces ``announced`` bytes more."""
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
    """Closes the connection after some bytes."""
    return lambda handler, content: right(handler, content, upto)


def reset(upto: int) -> Way:
    """Resets the connection after some bytes."""

    def way(handler: _Handler, content: bytes) -> None:
        right(handler, content, upto)
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return way


def announce(more: int) -> Way:
    """Announces a size that is wrong by ``more`` bytes."""
    return lambda handler, content: right(handler, content, announced=more)


def hang(upto: int) -> Way:
    """Stops sending after some bytes, until ``resume`` is set."""

    def way(handler: _Handler, content: bytes) -> None:
        right(handler, content, upto)
        handler.wfile.flush()
        handler.served.resume.wait(20)

    return way


def whole(handler: _Handler, content: bytes) -> None:
    """Sends the complete file, even if a range was requested."""
    handler.head(200, len(content), **handler.marks(content))
    handler.body(content)


def unannounced(upto: int | None = None) -> Way:
    """Sends the file, or a part of it, without a length."""

    def way(handler: _Handler, content: bytes) -> None:
        handler.head(200, None, Connection="close", **handler.marks(content))
        handler.body(content[:upto])

    return way


def other(content: bytes) -> Way:
    """Sends another file."""
    return lambda handler, _: right(handler, content)


def other_part(handler: _Handler, content: bytes) -> None:
    """Sends another range than requested."""
    handler.head(206, len(content) - 7, Content_Range=f"bytes 7-{len(content) - 1}/{len(content)}")
    handler.body(content[7:])


def page(handler: _Handler, content: bytes) -> None:
    """Sends a web page in place of the file."""
    text = b"\n<!DOCTYPE html><html><body>please log in</body></html>"
    handler.head(200, len(text), Content_Type="application/octet-stream")
    handler.body(text)


def status(code: int, **headers: str) -> Way:
    """Sends a status only."""
    return lambda handler, _: handler.head(code, 0, **headers)


def redirect(to: str, code: int = 302) -> Way:
    """Redirects to another URL."""
    return status(code, Location=to)


@contextmanager
def serving(version: str = "HTTP/1.0") -> Iterator[Server]:
    """Yields a server with this HTTP version."""
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
            server.resume.set()
            http.shutdown()
            thread.join()
