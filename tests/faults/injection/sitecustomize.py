"""Strikes a Python process at the n-th time that it changes a folder; Python imports this first of all.

| variable | means |
|---|---|
| FAULTS_FOLDER | what happens outside of it does not count |
| FAULTS_AT | at which time, from 1; 0: never |
| FAULTS_HOW | ``kill``; ``wait``, or the name of an error such as ``ENOSPC``: so do this change and all later ones |
| FAULTS_COUNT | a file that gets the number of changes when the process ends by itself |
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
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
_done = 0


def _changed(event: str, arguments: tuple[object, ...]) -> object:
    """What an event of Python's changes; None where it changes nothing."""
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
    if event not in ("os.remove", "os.rmdir"):  # a full disk takes things away
        number = getattr(errno, _HOW)
        raise OSError(number, os.strerror(number), os.fspath(path))


if _FOLDER:
    sys.addaudithook(_strike)
    if _COUNT:
        atexit.register(lambda: Path(_COUNT).write_text(str(_done)))
