"""Trains a tiny network in float64, alone or as one of several processes: `torchrun … rank_worker.py OUT`."""

import sys
import time
from dataclasses import asdict
from typing import Any

import torch
from tiny_training import CPU, SPLIT_A, SPLIT_B, CpuClock, Float64Loader, MemoryRecorder, ShadeSamples, tiny_spec

from plifctl.config.choices import Kernel, Protocol
from plifctl.errors import StoppedByCallback
from plifctl.training.distributed import Ranks, process_group, rank_info
from plifctl.training.trainer import Trainer, build_model

TRAININGS: dict[str, tuple[Any, ...]] = {
    "A": ("A",),
    "B": ("B",),
    "frozen": ("A", "[conv0, bn0, sn1]"),
    "compact": ("B", "[]", "compact"),
    "definition": ("A", "[]", "full", "per-step", "eager"),
    "over-time": ("A", "[]", "full", "over-time"),
    "over-time, definition": ("A", "[]", "full", "over-time", "eager"),
}
"""Protocol, frozen layers, ``train.memory``, batch norm, and kernel."""

DROPPED = ("seconds", "cpu_seconds", "samples_per_second", "peak_rss_bytes")


def float64_trainer(
    ranks: Ranks,
    protocol: Protocol,
    recorder: MemoryRecorder,
    freeze: str = "[]",
    memory: str = "full",
    norm: str = "per-step",
    kernel: Kernel = "auto",
) -> Trainer:
    """Returns a training with batches of 5, 5, 5 and 1 (A), or 5, 5 and 2, two for each step (B).

    Two ranks get 2 and 3 samples of a batch of 5; of a batch of one, one rank gets none. With frozen layers, training
    begins with the weights that the first rank has.
    """
    settings = ["train.drop_last=false", "train.epochs=2", f"train.freeze={freeze}", f"train.memory={memory}"]
    settings.append(f"network.batch_norm={norm}")
    if protocol == "A":
        spec, split = tiny_spec(*settings), SPLIT_A
    else:
        spec, split = tiny_spec(*settings, "train.accumulate=2", recipe="authors"), SPLIT_B
    start = None
    if spec.train.freeze:
        start = build_model(tiny_spec(f"train.seed={ranks.rank}"), CPU).state_dict()
    batches = Float64Loader(ShadeSamples(), spec, CPU, ranks=ranks)
    trainer = Trainer(spec, batches, split, recorder, start=start, kernel=kernel)
    trainer.model.double()
    return trainer


def train(ranks: Ranks, protocol: Protocol, *options: Any) -> dict[str, Any]:
    """Returns everything that a training gives, as plain values and tensors."""
    recorder = MemoryRecorder()
    trainer = float64_trainer(ranks, protocol, recorder, *options)
    outcome = trainer.run()
    found = trainer._evaluate(trainer.split.test, "test", 1)
    metrics = [{key: value for key, value in asdict(row).items() if key not in DROPPED} for row in outcome.history]
    return {
        "metrics": metrics,
        "accuracy": outcome.accuracy,
        "predictions": found.predictions.tolist(),
        "labels": found.labels.tolist(),
        "model": recorder.saved["last"]["model"],
    }


def stopped_epoch(ranks: Ranks) -> int:
    """Returns the epoch after which a training stops if the first rank's callback asks for it after the first."""
    trainer = float64_trainer(ranks, "A", MemoryRecorder(stop_after_epoch=1 if ranks.rank == 0 else None))
    try:
        trainer.run()
    except StoppedByCallback:
        return trainer.progress.epoch
    return -1


def cpu_seconds(ranks: Ranks) -> list[float | None]:
    """Returns the processor time of each epoch, where a step takes a second on the first rank, two on the second."""
    recorder = MemoryRecorder()
    time.process_time = CpuClock(recorder, ranks.rank + 1.0)  # type: ignore[assignment]
    return [row.cpu_seconds for row in float64_trainer(ranks, "A", recorder).run().history]


if __name__ == "__main__":
    info = rank_info()
    assert info is not None
    with process_group(info, 60.0) as group:
        results: dict[str, Any] = {name: train(group, *options) for name, options in TRAININGS.items()}
        predictions = group.gather(results["A"]["predictions"])
        assert predictions[0] == predictions[1]
        results["stopped"] = group.gather(stopped_epoch(group))
        results["cpu_seconds"] = group.gather(cpu_seconds(group))
        if group.rank == 0:
            torch.save(results, sys.argv[1])
