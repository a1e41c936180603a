"""Settings of the process: threads, memory, determinism, signals. The command line applies them. Also its resources.

Training itself changes none of them, so that it can run inside any program. One exception: with several ranks, a rank
that fails ignores signals from then on. The module imports torch only where it is used: some settings must precede it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from plifctl.errors import OutOfMemoryError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Sent when the terminal is closed; None on Windows."""


def wait_passively() -> None:
    """Makes waiting OpenMP threads sleep instead of spin; to be called before torch is first imported.

    A spinning thread occupies a core that the thread it waits for may need: on cores shared with other programs a
    training step takes several times as long. OMP_WAIT_POLICY in the environment takes precedence.

    Source: the OpenMP specification, OMP_WAIT_POLICY.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def defer_collection(seconds: float = 3.0) -> None:
    """Switches Python's garbage collector off while a command starts; a timer switches it on again.

    Importing torch and numba makes a million objects that stay. The collector would look through them again and again,
    which takes a fifth of the time of a short command. Afterwards it leaves them out.
    """
    gc.disable()
    timer = threading.Timer(seconds, _collect_again)
    timer.daemon = True
    timer.start()


def _collect_again() -> None:
    gc.freeze()
    atexit.register(gc.unfreeze)  # what is left at exit is released, or libraries report leaks
    gc.enable()


def keep_freed_memory() -> bool:
    """Makes the C library reuse freed memory instead of returning it to the system, until the process ends.

    Each training step allocates the same large tensors. By default glibc returns each of them to the system when it is
    freed and maps it anew, page by page, every page zeroed first, which takes a large part of a step.

    Returns:
        Whether the C library has such a setting.

    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def prepare_process() -> None:
    """Prepares the process of a command that computes; to be called before torch is first imported.

    Threads wait passively (:func:`wait_passively`), and freed memory is kept (:func:`keep_freed_memory`).
    """
    wait_passively()
    keep_freed_memory()


def use_deterministic_algorithms() -> None:
    """Makes torch use only deterministic algorithms, and fail if an operation has none.

    Must be called before the first operation on a GPU.

    Source: torch's notes on reproducibility.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def stop_signals() -> list[signal.Signals]:
    """Returns the signals that stop a command: SIGINT, SIGTERM, and SIGHUP unless ``nohup`` made it ignored."""
    hangup = [HANGUP] if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def ignore_stop_signals() -> None:
    """Ignores these signals from now on: the process is about to end, and has to write its results first."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed_memory() -> int | None:
    """Returns the memory of the machine, bytes; None where the system does not say it."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0  # Windows has none
    return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None


def peak_memory() -> int | None:
    """Returns the largest resident memory of this process so far, bytes; None where the system does not count it."""
    with suppress(OSError):  # not Linux, where getrusage begins with the peak of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            return 1024 * int(match[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def processor_name() -> str:
    """Returns the name of the processor; the architecture if it is unknown.

    Virtual machines state one name for many processors: where Linux states family, model and stepping, they follow,
    as in ``Intel(R) Xeon(R) Processor (family 6, model 207, stepping 2)``.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        text = ""
    facts = dict(re.findall(r"^([a-z ]+?)[ \t]*:[ \t]*(.*\S)", text, re.MULTILINE))
    name: str = facts.get("model name") or platform.processor() or platform.machine()
    numbers = {"family": facts.get("cpu family"), "model": facts.get("model"), "stepping": facts.get("stepping")}
    known = ", ".join(f"{what} {number}" for what, number in numbers.items() if number is not None)
    return f"{name} ({known})" if known else name


@contextmanager
def out_of_memory_errors(message: str, hint: str) -> Iterator[None]:
    """Turns errors that mean that memory ran out into OutOfMemoryError.

    Args:
        message: What needed the memory.
        hint: What needs less.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{message}: {error}".removesuffix(": "), hint=hint) from error


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error means that memory ran out; on some devices only torch's message says so."""
    import torch

    texts = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(text in str(error) for text in texts))
