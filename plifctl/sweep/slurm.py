"""SLURM: the tasks as one array of jobs, which continues when the command that submitted it has ended.

Before a job reaches its time limit, SLURM sends SIGUSR2. The job then stops its training, which writes a checkpoint,
and puts itself back into the queue; when it starts again, the same command continues the run. A job that is preempted
does the same. The state of jobs is read from squeue, and from the files that submitit writes: sacct needs a
database, which small clusters do not have. A job is one of ours by its number and its name, that of the sweep: another
cluster, or one that was set up anew, gives the same numbers to jobs of others.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from plifctl.errors import MachineError, UsageError, missing_library
from plifctl.sweep.child import start_child, stop_child, thread_settings, wait_for_child
from plifctl.sweep.engine import Job, Resources, Task

try:
    import submitit
    from submitit.core.utils import JobPaths, pickle_load
except ImportError as error:
    raise missing_library("submitit") from error

MOST_CONTINUATIONS = 1000
"""Times that a job goes back to the queue at its time limit."""

_WARNING_SECONDS = 120  # before the time limit; --slurm signal=USR2@SECONDS says another
_UNITS = {"m": 1, "min": 1, "h": 60, "d": 24 * 60}
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_HINT = "sinfo shows whether SLURM answers, and its partitions"
_IN_ENVIRONMENT = ("account", "partition", "qos", "constraint", "reservation")
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}


class SlurmEngine:
    """Engine of SLURM.

    Args:
        resources: What each job gets; ``options`` are options of sbatch by name, an empty value for a flag.
        folder: Folder of the sweep, which all machines see; ``slurm/`` in it has the scripts and logs of the jobs.

    Raises:
        UsageError: A resource is given that SLURM does not have.
    """

    detached = True

    def __init__(self, resources: Resources, folder: Path) -> None:
        if resources.address is not None:
            raise UsageError("SLURM has no address", hint="submit the jobs on a machine that has sbatch")
        if any(option.replace("_", "-") == "job-name" for option in resources.options or ()):
            raise UsageError("--slurm job-name: the jobs have the name of the sweep", hint="--name NAME names both")
        self._resources = resources
        self._folder = folder / "slurm"
        self._name = folder.name

    def submit(self, tasks: Sequence[Task]) -> dict[str, str]:
        if not tasks:
            return {}
        resources = self._resources
        limit = require_minutes(resources)
        options = {**_stated_in_environment(), **(resources.options or {})}
        stated = {name.replace("-", "_"): value for name, value in options.items()}
        cpus = stated.get("cpus_per_task", resources.cpus)
        gpus = resources.gpus
        if gpus is None and not _asks_for_gpus(stated):
            partition = [f"--partition={options['partition']}"] if "partition" in options else []
            gpus = int("gpu" in _run(["sinfo", "--noheader", "--format=%G", *partition]))
        own = {"time": limit, "cpus_per_task": resources.cpus}
        own |= {} if _asks_for_gpus(stated) else {"gpus_per_node": gpus or None}
        kept = {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ}
        try:
            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=MOST_CONTINUATIONS)
            executor.update_parameters(
                job_name=self._name,
                **{name: value for name, value in own.items() if name not in stated},
                srun_args=[f"--cpus-per-task={cpus}"] if cpus else None,  # since SLURM 22.05
                array_parallelism=resources.jobs or len(tasks),
                signal_delay_s=_WARNING_SECONDS,
                wckey=None,
                setup=["export PYTHONSAFEPATH=1"],  # imports nothing from the working directory
                additional_parameters={"requeue": True, **{name: value or True for name, value in options.items()}},
            )
            # SLURM's variables, if this is a job itself, would be taken for options
            with submitit.helpers.clean_env(), submitit.helpers.environment_variables(**kept):
                jobs = executor.submit_array([TrainingJob(task, gpus or 1) for task in tasks])
        except (RuntimeError, OSError) as error:
            raise MachineError(f"SLURM does not take the jobs: {str(error).strip()}", hint=_HINT) from error
        return {task.name: job.job_id for task, job in zip(tasks, jobs, strict=True)}

    def poll(self, jobs: Mapping[str, str]) -> dict[str, Job]:
        numbers = sorted({job.split("_")[0] for job in jobs.values()})
        if not numbers:
            return {}
        command = [
            "squeue",
            "--array",
            "--noheader",
            "--states=all",
            "--format=%i|%T|%N|%r|%j",
            f"--jobs={','.join(numbers)}",
        ]
        rows = [line.split("|", 4) for line in _run(command, accept="Invalid job id").splitlines()]
        listed = {job: (state, host, reason) for job, state, host, reason, name in rows if name == self._name}
        return {name: self._describe(job, *listed.get(job, ("", "", ""))) for name, job in jobs.items()}

    def cancel(self, jobs: Mapping[str, str]) -> None:
        present = [jobs[name] for name, job in self.poll(jobs).items() if job.state != "ended"]
        if present:
            _run(["scancel", *present], accept="Invalid job id|already complet")

    def _describe(self, job: str, state: str, host: str, reason: str) -> Job:
        """Returns the state of a job, from squeue's row of it, and if it has ended also from its files."""
        if state in _WAITING:
            return Job("queued", reason="" if reason in ("None", "Priority") else reason)
        if state and state not in _ENDED:
            return Job("running", host)
        paths = JobPaths(self._folder, job)
        state = "" if state == "COMPLETED" else state
        if not paths.result_pickle.exists():
            notes = (
                re.findall(r"\*\*\* (.+) \*\*\*", paths.stderr.read_text(errors="replace"))
                if paths.stderr.exists()
                else []
            )
            return Job("ended", host, state or (notes[-1] if notes else "SLURM does not know it any more"))
        outcome, result = pickle_load(paths.result_pickle)
        if outcome == "error":
            return Job("ended", host, state or result.strip().splitlines()[-1])
        code, host = result
        return Job("ended", host, state or (f"exit code {code}" if code else ""), code)


