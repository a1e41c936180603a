"""The page as a file: its parts put together, its data inside, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.errors import UsageError

_NAME = "index.html"
_MARK = '<meta name="generator" content="plifctl">'


def page_of(data: dict[str, Any], *, live_ms: int = 0) -> str:
    """Returns the page.

    Args:
        data: As :func:`plifctl.report.page.page_data` gives it.
        live_ms: Ask the server for new data so often; 0: never, there is none.
    """
    style, template = _part("style.css"), _part("template.html")
    script = '"use strict";\n' + _part("samples.js") + _part("app.js")
    asks = "'self'" if live_ms else "'none'"
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        f"connect-src {asks}; base-uri 'none'; form-action 'none'"
    )
    values = {
        "generator": _MARK,
        "policy": html.escape(policy, quote=True),
        "style": style,
        "script": script,
        "data": embedded(data),
        "live": str(live_ms),
    }
    head, *rest = template.split("{{")
    parts = [head]
    for piece in rest:
        name, _, text = piece.partition("}}")
        parts += [values[name], text]
    return "".join(parts)


def write_page(folder: Path, data: dict[str, Any]) -> Path:
    """Writes the page into a folder, whole or not at all, and returns its path.

    Raises:
        UsageError: A page is there that is none of ours.
        MachineError: It cannot be written there.
    """
    path = folder / _NAME
    if folder.is_file():
        raise UsageError(f"{folder}: a file; the page needs a folder", hint="--html report")
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise UsageError(f"{path}: not a page of plifctl, left as it is", hint="choose another folder: --html report")
    files.write_text(path, page_of(data))
    return path


def embedded(data: Any) -> str:
    """Returns JSON that can stand in a page: nothing in it ends the element or begins another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _part(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
