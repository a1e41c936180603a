"""Layout of recordings in a folder: which folders are splits, which are classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from plifctl.config.choices import SPLITS, OwnLayout
from plifctl.data.split_names import split_of


def sort_names(names: Iterable[str]) -> list[str]:
    """Returns the different names of classes in the order of their labels: numbers by size, then others by name.

    Example:
        >>> sort_names(["wave", "10", "9", "fist", "9"])
        ['9', '10', 'fist', 'wave']
    """
    return sorted(set(names), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


PERSON, PERSON_SHORT = "user|subject|person|participant|patient", "subj?"
SESSION, SESSION_SHORT = "session", "ses"
"""Words for whose and when a recording is; the short ones begin a word."""

_PERSON = re.compile(rf"(?:{PERSON}|{PERSON_SHORT})[ _-]?\d+", re.IGNORECASE)
_TAKE = re.compile(
    rf"(?:{SESSION}|{SESSION_SHORT}|trial|rec(?:ording)?|run|take|day|part)[ _-]?\d+|\d{{4}}([_-]?)\d\d\1\d\d.*",
    re.IGNORECASE,
)


class Place(NamedTuple):
    """What the folders of a recording say about it.

    Attributes:
        split: Folder of its split; empty if there is none.
        label: Folder of its class; empty if there is none.
    """

    split: str = ""
    label: str = ""


@dataclass(frozen=True)
class FoundLayout:
    """The layout of recordings.

    Attributes:
        name: Layout in the YAML of a data set; None if the folders name no classes.
        root: Folder that contains those of the splits or classes; empty if they lie in the folder itself.
        places: Split and class of each recording, in the order of the names.
        nested: Folders that many folders of classes contain: people, sessions, or the classes themselves.
        strays: Recordings that lie in no folder of a class, if others do.
    """

    name: OwnLayout | None
    root: str
    places: tuple[Place, ...]
    nested: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The folders of classes."""
        return tuple(sort_names(place.label for place in self.places if place.label))

    @property
    def splits(self) -> tuple[str, ...]:
        """The folders of splits."""
        found = {place.split: split_of(place.split) for place in self.places if place.split}
        return tuple(name for split in SPLITS for name in sorted(found) if found[name] == split)

    @property
    def begins_with_people(self) -> bool:
        """Whether the folders of classes are called like people, and those in them not like recordings of a person."""
        return bool(self.nested) and not all(map(_TAKE.fullmatch, self.nested)) and self.has_people_as_classes

    @property
    def has_people_as_classes(self) -> bool:
        """Whether all folders of classes are called like people."""
        return bool(self.classes) and all(map(_PERSON.fullmatch, self.classes))


def find_layout(names: Sequence[str]) -> FoundLayout:
    """Returns the layout of recordings, by their paths.

    Folders that all recordings share are the root, a split that is the only one as well. A split has classes if every
    recording in it lies in a further folder; without splits, the first folders that differ are the classes.

    Example:
        >>> layout = find_layout(["set/train/a/1.bin", "set/train/b/2.bin", "set/test/a/3.bin"])
        >>> layout.name, layout.root, layout.classes, layout.splits
        ('folders', 'set', ('a', 'b'), ('train', 'test'))
    """
    folders = [name.split("/")[:-1] for name in names]
    depth = _depth_of_splits(folders)
    if depth is not None and len({split_of(parts[depth]) for parts in folders}) > 1:
        if len({tuple(parts[:depth]) for parts in folders}) > 1:  # splits of a person or a session each
            return FoundLayout(None, "", (Place(),) * len(folders))
        places = [Place(parts[depth], parts[depth + 1] if len(parts) > depth + 1 else "") for parts in folders]
        strays = [name for name, place in zip(names, places, strict=True) if not place.label]
        layout: OwnLayout | None = None if strays else "folders"
        root, nested = _most_common(folders, depth), _nested(folders, depth + 2)
        return FoundLayout(layout, root, tuple(places), nested, _some(strays, names))
    depth = _shared(folders)
    strays = [name for name, parts in zip(names, folders, strict=True) if len(parts) <= depth]
    if strays or not folders:
        root, places = _most_common(folders, depth), [Place()] * len(folders)
        return FoundLayout(None, root, tuple(places), strays=_some(strays, names))
    places = [Place("", parts[depth]) for parts in folders]
    return FoundLayout("class-folders", _most_common(folders, depth), tuple(places), _nested(folders, depth + 1))


def _some(strays: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the recordings in no folder of a class; nothing if all are: there are no folders of classes."""
    return tuple(strays) if len(strays) < len(names) else ()


def _depth_of_splits(folders: Sequence[Sequence[str]]) -> int | None:
    """Returns at which depth every recording has a folder that names a split; None if there is none."""
    shallowest = min(map(len, folders), default=0)
    return next(
        (depth for depth in range(shallowest) if all(split_of(parts[depth]) is not None for parts in folders)), None
    )


def _nested(folders: Sequence[Sequence[str]], depth: int) -> tuple[str, ...]:
    """Returns the folders at a depth if each recording has one, and most of them are in most folders above."""
    if any(len(parts) <= depth for parts in folders):
        return ()
    found: dict[str, set[str]] = {}
    for parts in folders:
        found.setdefault(parts[depth - 1], set()).add(parts[depth])
    names = set[str]().union(*found.values())
    shared = len(found) > 1 and len(names) > 1 and 2 * sum(map(len, found.values())) > len(found) * len(names)
    return tuple(sort_names(names)) if shared else ()


def _shared(folders: Sequence[Sequence[str]]) -> int:
    """Returns how many leading folders all recordings share."""
    depth = 0
    while len({tuple(parts[: depth + 1]) for parts in folders}) == 1 and len(folders[0]) > depth:
        depth += 1
    return depth


def _most_common(folders: Sequence[Sequence[str]], depth: int) -> str:
    """Returns the leading folders of most recordings."""
    counts = Counter("/".join(parts[:depth]) for parts in folders)
    return counts.most_common(1)[0][0] if counts else ""
