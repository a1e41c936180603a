"""The terminal: data on stdout; messages, progress and errors on stderr.

Colour and live bars need a terminal; without one, progress is a plain line every 30 seconds.

A message that cannot be written is dropped: a full disk behind a log, a closed pipe or a closed terminal ends no
command. Data that cannot be written to stdout is an error.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from plifctl.errors import Interrupted, PlifctlError
from plifctl.units import format_bytes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PLAIN_LINE_SECONDS = 30.0
_DRAW_SECONDS = 0.25

_NUMBER = re.compile(r"[-+]?[\d.,]*")  # an empty cell among numbers is one

_CONTROL_CHARS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal would interpret (control characters, text direction), and bytes outside UTF-8."""

_FOREIGN_LINE = re.compile(r"\n(?!  )")
"""A line break that is not ours: our continuation lines are indented, any other line could pass for a message."""

_err = Console(stderr=True, highlight=False)
_quiet = _verbose = _json = _emitted = False
_muted = False
_stopped: Interrupted | None = None


def _printable(text: str) -> str:
    """Returns a text with control characters escaped: file names and YAML can contain any."""
    return _CONTROL_CHARS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def emit(text: str) -> None:
    """Writes data to stdout; exits quietly on a closed pipe."""
    _write(_printable(text))


def _write(text: str) -> None:
    global _emitted
    _emitted = True
    if _muted:
        return
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def emit_verdicts(
    verified: Iterable[tuple[str, str, Sequence[str]]], *, as_json: bool
) -> list[tuple[str, str, Sequence[str]]]:
    """Writes ``NAME: VERDICT`` with every problem, one after the other; or the problems as one JSON document.

    Args:
        verified: Name, verdict (``ok``, ``DAMAGED``) and problems of each thing that is verified.
        as_json: Write the document.

    Returns:
        All that was verified.
    """
    found = []
    for name, verdict, problems in verified:
        found.append((name, verdict, problems))
        if not as_json:
            emit("\n  ".join([f"{name}: {verdict}", *problems]))
    if as_json:
        emit_json({name: problems for name, _, problems in found})
    return found


def emit_json(tree: Any) -> None:
    """Writes one JSON document to stdout."""
    text = json.dumps(tree, indent=1, ensure_ascii=False)
    _write(_CONTROL_CHARS.sub(lambda found: json.dumps(found[0])[1:-1], text))


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Writes a table to stdout, as wide as the terminal, elsewhere as wide as needed; numbers are right-aligned."""
    _write(_render_table(grid(columns, rows, title=title), terminal_width() or 10_000))


def grid(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> Table:
    """Returns the table that :func:`emit_table` writes."""
    table = Table(
        title=_escape_markup(title) or None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for index, column in enumerate(columns):
        numbers = all(_NUMBER.fullmatch(str(row[index])) for row in rows)
        # a name that is wrapped cannot be copied
        table.add_column(
            _escape_markup(column),
            justify="right" if numbers else "left",
            overflow="fold",
            no_wrap=index == 0 and not numbers,
        )
    for row in rows:
        table.add_row(*(_escape_markup(str(cell)) for cell in row))
    return table


def _render_table(table: Table, width: int) -> str:
    """Returns a table as text, coloured where stdout is a terminal, without trailing blanks."""
    drawing = Console(file=io.StringIO(), highlight=False, width=width, force_terminal=sys.stdout.isatty())
    with drawing.capture() as capture:
        drawing.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def terminal_width() -> int | None:
    """Returns the width of the terminal in columns; None if stdout is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def emit_removed(removed: Iterable[tuple[str, dict[str, Any]]], *, dry_run: bool, as_json: bool) -> None:
    """Removes what an iterator removes as its items are taken, and reports it, also what preceded an error.

    Args:
        removed: Name and facts of each thing; ``bytes`` is its size.
        dry_run: They would be removed only.
        as_json: Report one JSON document.
    """
    verb = "would be removed" if dry_run else "removed"
    done: list[tuple[str, dict[str, Any]]] = []
    failed = True
    try:
        done.extend(removed)  # all before the first line: a reader that closes the pipe ends the command
        failed = False
    finally:
        for name, tree in done if failed or not as_json else ():
            line = f"{verb}: {name}, {format_bytes(tree['bytes'])}"
            (note if as_json else emit)(line)  # the document on stdout is that of the error
    total = sum(tree["bytes"] for _, tree in done)
    if as_json:
        emit_json({"removed": [tree for _, tree in done], "bytes": total, "dry_run": dry_run})
    else:
        emit(f"{len(done)} {verb}, {format_bytes(total)}")


