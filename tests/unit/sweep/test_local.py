"""The engine of this machine, with small commands in place of trainings."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plifctl.errors import UsageError
from plifctl.sweep.engine import Job, Resources, Task
from plifctl.sweep.local import LocalEngine

MakeEngine = Callable[..., LocalEngine]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeEngine]:
    """Makes an engine of a machine with some GPUs; what it still runs is stopped in the end."""
    made: list[LocalEngine] = []

    def make(visible: str = "", **resources: Any) -> LocalEngine:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        made.append(LocalEngine(Resources(**resources)))
        return made[-1]

    yield make
    for each in made:
        each.cancel(dict.fromkeys(each._running, ""))


def task(folder: Path, name: str, code: str) -> Task:
    return Task(name, (sys.executable, "-S", "-c", code), folder / "logs" / f"{name}.log")


def wait_for(engine: LocalEngine, *names: str, state: str = "ended") -> dict[str, Job]:
    jobs = dict.fromkeys(names, "1")
    for _ in range(3000):
        found = engine.poll(jobs)
        if all(name in found and found[name].state == state for name in names):
            return found
        time.sleep(0.01)
    raise AssertionError(engine.poll(jobs))


@pytest.mark.subprocess
def test_jobs_end_with_their_exit_codes_and_append_their_output(tmp_path: Path, engine: MakeEngine) -> None:
    local = engine(jobs=3)
    codes = {
        "good": "print('done')",
        "bad": "raise SystemExit('error: no')",
        "dead": "import os; os.kill(os.getpid(), 9)",
    }
    tasks = [task(tmp_path, name, code) for name, code in codes.items()]
    assert set(local.submit(tasks)) == set(codes)
    found = wait_for(local, *codes)
    assert {name: (job.reason, job.exit_code) for name, job in found.items()} == {
        "good": ("", 0),
        "bad": ("exit code 1", 1),
        "dead": ("killed by SIGKILL", -9),
    }
    local.submit(tasks[:1])
    wait_for(local, "good")
    assert tasks[0].log.read_text() == "done\ndone\n"


@pytest.mark.subprocess
def test_as_many_jobs_as_allowed_run_at_once(tmp_path: Path, engine: MakeEngine) -> None:
    local = engine(jobs=2)
    wait = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    local.submit([task(tmp_path, name, wait) for name in "abc"])
    found = local.poll(dict.fromkeys("abc", ""))
    assert [found[name].state for name in "abc"] == ["running", "running", "queued"]
    (tmp_path / "go").touch()
    wait_for(local, *"abc")


@pytest.mark.subprocess
def test_each_job_has_its_own_gpus_and_a_share_of_the_cores(
    tmp_path: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.sweep.local.usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    local = engine("3, 5,7,9")
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    tasks = [task(tmp_path, name, code) for name in "abcde"]
    local.submit(tasks)
    wait_for(local, *"abcde")
    assert [each.log.read_text().split() for each in tasks[:4]] == [["3", "2"], ["5", "2"], ["7", "2"], ["9", "2"]]
    assert tasks[4].log.read_text().split()[0] in ("3", "5", "7", "9")


@pytest.mark.subprocess
@pytest.mark.parametrize(("cpus", "expected"), [(None, "3"), (2, "2")])
def test_threads_of_the_environment_hold_unless_cpus_are_stated(
    tmp_path: Path, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, cpus: int | None, expected: str
) -> None:
    monkeypatch.setattr("plifctl.sweep.local.usable_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    local = engine(cpus=cpus)
    run = task(tmp_path, "a", "import os; print(os.environ['OMP_NUM_THREADS'])")
    local.submit([run])
    wait_for(local, "a")
    assert run.log.read_text().split() == [expected]


@pytest.mark.subprocess
def test_cancelled_job_gets_the_time_to_write_its_checkpoint(tmp_path: Path, engine: MakeEngine) -> None:
    local = engine(jobs=1)
    saving = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(0.2); print('saved', flush=True); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(60)"
    )
    tasks = [task(tmp_path, "a", saving), task(tmp_path, "b", "print('never')")]
    local.submit(tasks)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    local.cancel({"a": "", "b": ""})
    found = local.poll({"a": "", "b": ""})
    assert found["a"].exit_code == 143
    assert "b" not in found
    assert tasks[0].log.read_text() == "saved\n"
    assert not tasks[1].log.exists()


@pytest.mark.subprocess
def test_job_that_cannot_be_started_fails_alone(tmp_path: Path, engine: MakeEngine) -> None:
    (tmp_path / "file").touch()
    local = engine(jobs=1)
    good = task(tmp_path, "good", "print(1)")
    local.submit([Task("bad", good.argv, tmp_path / "file" / "bad.log"), good])
    found = wait_for(local, "bad", "good")
    assert "not started" in found["bad"].reason
    assert found["good"].exit_code == 0


def test_engine_knows_no_jobs_of_another_process(engine: MakeEngine) -> None:
    assert engine(jobs=1).poll({"a": "123"}) == {}


def test_more_gpus_than_there_are_is_refused(engine: MakeEngine) -> None:
    with pytest.raises(UsageError, match="--gpus 2: this machine has 1"):
        engine("0", gpus=2)
