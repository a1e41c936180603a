"""Every error a user can meet, with its exit code.

    PlifctlError                 70  (never raised itself)
    ├── UsageError                2  unknown name, invalid value or option
    ├── RegistryError             3  a registry file is invalid
    ├── ResumeError               3  the run to resume was made with other settings
    ├── RawDataError              4  raw data missing, of another data set, or incomplete
    │   ├── MissingRawDataError   4  some or all raw files are missing
    │   ├── DamagedFileError      4  one raw file cannot be decoded
    │   │   └── UnstatedReadingError  4  nor without what the data set's YAML has to state
    │   ├── ChecksumError         4  raw data differ from the published checksum
    │   └── UnreadRawDataError    4  raw data would have to be read again, which was not allowed
    ├── CacheError                5  cache missing, made from something else, or locked
    │   └── CorruptCacheError     5  a cache file fails its own checks
    ├── RunError                  6  training or evaluation failed
    │   ├── DivergedError         6  the loss is not finite
    │   ├── OutOfMemoryError      6  the device ran out of memory
    │   ├── RankError             6  another rank of a data-parallel training died or failed
    │   └── CheckpointError       6  a checkpoint is damaged or of another network
    └── MachineError              7  disk full, no permission
    Interrupted       130, 143, 129  Ctrl-C, SIGTERM or SIGHUP; not an Exception: handlers of errors do not catch it
    └── StoppedByCallback         0  an on_epoch callback ended a training

A message says what is wrong, where, and what was found against what was expected; ``hint`` is what to type next.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from pathlib import Path


class PlifctlError(Exception):
    """Base of all errors with a cause outside plifctl: input, options, files or machine. Never a bug.

    Args:
        message: What is wrong, where, found against expected.
        hint: What to do about it, preferably a command to type.
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the name of its type if it has none.

    Example:
        >>> first_line(OSError("refused")), first_line(ValueError())
        ('refused', 'ValueError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def join_problems(problems: Iterable[str]) -> str:
    """Returns several problems as one message with a line for each; lines after the first are indented."""
    return "\n  ".join(problems)


class UsageError(PlifctlError):
    """An unknown name, or an invalid value or option."""

    exit_code = 2


class RegistryError(PlifctlError):
    """A registry file is invalid."""

    exit_code = 3

    @property
    def problems(self) -> list[str]:
        """The problems one by one, from a message made by :func:`join_problems`."""
        return [line.strip() for line in str(self).splitlines()]


class ResumeError(PlifctlError):
    """The run to resume was made with other settings."""

    exit_code = 3


class RawDataError(PlifctlError):
    """Raw data are missing, of another data set, or incomplete."""

    exit_code = 4


class MissingRawDataError(RawDataError):
    """Some or all raw files are missing.

    Args:
        message: What is missing, and which folders were searched.
        hint: How to get it.
        parts: Which parts of the data set are missing.
        folder: The folder with the other parts; None if all parts are missing.
    """

    def __init__(self, message: str, *, hint: str = "", parts: Iterable[str] = (), folder: Path | None = None) -> None:
        super().__init__(message, hint=hint)
        self.parts, self.folder = tuple(parts), folder


class UnreadRawDataError(RawDataError):
    """Raw data would have to be read again, which was not allowed."""


class DamagedFileError(RawDataError):
    """One raw file cannot be decoded."""


class ChecksumError(RawDataError):
    """Raw data differ from the published checksum."""


class CacheError(PlifctlError):
    """A cache is missing, made from something else, or locked by another process."""

    exit_code = 5


class CorruptCacheError(CacheError):
    """A cache file fails its own checks."""


class RunError(PlifctlError):
    """Training or evaluation failed."""

    exit_code = 6


class DivergedError(RunError):
    """The loss is not finite."""


class OutOfMemoryError(RunError):
    """The device ran out of memory."""


class RankError(RunError):
    """Another rank of a data-parallel training died or failed; if it failed, the exit code is that of its error."""


class CheckpointError(RunError):
    """A checkpoint is damaged or belongs to another network."""


class MachineError(PlifctlError):
    """The disk is full, or permission is denied."""

    exit_code = 7


class Interrupted(BaseException):
    """Stopped by a signal.

    Args:
        signum: The signal received.
        message: What was stopped, and what was saved.

    Attributes:
        hint: How to continue; those who know it set it.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.hint = ""
        self.exit_code = 128 + signum  # 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP


class StoppedByCallback(Interrupted):
    """A training ended because ``on_epoch`` returned False; its state is saved, and it can be resumed."""

    def __init__(self, message: str) -> None:
        super().__init__(0, message)
        self.exit_code = 0


_LISTED = 60  # names in a hint: more than experiments, fewer than samples


def list_names(names: Sequence[str], most: int = 10) -> str:
    """Returns names for a message, at most the first ``most`` of them; the others are counted.

    A name from a file may have any length, so that more than 200 characters are cut.

    Example:
        >>> list_names(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    shown = [name if len(name) <= 200 else f"{name[:199]}…" for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a hint that names the nearest of ``known``; if none is near, it lists them, at most the first 60.

    Example:
        >>> did_you_mean("gestur", ["gesture", "mnist"])
        'did you mean gesture?'
    """
    choices = sorted(set(known))
    same = [choice for choice in choices if choice.lower() == name.lower()]
    longer = [choice for choice in choices if name and choice.startswith(name)]
    near = same or longer[:5] or difflib.get_close_matches(name, choices, n=1)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {list_names(choices, _LISTED)}"


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Refuses a value that is none of ``known``.

    Args:
        name: Name of the option, for the message.
        value: The value.
        known: The choices.

    Raises:
        UsageError: The value is not one of them.
    """
    choices = tuple(known)
    if value not in choices:
        raise UsageError(f"{name}: found {value!r}, expected {' or '.join(choices)}")


def missing_library(library: str, *needed: str) -> UsageError:
    """Returns the error of an optional library that is not installed.

    Args:
        library: Name of the package.
        needed: The packages to install, if there are others beside it.
    """
    return UsageError(f"{library} is not installed", hint=f"pip install {' '.join(needed or (library,))}")


def from_os_error(error: OSError, path: Path | str | None = None) -> MachineError | None:
    """Returns the :class:`MachineError` for a full disk, a size limit or a permission; None for other errors.

    Args:
        error: Error of the operating system; the file it names is preferred to ``path``.
        path: The file or folder in use, for errors that name none.
    """
    where = error.filename or path
    place = f"{where}: " if where else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(f"{place}no space left on the disk", hint="free some space, or choose another folder")
    if error.errno == errno.EFBIG:
        hint = "choose another folder, or raise ulimit -f"
        return MachineError(f"{place}the file would exceed the size limit", hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        return MachineError(f"{place}permission denied", hint="choose a folder that you may read and write")
    if error.errno == errno.EROFS:
        return MachineError(f"{place}the file system is read-only", hint="choose another folder")
    return None