def note(text: str) -> None:
    """Writes a message to stderr, unless quiet."""
    if not _quiet:
        _err.print(_sentence(text), soft_wrap=True)


def warn(text: str) -> None:
    """Writes a warning to stderr."""
    _err.print(f"[bold yellow]warning:[/] {_sentence(text)}", soft_wrap=True)


def fail(error: PlifctlError | Interrupted) -> None:
    """Writes an error and its hint to stderr; also as JSON to stdout, if that was requested and nothing was written."""
    if _verbose and not _muted:
        traceback.print_exception(error)
    _err.print(f"[bold red]error:[/] {_sentence(str(error))}", soft_wrap=True)
    hint(error.hint)
    if _json and not _emitted:
        with suppress(SystemExit, OSError):  # stdout may be closed or full; the exit code stays the error's
            emit_json({"error": {"message": str(error), "hint": error.hint, "exit_code": error.exit_code}})


def hint(text: str) -> None:
    """Writes a hint to stderr, each line of it as one; nothing for an empty text."""
    for line in filter(None, text.split("\n")):
        _err.print(f"[bold]hint:[/] {_escape_markup(line)}", soft_wrap=True)


def _escape_markup(text: str) -> str:
    """Returns a text that rich prints verbatim."""
    return escape(_printable(text))


def _sentence(text: str) -> str:
    return _escape_markup(_FOREIGN_LINE.sub(r"\\n", text))


class Bar:
    """Progress of one task: a bar on a terminal, a line every 30 seconds elsewhere."""

    def __init__(self, title: str, unit: str, progress: Progress | None) -> None:
        self.title, self.unit = title, unit
        self._progress = progress
        self._task: TaskID | None = None
        self._started = self._reported = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, total: int, *, title: str | None = None, detail: str = "") -> None:
        """Reports that ``done`` of ``total`` units are done; ``title`` names the current part of the task.

        Raises:
            Interrupted: A signal arrived whose exception was lost: Python drops exceptions raised during clean-up.
        """
        _raise_if_stopped()
        now = time.monotonic()
        if title is not None and title != self.title:
            self.title, self._started, self._first = title, now, None
        if self._first is None:
            self._first = done  # work done before a resume does not count for the speed
        rate = (done - self._first) / (now - self._started) if now > self._started else 0.0
        text = f"{rate:,.1f} {self.unit}/s {detail}".rstrip()
        if self._progress is not None:
            if self._task is None:
                self._task = self._progress.add_task(self.title, total=total, text=text)
            self._progress.update(
                self._task, completed=done, total=total, description=_escape_markup(self.title), text=text
            )
        elif now - self._reported >= PLAIN_LINE_SECONDS:
            self._reported = now
            left = f", {(total - done) / rate:,.0f} s left" if rate > 0 else ""
            note(f"{self.title}: {done}/{total}, {text}{left}")


@contextmanager
def bar(title: str, unit: str) -> Iterator[Bar]:
    """Yields a bar that disappears when the task is done."""
    if not can_draw():
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


