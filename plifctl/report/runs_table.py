"""Runs as a table, those of the runs folder or of another source: each experiment, the mean over seeds and folds."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from plifctl.config.choices import PROTOCOL_ACCURACY, RUNS_TABLE, Protocol, ResultSource
from plifctl.config.overrides import override_key
from plifctl.report.labels import origin_facts, range_text, tell_apart, versions_text
from plifctl.report.results import ORIGINS, SOURCE_WORDS, version_notes
from plifctl.report.table import (
    Cell,
    Entry,
    Number,
    Table,
    flags_of,
    legend_of_marks,
    mark_experiment,
    mean_text,
    name_runs,
    name_unverified,
    other_versions,
    sample_std,
)
from plifctl.runs import ResultRecord

Changes = Callable[[ResultRecord], Sequence[str]]
"""Returns how the experiment of a run differs from that of its name, a text each."""

_COLUMNS = ("Experiment", "Changes", "Recipe", "Protocol", "T", "Epochs", "Samples", "Seeds", "Folds", "Accuracy (%)")
_CHANGES = _COLUMNS.index("Changes")


def build_runs_table(
    records: Sequence[ResultRecord],
    changes: Changes,
    source: ResultSource = "mine",
    not_in_paper: Collection[str] = (),
) -> Table:
    """Returns a table with a row for runs that differ in nothing but seed and fold, and the mean of their accuracies.

    Args:
        records: Result records.
        changes: Returns how the experiment of a run differs from that of its name.
        source: Whose runs are shown.
        not_in_paper: Experiments that only the authors' logs have; they are marked.
    """
    cells: list[list[str]] = []
    numbers: list[Number] = []
    facts: list[tuple[str, ...]] = []
    shown = [record for record in records if record.origin == ORIGINS[source]]
    changes = _shared_changes(shown, changes)
    stopping = _series_that_stop(shown)
    key = partial(_key, changes=changes, stopping=stopping)
    for _, group in groupby(sorted(shown, key=key), key=key):
        # of several runs with one seed and fold, the latest
        by_time = sorted(group, key=lambda record: record.finished)
        latest = {_member(record): record for record in by_time}
        found = [latest[member] for member in sorted(latest)]
        earlier = [record for record in by_time if latest[_member(record)] is not record]
        first = found[0]
        changed, epochs = changes(first), range_text(record.epochs for record in found)  # some may have stopped early
        numbers.append(_mean(found, str(len(numbers) + 1), _note(found, changed, earlier), bool(changed)))
        texts = (_short(changed), first.recipe, first.protocol, str(first.T), epochs, _samples(first))
        cells.append([mark_experiment(first.experiment, not_in_paper), *texts, _seeds(found), _folds(found)])
        facts.append(_facts(first, stopping))
    # rows may differ in seeds and folds, too, but that is not why they are apart
    for row, more in zip(cells, tell_apart([tuple(row[:-2]) for row in cells], facts), strict=True):
        row[_CHANGES] = ", ".join(filter(None, (row[_CHANGES], *more)))
    rows = [(*map(Cell, row), Cell(numbers=(number,))) for row, number in zip(cells, numbers, strict=True)]
    about = (
        "Rows are runs that differ in seed and fold only; ± is the standard deviation over them. Folds share training "
        f"samples, so it is no error of the mean. {_explain_protocols(shown)}Compare rows of the same protocol, "
        "recipe, T, epochs, samples and training version only."
    )
    used = [index for index in range(len(_COLUMNS)) if index != _CHANGES or any(row[index].text for row in rows)]
    return Table(
        RUNS_TABLE,
        SOURCE_WORDS[source].caption,
        about + legend_of_marks((record.experiment for record in shown), not_in_paper),
        tuple(_COLUMNS[index] for index in used),
        tuple(tuple(row[index] for index in used) for row in rows),
        tuple(Entry(number.records[0].experiment, "accuracy", "", (number,)) for number in numbers),
        {number.mark: number.note for number in numbers},
    )


def _explain_protocols(records: Sequence[ResultRecord]) -> str:
    """Returns what the accuracy of each protocol in a table is, a sentence each."""
    found = sorted({record.protocol for record in records})
    return "".join(f"Protocol {protocol}: {PROTOCOL_ACCURACY[protocol].short}. " for protocol in found)


def _shared_changes(records: Sequence[ResultRecord], changes: Changes) -> Changes:
    """Returns the changes of a run, the same for all of its series.

    An option may state what a run has anyway, by its file: the series has the changes of the run that states fewest.
    """
    fewest: dict[_Series, Sequence[str]] = {}
    for record in records:
        series = _series(record)
        found = [text for text in changes(record) if override_key(text) != "split.fold"]
        fewest[series] = min(fewest.get(series, found), found, key=len)
    return lambda record: changes(record) if record.digest is None else fewest[_series(record)]


def _short(changes: Sequence[str]) -> str:
    """Returns what makes a run another experiment than that of its name, ``tau_0=16``; folds have a column."""
    pairs = (text.partition("=") for text in changes if not text.startswith("split."))
    return ", ".join(f"{key.rpartition('.')[2]}{sign}{value}" for key, sign, value in pairs)


_Series = tuple[str, Protocol]


def _series(record: ResultRecord) -> _Series:
    """Returns the experiment of a run by its digest, that of all folds; and the protocol, which trains in its own way.

    What one protocol cannot train otherwise changes another, and a training of protocol C never stops early.
    """
    return str(record.fold.series if record.fold is not None else record.digest), record.protocol


def _series_that_stop(records: Sequence[ResultRecord]) -> set[_Series]:
    """Returns the series whose numbers of epochs differ because ``train.early_stop`` ended some of the trainings.

    A record does not say how many epochs were planned. If several numbers may have been, runs of different epochs stay
    apart.
    """
    found = set()
    for series in {_series(record) for record in records if record.stopped_early}:
        runs = [record for record in records if _series(record) == series]
        whole = {record.epochs for record in runs if not record.stopped_early}
        if len(whole) <= 1 and all(record.epochs <= min(whole, default=record.epochs) for record in runs):
            found.add(series)
    return found


def _key(record: ResultRecord, changes: Changes, stopping: Collection[_Series]) -> tuple[Any, ...]:
    """What runs of one row share; rows are in this order, numbers of changed settings by their size.

    Trainings that ``train.early_stop`` may end share the epochs that were planned, not those that they had.

    Args:
        record: A run.
        changes: Returns its changes.
        stopping: The series whose runs differ in epochs because they stopped early.
    """
    words = re.split(r"(\d+(?:\.\d+)?)", _short(changes(record)))
    numbers = tuple(float(word) if index % 2 else word for index, word in enumerate(words))
    series = _series(record)
    epochs = (0, _planned(record)) if series in stopping else (record.epochs, "")
    data = record.data.cache if record.data is not None else ""
    versions = ",".join(map(str, record.training_versions))
    return record.experiment, record.recipe, record.protocol, epochs, numbers, series, data, versions


def _facts(record: ResultRecord, stopping: Collection[_Series]) -> tuple[str, ...]:
    """Returns what tells a row from others that look the same: what :func:`_key` has beside the texts of the row."""
    series = _series(record)
    planned = _planned(record) if series in stopping else ""
    data = record.data.cache if record.data is not None else None
    return planned, versions_text(record.training_versions), *origin_facts(series[0], data)


def _planned(record: ResultRecord) -> str:
    return next((text for text in record.overrides if override_key(text) == "train.epochs"), "")


def _seeds(found: Sequence[ResultRecord]) -> str:
    return _numbers({record.seed for record in found})


def _member(record: ResultRecord) -> tuple[int, int]:
    return record.seed, record.fold.number if record.fold is not None else 0


def _mean(found: Sequence[ResultRecord], mark: str, note: str, modified: bool) -> Number:
    values = [100 * record.accuracy for record in found]
    flags, mean = flags_of(found[0], modified), statistics.fmean(values)
    facts = (mean_text(values), mean, None, tuple(found), mark, note)
    return Number(*facts, flags=flags, is_result=True, std=sample_std(values))


def _samples(record: ResultRecord) -> str:
    if record.data is None:
        return ""
    counts = (record.data.train, record.data.validation, record.data.test)
    return " + ".join(f"{count:,}" for count in counts if count) if record.fold is None else "folds"


def _folds(found: Sequence[ResultRecord]) -> str:
    folds = {record.fold.number for record in found if record.fold is not None}
    of = found[0].fold.folds if found[0].fold is not None else None
    return f"{_numbers(folds)}{f' of {of}' if of else ''}" if folds else ""


def _numbers(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _note(found: Sequence[ResultRecord], changes: Sequence[str], earlier: Sequence[ResultRecord]) -> str:
    first = found[0]
    parts = [f"{first.dataset}, {name_runs(found)}", *other_versions(first), *version_notes(found)]
    if any(record.stopped_early for record in found):
        parts.append("stopped early")
    if first.fold is not None:
        seeds, folds = ({_member(record)[index] for record in found} for index in (0, 1))
        # how many groups there are to leave out, one by one, no record says: only that seeds have other ones
        planned = (first.fold.folds or len(folds)) * len(seeds)
        of_seeds = f" OF {len(seeds)} SEEDS" if len(seeds) > 1 else ""
        parts += [f"ONLY {len(found)} OF {planned} FOLDS{of_seeds}"] if len(found) < planned else []
    if first.is_subset:
        parts.append("SUBSET")
    # all have the same samples, but a fold or a subset may leave some of them out
    if empty := max(record.data.without_events if record.data is not None else 0 for record in found):
        parts.append(f"{empty} SAMPLES WITHOUT EVENTS")
    parts += name_unverified(found)
    if changes:
        parts.append(f"MODIFIED: {', '.join(changes)}")
    if earlier:
        parts.append(f"left out, earlier with the same seed: {name_runs(earlier)}")
    return "; ".join(parts)
