"""Pages agree with the code that they describe: links, tables, and the reference."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from pages import PAGES, ROOT, page_text


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_reference_equals_the_help_texts() -> None:
    reference = runpy.run_path(str(ROOT / "docs/make_reference.py"))["reference"]
    assert page_text("docs/reference.md") == reference(), "outdated; write it with: make reference"


def test_paper_and_code_equals_the_sources_of_the_registry() -> None:
    page = runpy.run_path(str(ROOT / "docs/make_sources.py"))["page"]
    assert page_text("docs/paper-and-code.md") == page(), "outdated; write it with: make reference"


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files_and_headings(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page_text(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_of_a_page_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    inline = re.findall(r"`make ([a-z -]+)`", page_text(page))
    assert {word for words in inline for word in words.split()} <= targets


PAGES_WITH_TABLES = [page for page in PAGES if re.search("<!-- (table|benchmark) ", page_text(page))]


def test_pages_with_tables_include_the_results() -> None:
    assert {"docs/results.md", "docs/event-driven.md"} <= set(PAGES_WITH_TABLES)


@pytest.mark.parametrize("page", PAGES_WITH_TABLES)
def test_tables_of_a_page_equal_those_of_report_and_benchmarks(page: str) -> None:
    with_tables = runpy.run_path(str(ROOT / "docs/make_tables.py"))["with_tables"]
    assert page_text(page) == with_tables(page_text(page)), "outdated; write it with: make reference"
