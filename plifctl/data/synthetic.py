"""The embedded data sets: a simulated DVS128 records moving shapes, in the file layout of DVS128 Gesture.

Every gesture is one bright shape of random form, size, contrast and position on a field that wraps around. Only the
motion of the shape depends on the class. A motion starts anywhere, and each pixel that a shape passes sees both of its
edges, so the sum of the events tells little about the class; the positions of the two polarities at each moment do.

So a single frame shows in which direction a shape moves. In the second data set it tells nothing: its samples consist
of the same three motions, drawn independently of each other, each of another shape elsewhere, and the class is the
order of the three. Six slices of equal times, or three, do not show two motions in one frame; only then frames without
their order tell nothing about the class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from plifctl.config.choices import EmbeddedDataset
from plifctl.data.events import EVENT
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.simulated import MARKER_FILE, marker_line
from plifctl.errors import UsageError
from plifctl.files import atomic_folder, is_empty, temporary_of

CLASSES = (
    "left",
    "right",
    "up",
    "down",
    "orbit_clockwise",
    "orbit_counter_clockwise",
    "grow",
    "shrink",
    "shake_horizontal",
    "shake_vertical",
    "random_walk",
)
"""Names of the labels 0 to 10; y points down, as in the sensor, and clockwise is as seen by a viewer."""

ORDERS = tuple(permutations(("left", "right", "up")))
"""Motions of the labels 0 to 5 of the data set of orders, one after another."""

USERS: dict[EmbeddedDataset, tuple[int, int]] = {"synthetic-gesture": (40, 10), "synthetic-order": (80, 20)}
"""Number of recordings of each embedded data set for training and for testing, unless another is asked for."""

SENSOR = 128
"""Rows and columns of the sensor."""
GESTURE_US = 500_000
"""Duration of a gesture, µs."""
REFRACTORY_US = 500
"""Time after an event in which a pixel has no other event, µs."""

_LIGHTS = ("fluorescent", "fluorescent_led", "lab", "led", "natural")
_OWN_NAMES = re.compile(
    rf"user\d+_(?:{'|'.join(_LIGHTS)})(?:\.aedat|_labels\.csv)|trials_to_(?:train|test)\.txt|{re.escape(MARKER_FILE)}"
)
_STEP_US = 2500
_STEPS = GESTURE_US // _STEP_US
_PART_US = GESTURE_US // 3  # a motion of a sequence, and half a pause before and after it
_PART_STEPS = 60  # the pauses of 16,667 µs contain the edges of frames of equal times, so none shows two motions
_GAP_US = (150_000, 350_000)
_THRESHOLD = 0.25  # change of log intensity that causes an event
_MISMATCH = 0.03  # standard deviation of a pixel's threshold, relative
_NOISE_HZ = 0.1  # rate of background events of a pixel
_EDGE_PX = 2.0  # width of a shape's blurred edge
_FORMS = 6
_LEGS = 25  # straight parts of a random walk

_Simulate = Callable[[np.random.Generator], np.ndarray]
"""Returns the events of one gesture, t from 0, without noise and refractory time, unsorted."""


def write_synthetic(
    root: str | Path,
    dataset: EmbeddedDataset = "synthetic-gesture",
    *,
    train_users: int | None = None,
    test_users: int | None = None,
    seed: int = 2020,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes recordings, labels and trial lists in the original layout of DVS128 Gesture.

    Args:
        root: The folder: new, empty, or written by this function before. It appears when it is complete.
        dataset: The embedded data set.
        train_users: Number of recordings for training; each has one gesture of every class. None: as in
            :data:`USERS`.
        test_users: Number of recordings for testing; None: as in :data:`USERS`.
        seed: Seed of each user's random numbers: with more users the first ones stay the same.
        progress: Called after each recording with how many are written, and the total.

    Raises:
        UsageError: The folder contains other files.
    """
    root = Path(root)
    if root.is_dir() and not is_empty(root):
        _require_own(root)
    usual_train, usual_test = USERS[dataset]
    train_users = usual_train if train_users is None else train_users
    users = train_users + (usual_test if test_users is None else test_users)
    trials = []
    with atomic_folder(root) as folder:
        for user in range(1, users + 1):
            light = _LIGHTS[user % len(_LIGHTS)]
            events, labels = simulate_recording(np.random.default_rng([seed, user]), dataset)
            rows = ["class,startTime_usec,endTime_usec", *(f"{number},{start},{end}" for number, start, end in labels)]
            (folder / f"user{user:02}_{light}.aedat").write_bytes(encode_aedat3(events))
            _write_lines(folder / f"user{user:02}_{light}_labels.csv", rows)
            trials.append(f"user{user:02}_{light}.aedat")
            progress(user, users)
        _write_lines(folder / "trials_to_train.txt", trials[:train_users])
        _write_lines(folder / "trials_to_test.txt", trials[train_users:])
        _write_lines(folder / MARKER_FILE, [marker_line(dataset)])


