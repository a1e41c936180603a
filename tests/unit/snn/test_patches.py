"""Convolutions of few input channels: equal to the dense convolution, and the same bits from any part of the rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plifctl.snn.kernels import apply_synapses, patches
from plifctl.snn.kernels.patch_loops import ROWS_OF_ITEM
from plifctl.snn.layers import Conv

_LAYERS = [(2, 16, 3, 1, False), (1, 20, 5, 1, True), (3, 32, 3, 2, True), (2, 33, 1, 1, False), (1, 16, 7, 3, False)]
"""Channels, output channels, kernel, stride, bias."""


def _frames(channels: int, *, density: float = 0.2, T: int = 3, samples: int = 4, height: int = 19) -> Tensor:
    random = torch.Generator().manual_seed(1)
    counts = torch.randint(1, 4, (T, samples, channels, height, 13), generator=random).double()
    return counts * (torch.rand(counts.shape, generator=random) < density)


def _gradients(layer: Conv, y: Tensor) -> list[Tensor]:
    grad = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    return list(torch.autograd.grad(y, list(layer.parameters()), grad))


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride", "bias"), _LAYERS)
def test_convolution_of_few_channels_equals_the_dense_one(
    channels: int, outputs: int, kernel: int, stride: int, bias: bool
) -> None:
    layer = Conv(channels, outputs, kernel, stride, bias=bias).double()
    x = _frames(channels)
    assert patches.pays(layer, x)
    y, expected = apply_synapses(layer, x), layer(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    for found, wanted in zip(_gradients(layer, y), _gradients(layer, expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_convolution_of_few_channels_without_samples_has_no_gradient() -> None:
    layer = Conv(2, 16, 3, 1)
    y = apply_synapses(layer, torch.zeros(3, 0, 2, 8, 8))
    assert y.shape == (3, 0, 16, 8, 8)
    assert not _gradients(layer, y)[0].any()


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride", "bias"), _LAYERS)
def test_rows_of_a_convolution_have_the_bits_of_the_whole(
    channels: int, outputs: int, kernel: int, stride: int, bias: bool
) -> None:
    layer = Conv(channels, outputs, kernel, stride, bias=bias)
    maps, padding = patches.to_maps(_frames(channels, height=29).float()), kernel // 2
    height = (29 + 2 * padding - kernel) // stride + 1
    parts = [range(ROWS_OF_ITEM), range(ROWS_OF_ITEM, height)]
    weight = layer.weight.detach()
    with torch.no_grad():
        whole = patches.convolve(maps, weight, layer.bias, stride, padding, range(height))
        found = [patches.convolve(maps, weight, layer.bias, stride, padding, part) for part in parts]
    assert torch.equal(torch.cat(found, 1), whole)
    grad = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3))
    sums = [
        patches.weight_gradient_sums(
            maps, grad[:, part.start : part.stop].contiguous(), kernel, stride, padding, part.start
        )
        for part in parts
    ]
    wanted = patches.weight_gradient_sums(maps, grad, kernel, stride, padding, 0)
    assert torch.equal(patches.sum_weight_gradient(sums, weight), patches.sum_weight_gradient([wanted], weight))


def test_convolution_of_few_channels_has_the_same_bits_for_any_number_of_threads() -> None:
    layer, x, threads = Conv(2, 32, 3, 1), _frames(2).float(), torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            y = apply_synapses(layer, x)
            found.append((y, *_gradients(layer, y)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Conv(2, 32, 3, 1), _frames(2, density=1.0).float()),
        (Conv(2, 8, 3, 1), _frames(2).float()),
        (Conv(16, 32, 3, 1), _frames(16).float()),
        (Conv(2, 32, 3, 1), _frames(2).float().requires_grad_()),
    ],
    ids=["dense input", "few outputs", "many inputs", "input with a gradient"],
)
def test_convolution_that_would_not_gain_is_left_to_others(layer: Conv, x: Tensor) -> None:
    assert not patches.pays(layer, x)


def test_convolution_in_evaluation_is_left_to_others() -> None:
    with torch.no_grad():
        assert not patches.pays(Conv(2, 32, 3, 1), _frames(2).float())
