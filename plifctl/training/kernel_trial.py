"""A trial of one kernel: is it the definition, and how long does a training step take? Runs in a process of its own.

``python -m plifctl.training.kernel_trial REQUEST`` reads a :class:`TrialRequest` and appends a line of JSON to its file
of answers for each variant, without and with a CUDA graph, as soon as it is known: a process that crashes or is stopped
leaves the answers before it.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plifctl.config.choices import Kernel
from plifctl.config.dataset import frame_shape
from plifctl.config.experiment import ExperimentSpec
from plifctl.snn.kernels import unsupported_reason
from plifctl.training.batches import BatchLoader
from plifctl.training.kernel_check import DifferenceError, check_kernel
from plifctl.training.optimizer import float32_products
from plifctl.training.process import is_out_of_memory
from plifctl.training.progress import EpochRow
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer

_WARM_UP_STEPS = 5
"""Steps that are not timed: kernels are compiled in the first; a CUDA graph is recorded in the fourth."""

_BLOCKS = 5
"""Blocks of steps that are timed one by one; the result is their median."""

BUSY = "the GPU does not admit another process"
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
        answers: Path of the file of answers.
        run: ``module:function`` that is called with this request.
    """

    spec: str
    device: str
    kernel: Kernel
    graphs: tuple[bool, ...]
    seconds: float
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
            request.answer(graph=graph, seconds=time_step(spec, device, request.kernel, graph, request.seconds))
        except Exception as error:  # torch, Triton and compilers raise many types
            request.answer(graph=graph, left_out=describe_failure(error))


def describe_failure(error: BaseException) -> str:
    """Returns in one line why a kernel cannot be used."""
    if isinstance(error, DifferenceError):
        return str(error)
    if isinstance(error, Exception) and is_out_of_memory(error):
        return "out of memory"
    text = f"{type(error).__name__}: {error}"
    for marks, cause in _CAUSES:
        if any(mark in text for mark in marks):
            return cause
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:200]


def time_step(spec: ExperimentSpec, device: torch.device, kernel: Kernel, graph: bool, seconds: float) -> float:
    """Returns the seconds of a training step of a full batch: forward, backward, optimizer; without loading.

    Args:
        spec: The experiment.
        device: Where it trains.
        kernel: Kernel of the spiking layers.
        graph: Record the step as a CUDA graph.
        seconds: Time to spend, beside the first steps.
    """
    rows = np.arange(spec.train.batch_size)
    samples = SyntheticSamples(spec, len(rows))
    loader = BatchLoader(samples, spec, device, data_in="disk")
    trainer = Trainer(spec, loader, Split(rows, rows[:0], rows), _Silent(), kernel=kernel, graph=graph)
    trainer.model.train()
    trainer.optimizer.begin_epoch(0)
    with closing(loader.training_batches(rows, 0)) as batches:
        batch = next(batches)

    def block(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            trainer.full_step(batch)
        _wait(device)
        return (time.perf_counter() - started) / steps

    with float32_products(spec.train, device):
        block(_WARM_UP_STEPS)
        steps = max(1, int(seconds / _BLOCKS / max(block(1), 1e-6)))
        until = time.perf_counter() + seconds
        found = [block(steps)]
        while len(found) < _BLOCKS and time.perf_counter() < until:
            found.append(block(steps))
    return statistics.median(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class SyntheticSamples:
    """Samples of an experiment's shape with random content: on a GPU, the time of a step does not depend on it.

    Args:
        spec: The experiment.
        count: Number of samples.
    """

    def __init__(self, spec: ExperimentSpec, count: int) -> None:
        shape, random = frame_shape(spec.dataset, spec.frames), np.random.default_rng(0)
        if spec.dataset.kind == "images":
            self._content = random.integers(0, 256, (count, *shape), np.uint8)
        else:
            self._content = random.poisson(0.05, (count, spec.T, *shape)).astype(np.uint8)
        self.labels = np.arange(count) % len(spec.dataset.classes)
        self.sample_ids = [str(number) for number in range(count)]
        self.shape, self.dtype, self.nbytes = self._content.shape, self._content.dtype, self._content.nbytes

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Returns the samples of ``rows``."""
        found: np.ndarray = np.take(self._content, rows, 0, out)
        return found


class _Silent:
    """A recorder that stores nothing; no epoch ends in a trial."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        """Nothing."""

    def on_epoch(self, row: EpochRow) -> None:
        """Nothing."""

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Nothing."""

    def load_best(self) -> dict[str, Any]:
        """Not called."""
        raise AssertionError

    def stop_signal(self) -> None:
        """Never requests a stop."""


def write_request(request: TrialRequest, path: Path) -> None:
    """Writes a request for :func:`main`."""
    path.write_text(json.dumps(asdict(request)), encoding="utf-8")


def main(path: str) -> None:
    """Runs the trial of a request."""
    tree = json.loads(Path(path).read_text(encoding="utf-8"))
    request = TrialRequest(**{**tree, "graphs": tuple(tree["graphs"])})
    module, _, name = request.run.partition(":")
    run: Callable[[TrialRequest], None] = getattr(importlib.import_module(module), name)
    run(request)


if __name__ == "__main__":
    main(sys.argv[1])
