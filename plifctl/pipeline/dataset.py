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
from plifctl.config.choices import SPLIT_WORDS, Recipe, Split
from plifctl.config.dataset import Framing
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import UsageError, check_choice
from plifctl.pipeline.commands import prepare_command, prepare_command_of
from plifctl.pipeline.current_cache import find_current_cache
from plifctl.pipeline.prepare import PrepareOptions, find_prepared

Part = Literal["train", "validation", "test", "all"]

_log = logging.getLogger(__name__)


class CachedDataset(Dataset[tuple[Tensor, int]]):
    """The samples of a cache: event frames ``[T, P, H, W]`` or images ``[C, H, W]``, and the class of each.

    Samples are uint8 as they are in the cache, or int32 where a pixel counts more than 255 events; nothing is
    normalised. Works in a DataLoader with any number of workers, forked or spawned: each process opens the file itself.

    Args:
        cache: The cache.
        split: The official training, validation or test set, or all samples. Where the data have no official split,
            all samples are ``train``.

    Attributes:
        cache: The cache.
        rows: Its rows that belong to the split, ``[N]``.
        labels: Class of each sample, int64 ``[N]``.
        sample_ids: Logical name of each sample.
        classes: Names of the classes.
    """

    def __init__(self, cache: Cache, split: Part = "train") -> None:
        self.cache = cache
        check_choice("split", split, get_args(Part))
        self.rows = np.array([row for row, name in enumerate(cache.splits) if split in (name, "all")], np.int64)
        if not len(self.rows):
            raise UsageError(
                f"split: {cache.path} has no {SPLIT_WORDS[cast('Split', split)]} samples",
                hint="found " + " and ".join(f'split="{name}"' for name in sorted(set(cache.splits))),
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
    dataset: str | Path | Framing | ExperimentSpec,
    T: int | None = None,
    split: Part = "train",
    *,
    recipe: Recipe | None = None,
    overrides: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> CachedDataset:
    """Returns the samples of a data set from its cache; logs the warnings about its data.

    Args:
        dataset: Name in the registry, YAML file, a framing, or an experiment.
        T: Number of frames; needed for event data sets that are named.
        split: ``train``, ``validation``, ``test``, or ``all``.
        recipe: Recipe of framing; None: of the file, or ``paper``.
        overrides: Changes to it, texts ``frames.key=value``.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.

    Raises:
        UsageError: Unknown data set, T is missing, or the data set has no such split.
        CacheError: There is no such cache; the hint has the command that builds it.
    """
    if isinstance(dataset, ExperimentSpec):
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
