"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PAGES = (
    *("README.md", "CONTRIBUTING.md", "registry/README.md", "data_cache/README.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)

_FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\n\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: Path of the page in the repository.
        line: Line of its first line, from 1.
        language: What the fence says: bash, python, yaml, text …; empty for a block without one.
        text: Its lines.
        not_run: Why it cannot be run, from a comment ``<!-- not run: REASON -->`` before it; empty if it can.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str = ""

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"


def page_text(page: str) -> str:
    """Returns the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, *languages: str) -> Iterator[Block]:
    """Yields the fenced blocks of a page, those of some languages only if any are given."""
    text = page_text(page)
    for fence in _FENCE.finditer(text):
        reason = _NOT_RUN.search(text[: fence.start()])
        line = text.count("\n", 0, fence.start(2)) + 1
        if not languages or fence[1] in languages:
            yield Block(page, line, fence[1], fence[2], reason[1] if reason else "")
