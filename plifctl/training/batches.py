"""Batches: which samples, in which order, augmented how.

The order follows from (seed, epoch, rows), what is drawn for a sample from (seed, epoch, sample id).
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
from plifctl.config.training import TrainSpec
from plifctl.snn.functional import hash_keys
from plifctl.training.augmentation import augment_events, augment_images
from plifctl.training.distributed import Ranks
from plifctl.training.sample_store import Buffers, Samples, open_source, sent

_ORDER, _DROPOUT, _AUGMENT = 1, 2, 3  # what a random number is for: part of its key


@dataclass(frozen=True)
class Batch:
    """Some samples on the device.

    Attributes:
        x: float32, event frames ``[N, T, P, H, W]`` or images ``[N, C, H, W]``.
        labels: int64 ``[N]``.
        targets: float32 ``[N, classes]``, what the loss compares with: 1 for the right class, or cut-mix's two.
        keys: int64 ``[N]``, what the samples' dropout masks are drawn from.
        whole: Number of samples of the batch that this is a rank's share of; N where there is one rank.
    """

    x: Tensor
    labels: Tensor
    targets: Tensor
    keys: Tensor
    whole: int


def steps_per_epoch(samples: int, train: TrainSpec) -> int:
    """Returns the number of training batches in an epoch; fewer samples than a batch still make one."""
    whole, rest = divmod(samples, train.batch_size)
    return whole if train.drop_last and whole else whole + bool(rest)


def identities(sample_ids: Sequence[str]) -> np.ndarray:
    """Returns a number for each sample that follows from its id alone, int64 ``[N]``: the first 64 bits of BLAKE2b."""
    names = (name.encode("utf-8", "surrogateescape") for name in sample_ids)
    return np.frombuffer(b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names), "<i8").astype(
        np.int64
    )


class BatchLoader:
    """Makes batches of one experiment's samples. A batch stays as it is for as long as anybody has it.

    Args:
        samples: The cache.
        spec: The experiment: batch size, seed, augmentation, normalisation.
        device: Where batches go.
        data_in: Where the samples are held meanwhile; batches are the same, bit for bit.
        ranks: The processes that share each batch; N is this one's share.

    Raises:
        OutOfMemoryError: They do not fit there.
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
        self._identities = identities(samples.sample_ids)
        self._source = open_source(samples, device, data_in)
        self._targets = torch.eye(len(spec.dataset.classes), device=device)  # of each class
        self._buffers = Buffers()
        self._normalise: tuple[Tensor, Tensor] | None = None
        if spec.train.normalise == "per-set":
            assert spec.dataset.mean is not None
            assert spec.dataset.std is not None
            mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (spec.dataset.mean, spec.dataset.std))
            self._normalise = mean, std

    def steps(self, rows: np.ndarray) -> int:
        """Number of training batches in an epoch over ``rows``."""
        return steps_per_epoch(len(rows), self.spec.train)

    def samples_in(self, rows: np.ndarray, begin: int, end: int) -> int:
        """Number of samples in the training batches ``begin`` to ``end`` (without it) of an epoch over ``rows``."""
        return min(len(rows), end * self.spec.train.batch_size) - begin * self.spec.train.batch_size

    def training(
        self, rows: np.ndarray, epoch: int, *, start: int = 0, mixed: bool = True
    ) -> Generator[Batch, None, None]:
        """Yields shuffled, augmented batches of ``rows`` from step ``start`` of ``epoch`` on.

        Args:
            rows: Of the cache.
            epoch: Counted from 0.
            start: The first step.
            mixed: With cut-mix where the experiment has it; what is to be told right or wrong is one sample.
        """
        train = self.spec.train
        order = np.random.default_rng([train.seed, epoch, _ORDER]).permutation(rows)
        steps = range(start, self.steps(rows))
        chosen = [order[step * train.batch_size : (step + 1) * train.batch_size] for step in steps]
        return self._batches(chosen, epoch, mixed=mixed)

    def plain(self, rows: np.ndarray) -> Generator[Batch, None, None]:
        """Yields batches of ``rows`` in order, as they are."""
        size = self.spec.train.batch_size
        return self._batches([rows[i : i + size] for i in range(0, len(rows), size)], None)

    def _batches(
        self, chosen: Sequence[np.ndarray], epoch: int | None, *, mixed: bool = False
    ) -> Generator[Batch, None, None]:
        """Yields this rank's share of each of ``chosen``, augmented as in ``epoch``; None: as they are."""
        shares = [self.ranks.share(rows) for rows in chosen]
        events = [one for one in self.spec.train.event_augmentation if mixed or not isinstance(one, CutMix)]
        if epoch is not None and any(isinstance(one, CutMix) for one in events):
            # each sample's partner is the next of the whole batch, so the last one's may be another rank's
            partners = [self.ranks.share(np.roll(rows, -1)) for rows in chosen]
            shares = [np.append(rows, partner[-1:]) for rows, partner in zip(shares, partners, strict=True)]
        everyone = np.concatenate([*shares, np.empty(0, np.int64)])
        labels, identity = (sent(values[everyone], self.device) for values in (self._labels, self._identities))
        dropout = hash_keys(self.spec.train.seed, epoch or 0, identity, _DROPOUT)
        augment = dropout if epoch is None else hash_keys(self.spec.train.seed, epoch, identity, _AUGMENT)
        # of all batches at once: on a GPU a small operation costs as much as a large one
        sizes = [len(rows) for rows in shares]
        parts = [torch.split(of_all, sizes) for of_all in (labels, dropout, augment)]
        with closing(self._source.stream(shares)) as stream:
            for whole, raw, own, keys, drawn in zip(chosen, stream, *parts, strict=True):
                x, targets = self._float(raw), self._targets[own]
                if epoch is not None:
                    x, targets = self._augmented(x, targets, drawn, events)
                if self._normalise is not None:
                    mean, std = self._normalise
                    x = x.sub_(mean).div_(std)
                n = len(x)  # without the last one's partner
                yield Batch(x, own[:n], targets, keys[:n], len(whole))

    def _augmented(
        self, x: Tensor, targets: Tensor, keys: Tensor, events: Sequence[EventAugmentation]
    ) -> tuple[Tensor, Tensor]:
        if self.spec.dataset.kind == "images":
            return augment_images(x, keys, self.spec.train.augmentation), targets
        return augment_events(x, targets, keys, events)

    def _float(self, raw: Tensor) -> Tensor:
        """Event counts as they are, pixels from 0 to 1."""
        if raw.device.type == "cpu":
            x = self._buffers.take(tuple(raw.shape), np.dtype(np.float32)).copy_(raw)
        else:
            x = raw.to(torch.float32)
        return x.div_(255) if self.spec.dataset.kind == "images" else x
