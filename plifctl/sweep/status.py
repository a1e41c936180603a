"""Status of a sweep, and cancelling it: from any process, on any machine that sees the runs directory."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from plifctl import paths
from plifctl.errors import MachineError, UsageError
from plifctl.runs import is_trained
from plifctl.sweep.engine import Resources
from plifctl.sweep.engines import open_engine
from plifctl.sweep.jobs import detached_jobs, is_active, planned_jobs, poll_detached
from plifctl.sweep.plan import ACTIVE, Plan, PlanFile, State, sweep_names
from plifctl.sweep.progress import ProgressReader, RunProgress, authors_accuracies
from plifctl.units import format_duration

_log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_DETACHED_SECONDS = 30.0
"""Least time between two questions to a batch system, which many users share."""

_MOST_FAILURES = 5
"""Questions in a row that a batch system may leave unanswered."""

_STOP_SECONDS = 150
"""Time in which a cancelled sweep has stopped its runs."""


@dataclass(frozen=True)
class SweepStatus:
    """Status of a sweep.

    Attributes:
        plan: Its plan.
        file: File of the plan.
        runs: Its runs.
        is_active: Whether runs wait or are trained.
        seconds_left: Time until all are finished, if as many as now are trained at once; None if that is not known.
    """

    plan: Plan
    file: PlanFile
    runs: tuple[RunProgress, ...]
    is_active: bool
    seconds_left: float | None

    @property
    def unfinished(self) -> list[RunProgress]:
        """The runs that are not finished."""
        return [entry for entry in self.runs if entry.state != "finished"]

    def count(self, state: State) -> int:
        """Returns the number of runs in a state."""
        return sum(entry.state == state for entry in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "sweep": self.plan.name,
            "plan": str(self.file.path),
            "command": self.plan.command,
            "active": self.is_active,
            "counts": {state: self.count(state) for state in get_args(State)},
            "seconds_left": self.seconds_left,
            "runs": [entry.to_json() for entry in self.runs],
        }


class SweepWatch:
    """Reads the status of a sweep, again and again.

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
        self._reader = ProgressReader(self.file, authors_accuracies())
        self.file.load()

    def read(self) -> SweepStatus:
        """Returns its status now.

        Raises:
            MachineError: The batch system that trains what is not finished cannot be reached.
        """
        with self._reader.timed():
            plan = self.file.load()
            jobs = poll_detached(self._reader.unfinished(plan.runs), self.file.folder)
            if self.file.is_held():
                jobs = {**planned_jobs(plan), **jobs}
            return _status(plan, self.file, self._reader.read(plan, jobs))

    def follow(self, found: SweepStatus) -> Iterator[SweepStatus]:
        """Yields its status again and again, until no run waits or is trained.

        Args:
            found: Its status as it was read last.

        Raises:
            MachineError: The batch system has not answered several times in a row.
        """
        failures = 0
        while found.is_active:
            least = _DETACHED_SECONDS if detached_jobs(entry.run for entry in found.unfinished) else _POLL_SECONDS
            pause = self._reader.pause(least)
            time.sleep(pause)
            try:
                found, failures = self.read(), 0
            except MachineError as error:
                failures += 1
                if failures == _MOST_FAILURES:
                    raise
                _log.warning("%s; asked again in %s", error, format_duration(pause))
            else:
                yield found


def read_plan(plan: Plan, runs_dir: Path) -> SweepStatus:
    """Returns the status of a plan by the files of its runs; the plan need not be written, and no engine is asked."""
    file = PlanFile(runs_dir, plan.name)
    return _status(plan, file, ProgressReader(file).read(plan, {}))


def _status(plan: Plan, file: PlanFile, found: Sequence[RunProgress]) -> SweepStatus:
    active = any(entry.state in ACTIVE for entry in found)
    return SweepStatus(plan, file, tuple(found), active, _seconds_left(found))


def _latest(runs_dir: Path) -> str:
    if not (names := sweep_names(runs_dir)):
        raise UsageError(f"no sweep in {runs_dir}", hint="plifctl sweep run --help shows how to begin one")
    return names[-1]


