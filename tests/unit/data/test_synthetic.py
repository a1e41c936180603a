"""The embedded data sets: files, the simulated sensor, and that only motion, or only order, tells the classes apart."""

import csv
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from plifctl.config.lookup import load_registry
from plifctl.data.formats.aedat3 import decode_aedat3
from plifctl.data.synthetic import (
    CLASSES,
    GESTURE_US,
    ORDERS,
    REFRACTORY_US,
    SENSOR,
    write_synthetic,
)
from plifctl.errors import UsageError

pytestmark = pytest.mark.long

FEW_TRAIN, FEW_TEST = 5, 3

Columns = dict[str, np.ndarray]
"""Events as an array for each of t, x and y."""


def events_of(file: Path) -> np.ndarray:
    return decode_aedat3(file.read_bytes(), where=file.name).events


def windows_of(file: Path) -> list[tuple[int, int, int]]:
    with file.with_name(f"{file.stem}_labels.csv").open(newline="") as lines:
        rows = csv.DictReader(lines)
        return [(int(row["class"]) - 1, int(row["startTime_usec"]), int(row["endTime_usec"])) for row in rows]


def trials(root: Path, split: str) -> list[Path]:
    return [root / line for line in (root / f"trials_to_{split}.txt").read_text().splitlines()]


def gestures(file: Path) -> list[tuple[int, np.ndarray]]:
    events = events_of(file)
    cuts = [(label, np.searchsorted(events["t"], [start, end])) for label, start, end in windows_of(file)]
    return [(label, events[first:last]) for label, (first, last) in cuts]


def counts_of(events: np.ndarray) -> np.ndarray:
    place = (events["p"].astype(np.int64) * SENSOR + events["y"]) * SENSOR + events["x"]
    return np.bincount(place, minlength=2 * SENSOR**2).reshape(2, SENSOR, SENSOR)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few users."""
    root = tmp_path_factory.mktemp("few") / "DvsGesture"
    write_synthetic(root, train_users=FEW_TRAIN, test_users=FEW_TEST)
    return root


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two users."""
    root = tmp_path_factory.mktemp("pair") / "DvsGesture"
    write_synthetic(root, train_users=1, test_users=1)
    return root


