"""A trial of one kernel: is it the definition, and how long does a training step take? Runs in a process of its own.

``python -m plifctl.training.kernel_trial REQUEST`` reads a :class:`TrialRequest` and appends a line of JSON to its file
of answers for each variant, without and with a CUDA graph, as soon as it is known: a process that crashes or is stopped
leaves the answers before it.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plifctl.config.choices import Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.snn.kernels import unsupported_reason
from plifctl.training.kernel_check import DifferenceError, check_kernel
from plifctl.training.process import is_out_of_memory
from plifctl.training.step_times import BatchTimer, SyntheticSamples

BUSY = "the GPU does not admit another process"
OUT_OF_MEMORY = "out of memory"
NO_COMPILER = "needs a C compiler, and there is none here (Debian, Ubuntu: apt install gcc; or set CC)"
NO_HEADERS = "needs the headers of Python, which are missing (Debian, Ubuntu: apt install python3-dev)"
_CAUSES = (
    (("Failed to find C compiler", "InvalidCxxCompiler", "No working C++ compiler"), NO_COMPILER),
    (("Python.h: No such file",), NO_HEADERS),
    (("No module named 'triton'", "Cannot find a working triton", "TritonMissing"), "Triton is not installed"),
    (("busy or unavailable",), BUSY),
)
"""Texts in the errors of torch and Triton, and what they mean."""


@dataclass(frozen=True)
class TrialRequest:
    """What a trial does.

    Attributes:
        spec: The experiment, as JSON; its batch size is that of one rank.
        device: Name of the torch device.
        kernel: The kernel.
        graphs: The variants: without (False) and with (True) a CUDA graph.
        seconds: Time to spend on the timed steps of a variant.
        limit: Seconds after which the process ends by itself, should nothing have stopped it.
        answers: Path of the file of answers.
        run: ``module:function`` that is called with this request.
    """

    spec: str
    device: str
    kernel: Kernel
    graphs: tuple[bool, ...]
    seconds: float
    limit: int
    answers: str
    run: str

    def experiment(self) -> ExperimentSpec:
        """Returns the experiment."""
        return ExperimentSpec.model_validate_json(self.spec)

    def answer(self, *, graph: bool, **values: Any) -> None:
        """Appends an answer: ``seconds`` of a step, or why the variant is ``left_out``."""
        with Path(self.answers).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"graph": graph, **values}) + "\n")


def run_trial(request: TrialRequest) -> None:
    """Compares and times every variant; one that fails is answered with its reason, and so are those after it."""
    spec, device = request.experiment(), torch.device(request.device)
    for graph in request.graphs:
        try:
            if (why := unsupported_reason(request.kernel, device)) is not None:
                request.answer(graph=graph, left_out=why)
                continue
            if request.kernel != "eager" or graph:
                check_kernel(spec, device, request.kernel, graph=graph)
            request.answer(graph=graph, seconds=_time_step(spec, device, request.kernel, graph, request.seconds))
        except Exception as error:  # torch, Triton and compilers raise many types
            request.answer(graph=graph, left_out=describe_failure(error))


def _time_step(spec: ExperimentSpec, device: torch.device, kernel: Kernel, graph: bool, seconds: float) -> float:
    samples = SyntheticSamples(spec, spec.train.batch_size)
    timer = BatchTimer(spec, samples, device, kernel=kernel, graph=graph, data_in="disk")
    return timer.time_step(np.arange(spec.train.batch_size), seconds)


def describe_failure(error: BaseException) -> str:
    """Returns in one line why a kernel cannot be used."""
    if isinstance(error, DifferenceError):
        return str(error)
    if isinstance(error, Exception) and is_out_of_memory(error):
        return OUT_OF_MEMORY
    if (cause := known_cause(error)) is not None:
        return cause
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    return lines[0][:200]


def known_cause(error: BaseException | str) -> str | None:
    """Returns what a machine lacks that a kernel needs, from an error of torch or Triton; None for other errors."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return next((cause for marks, cause in _CAUSES if any(mark in text for mark in marks)), None)


def write_request(request: TrialRequest, path: Path) -> None:
    """Writes a request for :func:`main`."""
    path.write_text(json.dumps(asdict(request)), encoding="utf-8")


def main(path: str) -> None:
    """Runs the trial of a request."""
    tree = json.loads(Path(path).read_text(encoding="utf-8"))
    request = TrialRequest(**{**tree, "graphs": tuple(tree["graphs"])})
    if hasattr(signal, "alarm"):
        signal.alarm(request.limit)  # also ends a process that hangs in a driver, and whose parent was killed
    module, _, name = request.run.partition(":")
    run: Callable[[TrialRequest], None] = getattr(importlib.import_module(module), name)
    run(request)


if __name__ == "__main__":
    main(sys.argv[1])
