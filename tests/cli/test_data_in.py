"""Where samples are held, and how many frames they have, as a user meets it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from plifctl.training import sample_store as samples

Plifctl = Callable[..., Any]
TINY = ("--set", "train.batch_size=11", "--epochs", "2")
NUMBER = ("--set", "T=4")
DURATION = ("--set", "frames.slicing=duration", "--set", "frames.duration_us=10000")
PREPARE = ("prepare", "synthetic-gesture", "--raw")


@pytest.fixture
def prepared(plifctl: Plifctl, gestures: Path) -> Plifctl:
    assert plifctl(*PREPARE, gestures, "--T", 4).code == 0
    return plifctl


def test_it_is_said_and_changes_nothing(prepared: Plifctl, places: Path) -> None:
    for arguments, line in (
        ((), "samples are held in memory: 4.3 MB of "),
        (("--data-in", "memory"), "samples are held in memory: 4.3 MB of "),
        (("--data-in", "disk"), "samples are read from disk"),
    ):
        said = prepared("train", "demo", *TINY, *NUMBER, *arguments)
        assert said.code == 0
        assert sum(text.startswith(line) for text in said.err.splitlines()) == 1
    runs = sorted((places / "runs").iterdir())
    weights = [torch.load(run / "checkpoints/last.pt", weights_only=True)["model"] for run in runs]
    assert len(weights) == 3
    assert all(torch.equal(value, other[name]) for other in weights[1:] for name, value in weights[0].items())

    assert prepared("train", "demo", *TINY, *NUMBER, "--epochs", 1, "--data-in", "memory").code == 0
    assert prepared("train", "--resume", "last", "--epochs", 2, "--data-in", "disk").code == 0
    resumed = torch.load(sorted((places / "runs").iterdir())[-1] / "checkpoints/last.pt", weights_only=True)["model"]
    assert all(torch.equal(value, resumed[name]) for name, value in weights[0].items())

    tested = [prepared("eval", "last", "--json", *more) for more in ((), ("--data-in", "memory"))]
    assert [said.code for said in tested] == [0, 0]
    assert tested[0].out == tested[1].out
    assert "samples are read from disk" in tested[0].err
    assert "samples are held in memory: 4.3 MB of " in tested[1].err


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_no_room(prepared: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr(samples, "free_memory", lambda: 4 * 10**6)
    said = prepared(verb, "demo", *TINY, *NUMBER, "--data-in", "memory")
    assert said.code == 2
    assert "--data-in memory: the samples need 4.3 MB, in memory 4.0 MB are free" in said.err
    assert "--data-in disk" in said.err
    assert not (places / "runs").exists()
    plan = json.loads(prepared(verb, "demo", *TINY, *NUMBER, "--dry-run", "--json").out)
    assert plan["data_in"] == "disk"
    said = prepared(verb, "demo", *TINY, *NUMBER, "--epochs", 1)
    assert said.code == 0
    assert "samples are read from disk: 4.3 MB are more than 50% of 4.0 MB free in memory" in said.err


def test_the_gpu_must_be_one(prepared: Plifctl) -> None:
    said = prepared("train", "demo", *TINY, *NUMBER, "--device", "cpu", "--data-in", "device")
    assert said.code == 2
    assert "cpu has no memory of its own" in said.err
    assert prepared("train", "demo", "--data-in", "tape").code == 2


def test_as_many_frames_as_time_steps(plifctl: Plifctl, gestures: Path) -> None:
    said = plifctl(*PREPARE, gestures, *DURATION)
    assert said.code == 0
    assert "5×2×128×128" in said.out  # 50 ms
    for verb in ("train", "validate"):
        said = plifctl(verb, "demo", *TINY, *DURATION, "--set", "T=8")
        assert said.code == 2
        assert "its samples have 5 frames, the experiment has T = 8" in said.err
        assert "--set T=5" in said.err
    assert plifctl("train", "demo", *TINY, *DURATION, "--set", "T=5").code == 0
    assert plifctl("eval", "last").code == 0


def test_a_longer_recording_later_is_not_tested_on(plifctl: Plifctl, gestures: Path, places: Path) -> None:
    assert plifctl(*PREPARE, gestures, *DURATION).code == 0
    assert plifctl("train", "demo", *TINY, *DURATION, "--set", "T=5").code == 0
    for cache in (places / "data_cache").rglob("*.h5"):
        cache.unlink()
    path = gestures / "user03_lab_labels.csv"
    path.write_text(path.read_text().replace("11,1000000,1060000", "11,920000,1060000"))  # some of class 10, too
    assert plifctl(*PREPARE, gestures, *DURATION).code == 0
    said = plifctl("eval", "last")
    assert said.code == 2
    assert "the experiment has T = 5" in said.err
