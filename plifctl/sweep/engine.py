"""What every engine of a sweep can do: run commands somewhere, report their state, and cancel them.

An engine knows nothing of runs and plans. It gets tasks, which are command lines, and gives each a job. The results
are read from the runs directory, which all machines see; so an engine's answer is only ever "is it still there".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

_STOPPED = frozenset(code for number in (1, 2, 15) for code in (-number, 128 + number))
"""Exit codes after SIGHUP, SIGINT or SIGTERM, of a process that was killed by it or ended because of it."""


@dataclass(frozen=True)
class Task:
    """A command that trains one run.

    Attributes:
        name: Name of the run.
        argv: The command line. It continues the run if it exists, so that it can be started again as it is.
        log: File to which its output is appended.
    """

    name: str
    argv: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Job:
    """State of a task, as its engine knows it.

    Attributes:
        state: ``ended`` if its process is gone, for whatever reason.
        host: Machine on which it runs or ran; empty if unknown.
        reason: Why it ended or waits, e.g. ``TIMEOUT`` or ``exit code 7``; empty if there is nothing to say.
        exit_code: Exit code of its process; None if it is unknown, or has not ended.
    """

    state: Literal["queued", "running", "ended"]
    host: str = ""
    reason: str = ""
    exit_code: int | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped it: by a signal that asks for the end, or in the queue."""
        return self.exit_code in _STOPPED or (self.exit_code is None and self.reason.lower() == "cancelled")


@dataclass(frozen=True)
class Resources:
    """What each run gets, and how many run at once.

    Attributes:
        jobs: Runs at the same time; None: the engine's own limit.
        gpus: GPUs of each run; with several it is started by torchrun. None: one where there is one.
        cpus: Cores of each run; None: an equal share of this machine's, or the cluster's default.
        time: Limit of a job, e.g. ``24h``; None: the engine's own.
        options: Options of the engine itself, e.g. ``{"partition": "gpu"}`` of SLURM.
        address: Address of a running Ray cluster; None: this machine.
    """

    jobs: int | None = None
    gpus: int | None = None
    cpus: int | None = None
    time: str | None = None
    options: Mapping[str, str] | None = None
    address: str | None = None


class Engine(Protocol):
    """Starts tasks and watches over them.

    Attributes:
        detached: Whether jobs continue when this process ends, as those of a batch system do.
    """

    detached: bool

    def submit(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Starts or queues tasks.

        Returns:
            The id of each task's job, by name of the task; with it another process finds the job of a detached engine.

        Raises:
            MachineError: The engine cannot be reached, or refuses them.
        """
        ...

    def poll(self, jobs: Mapping[str, str]) -> dict[str, Job]:
        """Returns the state of jobs, by name of the task; those that the engine does not know are missing.

        Args:
            jobs: Ids of :meth:`submit` by name, perhaps of another process.
        """
        ...

    def cancel(self, jobs: Mapping[str, str]) -> None:
        """Stops jobs, and removes queued ones; each gets a signal and the time to write a checkpoint."""
        ...
