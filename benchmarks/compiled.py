"""Our spiking layer compared with torch.compile of its definition: are our own kernels still worth it?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.measure import Benchmark, Figure, Setting, faster, interleaved
from plifctl.config.choices import Kernel
from plifctl.config.lookup import load_registry
from plifctl.snn.kernels import spiking_stage
from plifctl.snn.layers import BatchNorm, Pool
from plifctl.snn.neurons import SpikingLayer

SHAPE = (8, 16, 128, 14, 14)
"""T, N, C, H, W: what the second convolution of Fashion-MNIST gives."""


def compiled(device: torch.device, kernel: Kernel, kinds: tuple[torch.dtype, ...] = (torch.float32,)) -> Benchmark:
    """Returns a benchmark of forward and backward, after both are found to compute the same."""

    def measured(setting: Setting) -> Iterator[Figure]:
        channels, *image = SHAPE[2:]
        norm = BatchNorm(channels, per_step=True).to(device)
        for kind in kinds:
            x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(device, kind)
            x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3).requires_grad_()
            spiking = SpikingLayer(load_registry().experiment("fashion-mnist-plif").spec.neuron, (channels, *image)).to(
                device
            )
            for title, parts in (("norm, scan and pooling", (norm, Pool("max", 2, 2))), ("scan alone", (None, None))):
                ours, peer = (_both_ways(one, x, spiking, *parts) for one in (kernel, "eager"))
                peer = torch.compile(peer)
                try:
                    _must_agree(title, ours(), peer(), 1e-4 if kind == torch.float32 else 1e-2)
                except RuntimeError as error:  # torch.compile wants a compiler of the system
                    print(f"left out: {title}: {str(error).splitlines()[0]}", file=sys.stderr)
                    continue
                found = interleaved(_waiting(ours, device), _waiting(peer, device), setting.pairs)
                title = f"{title}, forward and backward, {'×'.join(map(str, SHAPE))}, {kind}"
                yield faster(title, *found, "torch.compile of the definition", None)

    return measured


def _both_ways(
    kernel: Kernel, x: Tensor, spiking: SpikingLayer, norm: BatchNorm | None, pool: Pool | None
) -> Callable[[], list[Tensor]]:
    """Returns a function that returns spikes and gradients."""
    wanted = [x, *spiking.parameters(), *(() if norm is None else norm.parameters())]

    def work() -> list[Tensor]:
        spikes = spiking_stage(x, len(x), spiking.dynamics(x), norm, pool, kernel).pooled
        return [spikes, *torch.autograd.grad(spikes.sum(), wanted)]

    return work


def _waiting(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    def waited() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return waited


def _must_agree(title: str, ours: list[Tensor], peer: list[Tensor], tolerance: float) -> None:
    if not torch.equal(ours[0].float(), peer[0].float()):
        sys.exit(f"{title}: ours and torch.compile's spikes differ")
    for own, other in zip(ours[1:], peer[1:], strict=True):
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
