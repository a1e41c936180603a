"""The page as a file: style, scripts and data are embedded, nothing is fetched.

Curves and spikes are elements of their own, which the script parses when it draws them. Most come after the script, so
that a browser shows the table of runs, and the curves of the first ones, before it has read the rest of the file.

A content security policy allows exactly the embedded style and script, by hash. The charts are drawn by uPlot, which
is in ``vendor/`` with its licence.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.config.choices import PROTOCOL_ACCURACY
from plifctl.errors import UsageError

_NAME = "index.html"
_MARK = '<meta name="generator" content="plifctl">'
_STYLES = ("vendor/uPlot.min.css", "style.css")
_SCRIPTS = ("vendor/uPlot.iife.min.js", "series.js", "runs.js", "chart.js", "report.js", "samples.js", "app.js")

_BEGIN = 2000
"""Bytes at the beginning of a page that have its mark."""

_FIRST_PARTS = 8
"""Curves before the script: at first it draws those of four runs."""


def render_page(data: dict[str, Any], *, live_ms: int = 0) -> str:
    """Returns the page.

    Args:
        data: As :func:`plifctl.report.page.build_page_data` returns it.
        live_ms: Interval at which the page asks its server for new data, milliseconds; 0: never.
    """
    style, template = _join(_STYLES), _read("template.html")
    script = f'"use strict";\n/*!\n{_read("vendor/LICENSE")}\n*/\n{_join(_SCRIPTS)}'
    connect = "'self'" if live_ms else "'none'"
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    parts = [_part(digest, part) for digest, part in data["parts"].items()]
    values = {
        "generator": _MARK,
        "protocols": html.escape(" ".join(f"Protocol {name}: {one.short}." for name, one in PROTOCOL_ACCURACY.items())),
        "policy": html.escape(policy, quote=True),
        "style": style,
        "script": script,
        "data": embed_json({name: value for name, value in data.items() if name != "parts"}),
        "first_parts": "\n".join(parts[:_FIRST_PARTS]),
        "parts": "\n".join(parts[_FIRST_PARTS:]),
        "live": str(live_ms),
    }
    head, *rest = template.split("{{")
    parts = [head]
    for piece in rest:
        name, _, text = piece.partition("}}")
        parts += [values[name], text]
    return "".join(parts)


def _part(digest: str, part: dict[str, Any]) -> str:
    return f'<script type="application/json" id="part-{digest}">{embed_json(part)}</script>'


def write_page(folder: Path, data: dict[str, Any]) -> Path:
    """Writes the page into a folder atomically, and returns its path.

    Raises:
        UsageError: The folder contains a page that plifctl did not write.
        MachineError: The file cannot be written.
    """
    path = folder / _NAME
    if folder.is_file():
        raise UsageError(f"{folder}: a file; the page needs a folder", hint="--html report")
    if path.exists() and not _is_page(path):
        raise UsageError(f"{path}: not a page of plifctl, not replaced", hint="choose another folder: --html report")
    files.write_text(path, render_page(data))
    return path


def _is_page(path: Path) -> bool:
    """Returns whether plifctl wrote a page, which may be large: its mark is at the beginning."""
    with files.machine_errors(path):
        return path.is_file() and _MARK.encode() in files.read_regular(path, _BEGIN)


def embed_json(data: Any) -> str:
    """Returns JSON that is safe inside an HTML element: no character of it can end the element or start another.

    Bytes of names that are not UTF-8 become escapes of JSON.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(errors="backslashreplace").decode()


def _read(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _join(names: tuple[str, ...]) -> str:
    return "\n".join(map(_read, names))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
