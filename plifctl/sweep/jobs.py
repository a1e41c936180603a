"""The jobs of a sweep's runs, as its plan and the engines know them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from plifctl.sweep.engine import Job, Resources
from plifctl.sweep.engines import open_engine
from plifctl.sweep.plan import ACTIVE, Plan, PlannedRun


def jobs_of(runs: Iterable[PlannedRun]) -> dict[str, str]:
    """Returns the ids of the jobs of runs, by name; runs that never had one are left out."""
    return {run.name: run.job for run in runs if run.job is not None}


def detached_jobs(runs: Iterable[PlannedRun]) -> dict[str, str]:
    """Returns the ids of the jobs of a batch system, which outlive the process that submitted them, by name."""
    return jobs_of(run for run in runs if run.engine == "slurm")


def poll_detached(runs: Iterable[PlannedRun], folder: Path) -> dict[str, Job]:
    """Returns the state of the jobs of a batch system, by name of the run.

    Args:
        runs: Runs of a sweep.
        folder: Its folder.

    Raises:
        MachineError: The batch system cannot be reached.
    """
    ids = detached_jobs(runs)
    return open_engine("slurm", Resources(), folder).poll(ids) if ids else {}


def planned_jobs(plan: Plan) -> dict[str, Job]:
    """Returns the state of the jobs of a sweep whose process still runs: it writes every change into the plan."""
    return {run.name: Job(run.state) for run in plan.runs if run.state in ACTIVE}


def is_active(job: Job | None) -> bool:
    """Returns whether a job waits or runs."""
    return job is not None and job.state != "ended"
