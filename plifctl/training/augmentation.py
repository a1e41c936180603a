"""Augmentation of training batches on the device: each sample by its own key, whatever batch it is in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.config.augmentation import CutMix, EventAugmentation, Flip, Roll, Rotate
from plifctl.snn.functional import hash_keys, uniform

_TRIES = 16
"""Of the rejection that gamma numbers are drawn by: each is taken with 95 % at least, so all fail once in 10²⁰."""


def augment_images(images: Tensor, keys: Tensor, kind: str) -> Tensor:
    """Augments images, each by its own key.

    Args:
        images: ``[N, C, H, W]``; what moves in from outside is 0.
        keys: int64 ``[N]``.
        kind: A choice of ``train.augmentation``.

    Source: supplement E (``flip-crop``), the published MNIST script (``affine``).
    """
    if kind == "none" or not len(images):
        return images
    u = _draw(keys, 5)
    return _flip_crop(images, u) if kind == "flip-crop" else _affine(images, u)


def augment_events(
    frames: Tensor, targets: Tensor, keys: Tensor, augmentations: Sequence[EventAugmentation]
) -> tuple[Tensor, Tensor]:
    """Augments event frames, one augmentation after the other, all T frames of a sample alike.

    Args:
        frames: ``[N, T, P, H, W]``; with cut-mix ``[N + 1, …]``, the last sample being there as a partner only.
        targets: ``[N, classes]``, or of ``N + 1``.
        keys: int64 ``[N]``, or of ``N + 1``.
        augmentations: What is done, in this order; cut-mix once at most.

    Returns:
        Frames and targets of the N samples.
    """
    for place, augmentation in enumerate(augmentations):
        own = hash_keys(keys, place)
        match augmentation:
            case Flip():
                flips = _draw(own, 1)[:, 0] < augmentation.p
                frames = torch.where(flips.view(-1, 1, 1, 1, 1), frames.flip(-1), frames)
            case Roll():
                shifts = (_draw(own, 2) * (2 * augmentation.pixels + 1)).to(torch.int64) - augmentation.pixels
                frames = _roll(frames, shifts)
            case Rotate():
                angle = (2 * _draw(own, 1)[:, 0] - 1) * math.radians(augmentation.degrees)
                frames = _transform(frames, angle, torch.ones_like(angle), torch.zeros_like(angle).expand(2, -1).T)
            case CutMix():
                frames, targets = _cut_mix(frames, targets, own[:-1], augmentation)
                keys = keys[:-1]
    return frames, targets


def _draw(keys: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1), float64 ``[N, *shape]``: rounding them later never depends on the place in the batch."""
    indices = torch.arange(math.prod(shape), device=keys.device)
    return uniform(hash_keys(keys[:, None], indices)).to(torch.float64).view(-1, *shape)


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
    """Scales by 0.85 to 1.11, rotates by ±30°, shifts y and x by ±15 % of the size, in whole pixels.

    Source: ``torchvision.transforms.RandomAffine(30, translate=(0.15, 0.15), scale=(0.85, 1.11))``.
    """
    angle = (2 * u[:, 0] - 1) * math.radians(30)
    shifts = [((2 * u[:, axis] - 1) * 0.15 * images.shape[axis + 1]).round() for axis in (1, 2)]
    return _transform(images, angle, 0.85 + u[:, 3] * (1.11 - 0.85), torch.stack(shifts, 1))


