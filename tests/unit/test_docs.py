"""Documents that follow from the code are what the code says."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_up_to_date() -> None:
    reference = runpy.run_path(str(ROOT / "docs/make_reference.py"))["reference"]
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == reference(), "make reference writes it"


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/concepts.md", "registry/README.md"]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    import re

    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
