"""The version is the same wherever it is written."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from plifctl import __version__

ROOT = Path(__file__).resolve().parents[2]


def git(*arguments: str) -> str:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True, text=True).stdout


def test_version_of_citation_and_changelog_is_that_of_the_code() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    heading = re.search(r"^## (.+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None
    assert heading[1].split()[0] == Version(__version__).base_version
    assert ("unreleased" in heading[1]) == Version(__version__).is_devrelease


@pytest.mark.subprocess
def test_version_at_a_tag_is_that_of_the_tag() -> None:
    assert git("tag", "--points-at", "HEAD", "v*").split() in ([], [f"v{__version__}"])


@pytest.mark.subprocess
def test_version_is_not_lower_than_the_last_tag() -> None:
    tags = [Version(tag) for tag in git("tag", "--merged", "HEAD", "v*").split()]
    assert Version(__version__) >= max(tags, default=Version("0"))
