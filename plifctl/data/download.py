"""Downloads: whole files with the published checksum, or none.

Written on urllib: pooch, the usual choice, begins a broken download anew and knows one address for each file.
What is half there lies beside the place of the file, as ``NAME.part`` and ``NAME.part.json``; the next attempt, of this
process or of a later one, goes on from it. The md5 alone decides whether a file is right; how many bytes a server
announces decides only whether it is worth going on.
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
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from itertools import chain
from pathlib import Path
from typing import cast
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import filelock

from plifctl import __version__, files
from plifctl.data.source import RemoteFile
from plifctl.errors import ChecksumError, RawDataError

Told = Callable[[str, int, int | None], None]
"""Is told a file's name, how many of its bytes are there, and of how many where that is known."""

TIMEOUT_S = 20.0
"""How long to wait for a connection, and for a byte."""

ATTEMPTS = 5
"""How often in a row an address may fail without bringing anything."""

_CONNECTIONS = 2  # of an address that never answered: who is offline need not wait
_PROGRESS = 2**20  # bytes; an attempt that brought as much is no failure
_LONGEST_PAUSE_S = 30.0
_CHUNK = 2**18
_AGENT = f"Mozilla/5.0 (compatible; plifctl/{__version__})"  # some servers refuse what does not look like a browser
_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|\?xml)\b", re.IGNORECASE)

_log = logging.getLogger(__name__)


