"""A live server of the page, reachable from this machine only.

The page is served without curves and spikes, fetches those that it shows, and asks every two seconds for the rest.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from plifctl.errors import MachineError, PlifctlError, UsageError
from plifctl.report.page.build import embed_json, render_page

HOST = "127.0.0.1"
POLL_MS = 2000
_MAX_AGE_S = 1.0
_PIECE = 1 << 16
"""Bytes that are sent at once: the timeout of a connection is that of a whole piece."""

_LAST_PORT = 65535


class Page:
    """The page and its data, read again at most once a second.

    Args:
        data: Returns the current data.
    """

    def __init__(self, data: Callable[[], dict[str, Any]]) -> None:
        self._data, self._lock = data, threading.Lock()
        self._read_at = -_MAX_AGE_S
        self._current: dict[str, Any] = {}

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Returns content type and body of a path; there are ``/``, ``/data.json`` and ``/parts/DIGEST``."""
        if path == "/":
            return "text/html; charset=utf-8", render_page(self._without_parts(), live_ms=POLL_MS).encode()
        if path == "/data.json":
            return "application/json", embed_json(self._without_parts()).encode()
        part = self._current_data()["parts"].get(path.removeprefix("/parts/")) if path.startswith("/parts/") else None
        return None if part is None else ("application/json", embed_json(part).encode())

    def _without_parts(self) -> dict[str, Any]:
        return {**self._current_data(), "parts": {}}

    def _current_data(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() - self._read_at >= _MAX_AGE_S:
                self._current = self._data()
                self._read_at = time.monotonic()
            return self._current


def create_server(data: Callable[[], dict[str, Any]], port: int) -> ThreadingHTTPServer:
    """Returns a server of the page, bound to the loopback address; ``serve_forever()`` runs it.

    Args:
        data: Returns the current data.
        port: Port; 0 picks a free one.

    Raises:
        UsageError: The port is in use.
        MachineError: The port needs privileges.
    """
    page = Page(data)

    class Handler(_Handler):
        answer = staticmethod(page.answer)

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except PermissionError as error:
        raise MachineError(f"port {port}: permission denied", hint="choose one from 1024 on: --port 8765") from error
    except OSError as error:
        other = port + 1 if port < _LAST_PORT else port - 1
        raise UsageError(f"port {port}: {error.strerror}", hint=f"choose another: --port {other}") from error
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer
    answer: Callable[[str], tuple[str, bytes] | None]
    server_version, sys_version = "plifctl", ""
    timeout = 30

    def do_GET(self) -> None:
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        self._reply(with_body=False)

    def _reply(self, *, with_body: bool) -> None:
        if not self._is_local_host():
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is served to this machine only\n", with_body)
            return
        try:
            found = self.answer(self.path.partition("?")[0])
        except (PlifctlError, OSError) as error:
            line = f"{error}\n".encode(errors="backslashreplace")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", line, with_body)
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found: the page is at /\n", with_body)
            return
        kind, body = found
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, kind, b"", with_body, tag)
        else:
            self._send(HTTPStatus.OK, kind, body, with_body, tag)

    def _is_local_host(self) -> bool:
        """Returns whether the Host header names this machine; another name could resolve to it (DNS rebinding)."""
        return self.headers.get("Host", "").partition(":")[0] in (HOST, "localhost")  # a tunnel may have another port

    def _send(self, status: HTTPStatus, kind: str, body: bytes, with_body: bool, tag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if tag:
            self.send_header("ETag", tag)
        with suppress(ConnectionError):  # the page was closed meanwhile
            self.end_headers()
            for start in range(0, len(body) if with_body else 0, _PIECE):
                self.wfile.write(body[start : start + _PIECE])

    def log_message(self, format: str, *args: object) -> None:
        """Logs no requests."""
