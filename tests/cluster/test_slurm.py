"""The engine of SLURM, with a real one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cluster.tasks import python_task, stopping_task, wait_for_end, wait_until, words

from plifctl.errors import MachineError
from plifctl.sweep.engine import Job, Resources, Task
from plifctl.sweep.slurm import SlurmEngine

pytestmark = pytest.mark.usefixtures("slurm")


def engine(folder: Path, time: str = "10m", **options: str) -> SlurmEngine:
    return SlurmEngine(Resources(jobs=2, cpus=1, time=time, options=options), folder)


def test_array_runs_two_jobs_at_once_and_all_finish(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, time
folder = pathlib.Path({str(tmp_path)!r})
own = folder / f"running-{{os.getpid()}}"
own.touch()
time.sleep(1.5)
print(len(list(folder.glob("running-*"))), os.environ["OMP_NUM_THREADS"])
own.unlink()
"""
    tasks = [python_task(tmp_path, f"run-{number}", code) for number in range(4)]
    slurm = engine(tmp_path)
    ended = wait_for_end(slurm, slurm.submit(tasks))
    assert {(job.state, job.reason, job.exit_code) for job in ended.values()} == {("ended", "", 0)}
    assert all(job.host for job in ended.values())
    printed = [words(task) for task in tasks]
    assert max(int(running) for running, _ in printed) == 2
    assert {threads for _, threads in printed} == {"1"}
    assert len(list((tmp_path / "slurm").glob("*_submission.sh"))) == 1


@pytest.mark.parametrize(("gpus", "expected"), [(None, {"0", "1"}), (2, {"0,1"})])
def test_job_gets_gpus_of_its_own_by_default_one(tmp_path: Path, gpus: int | None, expected: set[str]) -> None:
    slurm = SlurmEngine(Resources(gpus=gpus, cpus=1, time="10m"), tmp_path)
    code = "import os, time; time.sleep(2); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    tasks = [python_task(tmp_path, name, code) for name in "ab"]
    wait_for_end(slurm, slurm.submit(tasks))
    assert {word for task in tasks for word in words(task)} == expected


def test_task_that_fails_ends_with_its_exit_code_and_does_not_go_back_to_the_queue(tmp_path: Path) -> None:
    slurm = engine(tmp_path)
    task = python_task(tmp_path, "fails", "print('once'); raise SystemExit(7)")
    jobs = slurm.submit([task])
    job = wait_for_end(slurm, jobs)["fails"]
    assert (job.reason, job.exit_code) == ("exit code 7", 7)
    assert words(task) == ["once"]


def test_cancel_gives_a_training_time_for_its_checkpoint_and_removes_those_that_wait(tmp_path: Path) -> None:
    slurm = SlurmEngine(Resources(jobs=1, cpus=1, time="10m"), tmp_path)
    running, waiting = (stopping_task(tmp_path, name) for name in ("running", "waiting"))
    jobs = slurm.submit([running, waiting])
    wait_until(lambda: words(running) == ["started"])
    assert slurm.poll(jobs)["waiting"].state == "queued"
    slurm.cancel(jobs)
    ended = wait_for_end(slurm, jobs)
    assert words(running) == ["started", "stopping", "saved"]
    assert (ended["running"].reason, ended["running"].exit_code) == ("CANCELLED", 143)
    assert ended["waiting"].reason == "CANCELLED"
    assert words(waiting) == []
    slurm.cancel(jobs)  # nothing is left to cancel, which is no error


def test_job_at_its_time_limit_goes_back_to_the_queue_and_continues(tmp_path: Path) -> None:
    slurm = engine(tmp_path, "1m", signal="USR2@30")
    task = stopping_task(tmp_path, "long")
    ended = wait_for_end(slurm, slurm.submit([task]))
    assert words(task) == ["started", "stopping", "saved", "continued"]
    assert ended["long"].exit_code == 0


def test_job_that_is_preempted_by_sigterm_goes_back_to_the_queue_and_continues(tmp_path: Path) -> None:
    slurm = engine(tmp_path)
    task = stopping_task(tmp_path, "preempted")
    jobs = slurm.submit([task])
    wait_until(lambda: words(task) == ["started"])
    subprocess.run(["scancel", "--signal=TERM", jobs["preempted"]], check=True)
    assert wait_for_end(slurm, jobs)["preempted"].exit_code == 0
    assert words(task) == ["started", "stopping", "saved", "continued"]


def test_poll_from_another_process_finds_the_jobs(tmp_path: Path) -> None:
    jobs = engine(tmp_path).submit(
        [python_task(tmp_path, "a", "pass"), python_task(tmp_path, "b", "raise SystemExit(3)")]
    )
    wait_for_end(engine(tmp_path), jobs)
    code = f"""
import dataclasses, json, pathlib
from plifctl.sweep.engine import Resources
from plifctl.sweep.slurm import SlurmEngine
engine = SlurmEngine(Resources(), pathlib.Path({str(tmp_path)!r}))
print(json.dumps({{name: dataclasses.asdict(job) for name, job in engine.poll({jobs!r}).items()}}))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    found = {name: Job(**values) for name, values in json.loads(printed).items()}
    assert [(found[name].state, found[name].exit_code) for name in "ab"] == [("ended", 0), ("ended", 3)]


def test_submit_with_an_unknown_partition_names_it(tmp_path: Path) -> None:
    task = Task("a", ("true",), tmp_path / "a.log")
    with pytest.raises(MachineError, match="nowhere"):
        SlurmEngine(Resources(gpus=0, time="1h", options={"partition": "nowhere"}), tmp_path).submit([task])


def test_poll_of_a_slurm_that_does_not_answer_is_an_error(
    tmp_path: Path, slurm_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = slurm_conf.read_text().splitlines()
    (tmp_path / "slurm.conf").write_text(
        "\n".join("SlurmctldPort=9" if line.startswith("SlurmctldPort") else line for line in lines)
        + "\nMessageTimeout=2\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(MachineError, match="squeue failed"):
        engine(tmp_path).poll({"a": "1_0"})
