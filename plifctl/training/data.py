"""Batches: which samples, in which order, augmented how. All of it follows from (seed, epoch, row)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.snn.functional import hash_keys, uniform
from plifctl.specs import ExperimentSpec, TrainSpec
from plifctl.training.samples import Buffers, Place, Samples, open_source

_ORDER, _DROPOUT, _AUGMENT = 1, 2, 3  # what a random number is for: part of its key


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
    """Makes batches of one experiment's samples. A batch stays as it is for as long as anybody has it.

    Args:
        samples: The cache.
        spec: The experiment: batch size, seed, augmentation, normalisation.
        device: Where batches go.
        data_in: Where the samples are held meanwhile; batches are the same, bit for bit.

    Raises:
        OutOfMemoryError: They do not fit there.
    """

    def __init__(
        self, samples: Samples, spec: ExperimentSpec, device: torch.device, *, data_in: Place = "disk"
    ) -> None:
        self.spec, self.device = spec, device
        self._labels = samples.labels
        self._source = open_source(samples, device, data_in)
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

    def training(self, rows: np.ndarray, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yields shuffled, augmented batches of ``rows`` from step ``start`` of ``epoch`` on."""
        train = self.spec.train
        order = np.random.default_rng([train.seed, epoch, _ORDER]).permutation(rows)
        steps = range(start, self.steps(rows))
        chosen = [order[step * train.batch_size : (step + 1) * train.batch_size] for step in steps]
        return self._batches(chosen, epoch, augmentation=train.augmentation)

    def plain(self, rows: np.ndarray) -> Iterator[Batch]:
        """Yields batches of ``rows`` in order, as they are."""
        size = self.spec.train.batch_size
        return self._batches([rows[i : i + size] for i in range(0, len(rows), size)], 0, augmentation="none")

    def _batches(self, chosen: Sequence[np.ndarray], epoch: int, *, augmentation: str) -> Iterator[Batch]:
        with closing(self._source.stream(chosen)) as stream:
            for rows, raw in zip(chosen, stream, strict=True):
                yield self._batch(raw, rows, epoch, augmentation=augmentation)

    def _batch(self, raw: Tensor, rows: np.ndarray, epoch: int, *, augmentation: str) -> Batch:
        x = self._float(raw)
        identity = torch.from_numpy(rows).to(self.device)
        seed = self.spec.train.seed
        if self.spec.dataset.kind == "images":
            x = augment(x.div_(255), hash_keys(seed, epoch, identity, _AUGMENT), augmentation)
        if self._normalise is not None:
            mean, std = self._normalise
            x = x.sub_(mean).div_(std)
        labels = torch.from_numpy(self._labels[rows]).to(self.device)
        return Batch(x, labels, hash_keys(seed, epoch, identity, _DROPOUT))

    def _float(self, raw: Tensor) -> Tensor:
        if raw.device.type == "cpu":
            return self._buffers.take(tuple(raw.shape), np.dtype(np.float32)).copy_(raw)
        return raw.to(torch.float32)


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
