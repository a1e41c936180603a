"""Stateless layers over sequences ``[T, N, ...]``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.snn.functional import held_dropout_mask


def per_image(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer of images ``[N, ...]`` to a sequence ``[T, N, ...]``."""
    y = layer(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of sequences ``[T, N, C, H, W]``.

    Args:
        channels: C.
        per_step: Take the statistics at each time step over N, H, W and update the running ones T times, as the
            published code does; else once over T, N, H, W.
    """

    def __init__(self, channels: int, *, per_step: bool) -> None:
        super().__init__(channels)
        self.per_step = per_step

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x``; in evaluation by the running statistics."""
        if self.training and self.per_step:
            return torch.stack([super(BatchNorm, self).forward(x_t) for x_t in x])
        return per_image(super().forward, x)


class Conv(nn.Conv2d):
    """Convolution without bias, padded to keep the size at stride 1."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[T, N, C, H, W]`` to ``[T, N, C', H', W']``."""
        return per_image(super().forward, x)


class Pool(nn.Module):
    """Max or average pooling; on spikes the maximum keeps them binary (Sec. 3.6)."""

    def __init__(self, mode: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.mode, self.kernel, self.stride = mode, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[T, N, C, H, W]`` to ``[T, N, C, H', W']``."""
        pool = F.max_pool2d if self.mode == "max" else F.avg_pool2d
        return per_image(lambda images: pool(images, self.kernel, self.stride), x)

    def extra_repr(self) -> str:
        return f"{self.mode}, kernel={self.kernel}, stride={self.stride}"


class Dropout(nn.Module):
    """Dropout whose mask is drawn once a sample and held over all time steps."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """Drops features of ``[T, N, ...]`` by the sample keys ``[N]`` (int64); does nothing in evaluation."""
        if not self.training or self.p == 0:
            return x
        mask = held_dropout_mask(keys, x[0, 0].numel(), self.p).view(x.shape[1:])
        return x * mask.to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"
