"""Tables as text: Markdown, LaTeX, HTML, CSV and JSON.

Markdown, LaTeX and HTML show a table as in the paper, with numbers from runs beside the reported ones and notes below.
CSV and JSON are in the long form: one line for each reported number and recipe.
"""

from __future__ import annotations

import csv
import html
import io
import logging
import re
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plifctl.config.choices import PROTOCOL_ACCURACY
from plifctl.report.labels import range_text
from plifctl.runs.records import LATE_EPOCHS, environment_values
from plifctl.units import markdown_table, markdown_text, plain

if TYPE_CHECKING:
    from plifctl.report.table import Cell, Entry, Number, Table

_log = logging.getLogger(__name__)

_FIELDS = (
    *("table", "row", "column", "reported", "result", "std", "difference"),
    *("measure", "experiment", "T", "epochs", "planned_epochs"),
    *("protocol", "recipe", "source", "subset", "verified", "modified", "test_samples"),
    *("last", f"mean_last_{LATE_EPOCHS}", "validation_chosen", "validated_runs"),
    *("seeds", "folds", "runs", "plifctl", "device", "note"),
)


def markdown(table: Table) -> str:
    """Returns a table in Markdown."""
    numeric = [index for index in range(len(table.columns)) if is_numeric(table, index)]
    rows = ([f"**{cell_text(cell)}**" if cell.bold else cell_text(cell) for cell in row] for row in table.cells)
    lines = [f"**{table.title}**", "", markdown_table(table.columns, rows, numeric), "", plain(table.source)]
    return "\n".join([*lines, *(f"\n{markdown_text(note)}" for note in notes_of(table))])


