"""A process that does one thing when it is told to, so that each side has a process of its own, as its users run it.

plifctl asks the C library to keep freed memory, which would serve a peer in the same process too; and what a process
holds at most can be told only for the whole of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch

from benchmarks import steps
from benchmarks.measure import ROOT, seconds
from plifctl.config.experiment import ExperimentSpec
from plifctl.snn.functional import predict
from plifctl.training.process import keep_freed_memory


@dataclass(frozen=True)
class Job:
    """What a worker does.

    Attributes:
        who: ``ours``, ``spikingjelly``, the ``products`` in a step, each layer's in its fastest memory layout, or the
            ``contiguous products``, in the layout that SpikingJelly has.
        what: A training step or inference; of ``products`` the step's.
        experiment: Its name.
        batch: Number of samples.
        step_mode: Of SpikingJelly, see :func:`benchmarks.peers.spikingjelly_network`.
        once: Of SpikingJelly, see :func:`benchmarks.peers.spikingjelly_rates`.
        keep_memory: Ask the C library to keep freed memory, as ``plifctl train`` does.
    """

    who: Literal["ours", "spikingjelly", "products", "contiguous products"]
    what: Literal["train", "infer"]
    experiment: str
    batch: int
    step_mode: steps.StepMode = "m"
    once: bool = False
    keep_memory: bool = False


class Worker:
    """A process that does a job each time it is called; ended when left.

    Args:
        job: The job.

    Attributes:
        note: What it says of its preparation.
        before: Bytes it held when it was ready.
    """

    def __init__(self, job: Job) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(asdict(job))]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = json.loads(self._answer())
        self.note: str = said["note"]
        self.before: int = said["before"]

    def __call__(self) -> None:
        """Does the job once and waits for its end."""
        self._ask("work")

    def peak(self) -> int:
        """The most bytes that the process held."""
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
            sys.exit("a worker ended; what it said is above")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes its input, which ends it


def main() -> None:
    """Makes ready, says so, and does the job for every line ``work``."""
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
    spec = steps.experiment(job.experiment)
    batch = steps.batch_of(spec, job.batch)
    if job.who in ("products", "contiguous products"):
        return _products(spec, batch, contiguous=job.who == "contiguous products")
    if job.what == "infer":
        return _inference(job, batch), ""
    if job.who == "ours":
        ours = steps.Ours(spec)
        return lambda: ours.step(batch), ""
    theirs = steps.SpikingJelly(steps.network(spec), spec, job.step_mode, once=job.once)
    return lambda: theirs.step(batch), ""


def _inference(job: Job, batch: steps.Batch) -> Callable[[], object]:
    from plifctl.snn.bn_folding import fold_batch_norm

    spec = steps.experiment(job.experiment)
    settled = steps.settled(spec)
    if job.who == "ours":
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


def _products(spec: ExperimentSpec, batch: steps.Batch, *, contiguous: bool) -> tuple[Callable[[], object], str]:
    """All products of a training step, and what each takes."""
    chosen, told = [], []
    for made in steps.products(spec, len(batch.labels), batch.T):
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

    return work, "ms, forward + weight gradient + input gradient (in the other layout): " + ", ".join(told)


def _median(work: Callable[[], object]) -> float:
    work()
    return float(np.median([seconds(work) for _ in range(5)]))


def _held(field: str) -> int:
    """Bytes. getrusage would tell the parent's peak where that was higher."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
