"""Tables as text: for the terminal, Markdown, LaTeX, CSV and JSON.

Terminal, Markdown and LaTeX show a table as the paper does, ours beside it, notes below; CSV and JSON hold one line for
each published number.
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Sequence
from typing import Any, Literal, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from plifctl.report.table import Cell, Entry, Number, Table

Format = Literal["table", "markdown", "csv", "json", "latex"]
FORMATS: tuple[Format, ...] = get_args(Format)

_WIDTH = 118
_LONGEST_WHOLE_WORD = 24


def render(tables: Sequence[Table], form: Format, *, width: int | None = None) -> str:
    """Returns the tables as one text.

    Args:
        tables: At least one.
        form: CSV and JSON hold all tables in one document.
        width: Columns of the terminal; None where there is none.
    """
    match form:
        case "csv":
            return _csv(tables)
        case "json":
            return json.dumps([_tree(table) for table in tables], indent=1, ensure_ascii=False)
        case "markdown":
            return "\n\n".join(map(_markdown, tables))
        case "latex":
            return "\n\n".join(["% needs the packages booktabs and graphicx", *map(_latex, tables)])
        case "table":
            return "\n\n".join(_terminal(table, width or _WIDTH) for table in tables)


def _terminal(table: Table, width: int) -> str:
    notes = [_plain(table.source), *(f"({mark}) {_plain(note)}" for mark, note in table.notes)]
    wrapped = [line for text in notes for line in textwrap.wrap(text, width, break_on_hyphens=False)]
    return "\n".join([_title(table), "", *_grid(table, width), "", *wrapped])


def _grid(table: Table, width: int) -> list[str]:
    """The cells of a table; where it is too wide, some columns below the others, beside the first column again."""
    whole = _fitting(table, list(range(len(table.columns))), width)
    if _widest(whole) <= width:
        return whole
    groups: list[list[int]] = []
    for index, head in enumerate(table.columns[1:], 1):
        if groups and head.startswith(("ours", "logs")):  # stays beside the published column
            groups[-1].append(index)
        else:
            groups.append([index])
    lines: list[str] = []
    piece: list[int] = []
    for group in groups:
        if piece and _widest(_fitting(table, [0, *piece, *group], width)) > width:
            lines += [*_fitting(table, [0, *piece], width), ""]
            piece = []
        piece += group
    return [*lines, *_fitting(table, [0, *piece], width)]


def _widest(lines: Sequence[str]) -> int:
    return max(map(len, lines), default=0)


def _fitting(table: Table, columns: Sequence[int], width: int) -> list[str]:
    """Some columns of a table, no wider than asked for if no word longer than usual need be broken for it."""
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    narrowest = 0
    for index in columns:
        words = " ".join([table.columns[index], *(_joined(row[index], " ({})") for row in table.rows)]).split()
        longest = min(_LONGEST_WHOLE_WORD, max(map(len, words), default=1))
        justify: Literal["right", "left"] = "right" if is_numeric(table, index) else "left"
        drawn.add_column(Text(table.columns[index]), justify=justify, overflow="fold", min_width=longest)
        narrowest += longest + 2
    for row in table.rows:
        drawn.add_row(*(Text(_joined(row[index], " ({})")) for index in columns))
    # asked for a width, rich may draw wider than that, and then less than all of it
    lines = _drawn(drawn, width)
    for asked in range(width - 2, width // 2, -2):
        if _widest(lines) <= width or width < narrowest:
            break
        lines = _drawn(drawn, asked)
    return lines


def _drawn(table: RichTable, width: int) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=width, force_terminal=False, highlight=False)
    console.print(table, crop=False)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return lines


def _markdown(table: Table) -> str:
    def cells(texts: Sequence[str]) -> str:
        return "| " + " | ".join(_plain(text).replace("\\", "\\\\").replace("|", "\\|") for text in texts) + " |"

    rules = "|" + "|".join("--:" if is_numeric(table, i) else "---" for i in range(len(table.columns))) + "|"
    lines = [f"**{_title(table)}**", "", cells(table.columns), rules]
    lines += [cells([_joined(cell, " ({})") for cell in row]) for row in table.rows]
    lines += ["", _plain(table.source)]
    lines += [f"\n({mark}) {_plain(note).replace('|', chr(92) + '|')}" for mark, note in table.notes]
    return "\n".join(lines)


_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""Shrinks what follows to the width of the text if it is wider."""


