"""Names of recordings as people write them in lists and tables, matched with the members of a storage."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator


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
        self._by_end: dict[str, list[str]] = {}  # by every end of their paths, with and without the ending of the file
        for member in sorted(members):
            whole = comparable(member)
            for path in {whole, without_ending(whole)}:
                for end in _ends(path):
                    self._by_end.setdefault(end, []).append(member)

    def find(self, text: str) -> list[str]:
        """Returns the members that a name fits best: one, several if it is ambiguous, or none."""
        name = as_path(text)
        wanted = comparable(name)
        for end in _ends(wanted):
            found = self._by_end.get(end, [])
            if end != wanted:  # the name has more folders than there are: then all of the member's must be among them
                found = [member for member in found if _is_whole(member, end)]
            if found:
                ranks = [(_is_whole(member, end), *_likeness(member, name)) for member in found]
                best = max(ranks)
                return [member for member, rank in zip(found, ranks, strict=True) if rank == best]
        return []


def _ends(path: str) -> Iterator[str]:
    """Yields a path, and its ends without the first folder, without the first two, and so on."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _is_whole(member: str, end: str) -> bool:
    """Returns whether an end of a path is all of a member's, with or without the ending of the file."""
    whole = comparable(member)
    return end in (whole, without_ending(whole))


def _likeness(member: str, name: str) -> tuple[bool, bool, bool]:
    """Returns whether a name has the very spelling of a member's path, that of its file, and the ending of its file."""
    paths = [f"/{path}" for path in (member, without_ending(member))]
    same_path = any(path.endswith(f"/{name}") or f"/{name}".endswith(path) for path in paths)
    file, wanted = member.rpartition("/")[2], name.rpartition("/")[2]
    return same_path, wanted in (file, without_ending(file)), comparable(file) == comparable(wanted)


def as_path(text: str) -> str:
    r"""Returns a name of a list without blanks and quotes around it, with ``/`` between folders.

    Example:
        >>> as_path(' ".\\rec\\a.aedat"\r')
        'rec/a.aedat'
    """
    return text.strip().strip("\"'").replace("\\", "/").removeprefix("./")


def is_longer(path: str, member: str) -> bool:
    """Returns whether a path has more folders than the member that it names."""
    return path.count("/") > member.count("/")


def are_different(path: str, other: str) -> bool:
    """Returns whether two paths of a list that fit one file name different ones: their last folders differ.

    Example:
        >>> are_different("monday/anna.npz", "tuesday/anna"), are_different("a/1.npz", "/data/A/1")
        (True, False)
    """
    first, second = (reversed(comparable(one).split("/")[:-1]) for one in (path, other))
    return any(one != two for one, two in zip(first, second, strict=False))


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
