"""Recorded spikes: writing, reading, damage."""

from pathlib import Path

import numpy as np
import pytest

from plifctl.errors import RunError
from plifctl.runs import SpikeRecording, load_spikes, save_spikes


def recording() -> SpikeRecording:
    generator = np.random.default_rng(3)
    return SpikeRecording(
        ("test/3", "test/5"),
        np.array([1, 0]),
        ("fan", "ball"),
        generator.integers(0, 9, (2, 3, 2, 5, 7), np.uint8),
        generator.random((2, 3, 2), np.float32),
        {"sn0": generator.random((2, 3, 4, 5, 7)) < 0.3, "sn1": generator.random((2, 3, 11)) < 0.3},
        "epoch 3",
    )


def test_save_spikes_when_loaded_gives_the_same_recording(tmp_path: Path) -> None:
    path = tmp_path / "run" / "spikes.npz"
    save_spikes(path, recording())
    found, wanted = load_spikes(path), recording()
    assert (found.sample_ids, found.classes, found.saved_after) == (wanted.sample_ids, wanted.classes, "epoch 3")
    assert list(found.spikes) == ["sn0", "sn1"]
    for name in ("labels", "inputs", "votes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    for name, spikes in wanted.spikes.items():
        assert found.spikes[name].dtype == bool
        np.testing.assert_array_equal(found.spikes[name], spikes)
    assert [file.name for file in path.parent.iterdir()] == ["spikes.npz"]


def test_load_spikes_when_damaged_or_missing_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "run" / "spikes.npz"
    with pytest.raises(RunError, match="no recorded spikes"):
        load_spikes(path)
    save_spikes(path, recording())
    whole = path.read_bytes()
    for damaged in (b"", b"PK\x03\x04nothing", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"spikes\.npz") as error:
            load_spikes(path)
        assert error.value.hint is not None
        assert "--record-spikes" in error.value.hint
