"""Selection bias: for every run the best test epoch, the last one, and the mean of the last epochs."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Sequence

from plifctl.config.choices import SELECTION_TABLE, Protocol, ResultOrigin
from plifctl.report.labels import origin_facts, tell_apart, versions_text
from plifctl.report.results import SOURCE_WORDS, SOURCES
from plifctl.report.runs_table import Changes
from plifctl.report.table import (
    Cell,
    Entry,
    Number,
    Table,
    describe_left_out,
    flags_of,
    left_out_as_modified,
    legend_of_marks,
    mark_experiment,
    name_other_versions,
)
from plifctl.runs import ResultRecord
from plifctl.runs.records import LATE_EPOCHS

_COLUMNS = (
    "Experiment",
    "Run",
    "Protocol",
    "result",
    "best (epoch)",
    "last (epoch)",
    f"mean of the last {LATE_EPOCHS} (logged)",
    "best − result",
    "best − last",
    "best − mean",
)


def build_selection_table(
    records: Sequence[ResultRecord],
    changes: Changes,
    *,
    include_modified: bool = False,
    not_in_paper: Collection[str] = (),
) -> Table:
    """Returns a table of the accuracies that each run could report, depending on how its epoch is selected.

    Args:
        records: Result records of the runs of all sources; those tested less than twice are left out, and named.
        changes: Returns how the experiment of a run differs from that of its name.
        include_modified: Use runs with overrides as well.
        not_in_paper: Experiments that only the authors' logs have; they are marked.
    """
    cells: list[list[str]] = []
    entries: list[Entry] = []
    gains: dict[tuple[ResultOrigin, Protocol], list[float]] = {}
    counted: list[ResultRecord] = []
    left_out: dict[str, str] = {}
    for record in sorted(records, key=lambda r: (r.origin, r.experiment, r.protocol, r.recipe, r.run)):
        tests = {epoch: 100 * value for epoch, value in record.tests.items()}
        if reason := _why_left_out(record, () if include_modified else changes(record)):
            left_out[record.run] = reason
            continue
        best, last = record.best_test_epoch(), max(tests)
        result = 100 * record.accuracy
        late = 100 * statistics.fmean(record.late_tests) if record.late_tests else None
        gain = tests[best] - (tests[last] if record.protocol == "A" else result)
        gains.setdefault((record.origin, record.protocol), []).append(gain)
        better = [None if other is None else tests[best] - other for other in (result, tests[last], late)]
        values = [result, tests[best], tests[last], late, *better]
        epochs = ("", f" ({best})", f" ({last})", f" ({len(record.late_tests)})", "", "", "")
        shown = ["" if value is None else f"{value:.2f}{epoch}" for value, epoch in zip(values, epochs, strict=True)]
        counted.append(record)
        cells.append([record.protocol, *shown])
        entries += _entries(record, shown, values, flags_of(record, bool(changes(record))))
    names = [(mark_experiment(record.experiment, not_in_paper), run) for record, run in _name_runs(counted, changes)]
    return Table(
        SELECTION_TABLE,
        "Selection bias: accuracies (%) that one run could report",
        " ".join(["Runs that were tested after every epoch.", *_summary(gains)])
        + legend_of_marks((record.experiment for record in counted), not_in_paper),
        _COLUMNS,
        tuple(tuple(map(Cell, (*name, *row))) for name, row in zip(names, cells, strict=True)),
        tuple(entries),
        warnings=tuple(describe_left_out(left_out)),
    )


def _entries(
    record: ResultRecord, texts: Sequence[str], values: Sequence[float | None], flags: tuple[str, ...]
) -> Iterator[Entry]:
    """Yields the numbers of a run for the long form."""
    for column, text, value in zip(_COLUMNS[3:], texts, values, strict=True):
        if value is not None:
            number = Number(text, value, None, (record,), flags=flags, is_result=column == "result")
            yield Entry(record.run, column, "", (number,))


def _why_left_out(record: ResultRecord, changes: Sequence[str]) -> str:
    """Returns why a run is not in the table; empty: it is.

    Args:
        record: The run.
        changes: Its changes to the experiment that forbid to count it.
    """
    if changes:
        return left_out_as_modified(changes)
    if len(record.tests) < 2:
        return "tested after one epoch only" if record.tests else "not tested after each epoch"
    return ""


def _run(record: ResultRecord) -> str:
    if record.origin == "authors":
        return "authors' log"
    subset = ", subset" if record.is_subset else ""
    empty = record.data.without_events if record.data is not None else 0
    without = f", {empty} samples without events" if empty else ""
    trained = f", {versions}" if (versions := name_other_versions(record)) else ""
    fold = f", fold {record.fold.number}" if record.fold is not None else ""
    prefix = SOURCE_WORDS[SOURCES[record.origin]].prefix
    return f"{prefix}recipe {record.recipe}, seed {record.seed}{fold}{trained}{subset}{without}"


def _name_runs(records: Sequence[ResultRecord], changes: Changes) -> Iterator[tuple[ResultRecord, str]]:
    """Yields what each run is called: where that would be the same, with what the runs differ in, at last their names.

    Args:
        records: The runs.
        changes: Returns how the experiment of a run differs from that of its name.
    """
    labels = [(_run(record), record.experiment, record.protocol, record.epochs) for record in records]
    facts = [
        (
            f"T = {record.T}",
            ", ".join(changes(record)),
            versions_text(record.training_versions),
            *origin_facts(record.digest, None if record.data is None else record.data.cache),
            f"run {record.run}",
        )
        for record in records
    ]
    for record, label, more in zip(records, labels, tell_apart(labels, facts), strict=True):
        yield record, ", ".join((label[0], *more))


def _summary(gains: dict[tuple[ResultOrigin, Protocol], list[float]]) -> list[str]:
    sentences = {
        "A": "a maximum over test epochs is {} points above the last epoch of the same run",
        "B": "the best test epoch is {} points above the test accuracy of the model that validation selected",
    }
    found: list[str] = []
    for (origin, protocol), values in sorted(gains.items()):
        span = f"{min(values):.1f} to {max(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
        words = SOURCE_WORDS[SOURCES[origin]]
        runs = f"{words.whose} {len(values)} {words.one}s" if len(values) > 1 else f"{words.whose} one {words.one}"
        found.append(f"In {runs} of protocol {protocol}, {sentences[protocol].format(span)}.")
    return found
