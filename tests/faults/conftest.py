"""How hard the batteries strike: a little with every test run, wholly with ``make faults``."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import write_gestures
from faults.sandbox import Sandbox


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the whole battery was asked for."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture
def times(full: bool) -> Callable[[int, int], int]:
    """How often: the first number in a short run, the second in the whole battery."""
    return lambda short, whole: whole if full else short


@pytest.fixture
def generator(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of the test, from ``--seed``; the seed is shown where the test fails."""
    seed = pytestconfig.getoption("--seed")
    print(f"seed {seed}")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says how often something was done, past pytest's capture."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {text}", end="")

    return say


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """A folder with raw gestures in it: 22 training samples, 11 for testing."""
    write_gestures(tmp_path / "sandbox" / "raw")
    return Sandbox(tmp_path / "sandbox")
