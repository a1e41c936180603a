"""Says how a sweep stands, and cancels it: from any process, on any machine that sees the runs directory."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from plifctl import paths
from plifctl.errors import MachineError, RunError, UsageError
from plifctl.runs import Run, is_trained
from plifctl.sweep.engine import Job, Resources
from plifctl.sweep.engines import open_engine
from plifctl.sweep.plan import Plan, PlanFile, PlannedRun, State, sweep_names
from plifctl.sweep.progress import ProgressReader, Standing
from plifctl.sweep.run import authors_accuracies, jobs_of

_STOP_SECONDS = 150
"""Time in which a cancelled sweep has stopped its runs."""


@dataclass(frozen=True)
class SweepStatus:
    """How a sweep stands.

    Attributes:
        plan: Its plan.
        path: File of the plan.
        runs: Its runs.
        is_active: Whether runs wait or are trained.
        seconds_left: Time until all are finished, if as many as now are trained at once; None if that is not known.
    """

    plan: Plan
    path: Path
    runs: tuple[Standing, ...]
    is_active: bool
    seconds_left: float | None

    def count(self, state: State) -> int:
        """Returns the number of runs in a state."""
        return sum(standing.state == state for standing in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "sweep": self.plan.name,
            "plan": str(self.path),
            "command": self.plan.command,
            "active": self.is_active,
            "counts": {state: self.count(state) for state in get_args(State)},
            "seconds_left": self.seconds_left,
            "runs": [standing.to_json() for standing in self.runs],
        }


class SweepWatch:
    """Reads how a sweep stands, again and again.

    Args:
        name: Its name; None: the latest.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: There is no such sweep.
        RunError: Its plan is damaged.
    """

    def __init__(self, name: str | None = None, runs_dir: Path | None = None) -> None:
        folder = runs_dir or paths.runs_dir()
        self.file = PlanFile(folder, name if name is not None else _latest(folder))
        self._reader = ProgressReader(folder, authors_accuracies())
        self.file.load()

    def read(self) -> SweepStatus:
        """Returns how it stands now.

        Raises:
            MachineError: The batch system that trains it cannot be reached.
        """
        plan = self.file.load()
        jobs = _jobs(plan, self.file, held=self.file.is_held())
        return _status(plan, self.file, self._reader.read(plan, self.file, jobs))


def read_plan(plan: Plan, runs_dir: Path) -> SweepStatus:
    """Returns how the runs of a plan stand by their own files; the plan need not be written, and no engine is asked."""
    file = PlanFile(runs_dir, plan.name)
    return _status(plan, file, ProgressReader(runs_dir).read(plan, file, {}))


def _status(plan: Plan, file: PlanFile, found: Sequence[Standing]) -> SweepStatus:
    active = any(standing.state in ("queued", "running") for standing in found)
    return SweepStatus(plan, file.path, tuple(found), active, _seconds_left(found))


def _latest(runs_dir: Path) -> str:
    if not (names := sweep_names(runs_dir)):
        raise UsageError(f"no sweep in {runs_dir}", hint="plifctl sweep run --help shows how to begin one")
    return names[-1]


def _jobs(plan: Plan, file: PlanFile, *, held: bool) -> dict[str, Job]:
    """Returns what is known of the jobs of a sweep: from the batch system, or from the process that runs it."""
    detached = [run for run in plan.runs if run.engine == "slurm" and run.job is not None]
    known = open_engine("slurm", Resources(), file.folder).poll(jobs_of(detached)) if detached else {}
    if held:  # the plan is written whenever a state changes
        known |= {
            run.name: Job(run.state)
            for run in plan.runs
            if run.state in ("queued", "running") and run.name not in known
        }
    return known


def _seconds_left(found: Sequence[Standing]) -> float | None:
    """Returns the time until all are finished; runs that have not begun take as long as others of the experiment."""
    waiting = [s for s in found if s.state != "finished"]
    known: dict[str, list[float]] = {}
    for standing in found:
        if standing.epoch_seconds is not None:
            known.setdefault(standing.run.experiment, []).append(standing.epoch_seconds)
    total = 0.0
    for standing in waiting:
        if standing.run.experiment not in known:
            return None
        seconds = standing.epoch_seconds or statistics.fmean(known[standing.run.experiment])
        total += (standing.run.epochs - standing.epoch) * seconds
    at_once = max(1, sum(standing.state == "running" for standing in found))
    longest = max((s.seconds_left or 0.0 for s in waiting), default=0.0)
    return max(longest, total / at_once)


def cancel_sweep(name: str, runs_dir: Path | None = None) -> int:
    """Stops a sweep: its process, its jobs of a batch system, and what a killed process has left.

    Each run writes a checkpoint first; the same ``plifctl sweep run`` continues them.

    Returns:
        The number of runs that were waiting or trained.

    Raises:
        UsageError: There is no such sweep, or its process is on another machine.
        MachineError: It does not stop, or the batch system cannot be reached.
    """
    folder = runs_dir or paths.runs_dir()
    watch = SweepWatch(name, folder)
    plan, active = watch.file.load(), [s.run for s in watch.read().runs if s.state in ("queued", "running")]
    if watch.file.is_held():
        _stop_process(plan, watch.file)
    detached = jobs_of(run for run in active if run.engine == "slurm")
    if detached:
        open_engine("slurm", Resources(), watch.file.folder).cancel(detached)
    for run in active:
        if run.engine == "local":
            _stop_orphan(run, folder)
    return len(active)


def _stop_process(plan: Plan, file: PlanFile) -> None:
    if plan.host != socket.gethostname() or plan.pid is None:
        raise UsageError(f"the sweep {plan.name} is run by process {plan.pid} on {plan.host}", hint="cancel it there")
    os.kill(plan.pid, signal.SIGTERM)
    _wait(lambda: not file.is_held(), f"the sweep {plan.name} (process {plan.pid})")


def _stop_orphan(planned: PlannedRun, runs_dir: Path) -> None:
    """Stops a training that goes on although the process of its sweep was killed."""
    if not is_trained(runs_dir / planned.name):
        return
    run = Run(runs_dir / planned.name)
    try:
        info = run.info()
    except RunError:
        return
    if run.status() == "running" and info.get("host") == socket.gethostname():
        os.kill(int(info["pid"]), signal.SIGTERM)
        _wait(lambda: run.status() != "running", f"the run {run.name} (process {info['pid']})")


def _wait(is_over: Any, what: str) -> None:
    until = time.monotonic() + _STOP_SECONDS
    while not is_over():
        if time.monotonic() > until:
            raise MachineError(f"{what} does not stop", hint="kill it with your system's tools")
        time.sleep(0.2)
