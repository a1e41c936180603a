"""What a table is made of, wherever its numbers come from."""

from __future__ import annotations

from dataclasses import dataclass

from plifctl.runs import ResultRecord


@dataclass(frozen=True)
class Number:
    """One number of ours.

    Attributes:
        text: As printed.
        value: As a number, where it is one.
        records: The runs it was made from; none for what follows from the registry alone.
        difference: Of an accuracy, ours less the published one, in points.
        mark: The letter of its note; empty where there is none.
        note: How it came about.
    """

    text: str
    value: float | None
    difference: float | None = None
    records: tuple[ResultRecord, ...] = ()
    mark: str = ""
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """What stands in one place: published text, or numbers of ours, one for each recipe that has a run."""

    published: str = ""
    numbers: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One published number and ours: a line of the long form."""

    row: str
    column: str
    published: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Table:
    """A table as it is printed, and as entries.

    Attributes:
        name: ``1`` to ``5``, ``S1``, ``S2``, or another.
        caption: What it shows.
        source: Where it was published.
        columns: Heads.
        rows: Cells, as many as columns.
        entries: Each published number with ours.
        notes: How each number of ours came about, by letter.
    """

    name: str
    caption: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    entries: tuple[Entry, ...]
    notes: tuple[tuple[str, str], ...]