@pytest.fixture(scope="module")
def full_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set as ``plifctl synthesize`` writes it."""
    root = tmp_path_factory.mktemp("full") / "DvsGesture"
    write_synthetic(root)
    return root


def test_synthetic_files_have_the_layout_of_gesture(root: Path) -> None:
    train, test = trials(root, "train"), trials(root, "test")
    assert len(train) == FEW_TRAIN
    assert len(test) == FEW_TEST
    assert not set(train) & set(test)
    expected = {file.name for file in [*train, *test]} | {f"{file.stem}_labels.csv" for file in [*train, *test]}
    assert {file.name for file in root.iterdir()} == expected | {
        "trials_to_train.txt",
        "trials_to_test.txt",
        "SIMULATED.txt",
    }
    assert [file.name[:7] for file in [*train, *test]] == [f"user{n:02}_" for n in range(1, FEW_TRAIN + FEW_TEST + 1)]


def test_synthetic_user_makes_each_gesture_once_in_random_order(root: Path) -> None:
    orders = []
    for file in [*trials(root, "train"), *trials(root, "test")]:
        windows = windows_of(file)
        assert sorted(label for label, _, _ in windows) == list(range(len(CLASSES)))
        assert all(end - start == GESTURE_US for _, start, end in windows)
        assert all(after > end for (_, _, end), (_, after, _) in itertools.pairwise(windows))
        orders.append([label for label, _, _ in windows])
    assert len({tuple(order) for order in orders}) == len(orders)


def test_synthetic_events_cover_the_sensor_and_the_gaps(root: Path) -> None:
    file = trials(root, "test")[0]
    events = events_of(file)
    assert (np.diff(events["t"]) >= 0).all()
    assert events["t"][0] >= 0
    for name in ("x", "y"):
        assert (np.unique(events[name]) == np.arange(SENSOR)).all()
    assert (np.unique(events["p"]) == [0, 1]).all()
    quiet = np.ones(len(events), bool)
    for _, start, end in windows_of(file):
        within = (events["t"] >= start) & (events["t"] < end)
        assert within.sum() > 2000
        quiet &= ~within
    assert 100 < quiet.sum() < 0.2 * len(events)


def test_synthetic_pixels_keep_the_refractory_time(root: Path) -> None:
    events = events_of(trials(root, "train")[0])
    pixel = events["y"].astype(np.int64) * SENSOR + events["x"]
    order = np.lexsort((events["t"], pixel))
    wait = np.diff(events["t"][order])[np.diff(pixel[order]) == 0]
    assert wait.min() >= REFRACTORY_US
    assert wait.min() < 2 * REFRACTORY_US


def test_synthetic_times_are_spread_within_steps(root: Path) -> None:
    events = gestures(trials(root, "train")[0])[0][1]
    assert len(np.unique(events["t"])) > len(events) / 2


def test_synthetic_recording_depends_on_seed_and_user_only(tmp_path: Path) -> None:
    def written(name: str, users: int, seed: int) -> dict[str, bytes]:
        write_synthetic(tmp_path / name, train_users=users, test_users=1, seed=seed)
        return {file.name: file.read_bytes() for file in (tmp_path / name).glob("user*")}

    first, more, other = written("first", 1, 7), written("more", 2, 7), written("other", 1, 8)
    assert written("again", 1, 7) == first
    assert {name: more[name] for name in first} == first
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


@pytest.mark.parametrize("name", ["notes.txt", "user01_lab_labels-corrected.csv", "models"])
def test_synthetic_folder_with_files_of_the_user_is_not_replaced(pair: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(pair, tmp_path / "raw")
    (folder / name).mkdir()
    with pytest.raises(UsageError, match=f"such as {name}"):
        write_synthetic(folder, train_users=1, test_users=1)
    assert (folder / name).is_dir()
    (folder / name).rename(tmp_path / name)
    write_synthetic(folder, train_users=1, test_users=1)


def test_synthetic_file_in_place_of_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("precious")
    with pytest.raises(UsageError, match="a file"):
        write_synthetic(tmp_path / "raw", train_users=1, test_users=1)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("raw", "precious")]


def test_synthetic_progress_counts_the_recordings(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_synthetic(tmp_path, train_users=1, test_users=1, progress=lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]


def tracked(events: np.ndarray | Columns, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Position of the shape in each part ``[parts, 2]``, and its width (circular means: the field wraps around)."""
    at = np.stack([events["x"], events["y"]], 1) * (2j * np.pi / SENSOR)
    means = np.array([np.exp(part).mean(0) for part in np.array_split(at, parts)])
    return np.unwrap(np.angle(means), axis=0) * SENSOR / (2 * np.pi), 1 - np.abs(means).mean(1)


def test_synthetic_motion_agrees_with_the_label(root: Path) -> None:
    drift: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
    growth: dict[str, list[float]] = {name: [] for name in CLASSES}
    sense: dict[str, list[float]] = {name: [] for name in CLASSES}
    for file in trials(root, "test"):
        for label, events in gestures(file):
            place, width = tracked(events, 10)
            step = np.diff(place, axis=0)
            drift[CLASSES[label]].append(place[-1] - place[0])
            growth[CLASSES[label]].append(float(width[-1] - width[0]))
            sense[CLASSES[label]].append(float((step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]).sum()))
    assert max(moved[0] for moved in drift["left"]) < -20 < 20 < min(moved[0] for moved in drift["right"])
    assert max(moved[1] for moved in drift["up"]) < -20 < 20 < min(moved[1] for moved in drift["down"])
    assert np.mean(growth["shrink"]) < -0.05 < 0.05 < np.mean(growth["grow"])
    assert max(sense["orbit_counter_clockwise"]) < 0 < min(sense["orbit_clockwise"])


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, Columns]]:
    """Label and events, t from the begin of the window, of each sample of some users of the data set of orders."""
    root = tmp_path_factory.mktemp("orders") / "raw"
    write_synthetic(root, "synthetic-order", train_users=4, test_users=4)
    samples = []
    for file in [*trials(root, "train"), *trials(root, "test")]:
        windows = windows_of(file)
        assert sorted(label for label, _, _ in windows) == [*range(len(ORDERS))]
        for (label, events), (_, start, _) in zip(gestures(file), windows, strict=True):
            samples.append((label, {"t": events["t"] - start, "x": events["x"], "y": events["y"]}))
    return samples


