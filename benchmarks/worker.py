"""A process that runs a job on request, so that each side runs in its own process, as for its users.

plifctl makes the C library keep freed memory, which would also speed up a peer in the same process; and peak memory can
only be measured for a complete process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch

from benchmarks import steps
from benchmarks.measure import ROOT, seconds
from plifctl.config.choices import Memory
from plifctl.config.experiment import ExperimentSpec
from plifctl.snn import kernels
from plifctl.snn.functional import predict
from plifctl.training.process import keep_freed_memory


@dataclass(frozen=True)
class Job:
    """Job of a worker.

    Attributes:
        who: ``ours``, ``ours, dense`` without event-driven layers, ``spikingjelly``, ``snntorch``, the ``products`` in
            a step or in inference, each layer's in its fastest memory layout, or the ``contiguous products``, in the
            layout that SpikingJelly has.
        what: A training step or inference.
        experiment: Name of the experiment.
        batch: Number of samples.
        step_mode: For SpikingJelly, see :func:`benchmarks.peers.spikingjelly_network`.
        once: For SpikingJelly, see :func:`benchmarks.peers.spikingjelly_rates`.
        keep_memory: Ask the C library to keep freed memory, as ``plifctl train`` does.
        memory: ``train.memory``, for ours.
    """

    who: Literal["ours", "ours, dense", "spikingjelly", "snntorch", "products", "contiguous products"]
    what: Literal["train", "infer"]
    experiment: str
    batch: int
    step_mode: steps.StepMode = "m"
    once: bool = False
    keep_memory: bool = False
    memory: Memory = "full"


class Worker:
    """A process that runs a job each time it is called; it ends with the context.

    Args:
        job: The job.

    Attributes:
        note: Message from its preparation.
        before: Memory when it was ready, bytes.
    """

    def __init__(self, job: Job) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(asdict(job))]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        result = json.loads(self._answer())
        self.note: str = result["note"]
        self.before: int = result["before"]

    def __call__(self) -> None:
        """Runs the job once and waits for its end."""
        self._ask("work")

    def peak(self) -> int:
        """Peak memory of the process, bytes."""
        return int(self._ask("peak"))

    def _ask(self, what: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a worker ended; its output is above")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes its input, which ends it


def main() -> None:
    """Prepares, reports that it is ready, and runs the job for every input line ``work``."""
    steps.limit_threads()
    job = Job(**json.loads(sys.argv[1]))
    if job.keep_memory:
        keep_freed_memory()
    work, note = _prepared(job)
    print(json.dumps({"note": note, "before": _held("VmRSS")}), flush=True)
    for line in sys.stdin:
        if line == "work\n":
            work()
            print("done", flush=True)
        else:
            print(_held("VmHWM"), flush=True)


def _prepared(job: Job) -> tuple[Callable[[], object], str]:
    spec = steps.experiment(job.experiment, memory=job.memory)
    batch = steps.batch_of(spec, job.batch)
    if job.who in ("products", "contiguous products"):
        return _products(job, spec, batch)
    if job.who == "ours, dense":
        kernels._may_be_event_driven = lambda *_: False
    if job.what == "infer":
        return _inference(job, batch), ""
    if job.who.startswith("ours"):
        ours = steps.Ours(spec)
        return lambda: ours.step(batch), ""
    if job.who == "snntorch":
        other = steps.SnnTorch(steps.network(spec), spec)
        return lambda: other.step(batch), ""
    theirs = steps.SpikingJelly(steps.network(spec), spec, job.step_mode, once=job.once)
    return lambda: theirs.step(batch), ""


def _inference(job: Job, batch: steps.Batch) -> Callable[[], object]:
    from plifctl.snn.bn_folding import fold_batch_norm

    spec = steps.experiment(job.experiment)
    settled = steps.settled(spec)
    if job.who.startswith("ours"):
        folded = fold_batch_norm(settled)

        def ours() -> object:
            with torch.inference_mode():
                return predict(folded(batch.x, batch.T))

        return ours
    theirs = steps.SpikingJelly(settled, spec, job.step_mode, once=job.once)
    theirs.model.eval()

    def spikingjelly() -> object:
        with torch.no_grad():
            return theirs.rates(batch).mean(0).argmax(1)

    return spikingjelly


def _products(job: Job, spec: ExperimentSpec, batch: steps.Batch) -> tuple[Callable[[], object], str]:
    """Returns a function that computes all products of a training step or of inference, and a note on their times."""
    chosen, told, contiguous = [], [], job.who == "contiguous products"
    for made in steps.products(spec, len(batch.labels), batch.T):
        if job.what == "infer":
            made = [replace(product, parts={"forward": product.parts["forward"]}) for product in made]
        times = [{part: _median(call) for part, call in product.parts.items()} for product in made]
        order = sorted(range(len(made)), key=lambda index: sum(times[index].values()))
        best = next(i for i in order if not contiguous or made[i].layout == "contiguous")
        slower = [index for index in order if index != best]
        chosen.append(made[best])
        told.append(
            f"{made[best].name} {made[best].layout} {' + '.join(f'{1e3 * each:.1f}' for each in times[best].values())}"
            + "".join(f" ({made[index].layout} {1e3 * sum(times[index].values()):.1f})" for index in slower)
        )

    def work() -> None:
        for product in chosen:
            product()

    parts = "forward" if job.what == "infer" else "forward + weight gradient + input gradient"
    return work, f"ms, {parts} (in the other layout): " + ", ".join(told)


def _median(work: Callable[[], object]) -> float:
    work()
    return float(np.median([seconds(work) for _ in range(5)]))


def _held(field: str) -> int:
    """Returns the peak memory in bytes; getrusage would return the parent's peak if that was higher."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
