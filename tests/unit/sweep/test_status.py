"""Status of a sweep, and cancelling it, from another process than the one that runs it."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_run
from sweeping import FakeEngine, planned_run

from plifctl.config.sweep import SweepSpec
from plifctl.errors import MachineError, UsageError
from plifctl.runs import Run
from plifctl.sweep.engine import Job, Task
from plifctl.sweep.plan import Plan, PlanFile, PlannedRun
from plifctl.sweep.status import SweepWatch, cancel_sweep, read_plan


@pytest.fixture(autouse=True)
def without_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plifctl.sweep.status.authors_accuracies", dict)


def save_plan(runs_dir: Path, *runs: PlannedRun, **fields: Any) -> PlanFile:
    file = PlanFile(runs_dir, "mine")
    about = {"name": "mine", "command": "plifctl sweep run demo", "definition": SweepSpec(experiments=("demo",))}
    file.save(Plan(**about, created=1.0, updated=1.0, runs=runs, **fields))
    return file


def trained(runs_dir: Path, name: str, **options: Any) -> PlannedRun:
    spec = make_run(runs_dir, name=name, **options).config().spec
    return planned_run(name, digest=spec.digest, seed=spec.train.seed, engine="local", job="1")


def test_read_counts_runs_by_their_own_files_not_by_the_plan(tmp_path: Path) -> None:
    runs = [trained(tmp_path, "a"), trained(tmp_path, "b", finished=False), planned_run("c", state="running")]
    save_plan(tmp_path, *runs)
    found = SweepWatch("mine", tmp_path).read()
    assert [entry.state for entry in found.runs] == ["finished", "interrupted", "missing"]
    assert (found.count("finished"), found.is_active) == (1, False)
    tree = found.to_json()
    assert tree["counts"] == {"missing": 1, "queued": 0, "running": 0, "finished": 1, "interrupted": 1, "failed": 0}
    assert "argv" not in tree["runs"][0]


def test_read_takes_jobs_from_the_plan_while_a_process_holds_it(tmp_path: Path) -> None:
    file = save_plan(tmp_path, planned_run("a", state="running"), planned_run("b", state="queued"), planned_run("c"))
    with file.locked():
        found = SweepWatch("mine", tmp_path).read()
        assert [entry.state for entry in found.runs] == ["running", "queued", "missing"]
        assert found.is_active


def test_read_writes_nothing(tmp_path: Path) -> None:
    save_plan(tmp_path, trained(tmp_path, "a"), trained(tmp_path, "b", finished=False))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    SweepWatch("mine", tmp_path).read()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_two_who_read_do_not_see_each_other_as_trainings(tmp_path: Path) -> None:
    run = Run(tmp_path / trained(tmp_path, "a", finished=False).name)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            run.status()

    other = threading.Thread(target=ask)
    other.start()
    try:
        assert {run.status() for _ in range(300)} == {"killed"}
    finally:
        stop.set()
        other.join()


def test_seconds_left_follow_from_the_speed_so_far(tmp_path: Path) -> None:
    done = trained(tmp_path, "a")  # three epochs of a second
    save_plan(tmp_path, done, planned_run("b", epochs=5))
    assert SweepWatch("mine", tmp_path).read().seconds_left == 5
    save_plan(tmp_path, done, planned_run("b", experiment="other"))
    assert SweepWatch("mine", tmp_path).read().seconds_left is None


class Following:
    """A sweep of two runs whose jobs are in a batch system, which answers as the test says; time costs nothing."""

    def __init__(self, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, engine: str = "slurm") -> None:
        runs = [planned_run(name, engine=engine, job=name, state="running") for name in ("a", "b")]
        self.file, self.pauses = save_plan(runs_dir, *runs), []
        self.answers: list[Any] = []
        monkeypatch.setattr("plifctl.sweep.status.poll_detached", self.poll)
        monkeypatch.setattr("plifctl.sweep.status.time.sleep", self.pauses.append)
        self.watch = SweepWatch("mine", runs_dir)

    def poll(self, runs: Any, folder: Path) -> dict[str, Job]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {name: Job(answer) for name in ("a", "b")}


def test_follow_outlasts_a_batch_system_that_does_not_answer_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sweep, silent = Following(tmp_path, monkeypatch), MachineError("squeue does not answer")
    sweep.answers = ["running", *[silent] * 4, "running", *[silent] * 4, "ended"]
    found = list(sweep.watch.follow(sweep.watch.read()))
    assert [status.is_active for status in found] == [True, False]
    assert caplog.messages == ["squeue does not answer; asked again in 30 s"] * 8
    assert sweep.pauses == [30.0] * 10
    sweep.answers = ["running", *[silent] * 5]
    with pytest.raises(MachineError, match="does not answer"):
        list(sweep.watch.follow(sweep.watch.read()))


def test_follow_waits_by_the_time_that_reading_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Following(tmp_path, monkeypatch, engine="local")
    now, took = [0.0], iter([1.5, 0.0, 0.0])

    def poll_slowly(*args: Any) -> dict[str, Job]:
        now[0] += next(took)
        return sweep.poll(*args)

    monkeypatch.setattr("plifctl.sweep.status.poll_detached", poll_slowly)
    monkeypatch.setattr("plifctl.sweep.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    sweep.answers = ["running", "running", "ended"]
    list(sweep.watch.follow(sweep.watch.read()))
    assert sweep.pauses == [15.0, 2.0]


def test_watch_without_a_name_takes_the_latest_sweep(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep in"):
        SweepWatch(None, tmp_path)
    save_plan(tmp_path, planned_run("a"))
    assert SweepWatch(None, tmp_path).file.name == "mine"


def test_plan_that_is_not_written_can_be_read(tmp_path: Path) -> None:
    plan = save_plan(tmp_path / "elsewhere", planned_run("a")).load()
    assert read_plan(plan, tmp_path).count("missing") == 1


def test_cancel_of_what_does_not_run_stops_nothing(tmp_path: Path) -> None:
    save_plan(tmp_path, trained(tmp_path, "a", finished=False), pid=os.getpid(), host="elsewhere")
    assert cancel_sweep("mine", tmp_path) == 0
    with pytest.raises(UsageError, match="no sweep"):
        cancel_sweep("other", tmp_path)


def test_cancel_leaves_alone_what_another_command_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, "a", finished=False)
    save_plan(tmp_path, run)
    monkeypatch.setattr("plifctl.sweep.status.os.kill", lambda *_: pytest.fail("killed"))
    with Run(tmp_path / "a").lock():
        assert SweepWatch("mine", tmp_path).read().is_active
        assert cancel_sweep("mine", tmp_path) == 0


def test_cancel_on_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plifctl.sweep.status.os.kill", lambda *_: pytest.fail("killed"))
    with PlanFile(tmp_path, "mine").locked():
        save_plan(tmp_path, planned_run("a", state="running"), host="node7", pid=os.getpid())
        with pytest.raises(UsageError, match="on node7"):
            cancel_sweep("mine", tmp_path)


def test_cancel_never_signals_a_process_that_the_plan_does_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.sweep.status.os.kill", lambda *_: pytest.fail("killed"))
    with PlanFile(tmp_path, "mine").locked():
        save_plan(tmp_path, planned_run("a", state="running"))
        with pytest.raises(MachineError, match="at this moment"):
            cancel_sweep("mine", tmp_path)


@pytest.mark.parametrize(
    ("refusal", "message"), [(ProcessLookupError(), "no such process here"), (PermissionError(), "another user")]
)
def test_cancel_of_a_process_that_cannot_be_signalled_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: OSError, message: str
) -> None:
    def refuse(*_: int) -> None:
        raise refusal

    monkeypatch.setattr("plifctl.sweep.status.os.kill", refuse)
    file = save_plan(tmp_path, planned_run("a", state="running"))
    with file.locked(), pytest.raises(MachineError, match=rf"mine \(process {os.getpid()}\) .*{message}"):
        cancel_sweep("mine", tmp_path)


_HOLD = """
import os, pathlib, signal, sys, time
from plifctl.sweep.plan import PlanFile
file = PlanFile(pathlib.Path(sys.argv[1]), "mine")
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), os._exit(7)))
with file.locked():
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.subprocess
def test_cancel_stops_the_process_and_waits_for_its_end(tmp_path: Path) -> None:
    file = save_plan(tmp_path, planned_run("a", state="running"))
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert cancel_sweep("mine", tmp_path) == 1
        assert not file.is_held()
        assert process.wait(10) == 7


