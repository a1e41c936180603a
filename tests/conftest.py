"""Fixtures that every test may use."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings beside the checkout; the test is skipped where there is none."""
    if not (_SHARED / "data").is_dir():
        pytest.skip("the real recordings (../shared/data) are not here")
    return _SHARED
