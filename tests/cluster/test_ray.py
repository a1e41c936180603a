"""The engine of Ray, on a real cluster of several nodes on this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.tasks import python_task, stopping_task, wait_for_end, wait_until, words

from plifctl.errors import MachineError
from plifctl.sweep.engine import Resources
from plifctl.sweep.ray import RayEngine

AddNode = Callable[..., Any]


def engine(cluster: Any, **resources: Any) -> RayEngine:
    return RayEngine(Resources(cpus=1, address=cluster.address, **resources))


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; a zombie has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_tasks_all_end_with_their_exit_codes(
    ray_cluster: Any, add_node: AddNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_node(num_cpus=2)
    handler = signal.getsignal(signal.SIGTERM)
    ray = engine(ray_cluster, jobs=2)
    assert signal.getsignal(signal.SIGTERM) is handler
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.getcwd(), os.environ['PLIFCTL_CACHE_DIR'])"
    monkeypatch.setenv("PLIFCTL_CACHE_DIR", "cache")
    tasks = [python_task(tmp_path, name, code) for name in "abc"]
    ended = wait_for_end(ray, ray.submit([*tasks, python_task(tmp_path, "fails", "raise SystemExit(7)")]))
    assert {name: job.exit_code for name, job in ended.items()} == {"a": 0, "b": 0, "c": 0, "fails": 7}
    assert ended["fails"].reason == "exit code 7"
    assert all(job.host for job in ended.values())
    assert [words(task) for task in tasks] == [["1", str(Path.cwd()), "cache"]] * 3


def test_tasks_that_wait_start_in_the_order_of_the_plan(ray_cluster: Any, add_node: AddNode, tmp_path: Path) -> None:
    add_node(num_cpus=1)
    ray = engine(ray_cluster)
    tasks = [python_task(tmp_path, name, "import time; print(time.time_ns())") for name in "abcdef"]
    wait_for_end(ray, ray.submit(tasks))
    assert sorted(tasks, key=lambda task: int(words(task)[0])) == tasks


def test_cancel_gives_a_training_time_for_its_checkpoint_and_removes_those_that_wait(
    ray_cluster: Any, add_node: AddNode, tmp_path: Path
) -> None:
    add_node(num_cpus=1)
    ray = engine(ray_cluster)
    running, waiting = (stopping_task(tmp_path, name) for name in ("running", "waiting"))
    jobs = ray.submit([running, waiting])
    wait_until(lambda: words(running) == ["started"])
    wait_until(lambda: ray.poll(jobs)["running"].state == "running")
    assert ray.poll(jobs)["waiting"].state == "queued"
    ray.cancel(jobs)
    ended = ray.poll(jobs)
    assert words(running) == ["started", "stopping", "saved"]
    assert (ended["running"].state, ended["running"].exit_code) == ("ended", 143)
    assert (ended["waiting"].state, ended["waiting"].reason) == ("ended", "cancelled")
    assert words(waiting) == []


def test_task_whose_node_dies_is_run_again_on_another_one_in_silence(
    ray_cluster: Any, add_node: AddNode, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = add_node(num_cpus=1)
    ray = engine(ray_cluster)
    mark = tmp_path / "mark"
    code = "import os, sys, time; print('run', flush=True); time.sleep(0 if os.path.exists({!r}) else 250)"
    task = python_task(tmp_path, "run", code.format(str(mark)))
    jobs = ray.submit([task])
    wait_until(lambda: words(task) == ["run"])
    mark.touch()
    add_node(num_cpus=1)
    capfd.readouterr()
    ray_cluster.remove_node(first, allow_graceful=False)
    assert wait_for_end(ray, jobs)["run"].exit_code == 0
    assert words(task) == ["run", "run"]
    assert capfd.readouterr() == ("", "")


def test_task_for_which_no_machine_is_large_enough_says_so(ray_cluster: Any, add_node: AddNode, tmp_path: Path) -> None:
    add_node(num_cpus=1)
    ray = RayEngine(Resources(cpus=5, address=ray_cluster.address))
    jobs = ray.submit([python_task(tmp_path, "large", "pass")])
    assert ray.poll(jobs)["large"].reason == "no machine has 5 cores and 0 GPUs"


def test_training_ends_when_the_command_that_started_it_is_killed(tmp_path: Path) -> None:
    task = python_task(tmp_path, "run", "import os, time; print(os.getpid(), flush=True); time.sleep(250)")
    code = f"""
import pathlib, time
from plifctl.sweep.engine import Resources, Task
from plifctl.sweep.ray import RayEngine
RayEngine(Resources(jobs=1)).submit([Task("run", {task.argv!r}, pathlib.Path({str(task.log)!r}))])
time.sleep(250)
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as command:
        wait_until(lambda: len(words(task)) == 1)
        command.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(int(words(task)[0])))


def test_cluster_that_does_not_answer_is_named() -> None:
    pytest.importorskip("ray")
    with pytest.raises(MachineError, match=r"Ray at 127\.0\.0\.1:9 does not answer"):
        RayEngine(Resources(address="127.0.0.1:9"))
