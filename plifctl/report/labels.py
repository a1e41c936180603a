"""Labels of rows and lines that would be the same, told apart by what their runs differ in."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence


def tell_apart(labels: Sequence[Hashable], facts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Returns for each item the facts to add to its label: those in which items of the same label differ.

    Args:
        labels: The label of each item.
        facts: Of each item, as many and in the same order; later ones are needed only where earlier ones are equal. An
            empty text is not added.

    Example:
        >>> tell_apart(["a", "a", "b"], [("recipe paper", "T = 8"), ("recipe paper", "T = 20"), ("", "T = 8")])
        [['T = 8'], ['T = 20'], []]
    """
    added: list[list[str]] = [[] for _ in labels]
    for fact in zip(*facts, strict=True):
        places = [(label, *more) for label, more in zip(labels, added, strict=True)]
        found: dict[Hashable, set[str]] = {}
        for place, text in zip(places, fact, strict=True):
            found.setdefault(place, set()).add(text)
        for more, place, text in zip(added, places, fact, strict=True):
            if text and len(found[place]) > 1:
                more.append(text)
    return added


def origin_facts(digest: str | None, cache: str | None) -> tuple[str, str]:
    """Returns the experiment and the data of a run by the beginning of their digests; of None it is unknown."""
    return f"experiment {(digest or 'unknown')[:8]}", f"data {(cache or 'unknown')[:8]}"


def range_text(numbers: Iterable[int]) -> str:
    """Returns whole numbers as one text: ``5``, or ``5–9`` if they differ."""
    found = sorted(numbers)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]}–{found[-1]}"


def versions_text(versions: Sequence[int]) -> str:
    """Returns training versions as one text: ``training version 1 and 2``."""
    return f"training version {' and '.join(map(str, versions)) or 'unknown'}"
