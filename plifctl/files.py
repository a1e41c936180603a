"""Atomic writes: a file or folder is at every moment the old one or the complete new one; reads of any file."""

from __future__ import annotations

import errno
import glob
import json
import logging
import os
import re
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from plifctl.errors import MachineError, UsageError, from_os_error

STALE_AFTER_S = 600
"""Age in seconds from which a temporary file counts as abandoned by a killed process."""

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}(?:\.old)?\.partial")  # tempfile draws eight such characters

_MANY_FILES = 1000

_log = logging.getLogger(__name__)

UMASK = os.umask(0)  # can only be read by setting it; done at import, before threads start
os.umask(UMASK)


def make_dir(path: Path) -> Path:
    """Creates ``path`` and its parents; raises MachineError if the system refuses, or one of them is a file."""
    with machine_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            file = next(one for one in (path, *path.parents) if one.exists())
            raise MachineError(f"{file}: a file, expected a folder", hint="choose another folder") from None
        for folder in reversed(missing):
            sync_folder(folder.parent)
    return path


def sync_folder(path: Path) -> None:
    """Writes the names in a folder to the disk: without it, a rename or a new file may be undone by a power failure.

    Does nothing on systems and file systems where a folder cannot be synchronised.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that can be written and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Writes the content of a file to the disk."""
    with path.open("r+b" if os.name == "nt" else "rb") as file:  # Windows cannot flush a file opened for reading
        os.fsync(file.fileno())


@contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """Turns errors of a full disk or of permissions into MachineError, which names ``path`` if they name no file."""
    try:
        yield
    except OSError as error:
        refusal = from_os_error(error, path)
        if refusal is None:
            raise
        raise refusal from error


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Lets errors name ``path``, which the user knows, and not the temporary one beside it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; renames it over ``path`` if the block succeeds, else removes it.

    The content is on the disk before the rename, and the rename before the block ends: ``path`` is at every moment,
    after a power failure as well, the old file or the complete new one, and files that are written one after the other
    appear in this order.
    Temporary files of killed processes are removed after :data:`STALE_AFTER_S`.
    """
    make_dir(path.parent)
    _remove_stale(path, path.parent)
    with machine_errors(path), _errors_naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with machine_errors(path):
            yield temporary
            sync_file(temporary)
            temporary.chmod(0o666 & ~UMASK)  # mkstemp's 0600 would hide the file from a user's group
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def stamp(path: Path) -> tuple[int, ...] | None:
    """Returns what changes with the content of a file; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def is_locked(path: Path) -> bool:
    """Returns whether a process holds the lock of a file; a process that only asks never looks like one that holds it.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import filelock

        try:
            with filelock.FileLock(path).acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who ask do not see each other
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def waiting_lock(path: Path, message: str) -> Iterator[None]:
    """Holds the lock of a file while the block runs; creates its folder.

    Args:
        path: The file.
        message: Logged, before waiting, if another process holds the lock.

    Raises:
        MachineError: The system refuses to write there.
    """
    import filelock

    make_dir(path.parent)
    lock = filelock.FileLock(path)
    with machine_errors(path):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.warning(message)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def reserve_bytes(path: Path, nbytes: int) -> None:
    """Reserves disk space, so that a file can grow to ``nbytes``; does nothing on file systems without support.

    Raises:
        OSError: There is not enough space.
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


