"""Report tables on the terminal, fitted to its width."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from plifctl.report.render import cell_lines, is_numeric, notes_of
from plifctl.report.table import Table
from plifctl.units import plain

_WIDTH = 118
_MAX_UNBROKEN = 24


def table_text(table: Table, width: int | None = None) -> str:
    """Returns a table with title and notes.

    Args:
        table: The table.
        width: Columns of the terminal; None where there is none.
    """
    width = width or _WIDTH
    notes = [plain(note) for note in (table.source, *notes_of(table))]
    return "\n".join([*_wrap([table.title], width), "", *_grid(table, width), "", *_wrap(notes, width)])


def _wrap(paragraphs: Sequence[str], width: int) -> list[str]:
    return [line for text in paragraphs for line in textwrap.wrap(text, width, break_on_hyphens=False)]


def _grid(table: Table, width: int) -> list[str]:
    """The cells of a table; where it is too wide, in blocks below each other, the first column in each."""
    complete = _block(table, list(range(len(table.columns))), width)
    if _widest(complete) <= width:
        return complete
    groups: list[list[int]] = []
    for index in range(1, len(table.columns)):
        if groups and _is_result(table, index):  # keep each result next to the reported number
            groups[-1].append(index)
        else:
            groups.append([index])
    lines: list[str] = []
    block: list[int] = []
    for group in groups:
        if block and _widest(_block(table, [0, *block, *group], width)) > width:
            lines += [*_block(table, [0, *block], width), ""]
            block = []
        block += group
    return [*lines, *_block(table, [0, *block], width)]


def _widest(lines: Sequence[str]) -> int:
    return max(map(len, lines), default=0)


def _block(table: Table, columns: Sequence[int], width: int) -> list[str]:
    """Returns some columns of a table, within the width unless words of usual length would have to be broken."""
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    narrowest = 0
    for index in columns:
        longest = min(_MAX_UNBROKEN, max(map(len, _unbroken(table, index)), default=1))
        justify: Literal["right", "left"] = "right" if is_numeric(table, index) or _is_result(table, index) else "left"
        drawn.add_column(Text(table.columns[index]), justify=justify, overflow="fold", min_width=longest)
        narrowest += longest + 2
    for row in table.cells:
        drawn.add_row(*(Text("\n".join(cell_lines(row[index]))) for index in columns))
    # rich may draw wider than the width given, but narrower for a smaller one
    lines = _draw(drawn, width)
    for smaller in range(width - 2, width // 2, -2):
        if _widest(lines) <= width or width < narrowest:
            break
        lines = _draw(drawn, smaller)
    return lines


def _unbroken(table: Table, column: int) -> list[str]:
    """Yields the texts that must not be wrapped: row names, numbers with difference and mark, other single words."""
    texts = [line for row in table.cells for line in cell_lines(row[column])]
    if column == 0:
        return [table.columns[0], *texts]
    words = table.columns[column].split()
    return [*words, *(texts if _is_result(table, column) else " ".join(texts).split())]


def _is_result(table: Table, column: int) -> bool:
    """Returns whether a column contains only numbers from runs."""
    return not any(row[column].text for row in table.cells)


def _draw(table: RichTable, width: int) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=width, force_terminal=False, highlight=False)
    console.print(table, crop=False)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return lines
