"""The samples of a cache as a torch data set, for the user's own training loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from plifctl import paths
from plifctl.cache import Cache
from plifctl.config.choices import SPLIT_WORDS, SPLITS, Recipe, Split
from plifctl.config.dataset import Framing
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import CacheError, UsageError, check_choice, list_names
from plifctl.pipeline.commands import prepare_command, prepare_command_of
from plifctl.pipeline.current_cache import find_current_cache
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.pipeline.prepare import PrepareOptions, find_prepared
from plifctl.runs import Run

Part = Literal["train", "validation", "test", "all"]

_log = logging.getLogger(__name__)


class CachedDataset(Dataset[tuple[Tensor, int]]):
    """The samples of a cache: event frames ``[T, P, H, W]`` or images ``[C, H, W]``, and the class of each.

    Samples are uint8 as they are in the cache, or int32 where a pixel counts more than 255 events; nothing is
    normalised. Works in a DataLoader with any number of workers, forked or spawned: each process opens the file itself.

    Args:
        cache: The cache.
        split: The training, validation or test set, or all samples. Where the data have no official split, all samples
            are ``train``.
        splits: The set of each sample of the cache, in its order, empty for those in none; None: the official ones.

    Attributes:
        cache: The cache.
        rows: Its rows that belong to the split, ``[N]``.
        labels: Class of each sample, int64 ``[N]``.
        sample_ids: Logical name of each sample.
        classes: Names of the classes.
    """

    def __init__(self, cache: Cache, split: Part = "train", splits: Sequence[str] | None = None) -> None:
        self.cache = cache
        check_choice("split", split, get_args(Part))
        splits = cache.splits if splits is None else splits
        self.rows = np.array([row for row, name in enumerate(splits) if split in (name, "all")], np.int64)
        if not len(self.rows):
            raise UsageError(
                f"split: {cache.path} has no {SPLIT_WORDS[cast('Split', split)]} samples",
                hint="found " + " and ".join(f'split="{name}"' for name in sorted({*splits} - {""})),
            )
        self.labels = cache.labels[self.rows]
        self.sample_ids = [cache.sample_ids[row] for row in self.rows]
        self.classes = tuple(cache.key.fields["classes"])
        cache.close()  # an open file would be shared with forked workers
        cache.path = cache.path.absolute()  # the working directory may change
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<{len(self)} samples of {self.cache.path}>"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Returns a sample and its class.

        Raises:
            CorruptCacheError: The sample fails its checksum.
        """
        if os.getpid() != self._pid:  # forked while the file was open: HDF5 cannot share it
            self.cache, self._pid = Cache(self.cache.path), os.getpid()
        sample = self.cache.read(self.rows[[index]])[0]
        frames = torch.from_numpy(sample if sample.dtype == np.uint8 else sample.astype(np.int32))
        return frames, int(self.labels[index])

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pid": None}


def open_dataset(
    dataset: str | Path | Framing | ExperimentSpec | Run,
    T: int | None = None,
    split: Part = "train",
    *,
    recipe: Recipe | None = None,
    overrides: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> CachedDataset:
    """Returns the samples of a data set from its cache; logs the warnings about its data.

    Args:
        dataset: Name in the registry, YAML file, a framing, an experiment, or a run, whose split is taken.
        T: Number of frames; needed for event data sets that are named.
        split: ``train``, ``validation``, ``test``, or ``all``.
        recipe: Recipe of framing; None: of the file, or ``paper``.
        overrides: Changes to it, texts ``frames.key=value``.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.

    Raises:
        UsageError: Unknown data set, T is missing, the data set has no such split, or the experiment makes its own when
            a run begins.
        CacheError: There is no such cache, with the command that builds it as the hint; or it lacks samples of the run.
    """
    if isinstance(dataset, Run):
        cache = experiment_cache(dataset.config().spec, cache_dir, content=dataset.content_digest, run=dataset)
        return CachedDataset(cache, split, _splits_of(dataset, cache))
    if isinstance(dataset, ExperimentSpec):
        _refuse_own_split(dataset, split)
        command = prepare_command_of(dataset, cache_dir=cache_dir)
        cache = find_current_cache(dataset.framing, cache_dir or paths.cache_dir(), prepare=command)
    elif isinstance(dataset, Framing):
        command = prepare_command(dataset, cache_dir=cache_dir)
        cache = find_current_cache(dataset, cache_dir or paths.cache_dir(), prepare=command)
    else:
        _, cache = find_prepared(PrepareOptions(dataset, T, recipe, tuple(overrides), cache_dir=cache_dir))
    for note in cache.notes:
        _log.warning(note)
    return CachedDataset(cache, split)


def _refuse_own_split(spec: ExperimentSpec, split: Part) -> None:
    """Raises UsageError for a part of an experiment that makes its own split: all its samples would be ``train``."""
    if spec.split.method != "official" and split != "all":
        raise UsageError(
            f"split={split!r}: {spec.name} makes its split when a run begins (split.method {spec.split.method})",
            hint='plifctl.dataset(run, split="train") has the samples that the run trained on\n'
            'split="all" has all samples, those that a run is tested on among them',
        )


def _splits_of(run: Run, cache: Cache) -> list[str]:
    """Returns the set in which a run has each sample of a cache; empty for samples that it does not use.

    Raises:
        CacheError: Samples of the run are missing.
    """
    tree = run.split()
    part_of = {name: part for part in SPLITS for name in tree.get(part, ())}
    if missing := part_of.keys() - set(cache.sample_ids):
        raise CacheError(
            f"{cache.path}: {len(missing)} of the {len(part_of)} samples of {run.name} are missing: "
            f"{list_names(sorted(missing), 3)}",
            hint="prepare the recordings that it was trained on",
        )
    return [part_of.get(name, "") for name in cache.sample_ids]
