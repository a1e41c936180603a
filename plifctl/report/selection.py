"""How optimistic a maximum over test epochs is: of every run the best, the last, and the mean of the last epochs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from plifctl.config.overrides import is_modification
from plifctl.report.table import Cell, Entry, Number, Table
from plifctl.runs import ResultRecord

OPTIMISM = "optimism"
"""The table's name."""

LAST = 64
"""Epochs whose mean is taken: half a period of the published learning rate."""

_COLUMNS = (
    "Experiment",
    "Run",
    "A/B",
    "reported",
    "best (epoch)",
    "last (epoch)",
    f"mean of the last {LAST} (logged)",
    "best − reported",
    "best − last",
    "best − mean",
)


def build_optimism(records: Sequence[ResultRecord], *, include_modified: bool = False) -> Table:
    """Returns a table of the accuracies that one run could report, ours and imported ones.

    Args:
        records: Of finished runs; those without a test after each epoch have nothing to compare.
        include_modified: Use runs with overrides, too.
    """
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    bonus: dict[tuple[str, str], list[float]] = {}
    for record in sorted(records, key=lambda r: (r.origin, r.experiment, r.protocol, r.recipe, r.run)):
        tests = {epoch: 100 * value for epoch, value in enumerate(record.test_accuracy, 1) if value is not None}
        modified = any(is_modification(text) for text in record.overrides)
        if len(tests) < 2 or (modified and not include_modified):
            continue
        best = max(tests, key=lambda epoch: (tests[epoch], epoch == record.best_epoch, -epoch))
        last = max(tests)
        late = [value for epoch, value in tests.items() if epoch > last - LAST]
        reported, mean = 100 * record.accuracy, statistics.fmean(late)
        gained = tests[best] - (tests[last] if record.protocol == "A" else reported)
        bonus.setdefault((record.origin, record.protocol), []).append(gained)
        better = [tests[best] - other for other in (reported, tests[last], mean)]
        values = [reported, tests[best], tests[last], mean, *better]
        counted = ("", f" ({best})", f" ({last})", f" ({len(late)})", "", "", "")
        shown = [f"{value:.2f}{count}" for value, count in zip(values, counted, strict=True)]
        rows.append(tuple(map(Cell, (record.experiment, _run(record), record.protocol, *shown))))
        entries += [
            Entry(record.run, column, "", (Number(text, value, None, (record,)),))
            for column, text, value in zip(_COLUMNS[3:], shown, values, strict=True)
        ]
    return Table(
        OPTIMISM,
        "Accuracies (%) that one run could report",
        " ".join(["Of each run that was tested after every epoch.", *_summary(bonus)]),
        _COLUMNS,
        tuple(rows),
        tuple(entries),
        (),
    )


def _run(record: ResultRecord) -> str:
    if record.origin == "imported":
        return "published log"
    subset = ", subset" if record.data is not None and not record.data.complete else ""
    return f"ours, {record.recipe}, seed {record.seed}{subset}"


def _summary(bonus: dict[tuple[str, str], list[float]]) -> list[str]:
    said = {
        "A": "a maximum over test epochs lies {} points above the last epoch of the same run",
        "B": "the best test epoch lies {} points above the test accuracy of the model that validation chose",
    }
    found: list[str] = []
    for (origin, protocol), values in sorted(bonus.items()):
        span = f"{min(values):.1f} to {max(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
        whose = "published logs" if origin == "imported" else "runs of ours"
        runs = f"{len(values)} {whose}" if len(values) > 1 else f"one of the {whose}"
        found.append(f"In {runs}, protocol {protocol}, {said[protocol].format(span)}.")
    return found
