"""Writes tables into the pages, and the picture made of benchmarks: ``make reference`` runs it.

A table of the report stands between ``<!-- table NAME -->`` and ``<!-- end -->``; with ``<!-- table NAME modified -->``
it counts modified runs, too. It is built from the records in the registry, not from the user's runs. What benchmarks
measured stands between ``<!-- benchmark NAME -->`` and ``<!-- end -->``; it is built from the documents in
``benchmarks/results``.
"""

import re
import sys
import tempfile
from pathlib import Path

import plifctl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import pages  # noqa: E402 - found only from here on

_BLOCK = re.compile(r"<!-- (table|benchmark) (\S+)( modified)? -->\n.*?<!-- end -->", re.DOTALL)


def with_tables(text: str) -> str:
    """Returns the text of a page with its tables as the report prints them, and as benchmarks measured them."""
    with tempfile.TemporaryDirectory() as no_runs:

        def content(kind: str, name: str, modified: str | None) -> str:
            if kind == "benchmark":
                return pages.block(name)
            table = plifctl.table(name, source="shipped", runs_dir=no_runs, include_modified=modified is not None)
            return table.to_markdown().rstrip() + "\n"

        def block(found: re.Match[str]) -> str:
            first_line = found[0].partition("\n")[0]
            return f"{first_line}\n{content(*found.groups())}<!-- end -->"

        return _BLOCK.sub(block, text)


if __name__ == "__main__":
    pages.draw_picture(ROOT / "docs" / pages.PICTURE)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = page.read_text(encoding="utf-8")
        if (new := with_tables(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(f"written: {page.relative_to(ROOT)}")
