"""Spiking stages together with their convolution, in training on the CPU.

**Few inputs.** Where the input is that of the network, and the patch of an output pixel is small
(:mod:`plifctl.snn.kernels.patches`), backward needs the output once: the gradient of the weights follows from sums over
the gradient of batch norm's output, which are corrected once batch norm's own sums are known.

**Little memory** (``train.memory: compact``). Forward keeps the input of a convolution, spikes as lists or bits, and
backward computes the output again, which is the largest tensor of a stage: the same convolution of the same values
gives the same bits. Its gradient takes its place before the gradient of the weights is computed. Of few inputs, no step
of forward or backward has more than a band of rows: forward computes each once for the sums of batch norm, and once
more with them; the second time begins with the band that is still there.

Sums over bands are those over all rows, in the same order: both memories have the same bits. Statistics of batch norm
are those of forward, so ranks exchange the same sums in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels import cpu, event_driven, patches
from plifctl.snn.kernels.patch_loops import ROWS_OF_ITEM
from plifctl.snn.kernels.stage import (
    NormCoefficients,
    NormStatistics,
    StageConfig,
    StageTensors,
    affine,
    k_of_rows,
    norm_gradients,
    norm_statistics,
    stage_config,
)
from plifctl.snn.layers import BatchNorm, Conv, Pool, to_channels_last

MIN_BAND = 16
"""Fewest rows of a band, if the maps have as many; each band is a call of every loop."""

_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Gradients of input, weights and bias."""


def run_convolution_stage(
    x: Tensor,
    T: int,
    synapses: Conv,
    dynamics: Dynamics,
    norm: BatchNorm | None,
    pooling: Pool | None,
    *,
    few_inputs: bool,
    keep_output: bool,
) -> tuple[Tensor, Tensor, int]:
    """Runs :func:`plifctl.snn.kernels.spiking_stage` in training.

    Args:
        x: Input of the convolution, ``[T or 1, N, C, H, W]``, not empty.
        T: Number of time steps.
        synapses: The convolution.
        dynamics: The neurons.
        norm: Batch norm before them.
        pooling: Pooling of their spikes.
        few_inputs: Whether :func:`plifctl.snn.kernels.patches.pays`.
        keep_output: Keep the output of the convolution, beside its input, for the gradients.

    Returns:
        Pooled spikes, the number of spikes before pooling, and the largest number possible.
    """
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    stage = _StageOptions(
        _convolution_of(x, synapses, few_inputs), x.shape[:2], norm, stage_config(T, dynamics, pooling), keep_output
    )
    k = k_of_rows(dynamics.k, torch.Size((stage.convolution.size[1], synapses.out_channels)), maps=True)
    pooled, count = _Stage.apply(  # type: ignore[no-untyped-call]
        x, synapses.weight, synapses.bias, weight, bias, k, dynamics.v_threshold, dynamics.width, stage
    )
    return (
        pooled.permute(0, 1, 4, 2, 3),
        count,
        T * x.shape[1] * synapses.out_channels * math.prod(stage.convolution.size),
    )


