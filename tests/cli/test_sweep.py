"""plifctl sweep: many runs as one command, as a user types it; with a tiny network on tiny recordings."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_runs import wait_for

from plifctl.runs import Run, list_runs
from plifctl.sweep.plan import PlanFile

Plifctl = Callable[..., Any]
SMALL = ("network.structure=APk8s8-c4k3s1-BN-SN-FC110-SN-APk10s10", "T=4", "neuron.v_threshold=0.1")
LINE = ("sweep", "run", "demo", *(word for text in SMALL for word in ("--set", text)), "--device", "cpu")
LONG = ("--epochs", "100000")


@pytest.fixture
def started(prepared: Plifctl) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands as processes; those that still run are killed in the end."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "plifctl", *words]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def trained_run(runs: Path, epochs: int = 1) -> Run | None:
    return next((run for run in list_runs(runs) if len(run.metrics()) >= epochs), None)


def test_sweep_that_cannot_be_is_refused_and_writes_nothing(plifctl: Plifctl, places: Path) -> None:
    for words, problem in {
        (): "needs experiments or tables",
        ("dmo",): "did you mean demo",
        ("demo", "--set", "neurn.tau_0=2,4"): "unknown key neurn.tau_0",
        ("demo", "--seeds", "one"): "--seeds one",
        ("demo", "--seeds", "3-1"): "--seeds 3-1",
        ("demo", "--protocol", "D"): "unknown protocol 'D'",
        ("demo", "--name", "../x"): "not a valid name",
        ("demo", "--time", "1h"): "--time is an option of slurm",
        ("demo", "--engine", "slurm"): "SLURM needs a time limit",
        ("demo", "--engine", "slurm", "--time", "24hours", "--dry-run"): "expected a duration",
        (
            "demo",
            "--engine",
            "slurm",
            "--slurm",
            "partition=a",
            "--slurm",
            "partition=b",
        ): "--slurm partition: stated twice",
        ("demo", "--table", "99"): "99",
        ("demo", "--gpus", "64"): "--gpus 64",
        ("demo", "--cv-folds", "0"): "folds",
        ("demo", "--name", ""): "not a valid name",
    }.items():
        refused = plifctl("sweep", "run", *words)
        assert (refused.code, problem in refused.err) == (2, True), refused.err
        assert "hint:" in refused.err
    assert not [*places.iterdir()]


def test_dry_run_shows_the_plan_and_writes_nothing(plifctl: Plifctl, places: Path) -> None:
    found = plifctl("sweep", "run", "demo", "--seeds", "1-3", "--set", "neuron.tau_0=2,16", "--dry-run")
    assert (found.code, found.out.count("missing")) == (0, 6)
    assert "6 runs: 6 missing" in found.err
    assert "plifctl prepare synthetic-gesture --T 8" in found.err
    assert not [*places.iterdir()]
    tree = json.loads(plifctl("sweep", "run", "demo", "--dry-run", "--json").out)
    assert tree["counts"]["missing"] == 1
    assert tree["runs"][0]["command"].startswith("plifctl train demo --name demo-s")


def test_dry_run_estimates_from_the_samples_that_are_there(
    plifctl: Plifctl, gestures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.training.step_times.products_per_second", lambda: 1e9)
    words = ("sweep", "run", "gesture-plif", "--set", "T=2", "--set", "train.batch_size=1", "--dry-run", "--json")
    published = json.loads(plifctl(*words).out)
    assert plifctl("prepare", "gesture", "--T", 2, "--raw", gestures, "--no-checksum").code == 0
    here = json.loads(plifctl(*words).out)
    assert here["seconds"] / published["seconds"] == pytest.approx(22 / 1176)


def test_sweep_file_with_an_error_is_refused_by_its_place(plifctl: Plifctl, places: Path) -> None:
    (places / "my sweep.yaml").write_text("experiments: [demo]\nsede: [1]\n")
    refused = plifctl("sweep", "run", "my sweep.yaml")
    assert (refused.code, "my sweep.yaml:2:1" in refused.err) == (3, True)
    (places / "my sweep.yaml").write_text("experiments: [demo]\nseeds: [1, 2]\n")
    assert "stands alone" in plifctl("sweep", "run", "my sweep.yaml", "demo").err
    found = plifctl("sweep", "run", "my sweep.yaml", "--seeds", "3", "--dry-run", "--json")
    assert [run["seed"] for run in json.loads(found.out)["runs"]] == [3]
    assert json.loads(found.out)["sweep"] == "my sweep"


def test_sweep_of_the_registry_is_listed_and_run_by_its_name(plifctl: Plifctl, places: Path) -> None:
    listed = {entry["name"]: entry for entry in json.loads(plifctl("ls", "sweeps", "--json").out)}
    assert listed["tau-nmnist"] == {
        "name": "tau-nmnist",
        "runs": 20,
        "title": "N-MNIST, PLIF and LIF, τ = 2 and 16, 30 epochs",
    }
    tree = json.loads(plifctl("sweep", "run", "tau-nmnist", "--seeds", "6", "--dry-run", "--json").out)
    assert (tree["sweep"], [run["seed"] for run in tree["runs"]]) == ("tau-nmnist", [6] * 4)
    refused = plifctl("sweep", "run", "demo", "tau-nmnist")
    assert (refused.code, "tau-nmnist: a sweep, which stands alone" in refused.err) == (2, True)


def test_status_and_cancel_without_a_sweep_say_how_to_begin(plifctl: Plifctl) -> None:
    assert "no sweep in" in plifctl("sweep", "status").err
    assert "no sweep 'x'" in plifctl("sweep", "cancel", "x").err


@pytest.mark.slow
@pytest.mark.subprocess
def test_failing_run_leaves_the_others_finished_and_is_named_with_its_command(prepared: Plifctl, places: Path) -> None:
    line = (*LINE, "--epochs", "2", "--set", "train.lr=0.001,1e30", "--name", "my sweep")
    first = prepared(*line)
    assert first.code == 6
    assert "2 runs: 1 finished, 1 failed" in first.err
    assert "at a learning rate of 1e+30" in first.err
    (alone,) = [text for text in first.err.splitlines() if text.startswith("hint: alone: plifctl train demo")]
    assert "--set train.lr=1e+30" in alone
    assert "\x1b" not in first.out + first.err
    good = next(run for run in list_runs(places / "runs") if run.status() == "finished")
    before = (good.path / "result.json").read_bytes()
    again = prepared(*line)
    assert (again.code, "1 finished, 1 failed" in again.err) == (6, True)
    assert (good.path / "result.json").read_bytes() == before
    assert len(list_runs(places / "runs")) == 2
    shown = prepared("sweep", "status", "my sweep", "--json")
    assert json.loads(shown.out)["counts"]["failed"] == 1
    assert "at a learning rate" in prepared("sweep", "status").err  # the latest


@pytest.mark.slow
@pytest.mark.subprocess
def test_kill_of_the_coordinator_loses_nothing(started: Any, prepared: Plifctl, places: Path) -> None:
    line = (*LINE, "--seeds", "1,2", "--name", "killed")
    process = started(*line, *LONG)
    run = wait_for(lambda: trained_run(places / "runs"))
    process.kill()
    wait_for(lambda: run.status() != "running")  # its training stops by itself, after a checkpoint
    epochs = len(run.metrics())
    assert run.checkpoint("last").is_file()
    shown = json.loads(prepared("sweep", "status", "killed", "--json").out)
    assert [shown["active"], [entry["state"] for entry in shown["runs"]]] == [False, ["interrupted", "missing"]]
    process = started(*line, *LONG)
    wait_for(lambda: len(run.metrics()) > epochs)
    assert len(list_runs(places / "runs")) == 1


@pytest.mark.slow
@pytest.mark.subprocess
def test_kill_of_everything_loses_no_epoch_with_a_checkpoint(started: Any, places: Path) -> None:
    line = (*LINE, *LONG, "--seeds", "1", "--name", "killed")
    process = started(*line)
    run = wait_for(lambda: trained_run(places / "runs", 3))
    training = run.info()["pid"]
    process.kill()
    os.kill(training, signal.SIGKILL)
    wait_for(lambda: run.status() != "running")
    epochs = len(run.metrics())
    started(*line)
    wait_for(lambda: len(run.metrics()) > epochs)
    assert len(run.session_entries()) == 2
    assert run.session_entries()[1]["epoch"] >= epochs


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_stopped_sweep_leaves_checkpoints_and_says_how_to_continue(
    started: Any, places: Path, number: signal.Signals, code: int
) -> None:
    process = started(*LINE, *LONG, "--seeds", "1,2", "--name", "stopped")
    run = wait_for(lambda: trained_run(places / "runs"))
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    assert process.returncode == code
    assert (run.status(), run.checkpoint("last").is_file()) == ("stopped", True)
    assert "hint: to continue: plifctl sweep run demo" in err
    plan = PlanFile(places / "runs", "stopped").load()
    assert [planned.state for planned in plan.runs] == ["interrupted", "missing"]


@pytest.mark.slow
@pytest.mark.subprocess
def test_cancel_stops_the_sweep_after_a_checkpoint(started: Any, prepared: Plifctl, places: Path) -> None:
    process = started(*LINE, *LONG, "--seeds", "1,2", "--name", "my sweep")
    run = wait_for(lambda: trained_run(places / "runs"))
    assert "another process" in prepared(*LINE, *LONG, "--seeds", "1,2", "--name", "my sweep").err
    cancelled = prepared("sweep", "cancel", "my sweep")
    assert (cancelled.code, "my sweep: 2 runs stopped" in cancelled.err) == (0, True)
    assert "to continue: plifctl sweep run demo" in cancelled.err
    assert process.wait(60) == 143
    assert (run.status(), run.checkpoint("last").is_file()) == ("stopped", True)
    assert "nothing to stop" in prepared("sweep", "cancel", "my sweep").err


@pytest.mark.slow
@pytest.mark.subprocess
def test_two_sweeps_that_share_runs_train_each_once(started: Any, places: Path) -> None:
    one = started(*LINE, "--epochs", "3", "--seeds", "1,2", "--name", "one")
    two = started(*LINE, "--epochs", "3", "--seeds", "2,1", "--name", "two")
    assert "2 runs: 2 finished" in one.communicate()[1]
    assert "2 runs: 2 finished" in two.communicate()[1]
    assert (one.returncode, two.returncode) == (0, 0)
    runs = list_runs(places / "runs")
    assert [(run.status(), len(run.session_entries())) for run in runs] == [("finished", 1)] * 2


@pytest.mark.slow
@pytest.mark.subprocess
def test_experiment_that_is_edited_meanwhile_is_not_trained_under_the_planned_name(
    started: Any, prepared: Plifctl, places: Path
) -> None:
    file = places / "mine.yaml"
    file.write_text("like: demo\nname: mine\n")
    words = [word for text in SMALL for word in ("--set", text)]
    line = ("sweep", "run", "mine.yaml", *words, "--epochs", "3", "--seeds", "1,2", "--name", "edited")
    process = started(*line)
    wait_for(lambda: list_runs(places / "runs"))
    file.write_text("like: demo\nname: mine\nneuron: {tau_0: 8}\n")
    _, err = process.communicate()
    assert (process.returncode, "mine has changed" in err) == (6, True)
    assert "mine has changed" in prepared("sweep", "status", "edited").err
    (run,) = list_runs(places / "runs")
    assert run.config().spec.neuron.tau_0 == 2
    assert prepared(*line).code == 0
    assert [run.config().spec.neuron.tau_0 for run in list_runs(places / "runs")] == [2, 8, 8]


@pytest.mark.slow
@pytest.mark.subprocess
def test_table_fits_a_terminal_of_80_columns(prepared: Plifctl, places: Path) -> None:
    pty = pytest.importorskip("pty")
    assert prepared(*LINE, "--seeds", "1", "--set", "train.lr=0.01,0.001", "--epochs", "1").code == 0
    master, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "plifctl", "sweep", "status"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment):
        os.close(terminal)
        shown = read_all(master)
    rows = [line for line in shown.splitlines() if "…" in line]
    assert len(rows) == 2
    assert all(len(row) <= 80 for row in rows)
    assert ["lr=0.01" in rows[0], "lr=0.001" in rows[1]] == [True, True]


def read_all(descriptor: int) -> str:
    parts = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(descriptor)
    return b"".join(parts).decode()