def apply_umask(path: Path) -> None:
    """Gives a temporary folder, which is private, the mode of a new one; it keeps the group of a shared folder."""
    inherited = path.stat().st_mode & stat.S_ISGID
    path.chmod(inherited | 0o777 & ~UMASK)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder beside ``path``; replaces ``path`` by it if the block succeeds, else removes it.

    An existing folder is moved aside first and removed last: a process killed in between has removed neither. An empty
    one is filled instead: it may be a mount point or the current folder, which cannot be replaced.

    Raises:
        UsageError: ``path`` is a file, or a mount point or the current folder that is not empty.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: a file, expected a new folder", hint="name another folder")
    if path.is_dir() and is_empty(path):
        with _filled_folder(path) as temporary:
            yield temporary
        return
    if path.is_dir() and (os.path.ismount(path) or path.samefile(Path())):
        kind = "a mount point" if os.path.ismount(path) else "the current folder"
        raise UsageError(f"{path}: {kind}, which cannot be replaced", hint="name a new folder in it")
    make_dir(path.parent)
    _remove_stale(path, path.parent)
    temporary = _temporary_folder(path, path.parent)
    aside = temporary.with_suffix(".old.partial")
    try:
        with machine_errors(path):
            apply_umask(temporary)
            yield temporary
            _sync_tree(temporary)
            if path.exists():
                path.replace(aside)
            temporary.replace(path)
            sync_folder(path.parent)  # before the old folder is removed
    finally:
        if aside.exists() and not path.exists():
            aside.replace(path)
        for left in (temporary, aside):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _filled_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder in the empty folder ``path``; moves its content to ``path`` if the block succeeds."""
    _remove_stale(path, path)
    temporary = _temporary_folder(path, path)
    try:
        with machine_errors(path):
            yield temporary
            _sync_tree(temporary)
            for child in sorted(temporary.iterdir(), key=lambda child: (child.is_file(), child.name)):
                child.rename(path / child.name)
            temporary.rmdir()
            sync_folder(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_folder(path: Path, parent: Path) -> Path:
    with machine_errors(path), _errors_naming(path):
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=parent))


def _sync_tree(folder: Path) -> None:
    """Writes a folder with everything in it to the disk."""
    found = [folder, *folder.rglob("*")]
    if len(found) > _MANY_FILES and hasattr(os, "sync"):
        os.sync()  # everything at once: one by one, tens of thousands of files take minutes
        return
    for path in found:
        (sync_folder if path.is_dir() else sync_file)(path)


def is_empty(folder: Path) -> bool:
    """Returns whether a folder is empty, except for temporary files of plifctl."""
    return all(temporary_of(path) is not None for path in folder.iterdir())


def temporary_of(path: Path) -> str | None:
    """Returns the name of the file that a temporary file of plifctl will replace; None for other paths."""
    match = _TEMPORARY.fullmatch(path.name)
    return match[1] if match else None


def _remove_stale(path: Path, parent: Path) -> None:
    """Removes the temporary files of ``path`` in the folder ``parent`` that killed processes left behind."""
    for left in parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if temporary_of(left) != path.name:
            continue  # the user's
        with suppress(OSError):  # another process removed it first
            if time.time() - max(part.stat().st_mtime for part in (left, *left.rglob("*"))) <= STALE_AFTER_S:
                continue  # another process may be writing it
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def check_new_file(path: Path) -> None:
    """Checks that a file can be written, before its content is computed; creates its folder.

    Raises:
        UsageError: It exists already: nothing is replaced.
        MachineError: The system refuses to write there.
    """
    with machine_errors(path):
        if path.exists() or path.is_symlink():
            own = path.is_file() or path.is_symlink()  # and not a device, which root could remove
            remove = f", or remove it: rm {shlex.quote(str(path))}" if own and not path.is_dir() else ""
            raise UsageError(f"{path}: exists already", hint=f"choose another name{remove}")
        make_dir(path.parent)
        with _errors_naming(path):
            tempfile.TemporaryFile(dir=path.parent).close()


def check_picture(path: Path | None, *endings: str, what: str) -> None:
    """Checks the name of a picture that is to be written; None: there is none.

    Args:
        path: The file.
        endings: Possible endings; the first one is the usual.
        what: What they are, for the message.

    Raises:
        UsageError: It has another ending, or is a folder.
    """
    if path is None:
        return
    if path.is_dir():
        inside = shlex.quote(str(path / f"NAME{endings[0]}"))
        raise UsageError(f"--out {path}: this is a folder", hint=f"--out {inside}")
    if path.suffix.lower() not in endings:
        usual = shlex.quote(str(path.with_suffix(endings[0])))
        raise UsageError(f"--out {path}: {what}", hint=f"--out {usual}")


def read_regular(path: Path, limit: int = -1) -> bytes:
    """Returns the content of a file; a pipe in its place, which could block forever, is an error.

    Args:
        path: The file.
        limit: Number of bytes after which the rest is not read; −1: none.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read(limit)


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON document.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_text(path: Path, text: str) -> None:
    """Replaces the content of ``path`` by ``text`` (UTF-8), atomically."""
    with atomic_write(path) as temporary:
        # a path may contain bytes that are not UTF-8; JSON can read their escapes
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, tree: Any) -> None:
    """Replaces the content of ``path`` by indented JSON, atomically."""
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