def _require_own(root: Path) -> None:
    """Raises UsageError if the folder contains anything but files of an embedded data set."""
    names = sorted(path.name for path in root.iterdir() if temporary_of(path) is None)
    others = [name for name in names if not _OWN_NAMES.fullmatch(name)]
    if others or MARKER_FILE not in names:
        raise UsageError(
            f"{root}: contains files that are not part of an embedded data set, such as {(others or names)[0]}",
            hint="name a new or an empty folder",
        )


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii", newline="\n")


def simulate_recording(
    rng: np.random.Generator, dataset: EmbeddedDataset = "synthetic-gesture"
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Returns events and labels of one user: every gesture once, in random order, with gaps that contain only noise."""
    simulations = _simulations(dataset)
    labels, parts, now = [], [], int(rng.integers(*_GAP_US))
    for label in rng.permutation(len(simulations)).tolist():
        gesture = simulations[label](rng)
        gesture["t"] += now
        parts.append(gesture)
        labels.append((label + 1, now, now + GESTURE_US))
        now += GESTURE_US + int(rng.integers(*_GAP_US))
    events = np.concatenate([*parts, _noise(now, rng)])
    return _apply_refractory_time(events[np.argsort(events["t"], kind="stable")]), labels


def _noise(duration_us: int, rng: np.random.Generator) -> np.ndarray:
    events = np.empty(rng.poisson(_NOISE_HZ * SENSOR**2 * duration_us * 1e-6), EVENT)
    for name, end in (("t", duration_us), ("x", SENSOR), ("y", SENSOR), ("p", 2)):
        events[name] = rng.integers(0, end, len(events))
    return events


def _apply_refractory_time(events: np.ndarray) -> np.ndarray:
    """Drops events that follow another one of their pixel too soon; ``events`` are sorted by t."""
    pixel = events["y"].astype(np.int64) * SENSOR + events["x"]
    order = np.argsort(pixel, kind="stable")
    soon = (np.diff(pixel[order]) == 0) & (np.diff(events["t"][order]) < REFRACTORY_US)
    keep = np.ones(len(events), bool)
    keep[order[1:][soon]] = False
    return events[keep]


def _simulations(dataset: EmbeddedDataset) -> list[_Simulate]:
    """Returns the simulation of each class."""
    if dataset == "synthetic-order":
        return [partial(_sequence, motions) for motions in ORDERS]
    return [partial(_gesture, name) for name in CLASSES]


def _sequence(motions: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Returns the events of motions one after another, each of another shape elsewhere."""
    parts = [_gesture(motion, rng, _PART_STEPS) for motion in motions]
    for number, part in enumerate(parts):
        part["t"] += number * _PART_US + (_PART_US - _PART_STEPS * _STEP_US) // 2
    return np.concatenate(parts)


def _gesture(name: str, rng: np.random.Generator, steps: int = _STEPS) -> np.ndarray:
    """Returns the events of the first steps of one gesture."""
    form = int(rng.integers(_FORMS))
    size = rng.uniform(6, 9)
    contrast = np.float32(rng.uniform(0.55, 0.95))
    angle = rng.uniform(0, 2 * np.pi)
    path = _path(name, size, rng)
    path[:, :2] += rng.uniform(0, SENSOR, 2)
    # rounded, since the last digits of a sine differ between machines and the data set must not
    path = (np.round(path * 256) / 256).astype(np.float32)
    cos, sin = (np.round(np.array([np.cos(angle), np.sin(angle)]) * 4096) / 4096).astype(np.float32)

    pixels, parts = _Pixels(rng), []
    for step, (x, y, extent) in enumerate(path[: steps + 1]):
        dx, columns = _pixels_near(x, extent)
        dy, rows = _pixels_near(y, extent)
        distance = _distance(form, dx * cos + dy[:, None] * sin, dy[:, None] * cos - dx * sin, extent)
        level = np.clip(np.float32(0.5) - distance / np.float32(_EDGE_PX), 0, 1) * contrast
        parts.append(pixels.see((rows[:, None] * SENSOR + columns).ravel(), level.ravel(), step))
    return np.concatenate(parts)


def _pixels_near(centre: np.float32, extent: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Returns offsets from a shape's centre to the pixels it can reach, and their coordinates, which wrap around."""
    reach = min(int(1.5 * extent) + 4, SENSOR // 2 - 1)
    pixels = np.arange(int(centre) - reach, int(centre) + reach + 2)
    return (pixels - centre).astype(np.float32), pixels % SENSOR


class _Pixels:
    """The pixels of a sensor, numbered row by row, that turn changes into events; step 0 sets their initial levels."""

    def __init__(self, rng: np.random.Generator) -> None:
        mismatch = _MISMATCH * rng.standard_normal(SENSOR**2)
        self.threshold = (_THRESHOLD * (1 + mismatch)).astype(np.float32)
        self.level = np.zeros(SENSOR**2, np.float32)  # log intensity relative to the background
        self.reference = np.zeros(SENSOR**2, np.float32)  # level at the pixel's last event

    def see(self, pixel: np.ndarray, level: np.ndarray, step: int) -> np.ndarray:
        """Sets the levels of some pixels; returns the events on the straight line from the previous step."""
        before, self.level[pixel] = self.level[pixel], level
        if step == 0:
            self.reference[pixel] = level
            return np.empty(0, EVENT)
        crossed = np.trunc((level - self.reference[pixel]) / self.threshold[pixel])
        hit = np.flatnonzero(crossed)
        pixel, crossed, before, level = pixel[hit], crossed[hit], before[hit], level[hit]
        number = np.abs(crossed).astype(np.int64)
        each = np.repeat(np.arange(len(hit)), number)
        nth = np.arange(len(each)) - np.repeat(np.cumsum(number) - number, number) + 1
        unit = self.threshold[pixel] * np.sign(crossed)
        share = ((self.reference[pixel] - before)[each] + nth * unit[each]) / (level - before)[each]
        self.reference[pixel] += crossed * self.threshold[pixel]
        events = np.empty(len(each), EVENT)
        events["t"] = (step - 1 + np.clip(share, 0, 1 - 1e-6)) * _STEP_US
        events["y"], events["x"] = np.divmod(pixel[each], SENSOR)
        events["p"] = unit[each] > 0
        return events


def _path(name: str, size: float, rng: np.random.Generator) -> np.ndarray:
    """Returns x and y relative to some position, and the shape's size, px, at each step ``[steps + 1, 3]``."""
    length = rng.uniform(80, 110)  # length of every path, px, so that no class has more events than another
    s = np.linspace(0, 1, _STEPS + 1)
    path = np.zeros((_STEPS + 1, 3))
    path[:, 2] = size
    kind, _, way = name.partition("_")
    if kind in _HEADINGS:
        path[:, :2] = length * (s - 0.5)[:, None] * _unit(_HEADINGS[kind] + rng.uniform(-0.2, 0.2))
    elif kind == "orbit":
        turns = rng.uniform(1.0, 1.2)
        sense = 1 if way == "clockwise" else -1
        path[:, :2] = length / (2 * np.pi * turns) * _unit(rng.uniform(0, 2 * np.pi) + sense * 2 * np.pi * turns * s)
    elif kind in ("grow", "shrink"):
        small = rng.uniform(3, 5)
        large = np.sqrt(small**2 + 0.85 * 4 * size * length / np.pi)
        path[:, 2] = small + (large - small) * (s if kind == "grow" else 1 - s)
    elif kind == "shake":
        periods = rng.uniform(2.5, 3.5)
        swing = np.abs((periods * s + rng.uniform(0, 1)) % 1 * 4 - 2) - 1
        heading = (0 if way == "horizontal" else np.pi / 2) + rng.uniform(-0.2, 0.2)
        path[:, :2] = length / (4 * periods) * swing[:, None] * _unit(heading)
    else:
        path[:, :2] = _random_walk(length, rng)
    return path


_HEADINGS = {"left": np.pi, "right": 0.0, "up": -np.pi / 2, "down": np.pi / 2}


def _unit(angle: float | np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _random_walk(length: float, rng: np.random.Generator) -> np.ndarray:
    """Returns straight legs with sharp turns between, never three turns the same way, which would be an orbit."""
    turns = rng.uniform(np.radians(70), np.radians(130), _LEGS) * rng.choice([-1, 1], _LEGS)
    for leg in range(2, _LEGS):
        if turns[leg - 2] * turns[leg - 1] > 0 and turns[leg - 1] * turns[leg] > 0:
            turns[leg] *= -1
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(turns)
    leg_of_step = np.arange(_STEPS) * _LEGS // _STEPS
    path = np.zeros((_STEPS + 1, 2))
    path[1:] = np.cumsum(_unit(heading)[leg_of_step], axis=0) * length / _STEPS
    return path


def _distance(form: int, u: np.ndarray, v: np.ndarray, size: np.float32) -> np.ndarray:
    """Returns the signed distance to the outline, px, negative inside: disc, square, triangle, bar, cross, ring."""
    a, b, radius = np.abs(u), np.abs(v), np.sqrt(u * u + v * v)
    distance: np.ndarray
    match form:
        case 0:
            distance = radius - size
        case 1:
            distance = np.maximum(a, b) - 0.9 * size
        case 2:
            distance = np.maximum(0.866 * a + 0.5 * v, -v) - 0.65 * size
        case 3:
            distance = np.maximum(a - 1.4 * size, b - 0.5 * size)
        case 4:
            horizontal_arm, vertical_arm = (
                np.maximum(a - 1.2 * size, b - 0.4 * size),
                np.maximum(b - 1.2 * size, a - 0.4 * size),
            )
            distance = np.minimum(horizontal_arm, vertical_arm)
        case _:
            distance = np.abs(radius - 0.85 * size) - 0.3 * size
    return distance
