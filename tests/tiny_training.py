"""A training small enough for tests: samples in memory, a tiny network, a recorder that keeps everything."""

import copy
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from plifctl.config.choices import Recipe
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.errors import CheckpointError
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.progress import EpochRow, Recorder
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer

CPU = torch.device("cpu")
SPLIT_A = Split(np.arange(16), np.empty(0, np.int64), np.arange(16, 24))
SPLIT_B = Split(np.arange(12), np.arange(12, 16), np.arange(16, 24))


class ArraySamples:
    """Samples in an array, with labels 0 to 9 in turn; fails if two threads read at once."""

    def __init__(self, content: np.ndarray) -> None:
        self.content, self.labels = content, np.arange(len(content)) % 10
        self.sample_ids = [str(row) for row in range(len(content))]
        self.shape, self.dtype, self.nbytes = content.shape, content.dtype, content.nbytes
        self._reading = threading.Lock()

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        assert self._reading.acquire(blocking=False), "two threads read at once"
        try:
            time.sleep(0.001)
            return np.take(self.content, rows, 0, out)
        finally:
            self._reading.release()


class ShadeSamples:
    """Images of two shades; the class is the shade."""

    def __init__(self, n: int = 24) -> None:
        self.labels = np.arange(n) % 2
        self.sample_ids = [f"train/{i}" for i in range(n)]
        rng = np.random.default_rng(0)
        self.images = (rng.integers(0, 60, (n, 1, 28, 28)) + 150 * self.labels[:, None, None, None]).astype(np.uint8)
        self.nbytes, self.shape, self.dtype = self.images.nbytes, self.images.shape, self.images.dtype

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.take(self.images, rows, 0, out)


@dataclass
class MemoryRecorder(Recorder):
    """Keeps everything in memory; can ask for a stop after so many steps, or after an epoch."""

    stop_after: int | None = None
    stop_after_epoch: int | None = None
    rows: list[EpochRow] = field(default_factory=list)
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: int = 0
    parts: set[str] = field(default_factory=set)

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        self.parts.add(part)
        self.steps += 1
        assert 1 <= step <= steps

    def on_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)

    def on_saved_epoch(self, row: EpochRow) -> bool | None:
        return False if row.epoch == self.stop_after_epoch else None

    def save(self, name: str, state: dict[str, Any]) -> None:
        self.saved[name] = copy.deepcopy(state)

    def load_best(self) -> dict[str, Any]:
        if "best" not in self.saved:
            raise CheckpointError("best.pt: no such checkpoint")
        return self.saved["best"]

    def stop_signal(self) -> int | None:
        return 2 if self.stop_after is not None and self.steps >= self.stop_after else None


def tiny_spec(*overrides: str, recipe: Recipe = "paper") -> ExperimentSpec:
    """Returns an experiment of 3 epochs on MNIST-like images, with T = 2 and batches of 5."""
    settings = ["T=2", "train.batch_size=5", "train.epochs=3", *overrides]
    spec = load_registry().experiment("mnist-plif", recipe=recipe, overrides=settings).spec
    return with_structure(spec, "c4k3s1-BN-SN-MPk4s4-DP-FC20-SN-DP-FC100-SN-APk10s10")


def with_structure(spec: ExperimentSpec, structure: str) -> ExperimentSpec:
    """Returns the experiment with another network structure."""
    return spec.model_copy(update={"network": spec.network.model_copy(update={"structure": structure})})


def tiny_trainer(
    recorder: MemoryRecorder,
    spec: ExperimentSpec | None = None,
    split: Split = SPLIT_A,
    *,
    last_epoch: bool = False,
    graph: bool = False,
) -> Trainer:
    """Returns a training of :class:`ShadeSamples` on the CPU."""
    spec = spec or tiny_spec()
    return Trainer(spec, BatchLoader(ShadeSamples(), spec, CPU), split, recorder, last_epoch=last_epoch, graph=graph)


class CpuClock:
    """Replaces the clock of processor time: every step of a recorder takes so many seconds, nothing else takes any."""

    def __init__(self, recorder: MemoryRecorder, per_step: float = 1.0) -> None:
        self.recorder, self.per_step = recorder, per_step

    def __call__(self) -> float:
        return 100.0 + self.per_step * self.recorder.steps


class Float64Loader(BatchLoader):
    """Batches in float64, in which two orders of summation fire the same spikes."""

    def _load(self, *arguments: Any, **options: Any) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super()._load(*arguments, **options):
            yield replace(batch, x=batch.x.double())


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Returns whether two saved states have equal weights, bit for bit."""
    return all(torch.equal(one["model"][name], weight) for name, weight in other["model"].items())


def reproducible(row: EpochRow) -> dict[str, Any]:
    """Returns the fields of a row that do not depend on time and machine."""
    varying = ("seconds", "cpu_seconds", "samples_per_second", "peak_rss_bytes", "peak_gpu_bytes")
    return {key: value for key, value in vars(row).items() if key not in varying}
