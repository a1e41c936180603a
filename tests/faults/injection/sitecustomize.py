"""Injects a fault at the n-th change of a folder by a Python process; Python imports this module at start.

| variable | means |
|---|---|
| FAULTS_FOLDER | the folder; changes outside it do not count |
| FAULTS_AT | number of the change, from 1; 0: no fault |
| FAULTS_HOW | ``kill``; or for this and all later changes ``wait``, or the name of an error such as ``ENOSPC`` |
| FAULTS_COUNT | a file that the number of changes is written to at exit |
| FAULTS_REFUSED | a file that a line for each change that fails is added to; not in FAULTS_FOLDER |
"""

import atexit
import errno
import os
import signal
import sys
import time
from pathlib import Path

_FOLDER, _AT = os.environ.get("FAULTS_FOLDER", ""), int(os.environ.get("FAULTS_AT", "0"))
_HOW, _COUNT = os.environ.get("FAULTS_HOW", "kill"), os.environ.get("FAULTS_COUNT", "")
_REFUSED = os.environ.get("FAULTS_REFUSED", "")
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
_done = 0


def _changed(event: str, arguments: tuple[object, ...]) -> object:
    """Returns the path that an audit event changes; None if it changes nothing."""
    if event == "open":
        path, _, flags = arguments
        return path if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None
    return arguments[0] if event in _CHANGES else None


def _strike(event: str, arguments: tuple[object, ...]) -> None:
    global _done
    path = _changed(event, arguments)
    if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(_FOLDER):
        return
    _done += 1
    if not _AT or _done < _AT:
        return
    if _HOW == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if _HOW == "wait":
        time.sleep(0.05)
        return
    if event not in ("os.remove", "os.rmdir"):  # a full disk still allows removing
        if _REFUSED:
            with Path(_REFUSED).open("a") as file:
                file.write(f"{event} {os.fspath(path)}\n")
        number = getattr(errno, _HOW)
        raise OSError(number, os.strerror(number), os.fspath(path))


if _FOLDER:
    sys.addaudithook(_strike)
    if _COUNT:
        atexit.register(lambda: Path(_COUNT).write_text(str(_done)))