def html_text(table: Table) -> str:
    """Returns a table in HTML."""
    flush = [' style="text-align: right"' if is_numeric(table, i) else "" for i in range(len(table.columns))]

    def line(texts: Sequence[str], tag: str) -> str:
        cells = (f"<{tag}{style}>{text}</{tag}>" for text, style in zip(texts, flush, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    head = line([_html(text) for text in table.columns], "th")
    lines = ["<table>", f"<caption>{_html(table.title)}</caption>", f"<thead>{head}</thead>"]
    rows = (line([_html_cell(cell) for cell in row], "td") for row in table.cells)
    lines += ["<tbody>", *rows, "</tbody>", "</table>"]
    return "\n".join([*lines, *(f"<p>{_html(note)}</p>" for note in (table.source, *notes_of(table)))])


def notes_of(table: Table) -> list[str]:
    """Returns the notes of a table with their marks, then its warnings."""
    return [*(f"({mark}) {note}" for mark, note in table.notes.items()), *table.warnings]


def _html_cell(cell: Cell) -> str:
    text = _html(cell_text(cell))
    return f"<strong>{text}</strong>" if cell.bold else text


def _html(text: str) -> str:
    return html.escape(plain(text))


_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""LaTeX that shrinks the table to the text width if it is wider."""


_NOTE_CHARACTERS, _CAPTION_CHARACTERS, _PAGE_LINES = 75, 65, 46


def latex(table: Table) -> str:
    """Returns a table in LaTeX: a float, with its notes in it, or below it where they need more than a page."""
    align = "".join(_tex_columns(table))
    lines = [
        "% needs the packages booktabs and graphicx",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.caption)} ({_tex(table.source)})}}",
        r"\smallskip\small",
        _FIT + "{",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        " & ".join(map(_tex, table.columns)) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(_tex_cell(cell) for cell in row) + r" \\" for row in table.cells]
    lines += [r"\bottomrule", r"\end{tabular}", "}"]
    notes = [rf"\textsuperscript{{{mark}}} {_tex(note)}\par" for mark, note in table.notes.items()]
    notes += [rf"{_tex(warning)}\par" for warning in table.warnings]
    style = r"\raggedright\footnotesize"
    if not notes:
        lines += [r"\end{table}"]
    elif _fits_page(table):
        lines += [rf"\par\smallskip{style}", *notes, r"\end{table}"]
    else:  # a float is never broken: what exceeds the page would be lost
        label = "tab:plifctl-" + re.sub(r"[^A-Za-z0-9]+", "-", table.name)
        lines += [rf"\label{{{label}}}", r"\end{table}"]
        lines += [rf"{{{style}\noindent Notes to Table~\ref{{{label}}}:\par", *notes, "}"]
    return _replace_unknown("\n".join(lines), table.name)


_PROSE, _PHRASE, _PROSE_LINE = 140, 24, 43
"""Characters of a cell from which on a column is broken into lines: beside prose, phrases are, too; and of a line."""


def _tex_columns(table: Table) -> list[str]:
    """Returns the alignment of each column; cells of prose make paragraphs."""
    longest = [max((len(row[index]) for row in table.rows), default=0) for index in range(len(table.columns))]
    prose = max(longest, default=0) > _PROSE
    paragraphs = ["p{6cm}" if length > _PROSE else "p{3cm}" if length > _PHRASE else "l" for length in longest]
    return [
        "r" if is_numeric(table, index) else paragraph if prose else "l" for index, paragraph in enumerate(paragraphs)
    ]


def _fits_page(table: Table) -> bool:
    """Returns whether a table with its notes is likely to fit a page of the class ``article`` at 10 points."""
    notes = sum(1 + len(note) // _NOTE_CHARACTERS for note in notes_of(table))
    caption = 1 + (len(table.caption) + len(table.source)) // _CAPTION_CHARACTERS
    rows = sum(1 + max(map(len, row), default=0) // _PROSE_LINE for row in table.rows)
    return caption + rows + notes <= _PAGE_LINES


_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon",
    "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
"""Names of Greek letters in LaTeX, but for those that look like Latin ones."""

_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "–": "--",
    "<": r"\textless{}", ">": r"\textgreater{}",
    "₀": "$_0$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$",
    **{letter: rf"$\{name}$" for letter, name in _GREEK.items()},
}  # fmt: skip

_BETWEEN_DASHES = re.compile("(?<=[-–])(?=[-–])")


def _tex(text: str) -> str:
    """Returns a text in LaTeX; characters that its fonts lack are left for :func:`_replace_unknown`."""
    parts = _BETWEEN_DASHES.split(plain(text))  # of several, LaTeX would make a longer one
    escaped = "{}".join("".join(_TEX.get(character, character) for character in part) for part in parts)
    return "{[}" + escaped[1:] if escaped.startswith("[") else escaped  # after the end of a row, it reads an option


def _replace_unknown(text: str, name: str) -> str:
    """Returns the LaTeX of a table with ``?`` for characters that its fonts lack; warns of them."""
    unknown = sorted({character for character in text if character >= "\u0180"})
    if unknown:
        _log.warning("table %s in LaTeX: its fonts lack %s: written as ?", name, " ".join(unknown))
    return "".join("?" if character in unknown else character for character in text)


def _tex_cell(cell: Cell) -> str:
    parts = (_tex(text) + (rf"\textsuperscript{{{mark}}}" if mark else "") for text, mark in marked_texts(cell))
    return rf"\textbf{{{', '.join(parts)}}}" if cell.bold else ", ".join(parts)


def csv_text(tables: Sequence[Table]) -> str:
    """Returns the long form of tables in one CSV document."""
    output = io.StringIO()
    writer = csv.DictWriter(output, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for entry in table.entries:
            for line in _lines(entry):
                writer.writerow({"table": table.name, **{key: csv_value(value) for key, value in line.items()}})
    return output.getvalue()


def csv_value(value: Any) -> Any:
    """Returns a value without control characters, in a form that a spreadsheet does not read as a formula."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if not isinstance(value, str):
        return value
    return f"'{plain(value)}" if value[:1] in ("=", "+", "@") else plain(value)


def tree(table: Table) -> dict[str, Any]:
    """Returns a table and its long form as a tree for JSON."""
    return {
        "table": table.name,
        "caption": table.caption,
        "source": table.source,
        "columns": list(table.columns),
        "rows": [[cell.text or [number.shown for number in cell.numbers] for cell in row] for row in table.cells],
        "notes": dict(table.notes),
        "warnings": list(table.warnings),
        "entries": [line for entry in table.entries for line in _lines(entry)],
    }


def _lines(entry: Entry) -> list[dict[str, Any]]:
    """Returns the lines of an entry in the long form: one for each recipe with a number, or one without a number."""
    place: dict[str, Any] = {"row": entry.row, "column": entry.column, "reported": _parse_reported(entry.reported)}
    if not entry.numbers:
        return [{**place, "result": None}]
    return [{**place, **_result(number)} for number in entry.numbers]


def _parse_reported(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None


def _result(number: Number) -> dict[str, Any]:
    found: dict[str, Any] = {"result": number.text if number.value is None else round(number.value, number.decimals)}
    if number.std is not None:
        found["std"] = round(number.std, number.decimals)
    if number.difference is not None:
        found["difference"] = round(number.difference, 3)
    if number.records:
        found |= _describe_records(number)
    return {**found, "note": number.note} if number.note else found


def _describe_records(number: Number) -> dict[str, Any]:
    """Returns what the runs behind a number are, a value for each column of the long form.

    Runs with a common mean may differ in epochs, which are a text then, as ``5–9``; and in test samples, then None.
    """
    first = number.records[0]
    data = first.data
    epochs = range_text(record.epochs for record in number.records)
    tested = {None if record.data is None else record.data.test for record in number.records}
    found: dict[str, Any] = {
        "measure": PROTOCOL_ACCURACY[first.protocol].short if number.is_result else None,
        "experiment": first.experiment,
        "T": first.T,
        "epochs": int(epochs) if epochs.isdecimal() else epochs,
        "planned_epochs": number.planned,
        "protocol": first.protocol,
        "recipe": first.recipe,
        "source": first.origin,
        "subset": first.is_subset or (None if data is None else False),
        "verified": None if data is None else all(record.data.verified for record in number.records if record.data),
        "modified": "modified" in number.flags,
        "test_samples": tested.pop() if len(tested) == 1 else None,
        "seeds": [record.seed for record in number.records],
        "folds": [record.fold.number for record in number.records if record.fold is not None] or None,
        "runs": [record.run for record in number.records],
        "plifctl": ", ".join(environment_values(number.records, "plifctl")) or None,
        "device": ", ".join(environment_values(number.records, "device")) or None,
    }
    if all(len(record.tests) > 1 for record in number.records):
        last = statistics.fmean(record.tests[max(record.tests)] for record in number.records)
        late = [statistics.fmean(record.late_tests) for record in number.records if record.late_tests]
        mean = round(100 * statistics.fmean(late), 4) if len(late) == len(number.records) else None
        found |= {"last": round(100 * last, 4), f"mean_last_{LATE_EPOCHS}": mean}
    if number.validated:  # accuracies of protocol B
        chosen = statistics.fmean(record.accuracy for record in number.validated)
        found |= {"validation_chosen": round(100 * chosen, 4)}
        found |= {"validated_runs": [record.run for record in number.validated]}
    return found


def is_numeric(table: Table, column: int) -> bool:
    """Returns whether a column has numbers only, and is right-aligned."""
    texts = [row[column].text for row in table.cells if not row[column].numbers]
    numbers = [number for row in table.cells for number in row[column].numbers]
    if any(number.value is None for number in numbers):
        return False
    return all(re.fullmatch(r"[–−+\-\d., ±()]*", text) for text in texts) and any([*texts, *numbers])


def marked_texts(cell: Cell) -> list[tuple[str, str]]:
    """Returns the texts in a cell, each with the letter of its note (empty if it has none)."""
    if cell.text:
        return [(plain(cell.text), "")]
    return [(plain(_with_difference(number)), number.mark) for number in cell.numbers]


def cell_lines(cell: Cell) -> list[str]:
    """Returns the texts in a cell, each with its mark in brackets."""
    return [f"{text} ({mark})" if mark else text for text, mark in marked_texts(cell)]


def cell_text(cell: Cell) -> str:
    """Returns the text of a cell, marks in brackets."""
    return ", ".join(cell_lines(cell))


def _with_difference(number: Number) -> str:
    if number.difference is None:
        return number.shown
    digits = len(number.text.partition(" ")[0].partition(".")[2])
    return f"{number.shown} {f'{number.difference:+.{digits}f}'.replace('-', '−')}"
