"""The files of a folder and of the folders in it, for all that read or list raw data."""

from __future__ import annotations

import os
from collections.abc import Iterator

_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_SYSTEM_NAMES = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", *_SYSTEM_FILES}
"""Files and folders that systems and file managers create, besides those that begin with a dot; in small letters."""

_Identity = tuple[int, int]
"""Device and inode of a folder: a link to it has the same."""


def is_system(name: str) -> bool:
    """Returns whether a file or folder is hidden, or one that a system or a file manager creates."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def walk(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields the files of a folder and of the folders in it, each with its path in the folder.

    Those of each folder are sorted by name, since file systems list them in any order. What :func:`is_system` is left
    out. A link to a folder above it is yielded as it is, and not followed; no other folder is yielded.
    """
    yield from _walk(folder, "", (_identity(folder),))


def _walk(folder: str, inside: str, above: tuple[_Identity, ...]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if not is_system(entry.name)), key=lambda entry: entry.name)
    for entry in found:
        name = f"{inside}{entry.name}"
        if not _is_folder(entry) or (here := _identity(entry.path)) in above:
            yield name, entry
        else:
            yield from _walk(entry.path, f"{name}/", (*above, here))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: who opens it gets the error
        return False


def _identity(folder: str) -> _Identity:
    status = os.stat(folder)  # noqa: PTH116 - pathlib costs more than the call
    return status.st_dev, status.st_ino