def test_synthetic_orders_are_the_motions_of_the_label_one_after_another(
    orders: list[tuple[int, Columns]],
) -> None:
    axes = {"left": (0, -1), "right": (0, 1), "up": (1, -1)}
    for label, events in orders:
        for third, motion in enumerate(ORDERS[label]):
            begin = third * GESTURE_US // 3
            inside = (events["t"] >= begin) & (events["t"] < begin + GESTURE_US // 3)
            place, _ = tracked({name: values[inside] for name, values in events.items()}, 5)
            moved = place[-1] - place[0]
            axis, sign = axes[motion]
            assert sign * moved[axis] > 10
            assert sign * moved[axis] > 2 * abs(moved[1 - axis])


def test_synthetic_orders_have_classes_with_the_names_of_the_motions() -> None:
    assert load_registry().dataset("synthetic-order").dataset.classes == tuple(" ".join(motions) for motions in ORDERS)


@pytest.mark.parametrize("T", [3, 6])
def test_frame_of_equal_times_shows_one_motion_of_a_synthetic_order(orders: list[tuple[int, Columns]], T: int) -> None:
    # shown by the edges: those between two motions lie where there is noise only
    for _, events in orders:
        first, last = events["t"][0], events["t"][-1]
        for edge in (first + (last - first) * np.arange(T + 1) // T)[T // 3 : T : T // 3]:
            around = np.abs(events["t"] - edge) < 5000
            assert around.sum() < 50  # 30 at most in the complete set; within a motion 57 or more


@pytest.mark.slow
def test_synthetic_full_set_is_smaller_than_100_mb(full_root: Path) -> None:
    assert len(trials(full_root, "train")) == 40
    assert len(trials(full_root, "test")) == 10
    assert sum(file.stat().st_size for file in full_root.iterdir()) < 100e6


@pytest.mark.slow
def test_synthetic_number_of_events_hardly_depends_on_the_class(full_root: Path) -> None:
    number: dict[int, list[int]] = {label: [] for label in range(len(CLASSES))}
    for file in trials(full_root, "train"):
        for label, events in gestures(file):
            number[label].append(len(events))
    means = [np.mean(numbers) for numbers in number.values()]
    assert max(means) < 1.7 * min(means)


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [1, 4, 16])
@pytest.mark.parametrize("polarities", ["both", "summed"])
def test_synthetic_summed_frames_are_not_linearly_separable(full_root: Path, pooled: int, polarities: str) -> None:
    def summed(split: str) -> tuple[np.ndarray, np.ndarray]:
        cut = [gesture for file in trials(full_root, split) for gesture in gestures(file)]
        x = np.array([counts_of(events) for _, events in cut], float)
        x = x.reshape(len(x), 2, SENSOR // pooled, pooled, SENSOR // pooled, pooled).sum((3, 5))
        x = x.sum(1) if polarities == "summed" else x
        return x.reshape(len(x), -1), np.array([label for label, _ in cut])

    train, labels = summed("train")
    test, right = summed("test")
    middle = train.mean(0)
    train, test = train - middle, test - middle
    values, vectors = np.linalg.eigh(train @ train.T)
    targets = np.eye(len(CLASSES))[labels] - 1 / len(CLASSES)
    for ridge in 10.0 ** np.arange(-3, 2):
        dual = vectors @ (vectors.T @ targets / (np.maximum(values, 0) + ridge * values.mean())[:, None])
        accuracy = ((test @ (train.T @ dual)).argmax(1) == right).mean()
        assert accuracy < 0.4


@pytest.mark.slow
def test_synthetic_orders_differ_in_no_sum_over_time(tmp_path: Path) -> None:
    write_synthetic(tmp_path, "synthetic-order")
    number: dict[int, list[int]] = {label: [] for label in range(len(ORDERS))}
    share_on: dict[int, list[float]] = {label: [] for label in range(len(ORDERS))}
    for file in trials(tmp_path, "train"):
        for label, events in gestures(file):
            number[label].append(len(events))
            share_on[label].append(float((events["p"] == 1).mean()))
    for values in (number, share_on):
        means = np.array([np.mean(numbers) for numbers in values.values()])
        errors = np.array([np.std(numbers) / np.sqrt(len(numbers)) for numbers in values.values()])
        assert (np.abs(means - means.mean()) < 3.5 * errors).all()
