"""plifctl train --name NAME --resume auto: the one line that begins a run, continues it, and finds it finished."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from demo_runs import prepare_gestures

from plifctl.errors import Interrupted, ResumeError, UsageError
from plifctl.pipeline.train import train
from plifctl.pipeline.train_options import TrainObserver, TrainOptions
from plifctl.runs import Run, list_runs
from plifctl.runs.documents import save_document

Plifctl = Callable[..., Any]
SMALL = (
    "network.structure=APk8s8-c4k3s1-BN-SN-FC110-SN-APk10s10",
    "T=4",
    "neuron.v_threshold=0.1",
    "train.batch_size=8",
    "train.epochs=2",
)
LINE = ("train", "demo", *(word for text in SMALL for word in ("--set", text)), "--device", "cpu", "--name", "my run")


@pytest.fixture
def cached(plifctl: Plifctl, made_once: Callable[..., None]) -> Plifctl:
    made_once(prepare_gestures)
    return plifctl


class _StopsAfterEpoch(TrainObserver):
    def on_epoch(self, row: dict[str, Any]) -> bool | None:
        return False


def test_resume_auto_continues_an_interrupted_run_to_the_same_weights(cached: Plifctl, places: Path) -> None:
    options = TrainOptions(experiment="demo", overrides=SMALL, name="my run", resume="auto", device="cpu")
    with pytest.raises(Interrupted):
        train(options, _StopsAfterEpoch())
    assert len(Run(places / "runs/my run").metrics()) == 1
    assert cached(*LINE, "--resume", "auto").code == 0
    (run,) = list_runs(places / "runs")
    assert (run.name, run.record().epochs) == ("my run", 2)
    whole = cached(*LINE[:-1], "whole", "--resume", "auto", "--json")
    assert json.loads(whole.out)["tau"] == run.record().model_dump(mode="json")["tau"]


def test_resumed_run_keeps_its_split_and_stays_deterministic(
    cached: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(experiment="demo", overrides=SMALL, name="my run", resume="auto", device="cpu")
    monkeypatch.setattr("plifctl.pipeline.train.use_deterministic_algorithms", lambda: None)  # of the whole process
    with pytest.raises(Interrupted):
        train(replace(options, deterministic=True), _StopsAfterEpoch())
    run = Run(places / "runs/my run")
    split = run.split()
    split["train"] = split["train"][:-3]  # as another version might draw it
    save_document(run.path / "split.json", split)
    train(options)
    assert run.record().data is not None
    assert run.record().data.train == len(split["train"])
    assert [entry["environment"]["deterministic"] for entry in run.session_entries()] == [True, True]


def test_resumed_run_whose_kernel_cannot_save_memory_stays_stopped(cached: Plifctl, places: Path) -> None:
    options = TrainOptions(experiment="demo", overrides=SMALL, name="my run", resume="auto", device="cpu")
    with pytest.raises(Interrupted):
        train(replace(options, kernel="eager"), _StopsAfterEpoch())
    run = Run(places / "runs/my run")
    with pytest.raises(UsageError, match=r"train\.memory: compact needs the fused kernel"):
        train(replace(options, overrides=(*SMALL, "train.memory=compact")))
    assert run.status() == "stopped"


def test_resume_auto_without_the_epochs_of_before_forgets_them(cached: Plifctl) -> None:
    line = ("train", "demo", "--name", "x", "--set", "T=4", "--set", "train.lr=2e-3", "--set", "train.epochs=2")
    assert cached(*line[:-2], "--epochs", 1, "--set", "train.memory=compact").code == 0
    result = cached(*line, "--resume", "auto", "--json")
    assert result.code == 0, result.err
    assert sorted(json.loads(result.out)["overrides"]) == ["T=4", "train.epochs=2", "train.lr=2e-3"]


def test_resume_auto_of_a_finished_run_trains_nothing(cached: Plifctl, places: Path) -> None:
    assert cached(*LINE, "--resume", "auto").code == 0
    before = (places / "runs/my run/result.json").read_bytes()
    again = cached(*LINE, "--resume", "auto")
    assert (again.code, (places / "runs/my run/result.json").read_bytes()) == (0, before)
    assert "my run is finished" in again.err


def test_resume_auto_with_other_settings_is_refused_by_key(cached: Plifctl) -> None:
    assert cached(*LINE, "--resume", "auto").code == 0
    changed = cached(*LINE, "--resume", "auto", "--set", "neuron.tau_0=4")
    assert (changed.code, "neuron.tau_0: was 2.0, now 4.0" in changed.err) == (3, True)
    dropped = [word for word in LINE if word not in ("neuron.v_threshold=0.1",)]
    dropped.pop(dropped.index("T=4") + 1)  # its --set
    assert "neuron.v_threshold: was 0.1" in cached(*dropped, "--resume", "auto").err


def test_resume_auto_with_weights_of_a_run_that_began_without_is_refused(cached: Plifctl) -> None:
    assert cached(*LINE, "--resume", "auto").code == 0
    assert cached(*LINE[:-1], "other").code == 0
    refused = cached(*LINE, "--resume", "auto", "--weights", "other")
    assert (refused.code, "train.weights: was None, now " in refused.err) == (3, True)
    assert cached(*LINE, "--resume", "auto", "--weights", "nowhere").code == 2


def test_name_that_is_taken_is_refused_unless_the_run_is_to_be_resumed(cached: Plifctl, places: Path) -> None:
    assert cached(*LINE).code == 0
    taken = cached(*LINE)
    assert (taken.code, "exists already" in taken.err, "--resume auto" in taken.err) == (2, True, True)
    (places / "runs/other").mkdir()
    assert "not a run of plifctl" in cached(*LINE[:-1], "other", "--resume", "auto").err


@pytest.mark.parametrize("name", ["auto", "last", "sweeps", "", "..", "a/b", ".hidden", "zoo:demo", "x.pt"])
def test_name_that_means_something_else_is_refused(plifctl: Plifctl, places: Path, name: str) -> None:
    refused = plifctl("train", "demo", "--name", name)
    assert (refused.code, "hint:" in refused.err) == (2, True)
    assert not (places / "runs").exists()


def test_resume_auto_without_a_name_and_name_with_another_resume_are_refused(plifctl: Plifctl) -> None:
    assert "needs the name" in plifctl("train", "demo", "--resume", "auto").err
    assert "is for a new run" in plifctl("train", "demo", "--name", "x", "--resume", "last").err


def test_run_that_another_machine_trains_is_running_until_its_heart_stops(cached: Plifctl, places: Path) -> None:
    options = TrainOptions(experiment="demo", overrides=SMALL, name="my run", device="cpu")
    with pytest.raises(Interrupted):
        train(options, _StopsAfterEpoch())
    run, beat = Run(places / "runs/my run"), places / "runs/my run/progress.json"
    _pretend_host(run, "node7")
    assert run.status() == "killed"
    beat.touch()
    assert (run.status(), run.host_elsewhere()) == ("running", "node7")
    for seconds in (-3600, 3600):  # of a clock ahead of ours as well
        os.utime(beat, (beat.stat().st_mtime + seconds,) * 2)
        assert (run.status(), run.host_elsewhere()) == ("killed", None)
        beat.touch()


def test_run_of_this_machine_is_never_running_by_its_heartbeat_alone(cached: Plifctl, places: Path) -> None:
    assert cached(*LINE).code == 0
    run = Run(places / "runs/my run")
    shutil.move(run.path / "result.json", places / "result.json")
    _pretend_host(run, run.info()["host"])
    (run.path / "progress.json").touch()
    assert run.status() == "killed"


def _pretend_host(run: Run, host: str) -> None:
    from plifctl import files
    from plifctl.runs.documents import add_checksum

    files.write_json(run.path / "run.json", add_checksum({**run.info(), "status": "running", "host": host}))


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])  # seconds, of the clock of the file server
def test_training_begins_only_when_the_heart_of_another_machine_has_stopped(
    cached: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    options = TrainOptions(experiment="demo", overrides=SMALL, name="my run", resume="auto", device="cpu")
    with pytest.raises(Interrupted):
        train(options, _StopsAfterEpoch())
    run, beat = Run(places / "runs/my run"), places / "runs/my run/progress.json"
    _pretend_host(run, "node7")
    beat.touch()
    last = beat.stat().st_mtime + ahead - 30
    os.utime(beat, (last, last))
    sleep = "plifctl.runs.progress_file.time.sleep"
    monkeypatch.setattr(sleep, lambda seconds: os.utime(beat, (last + 10, last + 10)))
    with pytest.raises(ResumeError, match="node7"):
        train(options)
    assert run.info()["status"] == "running"  # nothing was written to the other machine's run
    monkeypatch.setattr(sleep, lambda seconds: None)
    monkeypatch.setattr("plifctl.runs.progress_file.HEARTBEAT_LIMIT_S", 0.01)
    assert train(options).run.status() == "finished"


def test_training_that_was_killed_on_this_machine_is_resumed_at_once(
    cached: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(experiment="demo", overrides=SMALL, name="my run", resume="auto", device="cpu")
    with pytest.raises(Interrupted):
        train(options, _StopsAfterEpoch())
    run = Run(places / "runs/my run")
    _pretend_host(run, run.info()["host"])
    (run.path / "progress.json").touch()
    monkeypatch.setattr("plifctl.runs.directory.is_beating", lambda _: pytest.fail("waited"))
    assert train(options).run.status() == "finished"
