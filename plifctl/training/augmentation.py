"""Augmentation of training batches on the device: each sample by its own key, in any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.config.augmentation import CutMix, EventAugmentation, Flip, Roll, Rotate
from plifctl.config.choices import Augmentation
from plifctl.snn.keyed_random import hash_keys, uniform

_PADDING = 4
"""Pixels on each side before a crop."""


def augment_images(images: Tensor, keys: Tensor, kind: Augmentation) -> Tensor:
    """Augments images, each by its own key.

    Args:
        images: ``[N, C, H, W]``; pixels from outside the image are 0.
        keys: int64 ``[N]``.
        kind: As in ``train.augmentation``.

    Source: supplement E (``flip-crop``), the authors' MNIST script (``affine``).
    """
    if kind == "none" or not len(images):
        return images
    u = _draw(keys, 5)
    if kind == "affine":
        return _affine(images, u)
    flipped = _flip(images, u)
    return flipped if kind == "flip" else _crop(flipped, u)


def augment_events(
    frames: Tensor,
    targets: Tensor,
    keys: Tensor,
    augmentations: Sequence[EventAugmentation],
    cut_areas: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Applies augmentations to event frames in order; all T frames of a sample are augmented alike.

    Args:
        frames: ``[N, T, P, H, W]``; with cut-mix ``[N + 1, …]``, of which the last sample is a partner only.
        targets: ``[N, classes]``; with cut-mix of ``N + 1``.
        keys: int64 ``[N]``; with cut-mix of ``N + 1``.
        augmentations: At most one of them is cut-mix.
        cut_areas: float64 ``[N]``, from :func:`draw_cut_areas`; required with cut-mix.

    Returns:
        Frames and targets of the N samples.
    """
    for place, augmentation in enumerate(augmentations):
        own_keys = hash_keys(keys, place)
        match augmentation:
            case Flip():
                flips = _draw(own_keys, 1)[:, 0] < augmentation.p
                frames = torch.where(flips.view(-1, 1, 1, 1, 1), frames.flip(-1), frames)
            case Roll():
                shifts = (_draw(own_keys, 2) * (2 * augmentation.pixels + 1)).to(torch.int64) - augmentation.pixels
                frames = _roll(frames, shifts)
            case Rotate():
                angle = (2 * _draw(own_keys, 1)[:, 0] - 1) * math.radians(augmentation.degrees)
                frames = _transform(frames, angle, torch.ones_like(angle), torch.zeros_like(angle).expand(2, -1).T)
            case CutMix():
                assert cut_areas is not None
                frames, targets = _cut_mix(frames, targets, own_keys[:-1], cut_areas, augmentation.p)
                keys = keys[:-1]
    return frames, targets


def draw_cut_areas(keys: Tensor, alpha: float) -> Tensor:
    """Draws the fraction 1 − λ of the frame that cut-mix replaces in each sample, λ from Beta(α, α).

    Each number is the first of a numpy generator with the sample's key; numpy may change it from version to version.

    Args:
        keys: int64 ``[N]``, on the CPU; used for nothing else.
        alpha: α.

    Returns:
        float64 ``[N]``, on the CPU.
    """
    generators = (np.random.Generator(np.random.Philox(key=int(key))) for key in keys.numpy().view(np.uint64))
    lambdas = [generator.beta(alpha, alpha) for generator in generators]
    return 1 - torch.tensor(lambdas, dtype=torch.float64)


def _draw(keys: Tensor, *shape: int) -> Tensor:
    """Draws numbers in [0, 1), float64 ``[N, *shape]``, so that no rounding depends on the place in a batch."""
    indices = torch.arange(math.prod(shape), device=keys.device)
    return uniform(hash_keys(keys[:, None], indices)).to(torch.float64).view(-1, *shape)


def _flip(images: Tensor, u: Tensor) -> Tensor:
    """Flips horizontally with probability 1/2."""
    return torch.where(u[:, 0, None, None, None] < 0.5, images.flip(-1), images)