def _transform(x: Tensor, angle: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scales and turns about the middle, then shifts; each pixel is the nearest one of ``x``, 0 from outside.

    Args:
        x: ``[N, …, H, W]``.
        angle: Clockwise as one looks at a picture with y downwards, radians, float64 ``[N]``.
        scale: float64 ``[N]``.
        shift: Of y and x, pixels, float64 ``[N, 2]``.
    """
    height, width = x.shape[-2:]
    middle = (height - 1) / 2, (width - 1) / 2
    y, x_ = (torch.arange(n, dtype=torch.float64, device=x.device) for n in (height, width))
    down = (y - middle[0] - shift[:, :1])[:, :, None]
    right = (x_ - middle[1] - shift[:, 1:])[:, None, :]
    cos, sin = (angle.cos() / scale)[:, None, None], (angle.sin() / scale)[:, None, None]
    # half a pixel more and rounded down: the nearest, as Pillow has it
    rows = (cos * down - sin * right + (middle[0] + 0.5)).floor().to(torch.int64)
    columns = (sin * down + cos * right + (middle[1] + 0.5)).floor().to(torch.int64)
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    found = _take(x, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return found.masked_fill_(outside.view(len(x), *(1,) * (x.dim() - 3), height, width), 0)


def _roll(frames: Tensor, shifts: Tensor) -> Tensor:
    height, width = frames.shape[-2:]
    rows = (torch.arange(height, device=frames.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=frames.device) - shifts[:, 1:]) % width
    return _take(frames, rows[:, :, None], columns[:, None, :])


def _take(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Of ``[N, …, H, W]`` the pixels at ``rows`` and ``columns``, which broadcast to ``[N, H, W]``."""
    flat = x.reshape(len(x), math.prod(x.shape[1:-2]), x.shape[-2] * x.shape[-1])
    index = (rows * x.shape[-1] + columns).flatten(1)[:, None, :].expand_as(flat)
    return flat.gather(2, index).view(x.shape)


def _cut_mix(frames: Tensor, targets: Tensor, keys: Tensor, spec: CutMix) -> tuple[Tensor, Tensor]:
    height, width = frames.shape[-2:]
    u = _draw(hash_keys(keys, 0), 3)
    side = torch.where(u[:, 0] < spec.p, (1 - _beta(hash_keys(keys, 1), spec.alpha)).sqrt(), 0)
    inside_y, inside_x = (
        _span(n, (n * side).to(torch.int64) // 2, (u[:, axis] * n).to(torch.int64))
        for axis, n in ((1, height), (2, width))
    )
    inside = inside_y[:, :, None] & inside_x[:, None, :]
    share = (inside.sum((1, 2)).to(targets.dtype) / (height * width))[:, None]
    mixed = torch.where(inside[:, None, None], frames[1:], frames[:-1])
    return mixed, (1 - share) * targets[:-1] + share * targets[1:]


def _span(n: int, half: Tensor, middle: Tensor) -> Tensor:
    """Which of n pixels lie less than ``half`` from ``middle``, bool ``[N, n]``: 2 · half of them or fewer."""
    pixels = torch.arange(n, device=half.device)
    return (pixels >= (middle - half)[:, None]) & (pixels < (middle + half)[:, None])


def _beta(keys: Tensor, alpha: float) -> Tensor:
    """Numbers of the distribution Beta(α, α), float64 ``[N]``: X/(X + Y) of two gamma numbers."""
    return (_log_gamma_number(hash_keys(keys, 0), alpha) - _log_gamma_number(hash_keys(keys, 1), alpha)).sigmoid()


def _log_gamma_number(keys: Tensor, alpha: float) -> Tensor:
    """The logarithm (of small α the number itself is too small) of numbers of Gamma(α, 1), float64 ``[N]``.

    Source: G. Marsaglia, W. W. Tsang, A Simple Method for Generating Gamma Variables, 2000; for α < 1 its section 6.
    """
    d = alpha + (1 if alpha < 1 else 0) - 1 / 3
    u = 1 - _draw(hash_keys(keys, 0), _TRIES, 3)  # above 0
    normal = (-2 * u[..., 0].log()).sqrt() * (2 * math.pi * u[..., 1]).cos()
    v = (1 + normal / math.sqrt(9 * d)) ** 3
    log_v = v.clamp(min=1e-300).log()
    taken = (v > 0) & (u[..., 2].log() < normal.square() / 2 + d - d * v + d * log_v)
    first = taken.to(torch.uint8).argmax(1, keepdim=True)
    found = math.log(d) + log_v.gather(1, first)[:, 0]
    return found + (1 - _draw(hash_keys(keys, 1), 1)[:, 0]).log() / alpha if alpha < 1 else found