class TrainingJob:
    """What SLURM runs for a task: the command as a child, and what a signal means for it.

    Args:
        task: The task.
        ranks: Processes that share the cores.
    """

    def __init__(self, task: Task, ranks: int = 1) -> None:
        self._task, self._ranks = task, ranks
        self._signal: int | None = None

    def __call__(self) -> tuple[int, str]:
        """Returns exit code and host; does not return if the job goes back to the queue."""
        go_back = signal.getsignal(signal.SIGUSR2)  # submitit's: calls checkpoint(), then scontrol requeue, then exits
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._notice)
        cores = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or "1"
        child = start_child(self._task, thread_settings(int(cores), self._ranks))
        code = wait_for_child(child, lambda: self._signal is not None)
        if code is None:
            code = stop_child(child, 3600)  # SLURM kills it before
            if code and self._should_continue() and callable(go_back):
                go_back(signal.SIGUSR2, None)
        return code, socket.gethostname()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Returns what the job runs when it starts again, for submitit."""
        return submitit.helpers.DelayedSubmission(TrainingJob(self._task, self._ranks))

    def _notice(self, number: int, frame: object) -> None:
        self._signal = number if self._signal is None else self._signal

    def _should_continue(self) -> bool:
        """Whether the job was not cancelled: one that is preempted gets SIGTERM too, but is still listed as running."""
        if self._signal == signal.SIGUSR2:
            return True
        job = os.environ["SLURM_JOB_ID"]
        return (
            _run(["squeue", "--noheader", "--format=%T", f"--jobs={job}"], accept="Invalid job id").strip() == "RUNNING"
        )


def require_minutes(resources: Resources) -> int:
    """Returns the time limit of a job in minutes.

    Raises:
        UsageError: There is none, or it is no duration.
    """
    if resources.time is None:
        hint = "--time 24h; a job that reaches it goes back to the queue, and continues its run"
        raise UsageError("SLURM needs a time limit of each job", hint=hint)
    return minutes(resources.time)


def minutes(time: str) -> int:
    """Returns a duration in minutes, rounded up.

    Raises:
        UsageError: It is no duration.

    Example:
        >>> minutes("24h"), minutes("90m"), minutes("1.5d")
        (1440, 90, 2160)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|min|h|d)", time.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--time: found {time!r}, expected a duration", hint="90m, 24h or 2d")
    return math.ceil(float(match[1]) * _UNITS[match[2]])


def _stated_in_environment() -> dict[str, str]:
    """Returns options of sbatch that its variables state, ``SBATCH_ACCOUNT=…`` of a profile; none within a job."""
    if "SLURM_JOB_ID" in os.environ:
        return {}
    stated = ((name, os.environ.get(f"SBATCH_{name.upper()}")) for name in _IN_ENVIRONMENT)
    return {name: value for name, value in stated if value}


def _asks_for_gpus(stated: Mapping[str, object]) -> bool:
    """Returns whether options of sbatch, with ``_`` in their names, say how many GPUs a job gets."""
    return any(name.startswith("gpus") for name in stated) or "gpu" in str(stated.get("gres", ""))


def _run(command: Sequence[str], accept: str = "") -> str:
    """Returns the output of a command of SLURM.

    Args:
        command: The command.
        accept: Pattern of messages that are no error.

    Raises:
        MachineError: The command is missing or fails, e.g. because SLURM does not answer.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MachineError(f"{command[0]} not found", hint="the commands of SLURM have to be on the PATH") from None
    if result.returncode and not (accept and re.search(accept, result.stderr)):
        raise MachineError(f"{command[0]} failed: {result.stderr.strip()}", hint=_HINT)
    return result.stdout
