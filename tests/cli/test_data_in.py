"""Placement of samples and number of frames, on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_runs import FIRING

from plifctl.training import sample_store as samples

Plifctl = Callable[..., Any]
TINY = ("--set", "train.batch_size=11", *FIRING, "--epochs", "2")
NUMBER = ("--set", "T=4")
DURATION = ("--set", "frames.slicing=duration", "--set", "frames.duration_us=10000")
PREPARE = ("prepare", "synthetic-gesture", "--raw")


@pytest.mark.slow
def test_data_in_any_placement_is_logged_and_gives_equal_weights(prepared: Plifctl, places: Path) -> None:
    for arguments, line in (
        ((), "samples are held in memory: 4.3 MB of "),
        (("--data-in", "memory"), "samples are held in memory: 4.3 MB of "),
        (("--data-in", "disk"), "samples are read from disk"),
    ):
        result = prepared("train", "demo", *TINY, *NUMBER, *arguments)
        assert result.code == 0
        assert sum(text.startswith(line) for text in result.err.splitlines()) == 1
    runs = sorted((places / "runs").iterdir())
    weights = [torch.load(run / "checkpoints/last.pt", weights_only=True)["model"] for run in runs]
    assert len(weights) == 3
    assert all(torch.equal(value, other[name]) for other in weights[1:] for name, value in weights[0].items())

    assert prepared("train", "demo", *TINY, *NUMBER, "--epochs", 1, "--data-in", "memory").code == 0
    assert prepared("train", "--resume", "last", "--epochs", 2, "--data-in", "disk").code == 0
    resumed = torch.load(sorted((places / "runs").iterdir())[-1] / "checkpoints/last.pt", weights_only=True)["model"]
    assert all(torch.equal(value, resumed[name]) for name, value in weights[0].items())

    tested = [prepared("eval", "last", "--json", "--layer-times", 0, *more) for more in ((), ("--data-in", "memory"))]
    assert [result.code for result in tested] == [0, 0]
    assert tested[0].out == tested[1].out
    confusion = json.loads(tested[0].out)["confusion"]
    assert sum(map(any, zip(*confusion, strict=True))) > 1  # answers differ
    assert "samples are read from disk" in tested[0].err
    assert "samples are held in memory: 4.3 MB of " in tested[1].err


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_data_in_memory_without_enough_memory_is_refused(
    prepared: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(samples, "free_memory", lambda: 4 * 10**6)
    result = prepared(verb, "demo", *TINY, *NUMBER, "--data-in", "memory")
    assert result.code == 2
    assert "--data-in memory: the samples need 4.3 MB, in memory 4.0 MB are free" in result.err
    assert "--data-in disk" in result.err
    assert not (places / "runs").exists()
    plan = json.loads(prepared(verb, "demo", *TINY, *NUMBER, "--dry-run", "--json").out)
    assert plan["data_in"] == "disk"
    result = prepared(verb, "demo", *TINY, *NUMBER, "--epochs", 1)
    assert result.code == 0
    assert "samples are read from disk: 4.3 MB are more than 50% of 4.0 MB free in memory" in result.err


def test_data_in_device_on_a_cpu_is_refused(prepared: Plifctl) -> None:
    result = prepared("train", "demo", *TINY, *NUMBER, "--device", "cpu", "--data-in", "device")
    assert result.code == 2
    assert "cpu has no memory of its own" in result.err
    assert prepared("train", "demo", "--data-in", "tape").code == 2


def test_train_with_another_T_than_the_frames_is_refused(plifctl: Plifctl, gestures: Path) -> None:
    result = plifctl(*PREPARE, gestures, *DURATION)
    assert result.code == 0
    assert "5×2×128×128" in result.out  # 50 ms
    for verb in ("train", "validate"):
        result = plifctl(verb, "demo", *TINY, *DURATION, "--set", "T=8")
        assert result.code == 2
        assert "its samples have 5 frames, the experiment has T = 8" in result.err
        assert "--set T=5" in result.err
    assert plifctl("train", "demo", *TINY, *DURATION, "--set", "T=5").code == 0
    assert plifctl("eval", "last").code == 0


def test_eval_on_a_cache_with_more_frames_is_refused(plifctl: Plifctl, gestures: Path, places: Path) -> None:
    assert plifctl(*PREPARE, gestures, *DURATION).code == 0
    assert plifctl("train", "demo", *TINY, *DURATION, "--set", "T=5").code == 0
    for cache in (places / "data_cache").rglob("*.h5"):
        cache.unlink()
    path = gestures / "user03_lab_labels.csv"
    path.write_text(path.read_text().replace("11,1000000,1060000", "11,920000,1060000"))  # includes events of class 10
    assert plifctl(*PREPARE, gestures, *DURATION).code == 0
    result = plifctl("eval", "last")
    assert result.code == 2
    assert "the experiment has T = 5" in result.err
