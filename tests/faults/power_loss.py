"""The states in which a power failure can leave a folder.

:func:`recording` notes, while a command runs in this process, every change of names (rename, unlink, mkdir, …) and
every fsync in a folder, with the content of all files just before it. What was synced stays after a power failure;
of the rest, each name and each content is there, or is not, or is there in part, independently of the others.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Names = dict[str, int]
"""Inode of each name in a folder."""

_PATCHED = ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate", "ftruncate")


@dataclass(frozen=True)
class Moment:
    """A folder just before a change.

    Attributes:
        visible: Inodes by folder and name, as processes see them.
        durable: The same, as far as it is on the disk.
        contents: Content of each inode that is a file, as processes see it; absent for folders.
        synced: Content of each inode that is on the disk; absent if nothing of it is.
        root: Inode of the folder itself.
    """

    visible: dict[int, Names]
    durable: dict[int, Names]
    contents: dict[int, bytes]
    synced: dict[int, bytes]
    root: int


@dataclass
class Recording:
    """The moments of a command, in order.

    Args:
        root: The folder.
    """

    root: Path
    moments: list[Moment] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    _durable: dict[int, Names] = field(default_factory=dict)
    _synced: dict[int, bytes] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def begin(self) -> None:
        """Takes everything in the folder as synchronised."""
        visible, contents = self._look()
        self._durable, self._synced = {key: dict(names) for key, names in visible.items()}, dict(contents)

    def note(self) -> None:
        """Appends the present moment, unless nothing has changed."""
        with self._lock:
            visible, contents = self._look()
            durable = {key: dict(names) for key, names in self._durable.items()}
            moment = Moment(visible, durable, contents, dict(self._synced), self.root.stat().st_ino)
            if not self.moments or moment != self.moments[-1]:
                self.moments.append(moment)

    def synchronised(self, descriptor: int) -> None:
        """Notes that a file or a folder is on the disk now."""
        with self._lock:
            inode = os.fstat(descriptor).st_ino
            visible, contents = self._look()
            if inode in visible:
                self._durable[inode] = dict(visible[inode])
            elif inode in contents:
                self._synced[inode] = contents[inode]

    def _look(self) -> tuple[dict[int, Names], dict[int, bytes]]:
        visible: dict[int, Names] = {}
        contents: dict[int, bytes] = {}
        pending = [self.root]
        while pending:
            folder = pending.pop()
            names: Names = {}
            for entry in os.scandir(folder):
                if entry.name.endswith(".lock") or not (entry.is_dir() or entry.is_file()):
                    continue
                inode = names[entry.name] = entry.inode()
                if inode not in self._held:  # held open, so that no other file gets its number
                    self._held[inode] = os.open(entry.path, os.O_RDONLY)
                if entry.is_dir():
                    pending.append(Path(entry.path))
                else:
                    contents[inode] = Path(entry.path).read_bytes()
            visible[folder.stat().st_ino] = names
        return visible, contents

    def close(self) -> None:
        """Closes the files that were held open."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()


@contextmanager
def recording(root: Path) -> Iterator[Recording]:
    """Records the changes of a folder while the block runs."""
    found = Recording(root)
    found.begin()
    original = {name: getattr(os, name) for name in _PATCHED}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            found.note()
            result = original[name](*arguments, **options)
            if name == "fsync":
                found.synchronised(arguments[0])
            return result

        return call

    try:
        for name in _PATCHED:
            setattr(os, name, wrapped(name))
        yield found
    finally:
        for name in _PATCHED:
            setattr(os, name, original[name])
        found.note()
        found.close()


def restore(moment: Moment, into: Path, generator: random.Random | None) -> None:
    """Writes what a power failure leaves.

    Args:
        moment: When it happens.
        into: A folder; its content is replaced.
        generator: Chooses what of the unsynchronised part is there; None: nothing of it.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    _restore_folder(moment, moment.root, into, generator)


def _restore_folder(moment: Moment, inode: int, into: Path, generator: random.Random | None) -> None:
    before, after = moment.durable.get(inode, {}), moment.visible.get(inode, {})
    for name in sorted({*before, *after}):
        kept = before.get(name)
        if kept != after.get(name) and generator is not None and generator.random() < 0.5:
            kept = after.get(name)
        if kept is None:
            continue
        path = into / name
        if kept in moment.durable or kept in moment.visible:
            path.mkdir()
            _restore_folder(moment, kept, path, generator)
        else:
            path.write_bytes(_content(moment, kept, generator))


def _content(moment: Moment, inode: int, generator: random.Random | None) -> bytes:
    synced, present = moment.synced.get(inode, b""), moment.contents.get(inode)
    if present is None or present == synced or generator is None:
        return synced
    choice = generator.randrange(4)
    if choice == 0:
        return present
    if choice == 1:
        return synced
    kept = len(synced) if present.startswith(synced) else 0  # appending does not touch what is on the disk
    size = generator.randrange(kept, len(present) + 1)
    if choice == 2:
        return present[:size]
    return present[:size] + bytes(len(present) - size)  # the size is on the disk, the data are not
