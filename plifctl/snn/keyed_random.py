"""Counter-based random numbers: a function of integer keys, with no state, the same on every device.

The numbers of a sample depend only on its key, not on batch, process or order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hash_keys(*parts: Tensor | int) -> Tensor:
    """Mixes integers into 64-bit keys (SplitMix64's finaliser after each part).

    Args:
        parts: Integers, or int64 tensors that broadcast against each other.

    Returns:
        int64 tensor of the broadcast shape.
    """
    key = torch.zeros((), dtype=torch.int64)
    for part in parts:  # a scalar moves to the device of the key, never the other way round: no wait for a GPU
        key = _mix(key + part - 7046029254386353131)  # 0x9E3779B97F4A7C15 as int64
    return key


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9 as int64
    z = (z ^ _shift_right(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift; that of int64 is arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def uniform(keys: Tensor) -> Tensor:
    """Returns float32 numbers in [0, 1), uniform if the keys come from :func:`hash_keys`."""
    return _shift_right(keys, 40).to(torch.float32) * 2.0**-24


def held_dropout_mask(keys: Tensor, features: int, p: float) -> Tensor:
    """Returns a dropout mask for each sample, to be held over all time steps: 0 or 1/(1 − p).

    Args:
        keys: int64 ``[N]``, one per sample; equal keys give equal masks, on any device and in any batch.
        features: Number of features masked.
        p: Probability of dropping, rounded to a multiple of 2⁻¹⁶.

    Returns:
        float32 ``[N, features]``.

    Source: the authors' code draws one mask per sample and holds it over T.
    """
    return (_int16(keys, features) >= round(p * 2**16) - 2**15).to(torch.float32) / (1.0 - p)


def small_integers(keys: Tensor, limits: Tensor) -> Tensor:
    """Returns integers from 0 to a limit − 1, each as likely as the others to 2⁻¹⁶.

    Args:
        keys: int64 ``[N]``, one per sample.
        limits: int32 ``[N, ...]``; 0 gives 0. Above 2¹⁶ not every integer is drawn.

    Returns:
        int32, the shape of ``limits``.
    """
    numbers = _int16(keys, limits.shape[1:].numel()).to(torch.int64) + 2**15  # products of 16 and 32 bits
    return ((numbers.view(limits.shape) * limits) >> 16).to(torch.int32)


def _int16(keys: Tensor, count: int) -> Tensor:
    """Returns ``count`` uniform numbers from each key, int16 ``[N, count]``."""
    words = torch.arange(-(-count // 4), dtype=torch.int64, device=keys.device)
    return hash_keys(keys[:, None], words).view(torch.int16)[:, :count]  # four numbers in a word
