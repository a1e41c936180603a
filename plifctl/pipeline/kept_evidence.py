"""What a run or an exported folder keeps of a network: its result, and its predictions for the test samples."""

from __future__ import annotations

from plifctl.exchange.folder import read_evidence
from plifctl.exchange.model import TrainedModel
from plifctl.exchange.model_card import Evidence
from plifctl.runs import Run


def kept_evidence(trained: TrainedModel) -> Evidence:
    """Returns record and predictions of exactly this network, as far as its run or folder keeps them.

    Empty of a single file, of a run that is not finished, and of a checkpoint whose accuracy the run does not report.

    Raises:
        RunError: They are damaged.
        CheckpointError: A file that a folder states is missing.
    """
    if trained.run is None:
        return read_evidence(trained.path) if trained.path.is_dir() else Evidence()
    run, epoch = Run(trained.run), reported_epoch(trained)
    if epoch is None or (record := run.record()).best_epoch != epoch:
        return Evidence()
    return Evidence(record, run.predictions())


def reported_epoch(trained: TrainedModel) -> int | None:
    """Returns the epoch of a finished run's checkpoint; None where it is unknown."""
    if trained.run is None or (run := Run(trained.run)).status() != "finished":
        return None  # a longer training may have replaced the checkpoints
    record = run.record()
    epochs = {run.checkpoint("best").name: record.best_epoch, run.checkpoint("last").name: record.epochs}
    return epochs.get(trained.path.name)
