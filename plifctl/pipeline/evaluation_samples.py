"""The samples that a trained network is tested on, and what is measured on them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plifctl.cache import Cache
from plifctl.config.choices import DataPlacement, TimeControl
from plifctl.errors import CacheError, list_names
from plifctl.evaluation.accuracy import Evaluation, as_class_indices, evaluate
from plifctl.evaluation.controls import change_time
from plifctl.evaluation.layer_times import LayerTimes, measure_layer_times, times_unsupported_reason
from plifctl.evaluation.operations import Operations, count_operations
from plifctl.exchange.model import TrainedModel
from plifctl.exchange.model_card import Evidence
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.pipeline.kept_evidence import reported_epoch
from plifctl.pipeline.progress import Progress, silent
from plifctl.runs import Predictions, Run
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.optimizer import autocast
from plifctl.training.sample_store import choose_placement, to_device
from plifctl.training.splits import make_split

_log = logging.getLogger(__name__)

_TIMED_BATCHES = 3


@dataclass(frozen=True)
class EvaluationSamples:
    """The test samples of a trained network.

    Attributes:
        trained: The network.
        cache: Their cache.
        loader: Reads them as inputs of the network.
        rows: Their rows in the cache, ascending.
        kept: What the run, or the folder, keeps of the network.
        time: Change of their frames; None: as they are in the cache.
    """

    trained: TrainedModel
    cache: Cache
    loader: BatchLoader
    rows: np.ndarray
    kept: Evidence
    time: TimeControl | None = None

    def evaluate(self, progress: Progress = silent) -> Evaluation:
        """Runs the network on all of them; returns also predictions over time and votes."""
        spec = self.trained.spec
        with autocast(spec.train, self.loader.device):
            return evaluate(self.trained.network, self._report_batches(progress), spec.T, over_time=True)

    def _report_batches(self, progress: Progress) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields inputs and labels, reporting each batch."""
        spec = self.trained.spec
        steps = spec.train.evaluation_steps(len(self.rows))
        with progress(f"testing {spec.title}", "batches") as task:
            for step, batch in enumerate(self._batches(self.rows), 1):
                yield batch.x, batch.labels
                task.update(step, steps)

    def _batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """Yields batches of ``rows`` in order, their frames changed."""
        begin = 0
        for batch in self.loader.evaluation_batches(rows):
            end = begin + len(batch.x)
            if self.time is None:
                yield batch
            else:
                lengths = to_device(self.cache.counts["n_frames"][rows[begin:end]], self.loader.device)
                yield replace(batch, x=change_time(batch.x, self.time, batch.keys, lengths))
            begin = end

    def predictions(self, found: Evaluation) -> Predictions:
        """Returns the predictions of :meth:`evaluate` with the ids of the samples."""
        classes = len(self.trained.spec.dataset.classes)
        labels, predicted = (as_class_indices(values, classes) for values in (found.labels, found.predictions))
        ids = tuple(self.cache.sample_ids[row] for row in self.rows)
        return Predictions(ids, labels, predicted, reported_epoch(self.trained))

    def count_operations(self, count: int) -> Operations:
        """Returns the operations per sample, the mean of ``count`` samples."""
        network, spec = self.trained.network, self.trained.spec
        with autocast(spec.train, self.loader.device):  # as they are evaluated
            return count_operations(network, self.pairs(self._spread(count)), spec.T)

    def time_layers(self, seconds: float) -> LayerTimes | None:
        """Returns the times of the layers, measured for about so long; None where that is not supported."""
        spec = self.trained.spec
        if (why := times_unsupported_reason(self.loader.device, spec.train.precision)) is not None:
            _log.info("times of the layers are not measured: %s", why)
            return None
        batches = self._batches(self._spread(_TIMED_BATCHES * spec.train.batch_size))
        return measure_layer_times(self.trained.network, [batch.x for batch in batches], spec.T, seconds)

    def _spread(self, count: int) -> np.ndarray:
        """Returns ``count`` of the rows, or all, at equal distances."""
        places = np.linspace(0, len(self.rows) - 1, min(count, len(self.rows))).round().astype(int)
        spread: np.ndarray = self.rows[places]
        return spread

    def pairs(self, rows: np.ndarray) -> Iterator[Tensor]:
        """Yields inputs of two samples at a time, because the spikes of all their steps are in memory at once."""
        for batch in self._batches(rows):
            for start in range(0, len(batch.x), 2):
                yield batch.x[start : start + 2]


