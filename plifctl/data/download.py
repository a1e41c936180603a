"""Downloads of published files: a file appears complete and with the published checksum, or not at all.

Built on urllib: pooch, the usual choice, starts an interrupted download again and knows one URL for each file. An
unfinished download is kept beside the file, as ``NAME.part`` and ``NAME.part.json``, and resumed by the next attempt,
of this process or of a later one. A file is correct if its md5 is; the size that a server announces only decides
whether to try again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from itertools import chain
from pathlib import Path
from typing import cast
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from plifctl import __version__, files
from plifctl.data.source import RemoteFile
from plifctl.errors import ChecksumError, RawDataError

DownloadProgress = Callable[[str, int, int | None], None]
"""Called with a file's name, the number of bytes received, and the total where it is known."""

TIMEOUT_S = 20.0
"""Time to wait for a connection and for each byte, seconds."""

ATTEMPTS = 5
"""Number of failures in a row, without receiving anything, after which a URL is given up."""

_CONNECTION_ATTEMPTS = 2  # for a URL that never answered, so that an offline machine reports soon
_PROGRESS_BYTES = 2**20  # an attempt that received as many is not counted as a failure
_MAX_PAUSE_S = 30.0
_CHUNK_BYTES = 2**18
_AGENT = f"Mozilla/5.0 (compatible; plifctl/{__version__})"  # some servers refuse clients that are not browsers
_WEB_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|\?xml)\b", re.IGNORECASE)

_log = logging.getLogger(__name__)