def _crop(images: Tensor, u: Tensor) -> Tensor:
    """Crops back to size after padding."""
    padded = F.pad(images, (_PADDING,) * 4)
    height, width = images.shape[-2:]
    top, left = (u[:, 1:3] * (2 * _PADDING + 1)).to(torch.int64).unbind(1)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    cropped: Tensor = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def _affine(images: Tensor, u: Tensor) -> Tensor:
    """Scales by 0.85 to 1.11, rotates by ±30°, shifts y and x by ±15 % of the size, in whole pixels.

    Source: ``torchvision.transforms.RandomAffine(30, translate=(0.15, 0.15), scale=(0.85, 1.11))``.
    """
    angle = (2 * u[:, 0] - 1) * math.radians(30)
    shifts = [((2 * u[:, axis] - 1) * 0.15 * images.shape[axis + 1]).round() for axis in (1, 2)]
    return _transform(images, angle, 0.85 + u[:, 3] * (1.11 - 0.85), torch.stack(shifts, 1))


def _transform(x: Tensor, angle: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scales and rotates about the centre, then shifts; samples the nearest pixel, 0 outside.

    Args:
        x: ``[N, …, H, W]``.
        angle: Clockwise in an image with y downwards, radians, float64 ``[N]``.
        scale: float64 ``[N]``.
        shift: Shift of y and x, pixels, float64 ``[N, 2]``.
    """
    height, width = x.shape[-2:]
    centre = (height - 1) / 2, (width - 1) / 2
    y, x_ = (torch.arange(n, dtype=torch.float64, device=x.device) for n in (height, width))
    down = (y - centre[0] - shift[:, :1])[:, :, None]
    right = (x_ - centre[1] - shift[:, 1:])[:, None, :]
    cos, sin = (angle.cos() / scale)[:, None, None], (angle.sin() / scale)[:, None, None]
    # half a pixel more, rounded down: the nearest pixel as Pillow chooses it
    rows = (cos * down - sin * right + (centre[0] + 0.5)).floor().to(torch.int64)
    columns = (sin * down + cos * right + (centre[1] + 0.5)).floor().to(torch.int64)
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    sampled = _gather_pixels(x, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return sampled.masked_fill_(outside.view(len(x), *(1,) * (x.dim() - 3), height, width), 0)


def _roll(frames: Tensor, shifts: Tensor) -> Tensor:
    height, width = frames.shape[-2:]
    rows = (torch.arange(height, device=frames.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=frames.device) - shifts[:, 1:]) % width
    return _gather_pixels(frames, rows[:, :, None], columns[:, None, :])


def _gather_pixels(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Returns the pixels of ``[N, …, H, W]`` at ``rows`` and ``columns``, which broadcast to ``[N, H, W]``."""
    flat = x.reshape(len(x), math.prod(x.shape[1:-2]), x.shape[-2] * x.shape[-1])
    index = (rows * x.shape[-1] + columns).flatten(1)[:, None, :].expand_as(flat)
    return flat.gather(2, index).view(x.shape)


def _cut_mix(frames: Tensor, targets: Tensor, keys: Tensor, areas: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Replaces, with probability ``p``, a rectangle of each sample by the next one's; mixes targets by area."""
    height, width = frames.shape[-2:]
    u = _draw(hash_keys(keys, 0), 3)
    side = torch.where(u[:, 0] < p, areas.sqrt(), 0)
    inside_y, inside_x = (
        _within(n, (n * side).to(torch.int64) // 2, (u[:, axis] * n).to(torch.int64))
        for axis, n in ((1, height), (2, width))
    )
    inside = inside_y[:, :, None] & inside_x[:, None, :]
    share = (inside.sum((1, 2)).to(targets.dtype) / (height * width))[:, None]
    mixed = torch.where(inside[:, None, None], frames[1:], frames[:-1])
    return mixed, (1 - share) * targets[:-1] + share * targets[1:]


def _within(n: int, half: Tensor, centre: Tensor) -> Tensor:
    """Returns which of n pixels are in [centre − half, centre + half), bool ``[N, n]``."""
    pixels = torch.arange(n, device=half.device)
    return (pixels >= (centre - half)[:, None]) & (pixels < (centre + half)[:, None])
