"""Writes a trained network for other programs; implements ``plifctl export``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from plifctl import paths
from plifctl.config.choices import CheckpointName, NetworkFormat
from plifctl.exchange.formats import FOLDED, check_destination, choose_format, write_network
from plifctl.exchange.model import TrainedModel, find_model, load_trained


@dataclass(frozen=True)
class Exported:
    """An exported file or folder.

    Attributes:
        path: The file or folder.
        format: Its format.
        trained: The network in it.
        parameters: Number of its parameters.
        nbytes: Size in bytes.
        notes: What a user of the file has to know, a sentence each.
    """

    path: Path
    format: NetworkFormat
    trained: TrainedModel = field(repr=False)
    parameters: int
    nbytes: int
    notes: tuple[str, ...] = ()


def export(
    model: str,
    file: Path,
    *,
    to: NetworkFormat | None = None,
    checkpoint: CheckpointName = "best",
    fold_bn: bool = False,
    runs_dir: Path | None = None,
) -> Exported:
    """Writes the weights of a trained network with everything needed to use them.

    Args:
        model: A run (path, id, part of an id, ``last``), or an exported file or folder.
        file: The file or folder to write; must not exist.
        to: The format; None: that of the ending, a folder if there is none.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them; formats without batch norm do so anyway.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: There is no such run, the file exists or has another ending, or the format cannot describe the
            network.
        CheckpointError: The checkpoint is missing or damaged.
    """
    kind = choose_format(file, to)
    check_destination(file)
    path = find_model(model, checkpoint, runs_dir or paths.runs_dir())
    return write_model(file, load_trained(path, fold=fold_bn or kind in FOLDED), kind)


def write_model(file: Path, trained: TrainedModel, kind: NetworkFormat) -> Exported:
    """Writes a network in a format, and returns what was written; arguments and errors as :func:`write_network`."""
    notes = write_network(file, trained, kind)
    parameters = sum(weight.numel() for weight in trained.network.parameters())
    written = [file] if file.is_file() else [part for part in file.rglob("*") if part.is_file()]
    nbytes = sum(part.stat().st_size for part in written)
    return Exported(file, kind, trained, parameters, nbytes, tuple(notes))
