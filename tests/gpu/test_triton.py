"""The Triton kernels on a GPU against the definition: ``make test-gpu``. Without a GPU all tests are skipped."""

from typing import Any

import pytest
import torch
from stages import NEURONS, PLIF, stage

from plifctl.snn.kernels import held_dropout, spiking_stage
from plifctl.snn.layers import BatchNorm, Pool
from plifctl.snn.neurons import SpikingLayer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
SHAPE = (6, 5, 70, 19, 22)


def compare(*arguments: Any, **options: Any) -> None:
    expected, found = (stage(kernel, *arguments, **options, device="cuda") for kernel in ("eager", "triton"))
    assert torch.equal(expected["spikes"], found["spikes"])
    assert expected["fired"] == found["fired"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_stage_every_neuron_equals_definition(neuron: dict[str, Any]) -> None:
    compare(SHAPE, 6, neuron)
    compare((6, 5, 1031), 6, neuron, norm=None, pool=None)


@pytest.mark.parametrize("pool", [None, ("max", 2), ("max", 3), ("average", 2)])
@pytest.mark.parametrize("norm", [None, "per-step", "over-time"])
@pytest.mark.parametrize("steps", [(1, 6), (6, 6)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_stage_norm_and_pooling_equals_definition(
    pool: tuple[str, int] | None, norm: str | None, steps: tuple[int, int], training: bool
) -> None:
    compare((steps[0], *SHAPE[1:]), steps[1], {}, pool=pool, norm=norm, training=training)


@pytest.mark.parametrize("T", [1, 7, 8, 9, 17, 32])
def test_stage_any_number_of_steps_equals_definition(T: int) -> None:
    compare((T, 3, 40, 9, 9), T, {})


@pytest.mark.parametrize("shape", [(3, 5, 7, 3, 11), (2, 4, 5000)], ids=str)
def test_dropout_on_gpu_equals_cpu(shape: tuple[int, ...]) -> None:
    x, keys = torch.ones(shape), torch.arange(shape[1]) * 3**39 - 2**62
    for layer in (0, 1, 16):
        expected = held_dropout(x, keys, layer, 0.3, "eager")
        for kernel in ("eager", "triton"):
            found = held_dropout(x.cuda(), keys.cuda(), layer, 0.3, kernel)  # type: ignore[arg-type]
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_stage_repeated_gives_same_bits(kind: torch.dtype) -> None:
    def once() -> tuple[torch.Tensor, ...]:
        generator = torch.Generator("cuda").manual_seed(0)
        x = torch.randn(8, 16, 128, 28, 28, device="cuda", generator=generator).to(kind).requires_grad_()
        spiking, norm = SpikingLayer(PLIF, (128, 28, 28)).cuda(), BatchNorm(128, per_step=True).cuda()
        spikes = spiking_stage(x, 8, spiking.dynamics(x), norm, Pool("max", 2, 2), "triton").pooled
        spikes.float().square().sum().backward()
        return spikes, *(grad for grad in (x.grad, spiking.a.grad, norm.weight.grad, norm.bias.grad))  # type: ignore[union-attr]

    assert all(torch.equal(one, other) for one, other in zip(once(), once(), strict=True))


def test_stage_does_not_wait_and_can_be_captured() -> None:
    x = torch.randn(4, 2, 16, 8, 8, device="cuda", requires_grad=True)
    spiking, norm = SpikingLayer(PLIF, (16, 8, 8)).cuda(), BatchNorm(16, per_step=True).cuda()

    def step() -> torch.Tensor:
        spikes = spiking_stage(x, 4, spiking.dynamics(x), norm, Pool("max", 2, 2), "triton").pooled
        return torch.autograd.grad(spikes.sum(), x)[0]

    expected = step()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    assert torch.equal(found, expected)
