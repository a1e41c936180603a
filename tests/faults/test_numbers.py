"""Extreme numbers: a documented error, or the right answer."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import write_gestures

from plifctl.cache import Cache
from plifctl.data.formats.aedat3 import decode_aedat3, encode_aedat3

Plifctl = Callable[..., Any]
TINY = ("--set", "T=4", "--epochs", 1)


def prepared(plifctl: Plifctl, raw: Path, T: int = 4) -> Cache:
    result = plifctl("prepare", "synthetic-gesture", "--T", T, "--raw", raw, "--json")
    assert result.code == 0, result.err
    return Cache(Path(json.loads(result.out)["path"]))


def without_class(raw: Path, label: int) -> None:
    """Removes a class from every recording's table."""
    for path in raw.glob("*_labels.csv"):
        head, *rows = path.read_text().splitlines()
        path.write_text("\n".join([head, *(row for row in rows if not row.startswith(f"{label},"))]) + "\n")


@pytest.mark.parametrize("window", range(11))
def test_prepare_of_a_recording_cut_in_any_window_names_what_is_missing(
    plifctl: Plifctl, gestures: Path, window: int
) -> None:
    recording, end = gestures / "user01_lab.aedat", 100_000 * window + 30_000
    events = decode_aedat3(recording.read_bytes(), where="", invalid="keep").events.structured()
    recording.write_bytes(encode_aedat3(events[events["t"] < end]))
    cache = prepared(plifctl, gestures)
    missing = [f"user01_lab/{number:02}" for number in range(window + 1, 11)]
    assert [cache.sample_ids[row] for row in np.flatnonzero(cache.without_events)] == missing
    (cut,) = [note for note in cache.notes if note.startswith("user01_lab.aedat: cut short: its last event is at ")]
    assert f"window {window:02} only a part" in cut
    (empty,) = [note for note in cache.notes if note.startswith("empty: ")] or [""]
    assert all(name in empty for name in missing)


def test_train_with_a_huge_learning_rate_names_the_layer(plifctl: Plifctl, gestures: Path) -> None:
    prepared(plifctl, gestures)
    result = plifctl("train", "demo", *TINY, "--set", "train.lr=1e38")
    assert result.code == 6
    assert "learning rate of 1e+38: conv0 has an infinite number in its weight" in result.err
    assert "killed" not in plifctl("runs").out


def test_train_with_batches_of_one_sample_works(plifctl: Plifctl, gestures: Path) -> None:
    prepared(plifctl, gestures)
    result = plifctl("train", "demo", *TINY, "--set", "train.batch_size=1", "--json")
    assert result.code == 0, result.err
    assert 0 <= json.loads(result.out)["accuracy"] <= 1


def test_validate_with_one_sample_per_class_is_refused(plifctl: Plifctl, tmp_path: Path) -> None:
    write_gestures(tmp_path / "raw", users=2)
    prepared(plifctl, tmp_path / "raw")
    assert plifctl("train", "demo", *TINY, "--set", "train.batch_size=8").code == 0
    result = plifctl("validate", "demo", *TINY)
    assert result.code == 2  # no sample would be left for validation
    assert "class left has 1 training sample" in result.err


def test_class_without_samples_is_named_and_has_no_accuracy(plifctl: Plifctl, gestures: Path) -> None:
    without_class(gestures, 11)
    prepared(plifctl, gestures)
    result = plifctl("train", "demo", *TINY, "--set", "train.batch_size=8")
    assert result.code == 0
    assert "random walk" in result.err  # the absent class
    tree = json.loads(plifctl("eval", "last", "--json").out)
    assert [entry["accuracy"] is None for entry in tree["classes"]] == [False] * 10 + [True]
    assert np.sum(tree["confusion"]) == tree["samples"] == 10


def test_validate_splits_classes_of_unequal_size_separately(plifctl: Plifctl, tmp_path: Path) -> None:
    write_gestures(tmp_path / "raw", users=6)
    for user in (1, 2, 3):
        path = tmp_path / f"raw/user{user:02}_lab_labels.csv"
        path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("4,")) + "\n")
    prepared(plifctl, tmp_path / "raw")
    result = plifctl("validate", "demo", *TINY, "--set", "train.batch_size=8", "--json")
    assert result.code == 0, result.err
    (run,) = (tmp_path / "runs").iterdir()
    split = json.loads((run / "split.json").read_text())
    assert (len(split["train"]), len(split["validation"]), len(split["test"])) == (10 * 4 + 1, 10 + 1, 11)


@pytest.mark.parametrize("T", [1, 399, 400, 401, 1000])
def test_frames_with_any_number_of_steps_sum_to_the_events(plifctl: Plifctl, tmp_path: Path, T: int) -> None:
    write_gestures(tmp_path / "raw", users=2, events=400 if T < 1000 else 3)
    cache = prepared(plifctl, tmp_path / "raw", T)
    samples = cache.read(np.arange(len(cache.labels)))
    np.testing.assert_array_equal(samples.sum((1, 2, 3, 4)), cache.counts["n_events"])


def images(folder: Path, labels: list[int]) -> Path:
    """Writes the four files of MNIST, with these labels in both sets."""
    folder.mkdir()
    for part in ("train", "t10k"):
        pictures = b"\0\0\x08\x03" + struct.pack(">III", len(labels), 28, 28) + bytes(784 * len(labels))
        named = b"\0\0\x08\x01" + struct.pack(">I", len(labels)) + bytes(labels)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pictures))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(named))
    return folder


@pytest.mark.parametrize("label", [10, 255])
def test_prepare_with_a_label_out_of_range_names_it(plifctl: Plifctl, tmp_path: Path, label: int) -> None:
    raw = images(tmp_path / "raw", [0, 1, label])
    result = plifctl("prepare", "mnist", "--raw", raw, "--no-checksum")
    assert result.code == 4
    assert str(label) in result.err


def test_train_on_a_single_image_works_or_is_refused(plifctl: Plifctl, tmp_path: Path) -> None:
    raw = images(tmp_path / "raw", [3])
    assert plifctl("prepare", "mnist", "--raw", raw, "--no-checksum").code == 0
    result = plifctl("train", "mnist-plif", "--epochs", 1, "--set", "T=1")
    assert result.code in (0, 6)  # a black image has no variance: a channel of one value each may be refused
    assert "Traceback" not in result.err
