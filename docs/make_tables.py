"""Writes the tables of the report into the pages: ``make reference`` runs it.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``. It is built from the records in the registry, not
from the user's runs.
"""

import re
import tempfile
from pathlib import Path

import plifctl

ROOT = Path(__file__).resolve().parents[1]

_TABLE = re.compile(r"<!-- table (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def with_tables(text: str) -> str:
    """Returns the text of a page with its tables as the report prints them."""
    with tempfile.TemporaryDirectory() as no_runs:
        return _TABLE.sub(
            lambda found: (
                f"<!-- table {found[1]} -->\n{plifctl.table(found[1], runs_dir=no_runs).to_markdown().rstrip()}\n"
                "<!-- end -->"
            ),
            text,
        )


if __name__ == "__main__":
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = page.read_text(encoding="utf-8")
        if (new := with_tables(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(f"written: {page.relative_to(ROOT)}")
