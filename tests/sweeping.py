"""Sweeps without trainings: an engine in memory, whose jobs make finished runs of the demo, or what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from factories import make_run

from plifctl.config.sweep import SweepSpec
from plifctl.errors import RunError
from plifctl.runs import RunRecorder
from plifctl.sweep.engine import Job, Task
from plifctl.sweep.plan import PlannedRun
from plifctl.sweep.planning import SweepOptions

Trainer = Callable[["FakeEngine", Task], Job]


def sweep_options(runs_dir: Path, **fields: Any) -> SweepOptions:
    """The options of a sweep of the demo; each training has three epochs."""
    spec = {"experiments": ("demo",), **fields}
    spec["set"] = {"train.epochs": 3, **spec.get("set", {})}
    return SweepOptions(
        SweepSpec.model_validate(spec), runs_dir=runs_dir, cache_dir=runs_dir / "caches", command="again"
    )


def planned_run(name: str = "a", **fields: Any) -> PlannedRun:
    """A run of a plan."""
    about = {"experiment": "demo", "protocol": "A", "seed": 2020, "epochs": 3, "digest": "d", "dataset": "x"}
    return PlannedRun.model_validate({"name": name, **about, "command": f"plifctl train {name}", "argv": (), **fields})


class FakeEngine:
    """Engine whose jobs each take one poll, one after the other.

    Args:
        runs_dir: Runs directory.
        trainers: What a job does, by a part of the name of its run; others train it to its end.
    """

    def __init__(
        self, runs_dir: Path, trainers: Mapping[str, Trainer] | None = None, *, detached: bool = False
    ) -> None:
        self.runs_dir, self.trainers, self.detached = runs_dir, trainers or {}, detached
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.queue: list[Task] = []
        self.ended: dict[str, Job] = {}

    def submit(self, tasks: Sequence[Task]) -> dict[str, str]:
        self.submitted += [task.name for task in tasks]
        self.queue += tasks
        for task in tasks:
            self.ended.pop(task.name, None)
        return {task.name: f"job-{task.name}" for task in tasks}

    def poll(self, jobs: Mapping[str, str]) -> dict[str, Job]:
        if self.queue and not self.detached:
            task = self.queue.pop(0)
            trainer = next((found for part, found in self.trainers.items() if part in task.name), train_task)
            self.ended[task.name] = trainer(self, task)
        queued = {task.name: Job("queued") for task in self.queue}
        return {name: job for name, job in {**queued, **self.ended}.items() if name in jobs}

    def cancel(self, jobs: Mapping[str, str]) -> None:
        self.cancelled += jobs
        self.queue = [task for task in self.queue if task.name not in jobs]


def train_task(engine: FakeEngine, task: Task, *, finished: bool = True) -> Job:
    """Makes the run of a task, as its command would."""
    protocol = "B" if "validate" in task.argv else "A"
    make_run(engine.runs_dir, *_overrides(task), name=task.name, protocol=protocol, finished=finished)
    return Job("ended", "here", "", 0)


def fail_task(engine: FakeEngine, task: Task) -> Job:
    """Makes a run that failed, and the output of its command."""
    run = make_run(engine.runs_dir, *_overrides(task), name=task.name, finished=False)
    try:
        with RunRecorder(run, run.config().spec).live():
            raise RunError("the loss is not finite")
    except RunError as error:
        write_log(task, f"error: {error}\nhint: a lower learning rate\n")
    return Job("ended", "here", "exit code 6", 6)


def write_log(task: Task, text: str) -> None:
    """Appends to the output of a task's command."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("a") as file:
        file.write(text)


def _overrides(task: Task) -> list[str]:
    return [task.argv[index + 1] for index, word in enumerate(task.argv) if word == "--set"]
