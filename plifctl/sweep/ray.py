"""Ray: each task is a function call on a machine of the cluster that has room for it.

The jobs belong to the command that started them, and end with it. The call of a task whose machine dies is repeated on
another one, where the same command continues the run.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plifctl.errors import MachineError, UsageError, first_line, missing_library
from plifctl.sweep.child import start_child, stop_child, thread_settings, wait_for_child
from plifctl.sweep.engine import Job, Resources, Task

os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # read on import: Ray prints no messages of its processes
try:
    import ray
    from ray.exceptions import RayError, TaskCancelledError
except ImportError as error:
    raise missing_library("ray") from error

CHECKPOINT_SECONDS = 60
"""Time for a checkpoint before a cancelled training is killed."""

_HINT = "ray status --address HEAD:6379 shows whether the cluster runs; ray start --head starts one"
_RETRIES = 100  # of a call whose machine dies
_STORE_BYTES = 80 * 2**20  # results are a few bytes; by default Ray reserves a third of the memory


class RayEngine:
    """Engine of Ray: on a running cluster, or on this machine alone, by processes that end with this one.

    Args:
        resources: What each job gets.

    Raises:
        UsageError: A resource is given that Ray does not have.
        MachineError: The cluster does not answer.
    """

    detached = False

    def __init__(self, resources: Resources) -> None:
        for name, value in (("--time", resources.time), ("--slurm", resources.options)):
            if value:
                raise UsageError(f"{name}: found {value!r}, which Ray does not have", hint="--engine slurm has it")
        _connect(resources.address or os.environ.get("RAY_ADDRESS") or "local")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._most = resources.jobs
        self._gpus = resources.gpus if resources.gpus is not None else int(any(node.get("GPU") for node in nodes))
        self._cpus = resources.cpus or _share(nodes, self._gpus, resources.jobs)
        self._train = ray.remote(_train)  # one function for all tasks: Ray then starts its calls in order
        self._count = itertools.count()
        self._waiting: dict[str, Task] = {}
        self._calls: dict[str, Any] = {}
        self._ended: dict[str, Job] = {}
        self._hosts = ray.remote(_Hosts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        self._known_hosts: dict[str, str] = {}  # what the actor said before, should it have died with its machine

    def submit(self, tasks: Sequence[Task]) -> dict[str, str]:
        new = {f"{task.name}#{next(self._count)}": task for task in tasks}
        self._waiting |= new
        self._start()
        return {task.name: job for job, task in new.items()}

    def poll(self, jobs: Mapping[str, str]) -> dict[str, Job]:
        try:
            self._known_hosts |= ray.get(self._hosts.all.remote())
        except RayError as error:
            raise MachineError(f"Ray does not answer: {first_line(error)}", hint=_HINT) from error
        hosts = self._known_hosts
        self._collect()
        self._start()
        running = {job: Job("running", hosts[job]) for job in self._calls if job in hosts}
        queued = dict.fromkeys([*self._calls, *self._waiting], self._queued())
        known = queued | running | self._ended
        return {name: known[job] for name, job in jobs.items() if job in known}

    def cancel(self, jobs: Mapping[str, str]) -> None:
        chosen = set(jobs.values())
        for job in chosen & self._waiting.keys():
            del self._waiting[job]
            self._ended[job] = Job("ended", reason="cancelled")
        calls = [call for job, call in self._calls.items() if job in chosen]
        for call in calls:
            ray.cancel(call)
        if calls:  # Ray kills what is still running when this process ends
            ray.wait(calls, num_returns=len(calls), timeout=CHECKPOINT_SECONDS + 15)

    def _start(self) -> None:
        """Calls as many of the waiting tasks as may run at once; those for which there is no room wait in Ray."""
        needs = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": _RETRIES}
        mine = {name: value for name, value in os.environ.items() if name.startswith("PLIFCTL_")}
        while self._waiting and (self._most is None or len(self._calls) < self._most):
            job = next(iter(self._waiting))
            task = self._waiting.pop(job)
            environment = mine | thread_settings(self._cpus, self._gpus)
            call = self._train.options(name=task.name, **needs)
            self._calls[job] = call.remote(job, task, environment, Path.cwd(), self._hosts)

    def _collect(self) -> None:
        """Takes the results of calls that have ended."""
        jobs = {call: job for job, call in self._calls.items()}
        done, _ = ray.wait(list(jobs), num_returns=len(jobs), timeout=0) if jobs else ([], [])
        for call in done:
            job = jobs[call]
            host, code, reason = self._known_hosts.get(job, ""), None, ""
            try:
                code, host = ray.get(call)
                reason = f"exit code {code}" if code else ""
            except TaskCancelledError:
                reason = "cancelled"
            except RayError as error:  # of the machine, or what _train raised
                reason = first_line(getattr(error, "cause", error))
            self._ended[job] = Job("ended", host, reason, code)
            del self._calls[job]

    def _queued(self) -> Job:
        """Returns the state of a job that waits: perhaps for a machine that does not exist."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(node.get("CPU", 0) >= self._cpus and node.get("GPU", 0) >= self._gpus for node in nodes):
            return Job("queued")
        return Job("queued", reason=f"no machine has {self._cpus} cores and {self._gpus} GPUs")


class _Hosts:
    """Actor that knows where each task was started last."""

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}

    def put(self, job: str, host: str) -> None:
        self._hosts[job] = host

    def all(self) -> dict[str, str]:
        return self._hosts


def _train(job: str, task: Task, environment: Mapping[str, str], folder: Path, hosts: Any) -> tuple[int, str]:
    """Runs a task's command where Ray calls this function; returns its exit code, and the host.

    Ray cancels a call by SIGINT.
    """
    host = socket.gethostname()
    hosts.put.remote(job, host)
    cancelled = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: cancelled.set())
    try:
        child = start_child(task, environment, folder if folder.is_dir() else None)
        code = wait_for_child(child, cancelled.is_set)
        return stop_child(child, CHECKPOINT_SECONDS) if code is None else code, host
    finally:
        signal.signal(signal.SIGINT, previous)


def _connect(address: str) -> None:
    """Connects this process to a cluster, unless it is; Ray writes nothing on the terminal, and sends no statistics."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"object_store_memory": _STORE_BYTES, "include_dashboard": False} if address == "local" else {}
    host, _, port = address.rpartition(":")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if port.isdecimal() and "://" not in address:  # Ray tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (RuntimeError, OSError) as error:  # ConnectionError among them
        raise MachineError(f"Ray at {address} does not answer: {first_line(error)}", hint=_HINT) from error
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray sets one that exits with 15


def _share(nodes: Sequence[Mapping[str, float]], gpus: int, jobs: int | None) -> int:
    """Returns the cores of a job, if nothing else is said: an equal share of a machine's.

    Args:
        nodes: CPU and GPU of each machine.
        gpus: GPUs of a job.
        jobs: Jobs at once in the whole cluster; None: as many as there is room for.
    """
    shares = []
    for node in nodes:
        cores = int(node.get("CPU", 0))
        slots = int(node.get("GPU", 0)) // gpus if gpus else -(-jobs // len(nodes)) if jobs else cores
        shares.append(cores // slots if slots else 0)
    return max([1, *shares])
