"""What a person sees: data on stdout, everything else on stderr. The only module that prints, beside cli.

Colour and live bars need a terminal; without one a plain line is written every 30 seconds.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from plifctl.errors import PlifctlError

PLAIN_LINE_SECONDS = 30.0

_err = Console(stderr=True, highlight=False)


def emit(text: str) -> None:
    """Writes data to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def emit_json(tree: Any) -> None:
    """Writes one JSON document to stdout."""
    emit(json.dumps(tree, indent=1, ensure_ascii=False))


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Writes a table to stdout; columns of numbers are set flush right."""
    table = Table(title=escape(title) or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[index], int | float) or row[index] == "" for row in rows)
        table.add_column(escape(column), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, width=width).print(table)


def note(text: str) -> None:
    """Says something on stderr."""
    _err.print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Says something on stderr that must not be missed."""
    _err.print(f"[bold yellow]warning:[/] {escape(text)}", soft_wrap=True)


def fail(error: PlifctlError) -> None:
    """Says what went wrong and what to type."""
    _err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    if error.hint:
        _err.print(f"[bold]hint:[/] {escape(error.hint)}", soft_wrap=True)


class Bar:
    """Progress of one job: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, title: str, unit: str, progress: Progress | None) -> None:
        self.title, self.unit = title, unit
        self._progress = progress
        self._task: TaskID | None = None
        self._started = self._said = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, total: int, *, title: str | None = None, detail: str = "") -> None:
        """Says how far the job is; ``title`` names its present part."""
        now = time.monotonic()
        if title is not None and title != self.title:
            self.title, self._started, self._first = title, now, None
        if self._first is None:
            self._first = done  # what a resumed job did before says nothing of its speed
        rate = (done - self._first) / (now - self._started) if now > self._started else 0.0
        text = f"{rate:,.1f} {self.unit}/s {detail}".rstrip()
        if self._progress is not None:
            if self._task is None:
                self._task = self._progress.add_task(self.title, total=total, text=text)
            self._progress.update(self._task, completed=done, total=total, description=escape(self.title), text=text)
        elif now - self._said >= PLAIN_LINE_SECONDS:
            self._said = now
            left = f", {(total - done) / rate:,.0f} s left" if rate > 0 else ""
            note(f"{self.title}: {done}/{total}, {text}{left}")


@contextmanager
def bar(title: str, unit: str) -> Iterator[Bar]:
    """Yields a bar that disappears when the job is over."""
    if not _err.is_terminal:
        yield Bar(title, unit, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_err, transient=True) as progress:
        yield Bar(title, unit, progress)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say = warn if record.levelno >= logging.WARNING else note
        say(record.getMessage())


def listen() -> None:
    """Shows what the library logs."""
    log = logging.getLogger("plifctl")
    log.handlers = [_Handler()]
    log.setLevel(logging.INFO)
