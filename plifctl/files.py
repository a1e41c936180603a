"""Atomic writes: a file or folder is at every moment the old one or the complete new one."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from plifctl.errors import from_os_error

STALE_AFTER_S = 600
"""A temporary file that was not touched for so many seconds is nobody's any more."""

UMASK = os.umask(0)  # it can only be read by setting it: here, before there are threads
os.umask(UMASK)


def make_dir(path: Path) -> Path:
    """Creates ``path`` and its parents; raises MachineError where that is refused."""
    with machine_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a refusal into a MachineError; ``path`` is named if the error names none."""
    try:
        yield
    except OSError as error:
        refusal = from_os_error(error, path)
        if refusal is None:
            raise
        raise refusal from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; renames it over ``path`` if the block succeeds, else removes it.

    The content is on the disk before the rename, so ``path`` is at every moment the old file or the whole new one.
    What killed processes left beside it is removed once it is old.
    """
    make_dir(path.parent)
    _remove_stale(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # whoever cannot write there has never heard of the temporary one
        with machine_errors(path):
            raise
    os.close(handle)
    temporary = Path(name)
    try:
        with machine_errors(path):
            yield temporary
            with temporary.open("r+b") as file:  # Windows flushes no file that was opened for reading
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~UMASK)  # mkstemp's 0600 would hide the file from a user's group
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def reserve_bytes(path: Path, nbytes: int) -> None:
    """Takes space on the disk, so that a file can grow to ``nbytes``; where a file system cannot, does nothing.

    Raises:
        OSError: There is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), size, max(1, nbytes - size))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder beside ``path``; puts it in the place of ``path`` if the block succeeds, else removes it.

    An old folder is put aside before and removed afterwards: killed in between, a process has removed neither of them.
    """
    path = path.resolve()
    make_dir(path.parent)
    _remove_stale(path)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        error.filename = str(path)
        with machine_errors(path):
            raise
    aside = temporary.with_suffix(".old.partial")
    try:
        with machine_errors(path):
            temporary.chmod(0o777 & ~UMASK)
            yield temporary
            if path.exists():
                path.replace(aside)
            temporary.replace(path)
    finally:
        if aside.exists() and not path.exists():
            aside.replace(path)
        for left in (temporary, aside):
            shutil.rmtree(left, ignore_errors=True)


def _remove_stale(path: Path) -> None:
    """Removes what processes that were killed left beside ``path`` while they wrote it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):  # somebody else was faster
            if time.time() - max(part.stat().st_mtime for part in (left, *left.rglob("*"))) <= STALE_AFTER_S:
                continue  # perhaps somebody writes it now
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def write_text(path: Path, text: str) -> None:
    """Replaces ``path`` by ``text`` (UTF-8), whole or not at all."""
    with atomic_write(path) as temporary:
        # a path may hold bytes that are no UTF-8; JSON reads their escapes back
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, tree: Any) -> None:
    """Replaces ``path`` by indented JSON, whole or not at all."""
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
