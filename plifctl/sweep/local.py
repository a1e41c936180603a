"""The engine of this machine: a process for each run, some at a time, with cores and GPUs shared out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plifctl.errors import UsageError
from plifctl.sweep.child import start_child, stop_child, thread_settings
from plifctl.sweep.engine import Job, Resources, Task
from plifctl.training.gpus import list_gpus
from plifctl.training.process import usable_cores

_STOP_SECONDS = 120
"""Time that a cancelled training has to write its checkpoint before it is killed."""


@dataclass
class _Process:
    """A started task; ``gpus`` are its own."""

    handle: subprocess.Popen[bytes]
    gpus: tuple[str, ...]


class LocalEngine:
    """Runs tasks as processes of this machine.

    Each process gets an equal share of the cores (OMP_NUM_THREADS, unless it is set; waiting threads sleep) and its own
    GPUs (CUDA_VISIBLE_DEVICES). Ctrl-C in the terminal reaches this process only, which stops the others; if this
    process is killed, they stop by themselves.

    Args:
        resources: Runs at the same time, by default as many as the GPUs allow, or 1 without; and what each gets.

    Raises:
        UsageError: There are fewer GPUs than a run needs.

    Attributes:
        limit: Runs at the same time.
    """

    detached = False

    def __init__(self, resources: Resources) -> None:
        gpus = _visible_gpus()
        each = (1 if gpus else 0) if resources.gpus is None else resources.gpus
        if each > len(gpus):
            raise UsageError(f"--gpus {each}: this machine has {len(gpus)}", hint="--gpus 0 trains on the CPU")
        most = len(gpus) // each if each else None
        self.limit = min(resources.jobs or most or 1, most or 10_000)
        self._each = each
        self._free = [tuple(gpus[index * each : (index + 1) * each]) for index in range(self.limit)]
        self._is_stated = resources.cpus is not None  # which overrides the environment
        self._threads = resources.cpus or max(1, usable_cores() // self.limit)
        self._queue: deque[Task] = deque()
        self._running: dict[str, _Process] = {}
        self._ended: dict[str, Job] = {}

    def submit(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Queues tasks; :meth:`poll` starts them as processes become free."""
        self._queue.extend(tasks)
        for task in tasks:
            self._ended.pop(task.name, None)
        self._start()
        return {task.name: f"{os.getpid()}" for task in tasks}

    def poll(self, jobs: Mapping[str, str]) -> dict[str, Job]:
        """Returns the state of this process's tasks, and starts queued ones."""
        for name, process in list(self._running.items()):
            if (code := process.handle.poll()) is not None:
                self._ended[name] = Job("ended", socket.gethostname(), _reason(code), code)
                self._free.append(process.gpus)
                del self._running[name]
        self._start()
        queued = {task.name: Job("queued") for task in self._queue}
        running = dict.fromkeys(self._running, Job("running", socket.gethostname()))
        known = {**self._ended, **queued, **running}
        return {name: known[name] for name in jobs if name in known}

    def cancel(self, jobs: Mapping[str, str]) -> None:
        """Stops processes, each after it has written a checkpoint, and forgets queued tasks."""
        self._queue = deque(task for task in self._queue if task.name not in jobs)
        stopped = [process.handle for name, process in self._running.items() if name in jobs]
        for child in stopped:
            child.terminate()
        for child in stopped:
            stop_child(child, _STOP_SECONDS)

    def _start(self) -> None:
        while self._queue and self._free:
            task, gpus = self._queue.popleft(), self._free.pop(0)
            try:
                self._running[task.name] = _Process(self._open(task, gpus), gpus)
            except OSError as error:  # no memory, no process left, no log: of this run, not of the sweep
                self._ended[task.name] = Job("ended", socket.gethostname(), f"not started: {error}")
                self._free.append(gpus)

    def _open(self, task: Task, gpus: tuple[str, ...]) -> subprocess.Popen[bytes]:
        threads = thread_settings(self._threads, self._each)  # torchrun starts a process for each GPU
        if not self._is_stated:
            threads = {name: os.environ.get(name) or share for name, share in threads.items()}
        return start_child(task, {**threads, "CUDA_VISIBLE_DEVICES": ",".join(gpus)})


def _reason(code: int) -> str:
    return "" if code == 0 else f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _visible_gpus() -> list[str]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [entry.strip() for entry in visible.split(",") if entry.strip() not in ("", "-1")]
    return [str(gpu.index) for gpu in list_gpus()]
