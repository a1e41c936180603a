"""What may be chosen of a training, as a user meets it: what the run says of it, and what is refused."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

Plifctl = Callable[..., Any]
TINY = ("--set", "train.batch_size=11", "--set", "T=4", "--epochs", "1")


@pytest.fixture
def prepared(plifctl: Plifctl, gestures: Path) -> Plifctl:
    """The command line with a cache of the tiny gestures, T = 4."""
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    return plifctl


@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what ``--deterministic`` sets for the whole process."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.usefixtures("as_it_was")
def test_deterministic_is_asked_of_torch_and_noted(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--deterministic").code == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    (run,) = (places / "runs").iterdir()
    assert json.loads((run / "env.json").read_text())["deterministic"] is True


def test_a_run_that_stops_early_says_so_and_is_finished(prepared: Plifctl, places: Path) -> None:
    stuck = ("--set", "train.early_stop=1", "--set", "train.lr=1e-30")  # all epochs are equal, the first is kept
    said = prepared("train", "demo", *TINY[:-1], 9, *stuck)
    assert said.code == 0
    assert "(epoch 1 of 2)" in said.out
    assert "stopped early: no better epoch in the 1 after it" in said.out
    (run,) = (places / "runs").iterdir()
    record = json.loads((run / "result.json").read_text())
    assert (record["epochs"], record["stopped_early"]) == (2, True)
    said = prepared("train", "--resume", "last", "--epochs", 12)
    assert said.code == 0
    assert "is finished; stopped early" in said.err
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_all_at_once_train_go_on_and_evaluate(prepared: Plifctl, places: Path) -> None:
    choices = [
        *("loss=tet", "tet_weight=0.05", "optimizer=sgd", "optimizer_options={momentum: 0.9}", "schedule=linear"),
        *("schedule_options.total_iters=3", "batch_size=4", "accumulate=2", "clip_norm=1.0", "precision=bf16"),
        "event_augmentation=[{name: flip, p: 0.5}, {name: cut-mix, p: 0.5, alpha: 1.0}]",
    ]
    settings = [part for choice in choices for part in ("--set", f"train.{choice}")]
    assert prepared("train", "demo", "--set", "T=4", "--epochs", 1, *settings).code == 0
    assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
    (run,) = (places / "runs").iterdir()
    record = json.loads((run / "result.json").read_text())
    assert record["epochs"] == 2
    assert json.loads(prepared("eval", "last", "--json").out)["accuracy"] == record["accuracy"]


@pytest.mark.parametrize(
    ("setting", "code", "said", "hint"),
    [
        ("optimizer_options.momentun=0.9", 2, "adam has no such option", "known: amsgrad"),
        ("optimizer_options.weight_decya=0.9", 2, "adam has no such option", "did you mean weight_decay?"),
        ("schedule_options.gamma=0.9", 2, "cosine has no options", "omit them"),
        ("optimizer=adan", 2, "'nadam'", ""),
        ("loss=tet", 2, "needs train.tet_weight", ""),
        ("lr=1e38", 6, "epoch 1, step", "--set train.lr="),
    ],
)
def test_what_cannot_be(prepared: Plifctl, places: Path, setting: str, code: int, said: str, hint: str) -> None:
    command = ("train", "demo", "--set", "train.batch_size=4", "--set", "T=4", "--set", f"train.{setting}")
    found = prepared(*command)
    assert found.code == code
    assert said in found.err
    assert hint in found.err
    if code == 2:  # no run was begun
        assert not (places / "runs").exists()
        assert prepared(*command, "--dry-run").code == 2


@pytest.mark.parametrize("command", [("train", "demo"), ("eval", "x.pt")], ids=str)
def test_a_kernel_that_does_not_serve_the_device(
    command: tuple[str, str], plifctl: Plifctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    said = plifctl(*command, "--kernel", "triton", "--device", "cpu")
    assert said.code == 2
    assert ("runs on GPUs, not on cpu" in said.err) or ("Triton is not installed" in said.err)
    assert "hint: omit --kernel" in said.err
    monkeypatch.setattr("plifctl.snn.kernels.find_spec", lambda name: None)
    assert "--kernel triton: Triton is not installed" in plifctl(*command, "--kernel", "triton").err
    from plifctl.snn.kernels import unsupported_reason

    assert unsupported_reason("fused", torch.device("cuda", 1)) == "runs on the CPU, not on cuda:1"
    assert unsupported_reason("auto", torch.device("cuda")) is None


def test_killed_before_the_state_after_the_first_epoch_was_saved(prepared: Plifctl, places: Path) -> None:
    """Its row is there, its state is not: the run begins anew, in the same folder, and ends as it would have."""
    assert prepared("train", "demo", *TINY).code == 0
    (run,) = (places / "runs").iterdir()
    record = json.loads((run / "result.json").read_text())
    for name in ("result.json", "manifest.json", "checkpoints/last.pt"):
        (run / name).unlink()
    said = prepared("train", "--resume", "last", "--json")
    assert said.code == 0, said.err
    again = json.loads(said.out)
    assert (again["accuracy"], again["tau"], again["run"]) == (record["accuracy"], record["tau"], record["run"])
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1]
    assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
    (run / "checkpoints/last.pt").unlink()
    said = prepared("train", "--resume", "last", "--epochs", 3)
    assert said.code == 6
    assert "last.pt: missing, the run cannot be resumed" in said.err


def test_a_graph_needs_a_gpu(prepared: Plifctl, places: Path) -> None:
    said = prepared("train", "demo", *TINY, "--graph", "--device", "cpu")
    assert said.code == 2
    assert "--graph: CUDA graphs need a GPU, the device is cpu" in said.err
    assert not (places / "runs").exists()
