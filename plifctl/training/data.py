"""Batches: which samples, in which order, augmented how. All of it follows from (seed, epoch, row)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.snn.functional import hash_keys, uniform
from plifctl.specs import ExperimentSpec, TrainSpec

HOLD_BYTES = 2 * 2**30
"""Samples of a cache up to this size are held in memory."""

_ORDER, _DROPOUT, _AUGMENT = 1, 2, 3  # what a random number is for: part of its key


class Samples(Protocol):
    """What training needs of a cache."""

    labels: np.ndarray
    nbytes: int

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the samples of ``rows``, unsigned integers ``[n, ...]``."""
        ...


class _Held:
    """Samples kept in memory, read once."""

    def __init__(self, samples: Samples) -> None:
        self.labels, self.nbytes = samples.labels, samples.nbytes
        self._all: np.ndarray = samples.read(np.arange(len(samples.labels)))

    def read(self, rows: np.ndarray) -> np.ndarray:
        held: np.ndarray = self._all[rows]
        return held


@dataclass(frozen=True)
class Batch:
    """Some samples on the device.

    Attributes:
        x: float32, event frames ``[N, T, P, H, W]`` or images ``[N, C, H, W]``.
        labels: int64 ``[N]``.
        keys: int64 ``[N]``, what the samples' dropout masks are drawn from.
    """

    x: Tensor
    labels: Tensor
    keys: Tensor


def steps_per_epoch(samples: int, train: TrainSpec) -> int:
    """Returns the number of training batches in an epoch; fewer samples than a batch still make one."""
    whole, rest = divmod(samples, train.batch_size)
    return whole if train.drop_last and whole else whole + bool(rest)


class Feeder:
    """Makes batches of one experiment's samples.

    Args:
        samples: The cache.
        spec: The experiment: batch size, seed, augmentation, normalisation.
        device: Where batches go.
    """

    def __init__(self, samples: Samples, spec: ExperimentSpec, device: torch.device) -> None:
        self.samples = _Held(samples) if samples.nbytes <= HOLD_BYTES else samples
        self.spec, self.device = spec, device

    def steps(self, rows: np.ndarray) -> int:
        """Number of training batches in an epoch over ``rows``."""
        return steps_per_epoch(len(rows), self.spec.train)

    def training(self, rows: np.ndarray, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yields shuffled, augmented batches of ``rows`` from step ``start`` of ``epoch`` on."""
        train = self.spec.train
        order = np.random.default_rng([train.seed, epoch, _ORDER]).permutation(rows)
        for step in range(start, self.steps(rows)):
            chosen = order[step * train.batch_size : (step + 1) * train.batch_size]
            yield self._batch(chosen, epoch, augmentation=train.augmentation)

    def plain(self, rows: np.ndarray) -> Iterator[Batch]:
        """Yields batches of ``rows`` in order, as they are."""
        for start in range(0, len(rows), self.spec.train.batch_size):
            yield self._batch(rows[start : start + self.spec.train.batch_size], 0, augmentation="none")

    def _batch(self, rows: np.ndarray, epoch: int, *, augmentation: str) -> Batch:
        raw = np.ascontiguousarray(self.samples.read(rows))
        x = torch.from_numpy(raw).to(self.device).to(torch.float32)
        identity = torch.from_numpy(rows).to(self.device)
        seed = self.spec.train.seed
        if self.spec.dataset.kind == "images":
            x = augment(x / 255, hash_keys(seed, epoch, identity, _AUGMENT), augmentation)
        if self.spec.train.normalise == "per-set":
            assert self.spec.dataset.mean is not None
            assert self.spec.dataset.std is not None
            channels = (-1, 1, 1)
            mean = torch.tensor(self.spec.dataset.mean, device=self.device).view(channels)
            x = (x - mean) / torch.tensor(self.spec.dataset.std, device=self.device).view(channels)
        labels = torch.from_numpy(self.samples.labels[rows]).to(self.device)
        return Batch(x, labels, hash_keys(seed, epoch, identity, _DROPOUT))


def augment(images: Tensor, keys: Tensor, kind: str) -> Tensor:
    """Augments images, each by its own key.

    Args:
        images: ``[N, C, H, W]``; what moves in from outside is 0.
        keys: int64 ``[N]``.
        kind: A choice of ``train.augmentation``.

    Source: supplement E (``flip-crop``), the published MNIST script (``affine``).
    """
    if kind == "none" or not len(images):
        return images
    u = uniform(hash_keys(keys[:, None], torch.arange(5, device=keys.device)))
    return _flip_crop(images, u) if kind == "flip-crop" else _affine(images, u)


def _flip_crop(images: Tensor, u: Tensor, padding: int = 4) -> Tensor:
    """Flips horizontally with probability 1/2, then crops back to size after padding."""
    flipped = torch.where(u[:, 0, None, None, None] < 0.5, images.flip(-1), images)
    padded = F.pad(flipped, (padding,) * 4)
    height, width = images.shape[-2:]
    top, left = (u[:, 1:3] * (2 * padding + 1)).to(torch.int64).unbind(1)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    cropped: Tensor = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def _affine(images: Tensor, u: Tensor) -> Tensor:
    """Rotates by ±30°, shifts by ±15 % of the size, scales by 0.85 to 1.11; nearest neighbour."""
    angle = (2 * u[:, 0] - 1) * math.radians(30)
    shift = 2 * (2 * u[:, 1:3] - 1) * 0.15  # the grid runs from −1 to 1
    scale = 0.85 + u[:, 3] * (1.11 - 0.85)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    inverse = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    theta = torch.cat([inverse, -inverse @ shift[:, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)
