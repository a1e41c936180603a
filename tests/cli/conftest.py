"""The command line with what most of its tests begin from."""

from collections.abc import Callable
from typing import Any

import pytest
from demo_runs import prepare_gestures


@pytest.fixture
def prepared(plifctl: Callable[..., Any], made_once: Callable[..., None]) -> Callable[..., Any]:
    """The command line with a cache of the tiny gestures, T = 4; their recordings are in raw/."""
    made_once(prepare_gestures)
    return plifctl
