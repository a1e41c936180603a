"""Stages of few input channels: equal to the definition, and the same bits from any part of the rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from plifctl.config.choices import Kernel
from plifctl.config.network import NeuronSpec
from plifctl.snn.kernels import Kept, patches, spiking_stage
from plifctl.snn.kernels.event_driven import to_maps
from plifctl.snn.kernels.patch_loops import ROWS_OF_ITEM
from plifctl.snn.layers import BatchNorm, Conv, Pool
from plifctl.snn.neurons import SpikingLayer

_LAYERS = [(2, 16, 3, 1, False), (1, 20, 5, 1, True), (3, 32, 3, 2, True), (2, 33, 1, 1, False), (1, 16, 7, 3, False)]
"""Channels, output channels, kernel, stride, bias."""


def _frames(channels: int, *, density: float = 0.2, T: int = 3, samples: int = 4, height: int = 19) -> Tensor:
    random = torch.Generator().manual_seed(1)
    counts = torch.randint(1, 4, (T, samples, channels, height, 13), generator=random).double()
    return counts * (torch.rand(counts.shape, generator=random) < density)


class _Stage(nn.Module):
    """A convolution, batch norm and spiking neurons with pooling."""

    def __init__(self, layer: Conv, x: Tensor, norm: str | None) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.layer = layer
        self.norm = None if norm is None else BatchNorm(layer.out_channels, per_step=norm == "per-step")
        if self.norm is not None:
            nn.init.uniform_(self.norm.weight, 0.5, 2)
        spec = NeuronSpec(
            kind="plif", tau_0=2.0, v_threshold=0.4, v_reset=0.0, surrogate="arctan", detach_reset=True
        )  # fmt: skip
        self.neurons = SpikingLayer(spec, (layer.out_channels, 1, 1))
        self.to(x.dtype).train()

    def gradients(self, x: Tensor, kernel: Kernel, T: int | None = None, keep: Kept = "all") -> list[Tensor]:
        """Returns pooled spikes, their number before pooling, the running statistics, the gradients of all parameters.

        The running statistics stay as they were.
        """
        before = [buffer.clone() for buffer in self.buffers()]
        T, dynamics = T or len(x), self.neurons.dynamics(x)
        pool = Pool("max", 2, 2)
        pooled, count, _ = spiking_stage(x, T, dynamics, self.norm, pool, kernel, self.layer, keep)
        statistics = [buffer.to(torch.float64, copy=True) for buffer in self.buffers()]
        grad = torch.randn(pooled.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.5
        grads = torch.autograd.grad(pooled, list(self.parameters()), grad.to(x.dtype))
        for buffer, kept in zip(self.buffers(), before, strict=True):
            buffer.copy_(kept)
        return [pooled, count, *statistics, *grads]


@pytest.mark.parametrize("norm", [None, "per-step", "over-time"])
@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride", "bias"), _LAYERS)
def test_stage_of_few_channels_equals_the_definition(
    channels: int, outputs: int, kernel: int, stride: int, bias: bool, norm: str | None
) -> None:
    x = _frames(channels)
    layer = Conv(channels, outputs, kernel, stride, bias=bias)
    stage = _Stage(layer, x, norm)
    assert patches.pays(layer, x)
    expected = stage.gradients(x, "eager")
    assert 0 < float(expected[0].detach().mean()) < 1
    for keep in ("all", "input"):
        for found, wanted in zip(stage.gradients(x, "fused", keep=keep), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("T", "samples"), [(1, 1), (1, 20), (30, 1)])
def test_stage_of_few_channels_equals_the_definition_for_any_number_of_steps_and_samples(T: int, samples: int) -> None:
    x = _frames(2, T=T, samples=samples)
    stage = _Stage(Conv(2, 16, 3, 1, bias=True), x, "per-step")
    for found, wanted in zip(stage.gradients(x, "fused"), stage.gradients(x, "eager"), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_stage_of_few_channels_of_a_still_image_equals_the_definition() -> None:
    x = _frames(2, T=1)
    stage = _Stage(Conv(2, 16, 3, 1), x, "per-step")
    for found, wanted in zip(stage.gradients(x, "fused", T=5), stage.gradients(x, "eager", T=5), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_stage_of_few_channels_without_active_inputs_equals_the_definition() -> None:
    x = torch.zeros_like(_frames(2))
    stage = _Stage(Conv(2, 16, 3, 1, bias=True), x, "per-step")
    for found, wanted in zip(stage.gradients(x, "fused"), stage.gradients(x, "eager"), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_stage_of_few_channels_with_running_statistics_equals_the_definition() -> None:
    x = _frames(2)
    stage = _Stage(Conv(2, 16, 3, 1, bias=True), x, "over-time")
    assert stage.norm is not None
    stage.norm.eval()  # as a batch norm that is frozen
    nn.init.uniform_(stage.norm.running_mean, -0.5, 0.5)
    for found, wanted in zip(stage.gradients(x, "fused"), stage.gradients(x, "eager"), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_stage_of_few_channels_in_float32_has_gradients_near_those_of_float64() -> None:
    x = _frames(2, density=0.1, T=4, samples=6)
    stage = _Stage(Conv(2, 32, 3, 1, bias=True), x.float(), "per-step")
    found, expected = stage.gradients(x.float(), "fused"), stage.double().gradients(x, "eager")
    assert torch.equal(found[0].double(), expected[0])
    for one, wanted in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one.double(), wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))


def test_stage_of_few_channels_whose_bias_is_frozen_has_no_gradient_of_it() -> None:
    x = _frames(2)
    stage = _Stage(Conv(2, 16, 3, 1, bias=True), x, "per-step")
    assert stage.layer.bias is not None
    stage.layer.bias.requires_grad_(False)
    pooled = spiking_stage(x, len(x), stage.neurons.dynamics(x), stage.norm, None, "fused", stage.layer).pooled
    pooled.sum().backward()
    assert stage.layer.bias.grad is None
    assert stage.layer.weight.grad is not None


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride", "bias"), _LAYERS)
def test_rows_of_a_convolution_have_the_bits_of_the_whole(
    channels: int, outputs: int, kernel: int, stride: int, bias: bool
) -> None:
    x = _frames(channels, height=29).float()
    layer = Conv(channels, outputs, kernel, stride, bias=bias)
    maps, padding = to_maps(x), kernel // 2
    height = (29 + 2 * padding - kernel) // stride + 1
    parts = [range(ROWS_OF_ITEM), range(ROWS_OF_ITEM, height)]
    weight = layer.weight.detach()
    with torch.no_grad():
        whole = patches.convolve(maps, weight, layer.bias, stride, padding, range(height))
        found = [patches.convolve(maps, weight, layer.bias, stride, padding, part) for part in parts]
    assert torch.equal(torch.cat(found, 1), whole)
    torch.testing.assert_close(whole.permute(0, 3, 1, 2), layer(x).detach().flatten(0, 1), rtol=1e-5, atol=1e-5)
    grad = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3))
    sums = [
        patches.weight_gradient_sums(
            maps, grad[:, part.start : part.stop].contiguous(), kernel, stride, padding, part.start, len(x)
        )
        for part in parts
    ]
    wanted = patches.weight_gradient_sums(maps, grad, kernel, stride, padding, 0, len(x))
    assert torch.equal(patches.join_sums(sums, len(x)), patches.join_sums([wanted], len(x)))


def test_stage_of_few_channels_has_the_same_bits_for_any_number_of_threads() -> None:
    x, threads = _frames(2).float(), torch.get_num_threads()
    stage, found = _Stage(Conv(2, 32, 3, 1), x, "per-step"), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(stage.gradients(x, "fused"))
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
