"""A task's command as a child process that is stopped as a whole, and does not outlive the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from plifctl.sweep.engine import Task

_LAUNCHER = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Becomes the command after three settings that it inherits: SLURM's warning signal, which goes to every process of a
job, is ignored; no signal is blocked, as they are in Ray's processes; and SIGTERM follows the death of the parent
(PR_SET_PDEATHSIG). A program of its own, since Ray's processes have threads, after which preexec_fn is not safe."""


def thread_settings(cores: int, ranks: int = 1) -> dict[str, str]:
    """Returns the variables by which a training uses its share of the cores, for each of its ranks."""
    threads = str(max(1, cores // max(1, ranks)))
    return {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}


def start_child(task: Task, environment: Mapping[str, str], folder: Path | None = None) -> subprocess.Popen[bytes]:
    """Starts a task's command in a session of its own.

    Args:
        task: The task; its log is created with its folder.
        environment: Variables besides those of this process. Python imports nothing from the working directory, in
            no process of the task.
        folder: Working directory; None: that of this process.
    """
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *task.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # FORCE_COLOR would colour the log
            env={**os.environ, **environment, "PYTHONSAFEPATH": "1", "TTY_COMPATIBLE": "0"},
            cwd=folder,
            start_new_session=True,
        )


def wait_for_child(child: subprocess.Popen[bytes], should_stop: Callable[[], bool] = lambda: False) -> int | None:
    """Waits for a child to end, or for something else to happen.

    Args:
        child: The child.
        should_stop: Asked several times a second.

    Returns:
        Its exit code, 128 + the number of the signal that killed it; None if it has to be stopped.
    """
    while child.poll() is None:
        if should_stop():
            return None
        time.sleep(0.2)
    return 128 - child.returncode if child.returncode < 0 else child.returncode


def stop_child(child: subprocess.Popen[bytes], seconds: float) -> int:
    """Sends SIGTERM to a child, waits while it writes its checkpoint, and returns its exit code.

    Only the child gets the signal: torchrun passes it on.

    Args:
        child: The child.
        seconds: After these it is killed with its children.
    """
    child.terminate()
    deadline = time.monotonic() + seconds
    code = wait_for_child(child, lambda: time.monotonic() > deadline)
    if code is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return 128 + signal.SIGKILL
    return code