def open_samples(
    trained: TrainedModel,
    kept: Evidence,
    device: torch.device,
    cache_dir: Path | None = None,
    *,
    content: str | None = None,
    data_in: DataPlacement = "disk",
) -> EvaluationSamples:
    """Returns the test samples of a trained network.

    Args:
        trained: The network, on ``device``.
        kept: What the run, or the folder, keeps of it (:func:`~plifctl.pipeline.kept_evidence.kept_evidence`).
        device: Where inputs go.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        content: Content digest of the preferred cache.
        data_in: Where samples are held.

    Raises:
        CacheError: There is no cache of the data set, or it lacks some of the samples.
    """
    run = None if trained.run is None else Run(trained.run)
    cache = experiment_cache(trained.spec, cache_dir, content=content, run=run)
    place, placement_reason = choose_placement(cache.nbytes, device, data_in)
    _log.info(placement_reason)
    loader = BatchLoader(cache, trained.spec, device, data_in=place)
    rows = _rows(trained, kept, cache)
    _warn_of_changes(trained, cache, content)
    return EvaluationSamples(trained, cache, loader, rows, kept)


def _rows(trained: TrainedModel, kept: Evidence, cache: Cache) -> np.ndarray:
    """Returns the rows to test on: those of the test samples that a folder, or a run or file, lists.

    Of recordings or a table that have changed, the experiment would choose others, which it may have been trained on.

    Raises:
        CacheError: The cache lacks some of them, or there is no list of them and the recordings have changed.
    """
    listed = _listed_samples(trained, kept)
    if listed is None:
        _refuse_unlisted(trained, cache)
        return make_split("A", trained.spec, cache).test
    places = {name: row for row, name in enumerate(cache.sample_ids)}
    if missing := [name for name in listed if name not in places]:
        raise CacheError(
            f"{cache.path}: {len(missing)} of the {len(listed)} test samples of {(trained.run or trained.path).name} "
            f"are missing: {list_names(missing, 3)}",
            hint="prepare the recordings that it was trained on",
        )
    return np.sort([places[name] for name in listed])


def _listed_samples(trained: TrainedModel, kept: Evidence) -> Sequence[str] | None:
    """Returns the ids of the test samples of a folder, or of a run or file that lists them; None: not listed."""
    if trained.run is None and kept.predictions is not None:
        return kept.predictions.sample_ids
    return trained.listed_test_samples()


def _warn_of_changes(trained: TrainedModel, cache: Cache, content: str | None) -> None:
    """Logs what has changed in a table of labels since the training, so far as it matters for a test.

    Args:
        trained: The network.
        cache: The cache that it is tested on.
        content: Content digest of the cache that it was trained on; None: another one is expected.
    """
    labels, name = trained.spec.dataset.labels, (trained.run or trained.path).name
    if trained.run is not None and labels is not None and trained.spec.split.method == "official":
        has_seen, tested = trained.has_seen(), np.flatnonzero(cache.is_test)
        if moved := [sample for row in tested if has_seen(sample := cache.sample_ids[row], True)]:
            _log.warning(
                "%s was trained on, or selected by, %d samples that are test samples now: %s; it is tested on those "
                "of its own split",
                name,
                len(moved),
                list_names(moved, 3),
            )
    has_windows = labels is not None and (labels.start, labels.end) != (None, None)
    if labels is not None and has_windows and content not in (None, cache.content_digest):
        _log.warning(
            "samples are named by the places of their lines in %s: if lines were added or removed since %s was "
            "trained, it is tested on samples that it was trained on",
            labels.file,
            name,
        )


def _refuse_unlisted(trained: TrainedModel, cache: Cache) -> None:
    """Raises CacheError if an own split has to be made again, and of other samples than that of the training."""
    changed = trained.cache is not None and trained.cache != cache.content_digest
    if trained.run is None and trained.spec.split.method != "official" and changed:
        raise CacheError(
            f"{trained.path}: which samples it was tested on is unknown: an older plifctl wrote it, and the split was "
            f"made of a cache of content {str(trained.cache)[:12]}; {cache.path} has content "
            f"{cache.content_digest[:12]}",
            hint="name the run in its place, or export the run again: plifctl export RUN FILE",
        )