def _seconds_left(found: Sequence[RunProgress]) -> float | None:
    """Returns the time until all are finished; runs that have not begun take as long as others of the experiment."""
    waiting = [s for s in found if s.state != "finished"]
    known: dict[str, list[float]] = {}
    for entry in found:
        if entry.epoch_seconds is not None:
            known.setdefault(entry.run.experiment, []).append(entry.epoch_seconds)
    total = 0.0
    for entry in waiting:
        if entry.run.experiment not in known:
            return None
        seconds = entry.epoch_seconds or statistics.fmean(known[entry.run.experiment])
        total += (entry.run.epochs - entry.epoch) * seconds
    at_once = max(1, sum(entry.state == "running" for entry in found))
    longest = max((s.seconds_left or 0.0 for s in waiting), default=0.0)
    return max(longest, total / at_once)


def cancel_sweep(name: str, runs_dir: Path | None = None) -> int:
    """Stops a sweep: its process, or its jobs of a batch system; returns when they have ended.

    Each run writes a checkpoint first; the same ``plifctl sweep run`` continues them. Runs that other commands train,
    such as those of another sweep, are left alone.

    Returns:
        The number of runs that were waiting or trained.

    Raises:
        UsageError: There is no such sweep, or its process is on another machine.
        MachineError: It does not stop, its process is another user's, or the batch system cannot be reached.
    """
    watch = SweepWatch(name, runs_dir)
    active = [s.run for s in watch.read().runs if s.state in ACTIVE]
    detached = detached_jobs(active)
    if detached:
        engine = open_engine("slurm", Resources(), watch.file.folder)
        engine.cancel(detached)
        shown = f"squeue --name {shlex.quote(watch.file.name)} shows them; type it again"
        error = MachineError(f"the jobs of the sweep {watch.file.name} do not end", hint=shown)
        _wait_while(lambda: any(map(is_active, engine.poll(detached).values())), error, pause=1)
    if watch.file.is_held():
        _stop_process(watch.file)
        return len(active)
    if detached:
        _forget_jobs(watch.file, set(detached))
    return len(detached)


def _forget_jobs(file: PlanFile, cancelled: set[str]) -> None:
    """Takes cancelled jobs out of the plan, where their runs have not begun: minutes later SLURM forgets the reason."""
    with file.locked():
        plan = file.load()
        waited = [run for run in plan.runs if run.name in cancelled and not is_trained(file.runs_dir / run.name)]
        unbegun = [run.model_copy(update={"job": None, "engine": None, "state": "missing"}) for run in waited]
        file.save(plan.with_runs(unbegun).released())


def _stop_process(file: PlanFile) -> None:
    """Stops the process that runs a sweep, and with it the runs of this machine or of Ray."""
    plan = file.load()
    if plan.pid is None:
        raise MachineError(f"the sweep {plan.name} begins or ends at this moment", hint="type it again")
    if plan.host != socket.gethostname():
        raise UsageError(f"the sweep {plan.name} is run by process {plan.pid} on {plan.host}", hint="cancel it there")
    about = f"the sweep {plan.name} (process {plan.pid})"
    try:
        os.kill(plan.pid, signal.SIGTERM)
    except ProcessLookupError:
        if file.is_held():
            raise MachineError(
                f"{about} is being run, but there is no such process here",
                hint="in a container? cancel it there",
            ) from None
    except PermissionError:
        raise MachineError(f"{about} is run by another user", hint=f"its user or root can: kill {plan.pid}") from None
    _wait_while(file.is_held, MachineError(f"{about} does not stop", hint=f"kill {plan.pid}"), pause=0.2)


def _wait_while(is_running: Callable[[], bool], error: MachineError, *, pause: float) -> None:
    """Waits for the end of what was stopped; raises ``error`` if it does not come."""
    until = time.monotonic() + _STOP_SECONDS
    while is_running():
        if time.monotonic() > until:
            raise error
        time.sleep(pause)