def can_draw() -> bool:
    """Returns whether stderr is a terminal whose lines can be redrawn, and messages are not suppressed."""
    on_terminal = _err.is_terminal and _err.file.isatty()  # rich takes FORCE_COLOR for a terminal
    return on_terminal and not _err.is_dumb_terminal and not _quiet


@contextmanager
def live(shown: RenderableType, *, transient: bool = False) -> Iterator[Callable[[], None]]:
    """Shows a renderable at the bottom of the terminal while the block runs, and leaves it there unless transient.

    Yields a function that redraws it, at most a few times per second, however often it is called.
    """
    drawn = 0.0

    def draw() -> None:
        nonlocal drawn
        _raise_if_stopped()
        if time.monotonic() - drawn >= _DRAW_SECONDS:
            drawn = time.monotonic()
            display.refresh()

    # no thread of its own: it would draw in the middle of an update, and slow down the training
    with Live(shown, console=_err, auto_refresh=False, redirect_stdout=False, transient=transient) as display:
        yield draw


def _raise_if_stopped() -> None:
    if _stopped is not None:
        raise _stopped


def percent(fraction: float | None) -> str:
    """Returns a fraction in percent, without the sign; empty for None.

    Example:
        >>> percent(0.9643), percent(None)
        ('96.43', '')
    """
    return "" if fraction is None else f"{100 * fraction:.2f}"


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say = warn if record.levelno >= logging.WARNING else note
        say(record.getMessage())


def stop(error: Interrupted) -> NoReturn:
    """Raises the error now, and again at the next progress update in case it is lost."""
    global _stopped
    _stopped = error
    raise error


def start(*, json_wanted: bool) -> None:
    """Starts a command: shows the log messages of the library, and sets whether errors are also written as JSON."""
    global _json, _emitted, _stopped
    _json, _emitted, _stopped = json_wanted, False, None
    mute(False)
    _open_standard_streams()
    log = logging.getLogger("plifctl")
    log.handlers = [_Handler()]
    log.setLevel(logging.INFO)


class _StandardStream(io.RawIOBase):
    """The file below stdout or stderr.

    Args:
        descriptor: What is written to.
        lossy: Drop what cannot be written; otherwise it is an error, except that a closed pipe exits quietly.
    """

    def __init__(self, descriptor: int, *, lossy: bool) -> None:
        self._descriptor, self._lossy = descriptor, lossy

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            if self._lossy:
                return memoryview(data).nbytes
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._descriptor)  # otherwise it fails again at exit
            if isinstance(error, BrokenPipeError):
                sys.exit(0)
            error.filename = "stdout"
            raise


def _open_standard_streams() -> None:
    """Opens the streams that the shell closed (``2>&-``), and lets a :class:`_StandardStream` write the others.

    A closed descriptor would be given to the next file that is opened: libraries that write to stderr themselves would
    write their messages into a cache or a checkpoint.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor, which is this one
    sys.stdout = _standard_stream(sys.stdout, 1)
    sys.stderr = _standard_stream(sys.stderr, 2)


def _standard_stream(stream: TextIO | None, descriptor: int) -> TextIO:
    """Returns the stream to use instead of Python's own, which is None if it was closed."""
    if stream is not None and type(stream) is not io.TextIOWrapper:
        return stream  # that of a test
    written_to, encoding = (descriptor, "utf-8") if stream is None else (stream.fileno(), stream.encoding)
    raw = io.BufferedWriter(_StandardStream(written_to, lossy=descriptor == 2))
    # a terminal whose encoding lacks τ must not cause an error
    return io.TextIOWrapper(raw, encoding=encoding, errors="replace", line_buffering=descriptor == 2)


def mute(wanted: bool = True) -> None:
    """Suppresses all output, errors included: only the first of several ranks reports."""
    global _muted
    _muted = _err.quiet = wanted


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Sets quiet (results, warnings and errors only) and verbose (tracebacks of errors)."""
    global _quiet, _verbose
    _quiet, _verbose = quiet, verbose
