"""Tables of sweeps: the plan, and the live table of the runs' status."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from plifctl.cli import console
from plifctl.units import format_accuracy, format_bytes, format_duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from plifctl.sweep.dry_run import DryRun
    from plifctl.sweep.plan import PlannedRun, State
    from plifctl.sweep.progress import RunProgress
    from plifctl.sweep.status import SweepStatus

_ORDER: tuple[State, ...] = ("running", "failed", "interrupted", "queued", "missing", "finished")
_MAX_FAILURES = 10
_OTHER_COLUMNS = 55
"""Width that the table needs beside the names."""
_COLUMNS = ("run", "state", "epoch", "accuracy %", "authors %", "left")


def plan_table(found: DryRun, *, width: int | None = None) -> tuple[Sequence[str], list[list[str]]]:
    """Returns head and rows of a plan, for a terminal of ``width`` columns."""
    rows = []
    for entry in found.status.runs:
        run, estimate = entry.run, found.estimates[entry.run.name]
        about = "measured" if estimate.measured else "computed" if estimate.seconds is not None else "unknown"
        time = "" if estimate.seconds is None else format_duration(estimate.seconds)
        epoch = f"{entry.epoch}/{run.epochs}"
        rows.append([_label(run, width), run.state, epoch, time, about, format_bytes(estimate.nbytes)])
    return ("run", "state", "epoch", "time", "", "disk"), rows


def plan_summary(found: DryRun) -> list[str]:
    """Returns the sentences below a plan."""
    computed = [e for e in found.estimates.values() if not e.measured and e.seconds is not None]
    lines = [f"{found.status.plan.name}: {_counts(found.status.runs)}"]
    if found.seconds:
        times = f"{format_duration(found.seconds)} one after the other"
        if found.at_once > 1:
            times += f", {format_duration(found.seconds / found.at_once)} with {found.at_once} at once"
        lines.append(f"to train: {times}; checkpoints: {format_bytes(found.nbytes)}")
    if computed and found.seconds:
        lines.append(
            "a computed time is that of dense products on this machine's CPU; once a run like it has trained an epoch, "
            "its time is measured"
        )
    if found.unknown:
        lines.append(
            f"the time of {found.unknown} runs is unknown: they have no cache, and their data set states no number "
            "of samples"
        )
    for cache in found.caches:
        T = "" if cache.T is None else f", T = {cache.T}"
        state = (
            f"to be built first: {cache.command}" if cache.nbytes is None else f"there, {format_bytes(cache.nbytes)}"
        )
        lines.append(f"cache of {cache.dataset}{T}: {state}")
    return lines


def status_table(
    found: Sequence[RunProgress], *, most: int | None = None, width: int | None = None
) -> tuple[Sequence[str], list[list[str]]]:
    """Returns head and rows of the status of runs.

    Args:
        found: The runs.
        most: Most rows; those that need attention come first. None: all.
        width: Columns of the terminal; None: as many as needed.
    """
    if most is not None and len(found) > most:
        found = sorted(found, key=lambda entry: _ORDER.index(entry.state))[:most]
    rows = []
    for entry in found:
        place = f" on {entry.host}" if entry.host not in ("", socket.gethostname()) else ""
        left = format_duration(entry.seconds_left) if entry.seconds_left else ""
        rows.append(
            [
                _label(entry.run, width),
                f"{entry.state}{place}",
                f"{entry.epoch}/{entry.run.epochs}",
                format_accuracy(entry.accuracy, entry.accuracy_of),
                console.percent(entry.authors),
                left,
            ]
        )
    used = [index for index in range(len(_COLUMNS)) if index < 3 or any(row[index] for row in rows)]
    return [_COLUMNS[index] for index in used], [[row[index] for index in used] for row in rows]


def print_status(status: SweepStatus) -> None:
    """Prints the status of a sweep: a table, the failures with reason and command, and what to type next."""
    console.emit_table(*status_table(status.runs, width=console.terminal_width()))
    left = "" if not status.seconds_left else f"; {format_duration(status.seconds_left)} left in all"
    console.note(f"{status.plan.name}: {_counts(status.runs)}{left if status.is_active else ''}")
    failed = [entry.run for entry in status.runs if entry.state == "failed"]
    for run in failed[:_MAX_FAILURES]:
        console.warn(f"{run.name}: {run.reason or 'failed'}")
        console.hint(f"alone: {run.command}")
    if len(failed) > _MAX_FAILURES:
        console.warn(f"{len(failed) - _MAX_FAILURES} more failed: plifctl sweep status {status.file.argument} --json")
    if not status.is_active and status.unfinished:
        console.hint(f"to train what is missing: {status.plan.command}")
    elif not status.unfinished:
        console.hint(f"plifctl report --sweep {status.file.argument} shows the results")


class SweepDisplay:
    """Shows the status of the runs while a sweep runs: a live table on a terminal, else a line for each change."""

    def __init__(self, draw: Any, table: _LiveTable | None) -> None:
        self._draw, self._table = draw, table
        self._before: dict[str, str] = {}

    def update(self, found: Sequence[RunProgress]) -> None:
        """Shows the runs."""
        if self._table is not None:
            self._table.found = found
            self._draw()
            return
        for entry in found:
            before = self._before.get(entry.run.name)
            if before not in (None, entry.state) and entry.state not in ("missing", "queued"):
                console.note(_change(entry))
            self._before[entry.run.name] = entry.state


class _LiveTable:
    """A renderable of rich: the table, as long as the terminal allows, and the counts."""

    found: Sequence[RunProgress] = ()

    def __rich_console__(self, screen: Console, settings: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        if not self.found:
            return
        most = max(3, (settings.max_height or 24) - 5)
        columns, rows = status_table(self.found, most=most, width=settings.max_width)
        yield console.grid(columns, rows)
        hidden = len(self.found) - len(rows)
        yield Text(_counts(self.found) + (f" ({hidden} not shown)" if hidden else ""))


@contextmanager
def sweep_display() -> Iterator[SweepDisplay]:
    """Yields the display of a sweep."""
    if not console.can_draw():
        yield SweepDisplay(None, None)
        return
    table = _LiveTable()
    with console.live(table, transient=True) as draw:
        yield SweepDisplay(draw, table)


def _change(entry: RunProgress) -> str:
    parts = [f"{entry.run.name}: {entry.state}"]
    if entry.state == "finished" and entry.accuracy is not None:
        parts.append(f"test accuracy {console.percent(entry.accuracy)} %")
    if entry.state == "running" and entry.epoch:
        parts.append(f"from epoch {entry.epoch + 1}")
    return ", ".join(parts) + (f": {entry.run.reason}" if entry.run.reason else "")


def _counts(found: Sequence[RunProgress]) -> str:
    counts = Counter(entry.state for entry in found)
    runs = f"{len(found)} run{'' if len(found) == 1 else 's'}"
    return f"{runs}: " + ", ".join(f"{counts[state]} {state}" for state in _ORDER[::-1] if counts[state])


def _label(run: PlannedRun, width: int | None) -> str:
    """Returns the name of a run; on a narrow terminal what the sweep varies, and the end, which names it elsewhere."""
    if width is None or len(run.name) <= (room := max(24, width - _OTHER_COLUMNS)):
        return run.name
    values = [f"{key.rpartition('.')[2]}={value}" for key, value in run.values.items()]
    end = "-".join(run.name.rsplit("-", 2)[1:])[-room // 2 :]
    return f"{'-'.join([run.experiment, *values])[: room - len(end) - 1]}…{end}"
