"""Tasks of the tests of engines, and waiting for them."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from plifctl.sweep.engine import Engine, Job, Task

_STOPPING = Path(__file__).with_name("stopping.py")


def python_task(folder: Path, name: str, code: str) -> Task:
    """Returns a task that runs Python code."""
    return Task(name, (sys.executable, "-c", code), folder / "logs" / f"{name}.log")


def stopping_task(folder: Path, name: str) -> Task:
    """Returns a task that runs until it is stopped, then writes a checkpoint; started again, it finishes."""
    return Task(name, (sys.executable, str(_STOPPING), str(folder / f"{name}.pt")), folder / "logs" / f"{name}.log")


def words(task: Task) -> list[str]:
    """Returns what a task printed."""
    return task.log.read_text().split() if task.log.exists() else []


def wait_until(condition: Callable[[], bool], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.3)


def wait_for_end(engine: Engine, jobs: Mapping[str, str]) -> dict[str, Job]:
    """Polls until all jobs have ended."""
    wait_until(lambda: all(job.state == "ended" for job in engine.poll(jobs).values()))
    return engine.poll(jobs)
