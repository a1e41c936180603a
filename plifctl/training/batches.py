"""Batches: selection, order and augmentation of samples.

The order follows from (seed, epoch, rows), the random numbers of a sample from (seed, epoch, sample id).
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plifctl.config.augmentation import CutMix, EventAugmentation
from plifctl.config.choices import DataPlacement
from plifctl.config.experiment import ExperimentSpec
from plifctl.snn.keyed_random import hash_keys
from plifctl.training.augmentation import augment_events, augment_images, draw_cut_areas
from plifctl.training.distributed import Ranks
from plifctl.training.sample_store import BufferPool, Samples, open_source, to_device

_ORDER, _DROPOUT, _AUGMENT, _CUT_MIX = 1, 2, 3, 4  # purpose of a random number: part of its key


@dataclass(frozen=True)
class Batch:
    """Samples on the device.

    Attributes:
        x: float32, event frames ``[N, T, P, H, W]`` or images ``[N, C, H, W]``.
        labels: int64 ``[N]``.
        targets: float32 ``[N, classes]``, targets of the loss: one-hot, or mixed by cut-mix.
        keys: int64 ``[N]``, from which the samples' dropout masks are drawn.
        global_size: Number of samples of the batch over all ranks; N with a single rank.
    """

    x: Tensor
    labels: Tensor
    targets: Tensor
    keys: Tensor
    global_size: int


def hash_sample_ids(sample_ids: Sequence[str]) -> np.ndarray:
    """Returns a number for each sample that depends on its id alone, int64 ``[N]``: the first 64 bits of BLAKE2b."""
    names = (name.encode("utf-8", "surrogateescape") for name in sample_ids)
    return np.frombuffer(b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names), "<i8").astype(
        np.int64
    )


class BatchLoader:
    """Makes batches of an experiment's samples. A batch is never overwritten while it is in use.

    Args:
        samples: The cache.
        spec: The experiment: batch size, seed, augmentation, normalisation.
        device: Device of the batches.
        data_in: Placement of the samples; batches are equal for each, bit for bit.
        ranks: The processes that share each batch; a batch holds this rank's shard.

    Raises:
        OutOfMemoryError: The samples do not fit there.
    """

    def __init__(
        self,
        samples: Samples,
        spec: ExperimentSpec,
        device: torch.device,
        *,
        data_in: DataPlacement = "disk",
        ranks: Ranks | None = None,
    ) -> None:
        self.spec, self.device, self.ranks = spec, device, ranks or Ranks()
        self._labels = samples.labels
        self._id_hashes = hash_sample_ids(samples.sample_ids)
        self._source = open_source(samples, device, data_in)
        self._class_targets = torch.eye(len(spec.dataset.classes), dtype=torch.float32, device=device)
        self._buffers = BufferPool()
        self._mean_std: tuple[Tensor, Tensor] | None = None
        if spec.normalisation is not None:
            mean, std = (self._class_targets.new_tensor(values).view(-1, 1, 1) for values in spec.normalisation)
            self._mean_std = mean, std

    def steps(self, rows: np.ndarray) -> int:
        """Returns the number of training batches in an epoch over ``rows``."""
        return self.spec.train.steps_per_epoch(len(rows))

    def samples_in(self, rows: np.ndarray, begin: int, end: int) -> int:
        """Returns the number of samples in the training batches ``begin`` to ``end`` (exclusive) of an epoch."""
        return min(len(rows), end * self.spec.train.batch_size) - begin * self.spec.train.batch_size

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        """Returns the class indices of rows, int64."""
        return np.asarray(self._labels[rows])

    def training_batches(
        self, rows: np.ndarray, epoch: int, *, start: int = 0, cut_mix: bool = True
    ) -> Generator[Batch, None, None]:
        """Yields shuffled, augmented batches of ``rows`` from step ``start`` of ``epoch`` on.

        Args:
            rows: Rows of the cache.
            epoch: Counted from 0.
            start: The first step.
            cut_mix: Apply cut-mix where the experiment has it; without, each sample has one correct class.
        """
        train = self.spec.train
        order = np.random.default_rng([train.seed, epoch, _ORDER]).permutation(rows)
        steps = range(start, self.steps(rows))
        batches = [order[step * train.batch_size : (step + 1) * train.batch_size] for step in steps]
        augmentations = [one for one in train.event_augmentation if cut_mix or not isinstance(one, CutMix)]
        return self._load(batches, epoch, augmentations)

    def evaluation_batches(self, rows: np.ndarray) -> Generator[Batch, None, None]:
        """Yields batches of ``rows`` in order, without augmentation."""
        size = self.spec.train.batch_size
        return self._load([rows[i : i + size] for i in range(0, len(rows), size)], None, [])

    def _load(
        self, batches: Sequence[np.ndarray], epoch: int | None, augmentations: Sequence[EventAugmentation]
    ) -> Generator[Batch, None, None]:
        """Yields this rank's shard of each of ``batches``, augmented as in ``epoch``; None: not augmented."""
        shards = [self.ranks.shard(rows) for rows in batches]
        mix = next((one for one in augmentations if isinstance(one, CutMix)), None)
        if mix is not None:
            # the partner of a sample is the next one of the global batch: that of the last one may be another rank's
            partners = [self.ranks.shard(np.roll(rows, -1)) for rows in batches]
            shards = [np.append(rows, partner[-1:]) for rows, partner in zip(shards, partners, strict=True)]
        # computed for all batches at once: on a GPU a small operation costs as much as a large one
        rows = np.concatenate([*shards, np.empty(0, np.int64)])
        seed, id_hashes = self.spec.train.seed, self._id_hashes[rows]
        labels, ids = (to_device(values, self.device) for values in (self._labels[rows], id_hashes))
        dropout_keys = hash_keys(seed, epoch or 0, ids, _DROPOUT)
        augment_keys = dropout_keys if epoch is None else hash_keys(seed, epoch, ids, _AUGMENT)
        sizes = [len(shard) for shard in shards]
        parts = [torch.split(values, sizes) for values in (labels, dropout_keys, augment_keys)]
        cut_areas: Sequence[Tensor | None] = [None] * len(shards)
        if mix is not None and epoch is not None:
            areas = draw_cut_areas(hash_keys(seed, epoch, torch.from_numpy(id_hashes), _CUT_MIX), mix.alpha)
            cut_areas = torch.split(to_device(areas.numpy(), self.device), sizes)
        with closing(self._source.stream(shards)) as stream:
            for batch, raw, own_labels, keys, own_keys, areas in zip(batches, stream, *parts, cut_areas, strict=True):
                x, targets = self._to_float(raw), self._class_targets[own_labels]
                if epoch is not None:
                    x, targets = self._augment(x, targets, own_keys, augmentations, areas)
                if self._mean_std is not None:
                    mean, std = self._mean_std
                    x = x.sub_(mean).div_(std)
                n = len(x)  # without the partner of the last one
                yield Batch(x, own_labels[:n], targets, keys[:n], len(batch))

    def _augment(
        self,
        x: Tensor,
        targets: Tensor,
        keys: Tensor,
        augmentations: Sequence[EventAugmentation],
        cut_areas: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.spec.dataset.kind == "images":
            return augment_images(x, keys, self.spec.train.augmentation), targets
        cut_areas = None if cut_areas is None else cut_areas[:-1]
        return augment_events(x, targets, keys, augmentations, cut_areas)

    def _to_float(self, raw: Tensor) -> Tensor:
        """Returns event counts as they are, and pixels scaled to 0…1."""
        if raw.device.type == "cpu":
            x = self._buffers.take(tuple(raw.shape), np.dtype(np.float32)).copy_(raw)
        else:
            x = raw.to(torch.float32)
        return x.div_(255) if self.spec.dataset.kind == "images" else x
