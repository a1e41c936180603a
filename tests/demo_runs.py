"""Short trainings of the demo on the command line: their cache, settings with which they fire, and their state."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from factories import write_gestures

FIRING = ("--set", "neuron.v_threshold=0.05")
"""With the threshold of the demo, a network of few epochs would not fire: all its answers would be equal."""


def prepare_gestures(plifctl: Callable[..., Any], folder: Path) -> None:
    """Makes a cache of the tiny gestures, T = 4, whose recordings are in raw/."""
    write_gestures(folder / "raw")
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", "raw").code == 0


def last_state(run: Path) -> dict[str, Any]:
    """Returns the latest checkpoint of a run."""
    state: dict[str, Any] = torch.load(run / "checkpoints/last.pt", weights_only=True)
    return state


def position(run: Path) -> tuple[int, int]:
    """Returns the epochs, and the steps of the next one, after which the latest checkpoint was written."""
    progress = last_state(run)["progress"]
    return progress["epoch"], progress["step"]


def wait_for(condition: Callable[[], Any], seconds: float = 240) -> Any:
    """Waits until a condition is true, and returns its value."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found