def download(
    remote_files: Sequence[RemoteFile],
    folder: Path,
    progress: Told = lambda name, done, total: None,
    *,
    timeout: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Downloads the files that are not there yet; what is there under a file's name is left alone.

    Args:
        remote_files: Which.
        folder: Where to; created if missing. One process at a time downloads to it, others wait.
        progress: Told of the bytes that come.
        timeout: How long to wait for a connection and for a byte, s.
        sleep: Waits before the next attempt.

    Raises:
        RawDataError: A file could not be had; says what happened at each of its addresses, and what to do.
        ChecksumError: Every address holds another file.
        MachineError: The disk is full or the folder refused; what came so far is kept.
    """
    files.make_dir(folder)
    opener = _opener()
    with _alone(folder):
        for file in remote_files:
            if not (folder / file.name).exists():
                _Fetch(file, folder, opener, progress, timeout, sleep).run()


class _Failed(Exception):
    """An attempt failed.

    Args:
        what: What happened.
        attempts: How often in a row this may happen before the address is given up.
    """

    def __init__(self, what: str, *, attempts: int = ATTEMPTS) -> None:
        super().__init__(what)
        self.attempts = attempts


class _NoConnection(_Failed):
    """Nobody answered."""


class _OtherFile(_Failed):
    """The address holds another file."""


class _NotThatFar(_Failed):
    """The file there ends before what was asked for."""


class _Fetch:
    """The download of one file.

    Attributes:
        part: What came so far.
        note: Which address it came from, and the mark (entity tag or date) by which to tell that the file there is
            still the same.
    """

    def __init__(
        self,
        file: RemoteFile,
        folder: Path,
        opener: request.OpenerDirector,
        progress: Told,
        timeout: float,
        sleep: Callable[[float], None],
    ) -> None:
        self.file, self.folder, self._opener, self._progress = file, folder, opener, progress
        self._timeout, self._sleep = timeout, sleep
        self.part = folder / f"{file.name}.part"
        self.note = folder / f"{file.name}.part.json"
        self._answered: set[str] = set()

    def run(self) -> None:
        """Tries the addresses in turn."""
        failures: dict[str, _Failed] = {}
        for url in self.file.urls:
            try:
                self._from(url)
            except _Failed as failed:
                _log.info("%s: %s", url, failed)
                failures[url] = failed
            else:
                with files.machine_errors(self.part):
                    self.part.replace(self.folder / self.file.name)
                    self.note.unlink(missing_ok=True)
                return
        raise self._error(failures)

    def _error(self, failures: dict[str, _Failed]) -> RawDataError:
        tried = "".join(f"\n  {url}: {failed}" for url, failed in failures.items()) or " no address is known"
        message = f"{self.file.name} could not be downloaded:{tried}"
        hint = (
            f"get {self.file.name} (md5 {self.file.md5}) by hand from {self.file.page or 'its publisher'}\n"
            f"save it as {self.folder.absolute() / self.file.name}, then type the same command again"
        )
        if failures and all(isinstance(failed, _OtherFile) for failed in failures.values()):
            return ChecksumError(message, hint=hint)
        if failures and all(isinstance(failed, _NoConnection) for failed in failures.values()):
            hint = f"is this machine online? A proxy is named by the variables http_proxy and https_proxy\nor {hint}"
        elif self.part.exists():
            hint = f"type the same command again later: it goes on from what is there\nor {hint}"
        return RawDataError(message, hint=hint)

    def _from(self, url: str) -> None:
        """Tries one address until the part is the whole right file."""
        failures, furthest = 0, self._kept(url)[0]
        while True:
            try:
                return self._attempt(url)
            except _Failed as failed:
                failures += 1
                size = self._kept(url)[0]
                if size >= furthest + _PROGRESS:
                    failures, furthest = 1, size
                never_there = isinstance(failed, _NoConnection) and url not in self._answered
                if failures >= (_CONNECTIONS if never_there else failed.attempts):
                    raise
                pause = min(2.0 ** (failures - 1), _LONGEST_PAUSE_S)
                _log.info("%s: %s; trying again in %.0f s", url, failed, pause)
                self._sleep(pause)

    def _attempt(self, url: str) -> None:
        """Asks once, for what is still missing; returns when the part is the whole right file."""
        offset, mark = self._kept(url)
        headers = {"User-Agent": _AGENT, "Accept": "*/*"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        if offset and mark is not None:
            headers["If-Range"] = mark  # the rest of the same file, or all of another
        try:
            response = self._ask(url, headers)
        except _NotThatFar:
            if self._md5() == self.file.md5:  # it was all there
                return
            self._forget()
            raise
        with response:
            if response.status == 200:
                offset = 0
            elif response.status != 206:  # such as 202, by which some ask whether this is a browser
                raise _Failed(f"HTTP {response.status}, not the file", attempts=1)
            elif _start(response) != offset:
                self._forget()
                raise _Failed("another part of the file came than was asked for")
            chunks = _chunks(response, self._timeout)
            said = offset + response.length if response.length is not None else None
            if response.will_close:
                response.length = None  # read what comes, not what was announced
            first = next(chunks, b"")
            if not offset and (response.headers.get_content_type() == "text/html" or _PAGE.match(first)):
                raise _Failed("a web page, not the file", attempts=1)
            if not offset:
                self._begin(url, response)
            try:
                self._write(chain([first], chunks), offset, said)
            except _Failed:
                if said is None or self._size() < said:  # after the last byte it is no failure
                    raise
        size = self._size()
        if said is not None and size < said:
            raise _Failed(f"the connection ended after {size:,} of {said:,} bytes")
        found = self._md5()
        if found == self.file.md5:
            return
        self._forget()
        if said is not None and size > said:
            raise _Failed(f"{size:,} bytes came, {said:,} were announced, and the md5 is {found}")
        if offset:
            raise _Failed(f"what was gone on with has the md5 {found}, the published file {self.file.md5}")
        raise _OtherFile(f"md5 {found} ({size:,} bytes), the published file has {self.file.md5}", attempts=1)

    def _ask(self, url: str, headers: dict[str, str]) -> HTTPResponse:
        """Returns the answer to a request for a file; every refusal becomes a :class:`_Failed`."""
        try:
            response = self._opener.open(request.Request(url, headers=headers), timeout=self._timeout)
        except HTTPError as error:
            error.close()
            self._answered.add(url)
            if error.code == 416 and "Range" in headers:
                raise _NotThatFar("HTTP 416, there is no more of it") from None
            if 300 <= error.code < 400:
                raise _Failed(f"HTTP {error.code}, redirected too often or to no web address", attempts=1) from None
            again = error.code >= 500 or error.code in (408, 425, 429)
            said = f"HTTP {error.code} {error.reason or ''}".rstrip()
            raise _Failed(said, attempts=ATTEMPTS if again else 1) from None
        except URLError as error:
            raise _unconnected(url, error.reason, self._timeout) from error
        except (OSError, HTTPException) as error:
            raise _Failed(_dropped(error, self._timeout)) from error
        except ValueError as error:  # an address, or one redirected to, that is none
            raise _Failed(str(error), attempts=1) from error
        self._answered.add(url)
        return cast("HTTPResponse", response)

    def _begin(self, url: str, response: HTTPResponse) -> None:
        """Forgets what was there, and notes what comes."""
        self._forget()
        tag = response.headers.get("ETag")
        if tag is None or tag.startswith("W/"):  # a weak one may stand for other bytes
            tag = response.headers.get("Last-Modified")
        files.write_json(self.note, {"url": url, "mark": tag})

    def _write(self, chunks: Iterator[bytes], offset: int, said: int | None) -> None:
        done, total = offset, said if said is not None else self.file.nbytes
        with files.machine_errors(self.part), self.part.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)
                done += len(chunk)
                self._progress(self.file.name, done, total)

    def _kept(self, url: str) -> tuple[int, str | None]:
        """How many bytes of this address are there, and the mark of the file they are of."""
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

    def _forget(self) -> None:
        with files.machine_errors(self.part):
            self.note.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)


def _chunks(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Yields a body as it comes, so that nothing of it is lost when the connection is."""
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except (OSError, HTTPException, ValueError) as error:
        raise _Failed(_dropped(error, timeout)) from error


def _start(response: HTTPResponse) -> int | None:
    """The place of the first byte of a part of a file."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _unconnected(url: str, reason: object, timeout: float) -> _Failed:
    if isinstance(reason, socket.gaierror):
        return _NoConnection(f"the name {urlsplit(url).hostname} (or that of a proxy) cannot be resolved")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _Failed(f"its certificate is not trusted: {reason.verify_message}", attempts=1)
    if isinstance(reason, TimeoutError):
        return _NoConnection(f"no connection in {timeout:g} s")
    if isinstance(reason, ConnectionResetError):
        return _Failed(_dropped(reason, timeout))
    if isinstance(reason, OSError):
        return _NoConnection(f"no connection: {reason.strerror or reason}")
    return _Failed(str(reason), attempts=1)


def _dropped(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {timeout:g} s"
    return f"the connection dropped ({str(error) or type(error).__name__})"


def _opener() -> request.OpenerDirector:
    """Returns what opens http and https, through the proxy that the environment names, and nothing else."""
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


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder / ".download.lock")
    with files.machine_errors(folder):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.warning("another process downloads to %s; waiting for it", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