def download(
    remote_files: Sequence[RemoteFile],
    folder: Path,
    progress: DownloadProgress = lambda name, done, total: None,
    *,
    timeout: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Downloads the files that do not exist yet; existing files are not touched.

    Args:
        remote_files: The files.
        folder: Folder that they are written to; created if missing. Other processes that download to it wait.
        progress: Called as bytes are received.
        timeout: Time to wait for a connection and for each byte, seconds.
        sleep: Waits before the next attempt.

    Raises:
        RawDataError: A file could not be downloaded; the message has the failure at each URL, the hint what to do.
        ChecksumError: Every URL serves another file.
        MachineError: The disk is full, or the folder cannot be written; the bytes received so far are kept.
    """
    opener = _opener()
    with files.waiting_lock(folder / ".download.lock", f"another process downloads to {folder}; waiting for it"):
        for file in remote_files:
            if not (folder / file.name).exists():
                _Download(file, folder, opener, progress, timeout, sleep).run()


class _AttemptFailed(Exception):
    """An attempt failed.

    Args:
        message: What happened.
        attempts: Number of such failures in a row after which the URL is given up.
    """

    def __init__(self, message: str, *, attempts: int = ATTEMPTS) -> None:
        super().__init__(message)
        self.attempts = attempts


class _NoConnection(_AttemptFailed):
    """The server did not answer."""


class _WrongContent(_AttemptFailed):
    """The URL serves another file."""


class _RangeNotSatisfiable(_AttemptFailed):
    """The file at the URL has no bytes from the requested offset on."""


class _Download:
    """The download of one file.

    Attributes:
        part: File with the bytes received so far.
        note: JSON file with their URL, and the entity tag or date by which a changed file is recognised.
    """

    def __init__(
        self,
        file: RemoteFile,
        folder: Path,
        opener: request.OpenerDirector,
        progress: DownloadProgress,
        timeout: float,
        sleep: Callable[[float], None],
    ) -> None:
        self.file, self.folder, self._opener, self._progress = file, folder, opener, progress
        self._timeout, self._sleep = timeout, sleep
        self.part = folder / f"{file.name}.part"
        self.note = folder / f"{file.name}.part.json"
        self._answered: set[str] = set()

    def run(self) -> None:
        """Tries the URLs in turn."""
        failures: dict[str, _AttemptFailed] = {}
        for url in self.file.urls:
            try:
                self._try_repeatedly(url)
            except _AttemptFailed as failure:
                _log.info("%s: %s", url, failure)
                failures[url] = failure
            else:
                with files.machine_errors(self.part):
                    self.part.replace(self.folder / self.file.name)
                    self.note.unlink(missing_ok=True)
                return
        raise self._error(failures)

    def _error(self, failures: dict[str, _AttemptFailed]) -> RawDataError:
        tried = "".join(f"\n  {url}: {failure}" for url, failure in failures.items()) or " no URL is known"
        message = f"{self.file.name} could not be downloaded:{tried}"
        hint = (
            f"download {self.file.name} (md5 {self.file.md5}) by hand from {self.file.page or 'its publisher'}\n"
            f"save it as {self.folder.absolute() / self.file.name}, then type the same command again"
        )
        if failures and all(isinstance(failure, _WrongContent) for failure in failures.values()):
            return ChecksumError(message, hint=hint)
        if failures and all(isinstance(failure, _NoConnection) for failure in failures.values()):
            hint = f"check the connection; http_proxy and https_proxy name a proxy\nor {hint}"
        elif self.part.exists():
            hint = f"type the same command again later to resume the download\nor {hint}"
        return RawDataError(message, hint=hint)

    def _try_repeatedly(self, url: str) -> None:
        """Tries one URL until the part is the complete, correct file."""
        failures, size_at_reset = 0, self._bytes_received(url)[0]
        while True:
            try:
                return self._try_once(url)
            except _AttemptFailed as failure:
                failures += 1
                size = self._bytes_received(url)[0]
                if size >= size_at_reset + _PROGRESS_BYTES:
                    failures, size_at_reset = 1, size
                never_answered = isinstance(failure, _NoConnection) and url not in self._answered
                if failures >= (_CONNECTION_ATTEMPTS if never_answered else failure.attempts):
                    raise
                pause = min(2.0 ** (failures - 1), _MAX_PAUSE_S)
                _log.info("%s: %s; trying again in %.0f s", url, failure, pause)
                self._sleep(pause)

    def _try_once(self, url: str) -> None:
        """Requests the missing bytes once; returns if the part is then the complete, correct file."""
        offset, mark = self._bytes_received(url)
        try:
            response = self._request(url, offset, mark)
        except _RangeNotSatisfiable:
            if self._md5() == self.file.md5:  # the part was complete
                return
            self._discard()
            raise
        with response:
            if response.status == 200:
                offset = 0
            elif response.status != 206:  # such as 202, by which some servers check for a browser
                raise _AttemptFailed(f"HTTP {response.status}, not the file", attempts=1)
            elif _first_byte(response) != offset:
                self._discard()
                raise _AttemptFailed(f"received another range of the file, requested from byte {offset:,} on")
            announced = offset + response.length if response.length is not None else None
            self._receive(url, response, offset, announced)
        self._check(offset, announced)

    def _receive(self, url: str, response: HTTPResponse, offset: int, announced: int | None) -> None:
        """Writes the body of a response to the part."""
        chunks = _chunks(response, self._timeout)
        if response.will_close:
            response.length = None  # read to the end, regardless of the announced size
        first = next(chunks, b"")
        if not offset and (response.headers.get_content_type() == "text/html" or _WEB_PAGE.match(first)):
            raise _AttemptFailed("a web page, not the file", attempts=1)
        if not offset:
            self._begin(url, response)
        try:
            self._write(chain([first], chunks), offset, announced)
        except _AttemptFailed:
            if announced is None or self._size() < announced:  # a failure after the last byte is harmless
                raise

    def _check(self, offset: int, announced: int | None) -> None:
        """Raises :class:`_AttemptFailed` unless the part is the correct file; discards it if it is another one."""
        size = self._size()
        if announced is not None and size < announced:
            raise _AttemptFailed(f"the connection ended after {size:,} of {announced:,} bytes")
        found = self._md5()
        if found == self.file.md5:
            return
        self._discard()
        if announced is not None and size > announced:
            raise _AttemptFailed(f"received {size:,} bytes, the server announced {announced:,}; md5 {found}")
        if offset:
            raise _AttemptFailed(f"the resumed file has md5 {found}, expected {self.file.md5}")
        raise _WrongContent(f"md5 {found} ({size:,} bytes), expected {self.file.md5}", attempts=1)

    def _request(self, url: str, offset: int, mark: str | None) -> HTTPResponse:
        """Returns the response to a request from a byte on; every refusal becomes an :class:`_AttemptFailed`."""
        headers = {"User-Agent": _AGENT, "Accept": "*/*"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        if offset and mark is not None:
            headers["If-Range"] = mark  # the rest of the same file, or all of a changed one
        try:
            response = self._opener.open(request.Request(url, headers=headers), timeout=self._timeout)
        except HTTPError as error:
            error.close()
            self._answered.add(url)
            if error.code == 416 and offset:
                raise _RangeNotSatisfiable("HTTP 416, the file has no more bytes") from None
            if 300 <= error.code < 400:
                raise _AttemptFailed(
                    f"HTTP {error.code}, redirected too often, or not to a web address", attempts=1
                ) from None
            temporary = error.code >= 500 or error.code in (408, 425, 429)
            message = f"HTTP {error.code} {error.reason or ''}".rstrip()
            raise _AttemptFailed(message, attempts=ATTEMPTS if temporary else 1) from None
        except URLError as error:
            raise _connection_failure(url, error.reason, self._timeout) from error
        except (OSError, HTTPException) as error:
            raise _AttemptFailed(_describe_drop(error, self._timeout)) from error
        except ValueError as error:  # an invalid URL, or a redirection to one
            raise _AttemptFailed(str(error), attempts=1) from error
        self._answered.add(url)
        return cast("HTTPResponse", response)

    def _begin(self, url: str, response: HTTPResponse) -> None:
        """Discards an earlier part, and notes where the new one comes from."""
        self._discard()
        mark = response.headers.get("ETag")
        if mark is None or mark.startswith("W/"):  # the same weak tag may be used for different bytes
            mark = response.headers.get("Last-Modified")
        files.write_json(self.note, {"url": url, "mark": mark})

    def _write(self, chunks: Iterator[bytes], offset: int, announced: int | None) -> None:
        done, total = offset, announced if announced is not None else self.file.nbytes
        with files.machine_errors(self.part), self.part.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)
                file.flush()  # kept also if the process is killed
                done += len(chunk)
                self._progress(self.file.name, done, total)

    def _bytes_received(self, url: str) -> tuple[int, str | None]:
        """Returns how many bytes of a URL were received, and the mark of the file they belong to."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if note["url"] != url:
                return 0, None
            return self._size(), note["mark"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None

    def _size(self) -> int:
        return self.part.stat().st_size

    def _md5(self) -> str:
        with files.machine_errors(self.part), self.part.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()

    def _discard(self) -> None:
        with files.machine_errors(self.part):
            self.note.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)


def _chunks(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Yields a body as it is received, so that a dropped connection loses nothing."""
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk
    except (OSError, HTTPException, ValueError) as error:
        raise _AttemptFailed(_describe_drop(error, timeout)) from error


def _first_byte(response: HTTPResponse) -> int | None:
    """Returns the offset of the first byte of a partial response."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _connection_failure(url: str, reason: object, timeout: float) -> _AttemptFailed:
    if isinstance(reason, socket.gaierror):
        return _NoConnection(f"the name {urlsplit(url).hostname} (or that of a proxy) cannot be resolved")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _AttemptFailed(f"the certificate is not trusted: {reason.verify_message}", attempts=1)
    if isinstance(reason, TimeoutError):
        return _NoConnection(f"no connection in {timeout:g} s")
    if isinstance(reason, ConnectionResetError):
        return _AttemptFailed(_describe_drop(reason, timeout))
    if isinstance(reason, OSError):
        return _NoConnection(f"no connection: {reason.strerror or reason}")
    return _AttemptFailed(str(reason), attempts=1)


def _describe_drop(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"received nothing for {timeout:g} s"
    return f"the connection dropped ({str(error) or type(error).__name__})"


def _opener() -> request.OpenerDirector:
    """Returns an opener of http and https URLs only, through the proxy that the environment names."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
