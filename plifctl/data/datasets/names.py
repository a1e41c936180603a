"""Names of recordings as people write them in lists and tables, matched with the members of a storage."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


class MemberNames:
    r"""Finds members by their names in a list.

    A name may have a path, of Windows too, or more of it than there is in the storage, or less. It may lack the ending
    of the file, and differ in capitals and in the form of accents, where a file system or a person changed them.

    Args:
        members: Logical names of the members.

    Example:
        >>> names = MemberNames(["a/1.aedat", "b/1.aedat", "b/2.dat"])
        >>> names.find("B\\2"), names.find("/data/mine/a/1.aedat"), names.find("1"), names.find("c/2")
        (['b/2.dat'], ['a/1.aedat'], ['a/1.aedat', 'b/1.aedat'], [])
    """

    def __init__(self, members: Iterable[str]) -> None:
        self._by_file: dict[str, list[str]] = {}
        for member in sorted(members):
            file = member.rpartition("/")[2]
            for name in {comparable(file), comparable(without_ending(file))}:
                self._by_file.setdefault(name, []).append(member)

    def find(self, text: str) -> list[str]:
        """Returns the members that a name fits best: one, several if it is ambiguous, or none."""
        name = as_path(text)
        ranked = [
            (rank, member)
            for member in self._by_file.get(comparable(name.rpartition("/")[2]), ())
            if (rank := _rank(member, name)) is not None
        ]
        best = max((rank for rank, _ in ranked), default=None)
        return [member for rank, member in ranked if rank == best]


def _rank(member: str, name: str) -> tuple[int, bool, bool, bool] | None:
    """Returns how well a name fits a member whose file it names, larger is better; None if their folders differ."""
    folders, named = (path.split("/")[:-1] for path in (member, name))
    common = min(len(folders), len(named))
    if list(map(comparable, folders[len(folders) - common :])) != list(map(comparable, named[len(named) - common :])):
        return None
    file, wanted = member.rpartition("/")[2], name.rpartition("/")[2]
    exact = wanted in (file, without_ending(file))
    return common, len(folders) == len(named), exact, comparable(file) == comparable(wanted)


def as_path(text: str) -> str:
    r"""Returns a name of a list without blanks and quotes around it, with ``/`` between folders.

    Example:
        >>> as_path(' ".\\rec\\a.aedat"\r')
        'rec/a.aedat'
    """
    return text.strip().strip("\"'").replace("\\", "/").removeprefix("./")


def comparable(name: str) -> str:
    """Returns a name without capitals, and its accents in one of the two forms that systems write."""
    return unicodedata.normalize("NFC", name.lower())


def without_ending(path: str) -> str:
    """Returns a path without the ending of its file, if it has one.

    Example:
        >>> without_ending("a.b/c.d.dat"), without_ending("a.b/c"), without_ending("a/.c"), without_ending("a/c.")
        ('a.b/c.d', 'a.b/c', 'a/.c', 'a/c.')
    """
    dot = path.rfind(".")
    file = path.rfind("/") + 1
    return path[:dot] if file < dot < len(path) - 1 else path
