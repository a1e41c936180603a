"""Trains a tiny network in float64, alone or as one of several processes: `torchrun … rank_worker.py OUT`."""

import sys
from dataclasses import asdict
from typing import Any

import torch
from unit.test_training import CPU, ROWS, ROWS_B, Exact, Recorder, Samples, spec_of

from plifctl.training.distributed import Ranks, process_group, rank_info
from plifctl.training.trainer import Trainer

DROPPED = ("seconds", "samples_per_second", "peak_rss_bytes")


def train(ranks: Ranks, protocol: str) -> dict[str, Any]:
    """Batches of 5, 5, 5 and 1 (A), or 5, 5 and 2, two for each step (B).

    Two ranks have 2 and 3 samples of the first ones; of a batch of one, one rank has none.
    """
    recipe, rows, accumulate = ("paper", ROWS, 1) if protocol == "A" else ("authors", ROWS_B, 2)
    spec = spec_of("train.drop_last=false", "train.epochs=2", f"train.accumulate={accumulate}", recipe=recipe)
    recorder = Recorder()
    trainer = Trainer(spec, Exact(Samples(), spec, CPU, ranks=ranks), rows, recorder)
    trainer.model.double()
    outcome = trainer.run()
    found = trainer._evaluate(rows.test, "test", 1)
    metrics = [{key: value for key, value in asdict(row).items() if key not in DROPPED} for row in outcome.history]
    return {
        "metrics": metrics,
        "accuracy": outcome.accuracy,
        "predictions": found.predictions.tolist(),
        "labels": found.labels.tolist(),
        "model": recorder.saved["last"]["model"],
    }


if __name__ == "__main__":
    seat = rank_info()
    assert seat is not None
    with process_group(seat, 60.0) as group:
        found = {protocol: train(group, protocol) for protocol in "AB"}
        every = group.gather(found["A"]["predictions"])
        assert every[0] == every[1]
        if group.rank == 0:
            torch.save(found, sys.argv[1])