def _latex(table: Table) -> str:
    heads = " & ".join(map(_tex, table.columns))
    align = "".join("r" if is_numeric(table, index) else "l" for index in range(len(table.columns)))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.caption)} ({_tex(table.source)})}}",
        r"\small",
        _FIT + "{",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        heads + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(_tex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}", "}"]
    if table.notes:
        lines += [r"\par\smallskip\raggedright\footnotesize"]
        lines += [rf"\textsuperscript{{{mark}}} {_tex(note)}\par" for mark, note in table.notes]
    return "\n".join([*lines, r"\end{table}"])


def _csv(tables: Sequence[Table]) -> str:
    output = io.StringIO()
    fields = [
        "table",
        "row",
        "column",
        "published",
        "ours",
        "difference",
        "T",
        "epochs",
        "protocol",
        "recipe",
        "seeds",
        "runs",
        "note",
    ]
    writer = csv.DictWriter(output, fields, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for entry in table.entries:
            for line in _lines(entry):
                flat = {
                    key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in line.items()
                }
                writer.writerow({"table": table.name, **{key: _inert(value) for key, value in flat.items()}})
    return output.getvalue()


def _inert(value: Any) -> Any:
    """Keeps a spreadsheet from taking text for a formula, and a terminal for a command."""
    if not isinstance(value, str):
        return value
    return f"'{_plain(value)}" if value[:1] in ("=", "+", "@") else _plain(value)


def _tree(table: Table) -> dict[str, Any]:
    lines = [line for entry in table.entries for line in _lines(entry)]
    rows = [[cell.published or [number.text for number in cell.numbers] for cell in row] for row in table.rows]
    return {
        "table": table.name,
        "caption": table.caption,
        "source": table.source,
        "columns": list(table.columns),
        "rows": rows,
        "entries": lines,
    }


def _lines(entry: Entry) -> list[dict[str, Any]]:
    """An entry in the long form: a line for each recipe that has a number, or one without."""
    place: dict[str, Any] = {"row": entry.row, "column": entry.column, "published": _number(entry.published)}
    if not entry.numbers:
        return [{**place, "ours": None}]
    return [{**place, **_provenance(number)} for number in entry.numbers]


def _provenance(number: Number) -> dict[str, Any]:
    ours: dict[str, Any] = {"ours": number.text if number.value is None else round(number.value, 4)}
    if number.difference is not None:
        ours["difference"] = round(number.difference, 3)
    if number.records:
        first = number.records[0]
        ours |= {"T": first.T, "epochs": first.epochs, "protocol": first.protocol, "recipe": first.recipe}
        ours |= {
            "seeds": [r.seed for r in number.records],
            "runs": [r.run for r in number.records],
            "note": number.note,
        }
    return ours


def _number(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None


def _title(table: Table) -> str:
    return f"Table {table.name}. {_plain(table.caption)}"


def is_numeric(table: Table, column: int) -> bool:
    """Whether a column holds numbers only, and is set flush right."""
    texts = [_joined(row[column], "") for row in table.rows]
    return all(re.fullmatch(r"[–−+\-\d., ±()]*", text) for text in texts) and any(texts)


def parts_of(cell: Cell) -> list[tuple[str, str]]:
    """Returns what a cell shows: texts, each with the letter of its note or none."""
    if cell.published:
        return [(_plain(cell.published), "")]
    return [(_plain(_shown(number)), number.mark) for number in cell.numbers]


def _joined(cell: Cell, mark: str) -> str:
    return ", ".join(text + (mark.format(letter) if letter else "") for text, letter in parts_of(cell))


def _shown(number: Number) -> str:
    """A number of ours and, of an accuracy, how it differs from the published one."""
    if number.difference is None:
        return number.text
    digits = len(number.text.partition(" ")[0].partition(".")[2])
    return f"{number.text} {number.difference:+.{digits}f}".replace("-", "−")


def _plain(text: str) -> str:
    """Without control characters: what a file says must not steer a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "τ": r"$\tau$", "₀": r"$_0$", "±": r"$\pm$", "–": "--",
    "−": "$-$", "Δ": r"$\Delta$",
    "<": r"\textless{}", ">": r"\textgreater{}", "×": r"$\times$",
}  # fmt: skip


def _tex(text: str) -> str:
    if text.startswith("["):  # after the end of a row it would be taken for an option of it
        return "{[}" + _tex(text[1:])
    known = (_TEX.get(character, character) for character in _plain(text))
    return "".join(part if max(part) < "\u0180" else "?" for part in known)  # beyond it, fonts lack the letters


def _tex_cell(cell: Cell) -> str:
    return ", ".join(
        _tex(text) + (rf"\textsuperscript{{{letter}}}" if letter else "") for text, letter in parts_of(cell)
    )
