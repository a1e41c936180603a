"""Layers over sequences ``[T, N, ...]``; only batch norm keeps anything of a batch, its running statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.snn.collectives import summed, world_size


def per_image(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer of images ``[N, ...]`` to a sequence ``[T, N, ...]``."""
    y = layer(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


def _channels_last(images: Tensor) -> Tensor:
    """What the fused kernels work on; convolutions are as fast in it, those of few channels faster."""
    return images.contiguous(memory_format=torch.channels_last)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of sequences ``[T, N, C, H, W]``; the statistics of a batch are those of all processes.

    Args:
        channels: C.
        per_step: Take the statistics at each time step over N, H, W and update the running ones T times, as the
            published code does; else once over T, N, H, W.
    """

    def __init__(self, channels: int, *, per_step: bool) -> None:
        super().__init__(channels)
        self.per_step = per_step

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x``; in evaluation by the running statistics.

        In training by plain operations: on the CPU torch's own batch norm has wrong gradients for a single image if its
        channels are last and the gradient's are not, or the other way round; and its synchronised one does not serve
        every kind of process group.
        """
        if not self.training:
            return per_image(super().forward, x)
        step_mean = x.mean((1, 3, 4)).nan_to_num()  # of no sample: a small batch may not reach all processes
        step_square = (x - step_mean[:, None, :, None, None]).square().sum((1, 3, 4))
        mean, variance, values = combined_moments(step_mean, step_square, x[0, :, 0].numel(), per_step=self.per_step)
        self.track(mean, variance, values)
        scale = (variance + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        return x * scale[:, None, :, None, None] + shift[:, None, :, None, None]

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor, values: float) -> None:
        """Moves the running statistics by one batch, as often as it has steps.

        Args:
            mean: ``[T or 1, C]``.
            variance: The same, over ``values`` values.
            values: Their number.

        Raises:
            ValueError: One value has no variance.
        """
        if values < 2:
            raise ValueError("Expected more than 1 value per channel when training")
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        steps, keep = len(mean), 1 - self.momentum
        weights = self.momentum * keep ** torch.arange(steps - 1, -1, -1, dtype=mean.dtype, device=mean.device)
        for running, batch in ((self.running_mean, mean), (self.running_var, variance * (values / (values - 1)))):
            running.copy_(keep**steps * running + weights @ batch)
        self.num_batches_tracked += steps


def combined_moments(mean: Tensor, square: Tensor, values: int, *, per_step: bool) -> tuple[Tensor, Tensor, float]:
    """Returns mean and variance over all processes, and over time or not; and of how many values they are.

    Args:
        mean: Of each channel at each step in this process, ``[T, C]``.
        square: Sum of squared deviations from it, the same.
        values: Of how many values at each step.
        per_step: Leave the steps apart, ``[T, C]``; else ``[1, C]``.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque 1983, the parallel form of the two-pass algorithm.
    """

    def all_of(part: Tensor) -> Tensor:
        return summed(part if per_step else part.sum(0, keepdim=True))

    total = float(values if per_step else values * len(mean))
    if world_size() > 1:  # one process alone does not wait for its device
        total = float(summed(mean.new_tensor(total, dtype=torch.float64)))
    whole_mean = all_of(values * mean) / total
    return whole_mean, all_of(square + values * (mean - whole_mean).square()) / total, total


class Conv(nn.Conv2d):
    """Convolution, padded to keep the size at stride 1."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, *, bias: bool = False) -> None:
        super().__init__(channels_in, channels, kernel, stride, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[T, N, C, H, W]`` to ``[T, N, C', H', W']``, in memory with the channels last."""
        return per_image(lambda images: super(Conv, self).forward(_channels_last(images)), x)


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
    """Dropout whose mask is drawn once a sample and held over all time steps: ``kernels.held_dropout`` does it."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"
