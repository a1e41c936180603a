"""Makes small raw data for tests."""

from pathlib import Path

import numpy as np

from plifctl.events.formats import EVENT
from plifctl.events.formats.aedat3 import encode_aedat3

_CLASSES = 11


def random_events(rng: np.random.Generator, n: int, *, start: int = 0, size: int = 128) -> np.ndarray:
    """Events anywhere on a square sensor, sorted by time."""
    events = np.empty(n, EVENT)
    events["t"] = np.sort(start + rng.integers(0, 50_000, n))
    for name, end in (("x", size), ("y", size), ("p", 2)):
        events[name] = rng.integers(0, end, n)
    return events


def write_gestures(root: Path, users: int = 3, events: int = 400) -> dict[str, int]:
    """Writes recordings in the layout of DVS128 Gesture; class k has its events in column 10·k, so it can be learnt.

    Returns:
        The number of events of each sample.
    """
    root.mkdir(parents=True, exist_ok=True)
    counts = {}
    for user in range(1, users + 1):
        rng = np.random.default_rng(user)
        parts, rows = [], ["class,startTime_usec,endTime_usec"]
        for label in range(_CLASSES):
            part = random_events(rng, events, start=100_000 * label)
            part["x"] = 10 * label + part["x"] % 8
            parts.append(part)
            rows.append(f"{label + 1},{100_000 * label},{100_000 * label + 60_000}")
            counts[f"user{user:02}_lab/{label:02}"] = events
        (root / f"user{user:02}_lab.aedat").write_bytes(encode_aedat3(np.concatenate(parts)))
        (root / f"user{user:02}_lab_labels.csv").write_text("\n".join(rows) + "\n")
    names = [f"user{user:02}_lab.aedat" for user in range(1, users + 1)]
    (root / "trials_to_train.txt").write_text("\n".join(names[:-1]) + "\n")
    (root / "trials_to_test.txt").write_text(names[-1] + "\n")
    return counts
