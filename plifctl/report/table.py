"""Report tables: their cells, and the table itself as Markdown, LaTeX, CSV, JSON and HTML."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plifctl.config.choices import Protocol
from plifctl.errors import list_names
from plifctl.report import render
from plifctl.report.labels import versions_text
from plifctl.runs import ResultRecord
from plifctl.training.progress import TRAINING_VERSION
from plifctl.units import plain


@dataclass(frozen=True)
class Number:
    """A number from runs, of plifctl or of the authors.

    Attributes:
        text: As printed.
        value: The number, where it is one.
        records: The result records it was computed from; empty if it follows from the registry.
        difference: Of an accuracy or τ: this number minus the reported one.
        mark: Letter of its note; empty if it has none.
        note: Experiment, settings and runs behind the number.
        epochs: Number of epochs that it is the result of; None where it belongs to one epoch, or is no accuracy.
        planned: Number of epochs of the experiment; None if that is not in the registry.
        flags: What forbids to compare it: ``subset``, ``modified``, ``fast`` (another training).
        decimals: Decimals of the value in CSV and JSON.
        validated: Of an accuracy of protocol A: the records of the same training in protocol B.
        is_result: Whether it is the result of runs, as their protocol defines it, and not one of their other numbers.
        std: Of a mean over several runs: their sample standard deviation.
    """

    text: str
    value: float | None
    difference: float | None = None
    records: tuple[ResultRecord, ...] = ()
    mark: str = ""
    note: str = ""
    epochs: int | None = None
    planned: int | None = None
    flags: tuple[str, ...] = ()
    decimals: int = 4
    validated: tuple[ResultRecord, ...] = ()
    is_result: bool = False
    std: float | None = None

    @property
    def shown(self) -> str:
        """The number with what it is: ``91.34 @4 subset`` of 4 epochs, fewer than planned, on a part of the data."""
        short = self.epochs is not None and self.epochs != self.planned
        return " ".join([self.text, *([f"@{self.epochs}"] if short else []), *self.flags])


def mean_text(values: Sequence[float], digits: int = 2) -> str:
    """Returns the mean of values; of several, with their sample standard deviation.

    Example:
        >>> mean_text([90.0, 92.0]), mean_text([90.0])
        ('91.00 ± 1.41', '90.00')
    """
    std = sample_std(values)
    return f"{statistics.fmean(values):.{digits}f}{'' if std is None else f' ± {std:.{digits}f}'}"


def sample_std(values: Sequence[float]) -> float | None:
    """Returns the sample standard deviation of values; None: there is only one."""
    return statistics.stdev(values) if len(values) > 1 else None


def other_versions(record: ResultRecord) -> list[str]:
    """Returns a note on the training versions of a run that are not that of this plifctl; other code has none."""
    versions = name_other_versions(record)
    return [f"{versions}: version {TRAINING_VERSION}, that of today, gives other numbers"] if versions else []


def name_other_versions(record: ResultRecord) -> str:
    """Returns ``training version 1``: those of a run but that of this plifctl; empty if there are none."""
    others = [version for version in record.training_versions if version != TRAINING_VERSION]
    return versions_text(others) if others and record.origin not in ("authors", "imported") else ""


def name_unverified(records: Sequence[ResultRecord]) -> list[str]:
    """Returns a note if the raw files behind a run were not verified by the published checksums."""
    return ["source not verified"] if any(one.data is not None and not one.data.verified for one in records) else []


def flags_of(record: ResultRecord, modified: bool) -> tuple[str, ...]:
    """Returns what forbids to compare a run with the runs of its experiment, a word each."""
    return (*(("subset",) if record.is_subset else ()), *(("modified",) if modified else ()))


def left_out_as_modified(changes: Sequence[str]) -> str:
    """Returns why a run with changes to its experiment is left out."""
    return f"modified ({', '.join(changes)}): --include-modified counts such runs"


def describe_left_out(left_out: Mapping[str, str]) -> list[str]:
    """Returns the warnings of a table on the runs that it leaves out.

    Args:
        left_out: Why a run is left out, by its name; those with the same reason, as of a sweep, share a warning.
    """
    by_reason: dict[str, list[str]] = {}
    for run, reason in sorted(left_out.items()):
        by_reason.setdefault(reason, []).append(run)
    return [f"left out: {list_names(runs)}: {reason}" for reason, runs in by_reason.items()]


def name_runs(records: Sequence[ResultRecord]) -> str:
    """Returns the names of runs as ``run A``, or ``runs A, B``."""
    return f"run{'s' if len(records) > 1 else ''} {', '.join(record.run for record in records)}"


def mark_experiment(name: str, not_in_paper: Collection[str]) -> str:
    """Returns the name of an experiment, with a star if only the authors' logs have it, not the paper."""
    return f"{name} *" if name in not_in_paper else name


def legend_of_marks(shown: Iterable[str], not_in_paper: Collection[str]) -> str:
    """Returns a sentence on the stars of :func:`mark_experiment`; empty if no experiment shown has one."""
    return " * not in the paper, only in the authors' logs." if any(name in not_in_paper for name in shown) else ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a text, or numbers from runs, one for each recipe that has a run; ``bold`` as printed."""

    text: str = ""
    numbers: tuple[Number, ...] = ()
    bold: bool = False


@dataclass(frozen=True)
class Entry:
    """A reported number and the numbers from runs: a line of the long form, in CSV and JSON.

    Attributes:
        row: Head of its row.
        column: Head of its column.
        reported: As printed.
        numbers: Those from runs.
        experiment: The experiment whose accuracy it is; None of other numbers.
        protocol: The protocol that measures it.
        beside: Of a comparison: the runs of all its sides. A run for an empty one needs their settings and seeds.
    """

    row: str
    column: str
    reported: str
    numbers: tuple[Number, ...]
    experiment: str | None = None
    protocol: Protocol | None = None
    beside: tuple[ResultRecord, ...] = ()


@dataclass(frozen=True)
class Table:
    """A report table. In a notebook, the last expression of a cell is shown as a table.

    Attributes:
        name: ``1`` to ``5``, ``S1``, ``S2``, the name of a registry file, or of a table without one, as ``selection``.
        caption: Content of the table.
        source: Where the reported numbers were published.
        columns: Column heads.
        cells: Rows of cells, as many in each as columns.
        entries: Each reported number with those from runs.
        notes: Where each number comes from, by the letter of its mark.
        warnings: What must not be compared, and which runs are left out.
    """

    name: str
    caption: str
    source: str
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    entries: tuple[Entry, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name and caption, ``Table 4. Accuracy (%) with PLIF and LIF neurons``."""
        return f"Table {self.name}. {plain(self.caption)}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells as text; a number is followed by its difference to the reported one, and its mark."""
        return [tuple(render.cell_text(cell) for cell in row) for row in self.cells]

    def to_markdown(self) -> str:
        """Returns the table in Markdown, with its notes."""
        return render.markdown(self)

    def to_latex(self) -> str:
        """Returns the table in LaTeX; it needs the packages ``booktabs`` and ``graphicx``."""
        return render.latex(self)

    def to_csv(self) -> str:
        """Returns the long form in CSV: a line for each reported number and recipe."""
        return render.csv_text([self])

    def to_json(self) -> str:
        """Returns the table and its long form as a JSON document."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of :meth:`to_json`."""
        return render.tree(self)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        return render.html_text(self)