class _Buffer:
    """Memory for the tensors of one band after the other.

    Args:
        like: A tensor of their type.
        rows: Largest number of rows of a band.
    """

    def __init__(self, like: Tensor, rows: int) -> None:
        self._like, self._rows, self._memory = like, rows, like.new_empty(0)

    def tensor(self, shape: Sequence[int]) -> Tensor:
        """Returns a tensor ``[M, rows, W, O]``, not initialised, in place of the one before."""
        size = math.prod(shape)
        if len(self._memory) < size:
            self._memory = cpu.new_maps(self._like, size // shape[1] * self._rows)
        return self._memory[:size].view(*shape)


class _Convolution(Protocol):
    """A convolution with what backward needs of its input.

    Attributes:
        size: Height and width of the output.
    """

    size: tuple[int, int]

    def output(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Returns the output, ``[M, H, W, O]``."""
        ...

    def gradients(self, grad: Tensor, weight: Tensor, needed: list[bool]) -> _Gradients:
        """Returns the gradients from that of the output."""
        ...


def _convolution_of(x: Tensor, layer: Conv, few_inputs: bool) -> _Convolution | _PatchConvolution:
    """Returns the convolution that :func:`plifctl.snn.kernels.apply_synapses` chooses, unless it has few inputs."""
    stride, padding = layer.stride[0], int(layer.padding[0])
    *_, height, width = x.shape
    size = tuple((length + 2 * padding - layer.kernel_size[0]) // stride + 1 for length in (height, width))
    options = _Geometry(stride, padding, (size[0], size[1]))
    if few_inputs:
        return _PatchConvolution(event_driven.to_maps(x), len(x), options)
    images = to_channels_last(x.detach().flatten(0, 1))
    if event_driven.can_be_event_driven(layer.weight):
        active = event_driven.inputs_of_convolution(images, layer)
        if active is not None:
            return _EventDrivenConvolution(active, images.permute(0, 2, 3, 1).shape, options)
    return _DenseConvolution(_pack(images), options)


class _Geometry(NamedTuple):
    stride: int
    padding: int
    size: tuple[int, int]


class _PatchConvolution:
    """See :mod:`plifctl.snn.kernels.patches`; the input has no gradient, and any rows can be computed alone."""

    def __init__(self, maps: Tensor, steps: int, geometry: _Geometry) -> None:
        self._maps, self._steps, (self._stride, self._padding, self.size) = maps, steps, geometry

    def bands(self, window: int) -> list[range]:
        """Returns the parts of the output's rows that are computed alone, each of complete pooling windows."""
        size, height = math.lcm(ROWS_OF_ITEM, window), self.size[0]
        size *= -(-MIN_BAND // size)
        starts = range(0, max(1, height - height % size), size)  # the last band has the rest
        return [range(start, start + size) for start in starts[:-1]] + [range(starts[-1], height)]

    def rows(self, weight: Tensor, bias: Tensor | None, band: range, buffer: _Buffer) -> Tensor:
        """Returns rows of the output, ``[M, rows, W, O]``, in ``buffer``."""
        return patches.convolve(self._maps, weight, bias, self._stride, self._padding, band, buffer.tensor)

    def sum_products(self, grad: Tensor, weight: Tensor, band: range) -> np.ndarray:
        """Returns what the rows of a band contribute to the gradient of the weights; ``grad`` is that of batch norm."""
        return patches.weight_gradient_sums(
            self._maps, grad, weight.shape[2], self._stride, self._padding, band.start, self._steps
        )

    def gradients(
        self,
        products: list[np.ndarray],
        total: Tensor,
        by: NormCoefficients | None,
        weight: Tensor,
        bias: Tensor | None,
    ) -> _Gradients:
        """Returns the gradients from :class:`patches.GradientSums`."""
        sums = patches.GradientSums(patches.join_sums(products, self._steps), total, by)
        by_weight, by_bias = patches.weight_gradients(
            self._maps, sums, weight, bias, self._stride, self._padding, self.size
        )
        return None, by_weight, None if bias is None else by_bias


class _EventDrivenConvolution:
    """See :mod:`plifctl.snn.kernels.event_driven`; keeps where inputs are active, and values that differ."""

    def __init__(self, active: event_driven.ActiveInputs, shape: torch.Size, geometry: _Geometry) -> None:
        self._shape, (self._stride, self._padding, self.size) = shape, geometry
        equal = len(active.values) > 0 and bool((active.values == active.values[0]).all())
        self._value = active.values[0] if equal else None
        self._active = active._replace(values=active.values[:0]) if equal else active

    def output(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        return event_driven.convolve(self._inputs(), weight, bias, self._shape, self._stride, self._padding)

    def gradients(self, grad: Tensor, weight: Tensor, needed: list[bool]) -> _Gradients:
        return event_driven.convolution_gradients(
            self._inputs(), grad, weight, self._shape, self._stride, self._padding, needed
        )

    def _inputs(self) -> event_driven.ActiveInputs:
        if self._value is None:
            return self._active
        return self._active._replace(values=np.full(len(self._active.positions), self._value))


class _DenseConvolution:
    """torch's convolution; keeps the input, packed."""

    def __init__(self, images: _PackedImages, geometry: _Geometry) -> None:
        self._images, (self._stride, self._padding, self.size) = images, geometry

    def output(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(_unpack(self._images), weight, bias, self._stride, self._padding).permute(0, 2, 3, 1)

    def gradients(self, grad: Tensor, weight: Tensor, needed: list[bool]) -> _Gradients:
        found = torch.ops.aten.convolution_backward(
            grad.permute(0, 3, 1, 2), _unpack(self._images), weight,
            [len(weight)] if needed[2] else None, [self._stride] * 2, [self._padding] * 2, [1, 1], False, [0, 0], 1,
            needed,
        )  # fmt: skip
        return found[0], found[1], found[2]


class _PackedImages(NamedTuple):
    """Images whose values are zero or one other, a bit for each value; or the images as they are.

    Attributes:
        stored: Bits in the order of memory, uint8; or the images.
        value: The other value; None where the images are stored.
        shape: ``[M, C, H, W]``.
        stride: Strides of the images.
    """

    stored: Tensor
    value: Tensor | None
    shape: torch.Size
    stride: tuple[int, ...]


def _pack(images: Tensor) -> _PackedImages:
    """Packs channels-last images."""
    active, value = images != 0, images.max()
    if not torch.equal(active, images == value):
        return _PackedImages(images, None, images.shape, images.stride())
    bits = np.packbits(active.permute(0, 2, 3, 1).numpy())
    return _PackedImages(torch.from_numpy(bits), value, images.shape, images.stride())


def _unpack(packed: _PackedImages) -> Tensor:
    if packed.value is None:
        return packed.stored
    active = torch.from_numpy(np.unpackbits(packed.stored.numpy(), count=packed.shape.numel()))
    return active.to(packed.value.dtype).mul_(packed.value).as_strided(packed.shape, packed.stride)


class _StageOptions(NamedTuple):
    """What a stage needs besides tensors with gradients.

    Attributes:
        convolution: The convolution, with its input.
        sequence: Steps and samples of the input.
        norm: Batch norm.
        config: Settings of the neurons and of pooling.
        keep_output: Keep the output of the convolution.
    """

    convolution: _Convolution | _PatchConvolution
    sequence: torch.Size
    norm: BatchNorm | None
    config: StageConfig
    keep_output: bool

    def bands(self) -> list[range]:
        """Returns the parts of the output's rows that are computed one after the other."""
        if isinstance(self.convolution, _PatchConvolution) and not self.keep_output:
            return self.convolution.bands(self.config.window)
        return [range(self.convolution.size[0])]

    def buffer(self, like: Tensor) -> _Buffer:
        """Returns memory for a band."""
        return _Buffer(like, max(map(len, self.bands())))

    def rows(self, weight: Tensor, bias: Tensor | None, band: range, buffer: _Buffer) -> Tensor:
        """Returns rows of the convolution's output, ``[T or 1, N, rows, W, O]``, perhaps in ``buffer``."""
        if isinstance(self.convolution, _PatchConvolution):
            output = self.convolution.rows(weight, bias, band, buffer).contiguous()
        else:
            output = self.convolution.output(weight, bias).contiguous()
        return output.view(*self.sequence, *output.shape[1:])


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        k: Tensor,
        v_threshold: Tensor,
        width: Tensor,
        stage: _StageOptions,
    ) -> tuple[Tensor, Tensor]:
        bands, config, k = stage.bands(), stage.config, k.contiguous()
        rows = _Rows(stage, weight, bias)
        statistics = None if stage.norm is None else _statistics(stage, rows, bands)
        scale, shift = affine(norm_weight, norm_bias, statistics, k[0])
        height, columns = stage.convolution.size
        pooled, window = x.new_empty(0), config.window
        count = torch.zeros((), dtype=torch.float64)
        for band in reversed(bands):
            tensors = StageTensors(rows(band), scale, shift, _rows_of_k(k, columns, band), v_threshold, width)
            part, fired = cpu.forward(tensors, config)
            count += fired
            if len(bands) == 1:
                pooled = part
                continue
            if band is bands[-1]:
                pooled = cpu.new_maps(part, *part.shape[:2], height // window, *part.shape[3:])
            pooled[:, :, band.start // window : band.stop // window] = part
        ctx.save_for_backward(weight, bias, norm_weight, scale, shift, k, v_threshold, width)
        ctx.stage, ctx.statistics, ctx.bands = stage, statistics, bands
        ctx.output = rows(bands[0]) if stage.keep_output else None
        ctx.mark_non_differentiable(count)
        return pooled, count

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        back = _Backward(ctx, grads[0].contiguous())
        ctx.output = None  # freed before the convolution; if the graph is kept, the next backward computes it again
        return (*back.gradients(ctx.bands), None)


class _Rows:
    """The output of a convolution, one band after the other; the last one is not computed again.

    Args:
        stage: The stage.
        weight: Weights of the convolution.
        bias: Its bias.
    """

    def __init__(self, stage: _StageOptions, weight: Tensor, bias: Tensor | None) -> None:
        self._stage, self._weight, self._bias = stage, weight, bias
        self._buffer = stage.buffer(weight)
        self._last: tuple[range, Tensor] | None = None

    def __call__(self, band: range) -> Tensor:
        """Returns rows of the output; those of the band before are overwritten."""
        if self._last is None or self._last[0] != band:
            self._last = band, self._stage.rows(self._weight, self._bias, band, self._buffer)
        return self._last[1]


def _statistics(stage: _StageOptions, rows: _Rows, bands: list[range]) -> NormStatistics:
    assert stage.norm is not None
    first = rows(bands[0])

    def sum_deviations(pivot: Tensor) -> Tensor:
        parts = [cpu.deviations_of_rows(rows(band), pivot) for band in bands]
        return torch.from_numpy(np.concatenate(parts).sum(0))

    height, width = stage.convolution.size
    return norm_statistics(stage.norm, first, stage.sequence[1] * height * width, sum_deviations)


def _rows_of_k(k: Tensor, columns: int, band: range) -> Tensor:
    return k if len(k) == 1 else k[band.start * columns : band.stop * columns]


class _Backward:
    """The backward pass of a stage.

    Args:
        ctx: Context of the forward pass.
        grad: Gradient of the pooled spikes, rows.
    """

    def __init__(self, ctx, grad: Tensor) -> None:  # type: ignore[no-untyped-def]
        self._weight, self._bias, self._norm_weight, self._scale, self._shift, *neurons = ctx.saved_tensors
        self._k, self._v_threshold, self._width = neurons
        self._stage: _StageOptions = ctx.stage
        self._statistics: NormStatistics | None = ctx.statistics
        self._output: Tensor | None = ctx.output
        self._needed, self._grad = ctx.needs_input_grad, grad
        self._buffer, self._grad_buffer = self._stage.buffer(grad), self._stage.buffer(grad)

    def gradients(self, bands: list[range]) -> tuple[Tensor | None, ...]:
        """Returns the gradients of the tensors of :meth:`_Stage.forward`."""
        convolution = self._stage.convolution
        sums: list[cpu.BackwardSums] = []
        products: list[np.ndarray] = []
        for band in bands:
            x, grad_y, found = self._scan_back(band)
            sums.append(found)
            if isinstance(convolution, _PatchConvolution):
                products.append(convolution.sum_products(grad_y.flatten(0, 1), self._weight, band))
        joined = cpu.BackwardSums(*map(np.concatenate, zip(*sums, strict=True)))
        total, product = cpu.sum_moments(joined)
        coefficients = grad_norm_weight = grad_norm_bias = None
        if self._statistics is not None:
            coefficients, grad_norm_weight, grad_norm_bias = norm_gradients(
                self._norm_weight, self._statistics, total, product
            )
        if isinstance(convolution, _PatchConvolution):
            found_grads = convolution.gradients(products, total, coefficients, self._weight, self._bias)
        else:
            if coefficients is not None:
                cpu.combine(grad_y, x, coefficients)
            del x  # freed before the gradients of the convolution
            found_grads = convolution.gradients(grad_y.flatten(0, 1), self._weight, list(self._needed[:3]))
        grad_x, *by_weight = found_grads
        if grad_x is not None:
            grad_x = grad_x.view(*self._stage.sequence, *grad_x.shape[1:])
        by_neuron = cpu.sum_neuron_gradients(self._k, joined, firing_grads=self._firing_grads)
        return grad_x, *by_weight, grad_norm_weight, grad_norm_bias, *by_neuron

    @property
    def _firing_grads(self) -> bool:
        return bool(self._needed[6] or self._needed[7])

    def _scan_back(self, band: range) -> tuple[Tensor, Tensor, cpu.BackwardSums]:
        """Returns rows of the output, the gradient of batch norm's output, and its sums."""
        x, self._output = self._output, None
        if x is None:
            x = self._stage.rows(self._weight, self._bias, band, self._buffer)
        (height, columns), window = self._stage.convolution.size, self._stage.config.window
        k = _rows_of_k(self._k, columns, band)
        grad_y = self._grad_buffer.tensor(x.flatten(0, 1).shape).view_as(x)
        mean = k.new_zeros(1, x.shape[-1]) if self._statistics is None else self._statistics.mean.to(k.dtype)
        sums = cpu.scan_back(
            StageTensors(x, self._scale, self._shift, k, self._v_threshold, self._width),
            self._stage.config,
            self._grad[:, :, band.start // window : band.stop // window].contiguous(),
            mean,
            grad_y,
            cpu.windows_of_item(height, columns, window),
            firing_grads=self._firing_grads,
        )
        return x, grad_y, sums
