"""Exports a trained network as one file for other programs; implements ``plifctl export``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from plifctl import paths
from plifctl.config.choices import CheckpointName
from plifctl.exchange.arrays import check_destination, write_model
from plifctl.runs.model import TrainedModel, find_checkpoint, load_trained


@dataclass(frozen=True)
class Exported:
    """An exported file: the network in it, the number of its parameters, and its size in bytes."""

    path: Path
    trained: TrainedModel = field(repr=False)
    parameters: int
    nbytes: int


def export(
    model: str,
    file: Path,
    *,
    checkpoint: CheckpointName = "best",
    fold_bn: bool = False,
    runs_dir: Path | None = None,
) -> Exported:
    """Writes the weights of a trained network with everything needed to use them.

    Args:
        model: A run (path, id, part of an id, ``last``), or a ``.pt`` file.
        file: The file to write, ``.pt`` (torch) or ``.npz`` (numpy); must not exist.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: There is no such run, or the file exists or has another ending.
        CheckpointError: The checkpoint is missing or damaged.
    """
    check_destination(file)
    trained = load_trained(find_checkpoint(model, checkpoint, runs_dir or paths.runs_dir()), fold=fold_bn)
    write_model(file, trained.network, trained.spec, digest=trained.digest, cache=trained.cache)
    parameters = sum(weight.numel() for weight in trained.network.parameters())
    return Exported(file, trained, parameters, file.stat().st_size)
