"""Settings of a training on the command line: what runs record, and what is refused."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_runs import last_state
from tiny_training import same_weights

from plifctl.runs import Run
from plifctl.training.kernel_selection import Selection

Plifctl = Callable[..., Any]
TINY = ("--set", "train.batch_size=11", "--set", "T=4", "--epochs", "1")
FIRING = ("--set", "neuron.v_threshold=0.03")
"""With the threshold of the demo, a network of one epoch would not fire: all its answers would be equal."""


def answers(run: Path) -> list[int]:
    """Returns the predictions that a run keeps, of more than one class."""
    kept = Run(run).predictions()
    assert kept is not None
    found: list[int] = kept.predicted.tolist()
    assert len(set(found)) > 1
    return found


@pytest.fixture
def restore_determinism(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the settings of the process that ``--deterministic`` changes."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.usefixtures("restore_determinism")
def test_train_deterministic_sets_torch_and_is_recorded(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--deterministic").code == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    (run,) = (places / "runs").iterdir()
    assert json.loads((run / "env.json").read_text())["deterministic"] is True


def test_resume_and_eval_find_the_cache_that_a_run_was_trained_on(prepared: Plifctl, places: Path) -> None:
    (places / "data_cache").rename(places / "my caches")
    assert prepared("train", "demo", *TINY, "--cache-dir", "my caches").code == 0
    assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
    assert prepared("eval", "last", "--layer-times", 0).code == 0
    (places / "my caches").rename(places / "elsewhere")
    assert "no cache of synthetic-gesture" in prepared("eval", "last").err
    refused = prepared("eval", "zoo:demo", "--checkpoint", "last")
    assert (refused.code, "zoo:demo is one network" in refused.err) == (2, True)


def test_run_that_another_process_finished_meanwhile_is_left_as_it_is(
    prepared: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared("train", "demo", *TINY[:-1], 2, "--name", "x").code == 0
    run = places / "runs/x"
    before = {name: (run / name).read_bytes() for name in ("manifest.json", "result.json", "run.json")}
    # it was not finished when it was looked at first
    monkeypatch.setattr("plifctl.pipeline.train_setup.is_done", lambda *_: False)
    result = prepared("train", "--resume", "x")
    assert (result.code, "x was finished by another process" in result.err) == (0, True)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_resume_goes_on_with_the_kernel_of_the_run(prepared: Plifctl, places: Path) -> None:
    assert prepared("train", "demo", *TINY, "--name", "x", "--kernel", "eager").code == 0
    assert prepared("train", "--resume", "x", "--epochs", 2).code == 0
    sessions = json.loads((places / "runs/x/run.json").read_text())["sessions"]
    assert [session["environment"]["kernel"] for session in sessions] == ["eager", "eager"]


def test_train_early_stop_is_reported_and_finishes_the_run(prepared: Plifctl, places: Path) -> None:
    stuck = ("--set", "train.early_stop=1", "--set", "train.lr=1e-30")  # all epochs are equal, the first is kept
    result = prepared("train", "demo", *TINY[:-1], 9, *stuck)
    assert result.code == 0
    assert "(epoch 1 of 2)" in result.out
    assert "stopped early by train.early_stop=1: no better accuracy" in result.out
    (run,) = (places / "runs").iterdir()
    record = json.loads((run / "result.json").read_text())
    assert (record["epochs"], record["stopped_early"]) == (2, True)
    result = prepared("train", "--resume", "last", "--epochs", 12)
    assert result.code == 0
    assert "is finished; it stopped early" in result.err
    assert "resume          finished: train.early_stop ended it\n" in prepared("runs", "show", "last").out
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_train_resume_eval_with_many_settings_at_once_work(prepared: Plifctl, places: Path) -> None:
    choices = [
        *("lr=0.1", "loss=tet", "tet_weight=0.05", "optimizer=sgd", "optimizer_options={momentum: 0.9}"),
        *(
            "schedule=linear",
            "schedule_options.total_iters=3",
            "batch_size=4",
            "accumulate=2",
            "clip_norm=1.0",
            "precision=bf16",
        ),
        "event_augmentation=[{name: flip, p: 0.5}, {name: cut-mix, p: 0.5, alpha: 1.0}]",
    ]
    settings = [part for choice in choices for part in ("--set", f"train.{choice}")]
    assert prepared("train", "demo", "--set", "T=4", "--epochs", 1, *FIRING, *settings).code == 0
    assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
    (run,) = (places / "runs").iterdir()
    record = json.loads((run / "result.json").read_text())
    assert record["epochs"] == 2
    assert len(answers(run)) == 11
    found = json.loads(prepared("eval", "last", "--json").out)
    assert found["accuracy"] == record["accuracy"]
    assert found["kept_predictions"]["equal"] == 11


@pytest.mark.parametrize(
    ("setting", "code", "message", "hint"),
    [
        ("optimizer_options.momentun=0.9", 2, "adam has no such option", "known: amsgrad"),
        ("optimizer_options.weight_decya=0.9", 2, "adam has no such option", "did you mean weight_decay?"),
        ("optimizer_options.amsgrad=no", 2, "found 'no' (a text: write true or false)", ""),
        ("optimizer_options.eps=-1.0", 2, "Invalid epsilon", "the options of adam: "),
        ("schedule_options.gamma=0.9", 2, "cosine has no options", "omit them"),
        ("optimizer=adan", 2, "'nadam'", ""),
        ("loss=tet", 2, "needs train.tet_weight", ""),
        ("lr=1e38", 6, "epoch 1, step", "--set train.lr="),
    ],
)
def test_train_with_an_invalid_setting_is_refused(
    prepared: Plifctl, places: Path, setting: str, code: int, message: str, hint: str
) -> None:
    command = ("train", "demo", "--set", "train.batch_size=4", "--set", "T=4", "--set", f"train.{setting}")
    found = prepared(*command)
    assert found.code == code
    assert message in found.err
    assert hint in found.err
    if code == 2:  # no run was created
        assert not (places / "runs").exists()
        assert prepared(*command, "--dry-run").code == 2


@pytest.mark.parametrize("command", [("train", "demo"), ("eval", "x.pt")], ids=str)
def test_kernel_that_does_not_support_the_device_is_refused(
    command: tuple[str, str], plifctl: Plifctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    result = plifctl(*command, "--kernel", "triton", "--device", "cpu")
    assert result.code == 2
    assert ("runs on GPUs, not on cpu" in result.err) or ("Triton is not installed" in result.err)
    assert "hint: omit --kernel" in result.err
    monkeypatch.setattr("plifctl.snn.kernels.find_spec", lambda name: None)
    assert "--kernel triton: Triton is not installed" in plifctl(*command, "--kernel", "triton").err
    from plifctl.snn.kernels import unsupported_reason

    assert unsupported_reason("fused", torch.device("cuda", 1)) == "runs on the CPU, not on cuda:1"
    assert unsupported_reason("auto", torch.device("cuda")) is None


def test_resume_of_a_run_killed_before_its_first_state_starts_again(prepared: Plifctl, places: Path) -> None:
    """The run has a row but no state: it starts again in the same folder, with the same result."""
    assert prepared("train", "demo", *FIRING, *TINY).code == 0
    (run,) = (places / "runs").iterdir()
    record, state, predicted = json.loads((run / "result.json").read_text()), last_state(run), answers(run)
    for name in ("result.json", "manifest.json", "checkpoints/last.pt"):
        (run / name).unlink()
    result = prepared("train", "--resume", "last", "--json")
    assert result.code == 0, result.err
    again = json.loads(result.out)
    assert (again["accuracy"], again["tau"], again["run"]) == (record["accuracy"], record["tau"], record["run"])
    assert answers(run) == predicted
    assert same_weights(last_state(run), state)
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1]
    assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
    (run / "checkpoints/last.pt").unlink()
    result = prepared("train", "--resume", "last", "--epochs", 3)
    assert result.code == 6
    assert "last.pt: missing, the run cannot be resumed" in result.err


def test_train_graph_without_a_gpu_is_refused(prepared: Plifctl, places: Path) -> None:
    result = prepared("train", "demo", *TINY, "--graph", "--device", "cpu")
    assert result.code == 2
    assert "--graph: CUDA graphs need a GPU, the device is cpu" in result.err
    assert not (places / "runs").exists()


@pytest.mark.usefixtures("restore_determinism")
@pytest.mark.slow
def test_train_kernel_that_trials_chose_is_shown_recorded_and_used_again(
    prepared: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def chosen(spec: Any, device: Any, **options: Any) -> Selection:
        asked.append(options)
        return Selection("eager", False, "trials", "Test GPU", 4.1, "2026-11-28", left_out={"triton": "crashed"})

    monkeypatch.setattr("plifctl.pipeline.train_setup.select_kernel", chosen)
    result = prepared("train", "demo", *TINY)
    assert "kernel: definition; checked on this GPU" in result.err
    (run,) = (places / "runs").iterdir()
    (session,) = json.loads((run / "run.json").read_text())["sessions"]
    record = json.loads((run / "result.json").read_text())
    for environment in (session["environment"], record["environment"], record["sessions"][0]["environment"]):
        assert (environment["kernel"], environment["graph"]) == ("eager", False)
        assert environment["kernel_choice"]["speedup"] == 4.1
        assert environment["kernel_choice"]["left_out"] == {"triton": "crashed"}
    shown = prepared("runs", "show", "last").out
    assert "definition; checked on this GPU on 2026-11-28" in shown
    assert "kernel_choice" not in shown
    assert prepared("train", "--resume", "last").code == 0  # finished: nothing is tried
    assert prepared("train", "--resume", "last", "--epochs", 2).code == 0
    assert prepared("train", "--resume", "last", "--epochs", 3, "--deterministic").code == 0
    assert [options["trials"] for options in asked] == ["run", "run", "never"]
    assert [options["recorded"] is None for options in asked] == [True, False, False]
    assert asked[1]["recorded"]["kernel_choice"]["gpu"] == "Test GPU"


def test_train_dry_run_tries_no_kernels(prepared: Plifctl, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    later = Selection("eager", False, "later", "Test GPU")
    monkeypatch.setattr(
        "plifctl.pipeline.train_setup.select_kernel", lambda *_, **options: asked.append(options) or later
    )
    result = prepared("train", "demo", *TINY, "--dry-run", "--json")
    assert json.loads(result.out)["kernel"] == "chosen by trials when the training starts"
    assert [options["trials"] for options in asked] == ["later"]


def test_train_kernel_that_cannot_be_built_is_one_line_with_a_hint(
    prepared: Plifctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unbuildable(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr("plifctl.training.trainer.Trainer.run", unbuildable)
    result = prepared("train", "demo", *TINY, "--kernel", "compiled")
    assert result.code == 6
    assert "error: the kernel torch.compile cannot be used: needs a C compiler" in result.err
    assert "hint: --kernel eager" in result.err
