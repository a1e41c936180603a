"""Writes a trained network for other programs, or to share it; implements ``plifctl export``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from plifctl import paths
from plifctl.config.choices import CheckpointName, NetworkFormat
from plifctl.config.lookup import load_registry
from plifctl.errors import CacheError, UsageError
from plifctl.exchange.folder import to_half
from plifctl.exchange.formats import FOLDED, check_destination, choose_format, write_network
from plifctl.exchange.lookup import find_model
from plifctl.exchange.model import TrainedModel, load_trained
from plifctl.exchange.model_card import Evidence
from plifctl.pipeline.evaluation_samples import EvaluationSamples, open_samples
from plifctl.pipeline.kept_evidence import kept_evidence
from plifctl.pipeline.progress import Progress, silent
from plifctl.runs import RegisteredExperiments, ResultRecord, with_controls

_log = logging.getLogger(__name__)

_COUNTED = 20
"""Test samples that the energy in a model card is estimated from, as eval does by default."""


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
    model: str | TrainedModel,
    file: Path,
    *,
    to: NetworkFormat | None = None,
    checkpoint: CheckpointName = "best",
    fold_bn: bool = False,
    half: bool = False,
    cache_dir: Path | None = None,
    runs_dir: Path | None = None,
    progress: Progress = silent,
) -> Exported:
    """Writes the weights of a trained network with everything needed to use them.

    Args:
        model: A run (path, id, part of an id, ``last``), or an exported file or folder; or a network in memory, to a
            file only: a folder states a result, of which nothing is known.
        file: The file or folder to write; must not exist.
        to: The format; None: that of the ending, a folder if there is none.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them; formats without batch norm do so anyway.
        half: Write the weights in half precision; for a folder only.
        cache_dir: Cache directory, for what a folder states; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        progress: Opens a task where the network is tested.

    Raises:
        UsageError: There is no such run, the file exists or has another ending, or the format cannot describe the
            network.
        CheckpointError: The checkpoint is missing or damaged.
    """
    kind = choose_format(file, to)
    if half and kind != "folder":
        raise UsageError("--half: only folders have weights in half precision", hint="omit --half")
    check_destination(file)
    fold = fold_bn or kind in FOLDED
    if isinstance(model, TrainedModel):
        if kind == "folder":
            raise UsageError(
                f"{file}: a folder states the result of a run, and the weights of a model in memory have none",
                hint="export it to a file, e.g. network.pt",
            )
        trained = model.fold() if fold else model
    else:
        trained = load_trained(find_model(model, checkpoint, runs_dir or paths.runs_dir()), fold=fold)
    evidence = _evidence(trained, half, cache_dir, progress) if kind == "folder" else None
    return write_model(file, trained, kind, evidence)


def write_model(file: Path, trained: TrainedModel, kind: NetworkFormat, evidence: Evidence | None = None) -> Exported:
    """Writes a network in a format, and returns what was written; arguments and errors as :func:`write_network`."""
    notes = write_network(file, trained, kind, evidence)
    parameters = sum(weight.numel() for weight in trained.network.parameters())
    written = [file] if file.is_file() else [part for part in file.rglob("*") if part.is_file()]
    nbytes = sum(part.stat().st_size for part in written)
    return Exported(file, kind, trained, parameters, nbytes, tuple(notes))


@torch.no_grad()
def _round_to_half(trained: TrainedModel) -> None:
    for weight in trained.network.state_dict().values():
        weight.copy_(to_half(weight))


def _evidence(trained: TrainedModel, half: bool, cache_dir: Path | None, progress: Progress) -> Evidence:
    """Returns what a folder states of the network, measured where the run does not keep it."""
    kept = kept_evidence(trained)
    found = replace(
        kept,
        record=_with_current_controls(kept.record, trained.run),
        changes=() if kept.record is None else RegisteredExperiments(load_registry()).changes(kept.record),
        predictions=None if half or trained.folded else kept.predictions,  # those of other weights
        half=half or kept.half,
        measured=None if half or trained.folded else kept.measured,
    )
    if found.half:  # what is measured is what is written
        _round_to_half(trained)
    samples = _samples(trained, kept, cache_dir)
    if samples is None:
        return found
    if found.predictions is None:
        cache, predictions = samples.cache, samples.predictions(samples.evaluate(progress))
        found = found.with_predictions(predictions, cache.content_digest, complete=cache.complete_set)
        if not trained.folded:
            _compare_with_record(found, trained.path)
    return replace(found, operations=samples.count_operations(_COUNTED))


def _compare_with_record(evidence: Evidence, path: Path) -> None:
    """Warns if predictions that were made now have another accuracy than the record, without a stated reason."""
    record, predictions = evidence.record, evidence.predictions
    changed = evidence.half or evidence.folded
    if record is not None and predictions is not None and not changed and record.accuracy != predictions.accuracy:
        _log.warning(
            "%s keeps no predictions; those made now have an accuracy of %.2f %%, its record states %.2f %%: "
            "plifctl runs add will refuse the folder",
            path,
            100 * predictions.accuracy,
            100 * record.accuracy,
        )


def _with_current_controls(record: ResultRecord | None, run: Path | None) -> ResultRecord | None:
    """Returns the record of a run with those of its tests under controls that are of its network and samples."""
    if record is None or run is None:
        return record
    record = with_controls(record, run)
    current = tuple(one for one in record.controls if not record.control_problem(one))
    return record.model_copy(update={"controls": current})


def _samples(trained: TrainedModel, kept: Evidence, cache_dir: Path | None) -> EvaluationSamples | None:
    """Returns the test samples; None where there is no cache of them."""
    try:
        return open_samples(trained, kept, torch.device("cpu"), cache_dir, content=trained.cache)
    except CacheError as error:
        _log.warning("no cache to test the network on, so the model card has no energy estimate: %s", error)
        return None