def test_cancel_of_jobs_of_a_batch_system_cancels_those_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(tmp_path, detached=True)
    jobs = engine.submit([Task(name, (), tmp_path / "log") for name in "ab"])
    engine.queue.pop(0)
    for module in ("status", "jobs"):
        monkeypatch.setattr(f"plifctl.sweep.{module}.open_engine", lambda *_: engine)
    save_plan(tmp_path, *(planned_run(name, engine="slurm", job=jobs[name]) for name in "ab"))
    assert cancel_sweep("mine", tmp_path) == 1
    assert engine.cancelled == ["b"]
    plan = PlanFile(tmp_path, "mine").load()
    assert [(run.job is None, run.state) for run in plan.runs] == [(False, "missing"), (True, "missing")]
    assert plan.pid is None


def test_cancel_waits_for_the_end_of_the_jobs_of_a_batch_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(tmp_path, detached=True)
    jobs = engine.submit([Task("a", (), tmp_path / "log")])
    for module in ("status", "jobs"):
        monkeypatch.setattr(f"plifctl.sweep.{module}.open_engine", lambda *_: engine)
    monkeypatch.setattr(engine, "cancel", lambda _: None)  # it writes its checkpoint
    save_plan(tmp_path, planned_run("a", engine="slurm", job=jobs["a"]))
    monkeypatch.setattr("plifctl.sweep.status.time.sleep", lambda _: engine.queue.clear())
    assert cancel_sweep("mine", tmp_path) == 1
    assert SweepWatch("mine", tmp_path).read().count("queued") == 0
    jobs = engine.submit([Task("a", (), tmp_path / "log")])
    save_plan(tmp_path, planned_run("a", engine="slurm", job=jobs["a"]))
    monkeypatch.setattr("plifctl.sweep.status.time.sleep", lambda _: None)
    monkeypatch.setattr("plifctl.sweep.status._STOP_SECONDS", 0)
    with pytest.raises(MachineError, match="jobs of the sweep mine do not end"):
        cancel_sweep("mine", tmp_path)
