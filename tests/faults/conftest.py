"""Amount of fault tests: a small part in every test run, the full batteries with ``make faults``."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import write_gestures
from faults.sandbox import Sandbox


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Returns whether the full battery was requested."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture
def times(full: bool) -> Callable[[int, int], int]:
    """Returns a function that gives the number of repetitions: the first in a short run, the second in a full one."""
    return lambda short, long: long if full else short


@pytest.fixture
def generator(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> random.Random:
    """Returns the random generator of the test, seeded by ``--seed``; a failure shows the seed."""
    seed = pytestconfig.getoption("--seed")
    print(f"seed {seed}")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def print_summary(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Returns a function that says what a battery did; all of it is printed at the end (tests/conftest.py)."""
    return lambda text: record_property("summary", text)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """A sandbox with raw gestures: 22 training and 11 test samples."""
    write_gestures(tmp_path / "sandbox" / "raw")
    return Sandbox(tmp_path / "sandbox")
