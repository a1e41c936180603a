"""Layers over sequences ``[T, N, ...]``; only batch norm has state, its running statistics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.config.choices import Pooling
from plifctl.snn.collectives import all_reduce_sum, world_size


def apply_per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer of images ``[N, ...]`` to every frame of a sequence ``[T, N, ...]``."""
    y = layer(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


def to_channels_last(images: Tensor) -> Tensor:
    """Returns the layout of the fused kernels; convolutions are as fast in it, those of few channels faster."""
    images = images.contiguous(memory_format=torch.channels_last)
    if images.shape[1] != 1:
        return images
    # the memory of one channel is the same in both layouts; torch takes the one that the strides tell
    return images.view(images.shape[0], *images.shape[2:], 1).permute(0, 3, 1, 2)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of sequences ``[T, N, C, H, W]``; the statistics of a batch are those of all processes.

    Args:
        channels: C.
        per_step: Take the statistics at each time step over N, H, W and update the running ones T times, as the
            authors' code does; else once over T, N, H, W.
    """

    def __init__(self, channels: int, *, per_step: bool) -> None:
        super().__init__(channels)
        self.per_step = per_step

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x``; in evaluation mode by the running statistics.

        Wherever gradients are computed these are plain operations: on the CPU torch's own batch norm has wrong
        gradients for a single image if its layout is channels-last and the gradient's is not, or the other way round;
        and torch's synchronised batch norm does not support every kind of process group.
        """
        if x.dtype.itemsize < self.weight.dtype.itemsize:  # half precision overflows in the sum of squares
            x = x.to(self.weight.dtype)
        if not self.training and not torch.is_grad_enabled():
            return apply_per_frame(super().forward, x)
        mean, variance = self._batch_statistics(x) if self.training else self._running_statistics()
        scale = (variance + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        return x * scale[:, None, :, None, None] + shift[:, None, :, None, None]

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and variance of the batch, ``[T or 1, C]``, after updating the running ones by them."""
        step_mean = x.mean((1, 3, 4)).nan_to_num()  # no sample, no mean: a rank's shard of a small batch may be empty
        step_square = (x - step_mean[:, None, :, None, None]).square().sum((1, 3, 4))
        mean, variance, values = combine_moments(step_mean, step_square, x[0, :, 0].numel(), per_step=self.per_step)
        self.update_running_statistics(mean, variance, values)
        return mean, variance

    def _running_statistics(self) -> tuple[Tensor, Tensor]:
        assert self.running_mean is not None
        assert self.running_var is not None
        return self.running_mean[None], self.running_var[None]

    @torch.no_grad()
    def update_running_statistics(self, mean: Tensor, variance: Tensor, values: float) -> None:
        """Updates the running statistics by one batch, once per row.

        Args:
            mean: ``[T or 1, C]``.
            variance: The same shape, over ``values`` values.
            values: Number of values per channel.

        Raises:
            ValueError: One value has no variance.
        """
        if values < 2:
            raise ValueError("Expected more than 1 value per channel when training")
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        kept, weights = self._weights_of_update(mean)
        kind = mean.device.type
        has_autocast = torch.amp.is_autocast_available(kind)  # its products are of half precision
        with torch.autocast(kind, enabled=False) if has_autocast else nullcontext():
            for running, batch in ((self.running_mean, mean), (self.running_var, variance * (values / (values - 1)))):
                running.copy_(kept * running + weights @ batch)
        self.num_batches_tracked += len(mean)

    def _weights_of_update(self, mean: Tensor) -> tuple[float | Tensor, Tensor]:
        """Returns the factor of the running statistics and that of each row of a batch, ``[T or 1]``."""
        steps = len(mean)
        if self.momentum is None:  # the mean over all batches, which torch.optim.swa_utils.update_bn takes
            assert self.num_batches_tracked is not None
            before = self.num_batches_tracked.to(mean.dtype)
            return before / (before + steps), (1 / (before + steps)).expand(steps)
        keep = 1 - self.momentum
        powers = torch.arange(steps - 1, -1, -1, dtype=mean.dtype, device=mean.device)
        return keep**steps, self.momentum * keep**powers


def combine_moments(mean: Tensor, square: Tensor, values: int, *, per_step: bool) -> tuple[Tensor, Tensor, float]:
    """Combines the moments of each step and process into those of a batch.

    Args:
        mean: Mean of each channel at each step in this process, ``[T, C]``.
        square: Sum of squared deviations from ``mean``, ``[T, C]``.
        values: Number of values per channel and step in this process.
        per_step: Keep the steps apart, ``[T, C]``; else ``[1, C]``.

    Returns:
        Mean and variance over all processes, and the number of values that they are taken over.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque 1983, the parallel form of the two-pass algorithm.
    """

    def reduce(part: Tensor) -> Tensor:
        return all_reduce_sum(part if per_step else part.sum(0, keepdim=True))

    total = float(values if per_step else values * len(mean))
    if world_size() > 1:  # a single process does not wait for its device
        total = float(all_reduce_sum(mean.new_tensor(total, dtype=torch.float64)))
    total_mean = reduce(values * mean) / total
    return total_mean, reduce(square + values * (mean - total_mean).square()) / total, total


class Conv(nn.Conv2d):
    """Convolution, padded to keep the size at stride 1."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, *, bias: bool = False) -> None:
        super().__init__(channels_in, channels, kernel, stride, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[T, N, C, H, W]`` to ``[T, N, C', H', W']``, in channels-last memory layout."""
        return apply_per_frame(lambda images: super(Conv, self).forward(to_channels_last(images)), x)


class Linear(nn.Linear):
    """Fully connected layer; the weights of one input feature are contiguous in memory.

    Event-driven products read the weights of active features only. Shape and values are those of torch's layer.
    """

    def __init__(self, features_in: int, features: int, *, bias: bool = False) -> None:
        super().__init__(features_in, features, bias=bias)
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t())


class Pool(nn.Module):
    """Max or average pooling; the maximum keeps spikes binary (Sec. 3.6)."""

    def __init__(self, mode: Pooling, kernel: int, stride: int) -> None:
        super().__init__()
        self.mode, self.kernel, self.stride = mode, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[T, N, C, H, W]`` to ``[T, N, C, H', W']``."""
        pool = F.max_pool2d if self.mode == "max" else F.avg_pool2d
        return apply_per_frame(lambda images: pool(images, self.kernel, self.stride), x)

    def extra_repr(self) -> str:
        return f"{self.mode}, kernel={self.kernel}, stride={self.stride}"


class Dropout(nn.Module):
    """Dropout with one mask per sample, held over all time steps; the network applies ``kernels.held_dropout``."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"
