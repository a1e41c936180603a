"""Trials of kernels that end in every way, for ``Candidate.run``; each is called in a process of its own.

A candidate's CUDA device is replaced by the CPU where a trial computes something.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from plifctl.training import kernel_check
from plifctl.training.kernel_trial import TrialRequest, run_trial

STAGE = kernel_check.spiking_stage


def on_cpu(request: TrialRequest) -> None:
    """The real trial."""
    run_trial(replace(request, device="cpu"))


def fast(request: TrialRequest) -> None:
    """Answers 1 ms for each variant; with a graph 0.5 ms."""
    for graph in request.graphs:
        request.answer(graph=graph, seconds=0.0005 if graph else 0.001)


def slow(request: TrialRequest) -> None:
    """Answers 4 ms for each variant; with a graph 2 ms."""
    for graph in request.graphs:
        request.answer(graph=graph, seconds=0.002 if graph else 0.004)


def wrong(request: TrialRequest) -> None:
    """The real trial of a kernel whose time constant is 0.1 % too large."""

    def stage(x: Any, T: int, dynamics: Any, norm: Any, pooling: Any, kernel: Any) -> Any:
        return STAGE(x, T, dynamics._replace(k=dynamics.k / 1.001), norm, pooling, "fused")

    kernel_check.check_kernel.__kwdefaults__["run_stage"] = stage  # type: ignore[index]
    on_cpu(request)


def without_compiler(request: TrialRequest) -> None:
    """The real trial of a kernel that Triton cannot build."""

    def stage(*arguments: Any) -> Any:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    kernel_check.check_kernel.__kwdefaults__["run_stage"] = stage  # type: ignore[index]
    on_cpu(request)


def busy(request: TrialRequest) -> None:
    """The real trial on a GPU that another process holds in exclusive mode."""

    def stage(*arguments: Any) -> Any:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")

    kernel_check.check_kernel.__kwdefaults__["run_stage"] = stage  # type: ignore[index]
    on_cpu(request)


def crash_in_graph(request: TrialRequest) -> None:
    """Answers without a graph; the process dies with one."""
    request.answer(graph=False, seconds=0.002)
    sys.stdout.write("something that a library prints\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def end(request: TrialRequest) -> None:
    """The process ends with a message of its own."""
    sys.exit("no kernel image is available for execution on the device")


def hang(request: TrialRequest) -> None:
    """Never answers."""
    time.sleep(600)
