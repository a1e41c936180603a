"""Measures the time of training steps and evaluation batches, with and without loading; nothing is saved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice

import numpy as np
import torch

from plifctl.config.choices import DataPlacement, Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.evaluation.accuracy import evaluate
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.optimizer import autocast, float32_products
from plifctl.training.progress import Recorder
from plifctl.training.sample_store import Samples
from plifctl.training.splits import Split
from plifctl.training.trainer import COLLECT_EVERY, Trainer

_WARM_UP_STEPS = 5
"""Steps that are not timed: kernels are compiled in the first; a CUDA graph is recorded in the fourth."""

_BLOCKS = 5
"""Blocks of steps that are timed one by one; the result is their median."""


class BatchTimer:
    """A training that is only timed.

    Args:
        spec: The experiment.
        samples: The samples.
        device: Where it trains.
        kernel: Kernel of the spiking layers.
        graph: Record steps as a CUDA graph.
        data_in: Placement of the samples.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        samples: Samples,
        device: torch.device,
        *,
        kernel: Kernel,
        graph: bool,
        data_in: DataPlacement,
    ) -> None:
        self.spec, self.device = spec, device
        self._loader = BatchLoader(samples, spec, device, data_in=data_in)
        none = np.empty(0, np.int64)
        self._trainer = Trainer(spec, self._loader, Split(none, none, none), Recorder(), kernel=kernel, graph=graph)
        self._trainer.model.train()
        self._trainer.optimizer.begin_epoch(0)
        self._warm = False

    def time_step(self, rows: np.ndarray, seconds: float) -> float:
        """Returns the seconds of a training step of a full batch: forward, backward, its share of the optimizer's step.

        Loading is left out.

        Args:
            rows: Samples of which the batch is made.
            seconds: Time to spend, beside the first steps.
        """
        with closing(self._loader.training_batches(rows, 0)) as batches:
            batch = next(batches)
        with float32_products(self.spec.train, self.device):
            self._warm_up(batch)
            return self._median(lambda: self._accumulated_step(batch), seconds) / self.spec.train.accumulate

    def time_loaded_step(self, rows: np.ndarray, seconds: float) -> float:
        """Returns the seconds of a training step with loading and augmentation, as training does them.

        Args:
            rows: Samples of the training set; an epoch of them is begun, and begun again if it ends.
            seconds: Time to spend.
        """
        with float32_products(self.spec.train, self.device), closing(self._endless(rows)) as batches:
            self._warm_up(next(batches))
            done, started = 0, time.perf_counter()
            while not done or time.perf_counter() - started < seconds:
                done += 1
                self._trainer.full_step(next(batches), update=done % self.spec.train.accumulate == 0)
                if done % COLLECT_EVERY == 0:  # as a training does
                    self._wait()
            self._wait()
            return (time.perf_counter() - started) / done

    def time_evaluation(self, rows: np.ndarray, seconds: float) -> float:
        """Returns the seconds of an evaluation batch, with loading; at most an epoch of ``rows`` is evaluated."""
        size = self.spec.train.batch_size
        count = self.spec.train.evaluation_steps(len(rows))

        def run(batches: int) -> float:
            started = time.perf_counter()
            with closing(self._loader.evaluation_batches(rows[: batches * size])) as loaded:
                pairs = ((batch.x, batch.labels) for batch in islice(loaded, batches))
                with autocast(self.spec.train, self.device):
                    evaluate(self._trainer.model, pairs, self.spec.T)
            self._wait()
            return (time.perf_counter() - started) / batches

        run(1)  # compiles
        once = run(1)
        batches = max(1, min(count, int(seconds / max(once, 1e-6))))
        return run(batches) if batches > 1 else once

    def _endless(self, rows: np.ndarray) -> Generator[Batch, None, None]:
        """Yields batches of one epoch after the other; a smaller last one is left out."""
        epoch = 0
        while True:
            with closing(self._loader.training_batches(rows, epoch)) as batches:
                for batch in batches:
                    if batch.global_size == self.spec.train.batch_size or len(rows) < self.spec.train.batch_size:
                        yield batch
            epoch += 1

    def _warm_up(self, batch: Batch) -> None:
        if not self._warm:
            for _ in range(_WARM_UP_STEPS):
                self._trainer.full_step(batch)
            self._wait()
            self._warm = True

    def _accumulated_step(self, batch: Batch) -> None:
        """Does one step of the optimizer, with the same batch each time."""
        for left in reversed(range(self.spec.train.accumulate)):
            self._trainer.full_step(batch, update=left == 0)

    def _median(self, work: Callable[[], None], seconds: float) -> float:
        def block(steps: int) -> float:
            started = time.perf_counter()
            for _ in range(steps):
                work()
            self._wait()
            return (time.perf_counter() - started) / steps

        steps = max(1, int(seconds / _BLOCKS / max(block(1), 1e-6)))
        until, found = time.perf_counter() + seconds, [block(steps)]
        while len(found) < _BLOCKS and time.perf_counter() < until:
            found.append(block(steps))
        return statistics.median(found)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class SyntheticSamples:
    """Samples of an experiment's shape with random content.

    On a GPU, and with dense products, the time of a step does not depend on the content.

    Args:
        spec: The experiment.
        count: Number of samples.
    """

    def __init__(self, spec: ExperimentSpec, count: int) -> None:
        shape, random = spec.framing.shape, np.random.default_rng(0)
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


def products_per_second() -> float:
    """Returns how many floating-point operations of matrix products this CPU does in a second, float32, measured."""
    size = 512
    a, b = torch.ones(size, size), torch.ones(size, size)
    torch.mm(a, b)  # starts the threads
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times)
