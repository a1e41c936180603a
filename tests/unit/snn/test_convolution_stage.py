"""Training in compact memory: losses, weights and running statistics have the bits of full memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plifctl.config.choices import Memory
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.snn.kernels import convolution_stage, event_driven, patches
from plifctl.snn.keyed_random import hash_keys
from plifctl.snn.layers import Conv
from plifctl.snn.networks import SpikingNetwork, choose_kept

STEPS = 3
_PLIF = {
    "kind": "plif",
    "tau_0": 2.0,
    "v_threshold": 0.4,
    "v_reset": 0.0,
    "surrogate": "arctan",
    "detach_reset": True,
}
_MAX = "{c32k3s1-BN-SN-MPk2s2}*3-DP-FC20-SN-APk10s10"
_AVERAGE = "{c32k3s1-BN-SN-APk2s2}*2-DP-FC20-SN-APk10s10"
_UNPOOLED = "c32k3s2b-BN-SN-DP-c40k3s1b-BN-SN-FC20-SN-APk10s10"
_NO_NORM = "{c32k3s1b-SN-MPk2s2}*2-DP-FC20b-SN-APk10s10"
_WIDE_WINDOWS = "c33k5s1-BN-SN-MPk3s3-c64k3s1-BN-SN-c64k1s1-SN-MPk2s2-FC20-SN-APk10s10"


def _frames(T: int = 4, samples: int = 3) -> Tensor:
    return torch.poisson(torch.full((samples, T, 2, 50, 26), 0.2), generator=torch.Generator().manual_seed(1))


def _images() -> Tensor:
    return torch.randn((3, 1, 20, 18), generator=torch.Generator().manual_seed(1))


def _network(structure: str, x: Tensor, memory: Memory, batch_norm: Any, neuron: dict[str, Any]) -> SpikingNetwork:
    network = NetworkSpec(name="test", structure=structure, dropout=0.5, batch_norm=batch_norm)
    torch.manual_seed(3)
    model = SpikingNetwork(network, NeuronSpec(**{**_PLIF, **neuron}), tuple(x.shape[-3:]), 2, "fused", memory)
    for layer in model.layers.values():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 6  # so that every layer fires
        elif isinstance(layer, Conv) and "BN" not in structure:
            layer.weight.data *= 4
    return model.to(x.dtype).train()


def _train(
    memory: Memory, structure: str, x: Tensor, T: int | None, batch_norm: str, neuron: dict[str, Any]
) -> list[Tensor]:
    """Returns the losses and the state after some steps."""
    model = _network(structure, x, memory, batch_norm, neuron)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(STEPS):
        rates = model(x, T, keys=hash_keys(torch.arange(len(x)), step))
        assert step or 0 < float(rates.detach().mean()) < 1
        loss = (rates - torch.tensor([1.0, 0.0], dtype=x.dtype)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *model.state_dict().values()]


def _assert_same_bits(
    structure: str, x: Tensor, T: int | None = None, batch_norm: str = "per-step", **neuron: Any
) -> None:
    full, compact_ = (_train(memory, structure, x, T, batch_norm, neuron) for memory in ("full", "compact"))
    assert len(full) == len(compact_)
    assert all(torch.equal(one, other) for one, other in zip(full, compact_, strict=True))


@pytest.mark.parametrize("batch_norm", ["per-step", "over-time"])
@pytest.mark.parametrize("structure", [_MAX, _AVERAGE, _UNPOOLED, _NO_NORM, _WIDE_WINDOWS])
def test_compact_of_event_frames_has_the_bits_of_full(structure: str, batch_norm: str) -> None:
    _assert_same_bits(structure, _frames(), batch_norm=batch_norm)


@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("structure", [_MAX, _AVERAGE, _UNPOOLED])
def test_compact_of_images_has_the_bits_of_full(structure: str, T: int) -> None:
    _assert_same_bits(structure, _images(), T)


@pytest.mark.parametrize(
    "neuron",
    [
        {"detach_reset": False, "reset": "soft"},
        {"learn_threshold": True, "learn_surrogate_width": True, "surrogate": "triangular"},
        {"tau_per": "neuron"},
        {"tau_per": "channel"},
        {"kind": "lif", "tau_0": None, "tau": 2.0},
    ],
    ids=str,
)
def test_compact_of_every_neuron_has_the_bits_of_full(neuron: dict[str, Any]) -> None:
    _assert_same_bits(_MAX, _frames(), **neuron)


def test_compact_in_float64_has_the_bits_of_full() -> None:
    _assert_same_bits(_MAX, _frames().double())


def test_compact_of_one_sample_and_step_has_the_bits_of_full() -> None:
    _assert_same_bits(_MAX, _frames(1, 1))


@pytest.mark.parametrize(("T", "samples"), [(4, 3), (1, 1)])
@pytest.mark.parametrize("structure", [_MAX, _UNPOOLED])
def test_compact_of_event_driven_layers_has_the_bits_of_full(
    structure: str, T: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_driven, "relative_cost", lambda *_, **__: 0.0)
    _assert_same_bits(structure, _frames(T, samples).double())


def test_compact_of_dense_layers_has_the_bits_of_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_driven, "relative_cost", lambda *_, **__: 2.0)
    monkeypatch.setattr(patches, "MAX_DENSITY", -1.0)
    _assert_same_bits(_MAX, _frames())


def test_compact_without_samples_has_no_votes() -> None:
    x = _frames()[:0]
    for memory in ("full", "compact"):
        model = _network(_NO_NORM, x, memory, "per-step", {})  # type: ignore[arg-type]
        assert model(x, keys=torch.zeros(0, dtype=torch.int64)).shape == (4, 0, 2)


def test_compact_graph_that_is_kept_gives_the_same_gradients_again() -> None:
    x = _frames()
    model = _network(_MAX, x, "compact", "per-step", {})
    loss = model(x, keys=hash_keys(torch.arange(len(x)))).square().mean()
    first, second = (torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_compact_first_layer_of_event_frames_is_computed_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    convolve = patches.convolve

    def record(maps: Tensor, *arguments: Any) -> Tensor:
        rows.append(len(arguments[4]))
        return convolve(maps, *arguments)

    monkeypatch.setattr(convolution_stage.patches, "convolve", record)
    _train("compact", _MAX, _frames(), None, "per-step", {})
    assert max(rows) < 50 / 2


def test_spikes_are_packed_into_bits() -> None:
    spikes = (torch.rand(6, 3, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.2).float() * 2
    images = spikes.contiguous(memory_format=torch.channels_last)
    packed = convolution_stage._pack(images)
    assert packed.stored.nbytes == -(-images.numel() // 8)
    found = convolution_stage._unpack(packed)
    assert torch.equal(found, images)
    assert found.stride() == images.stride()


def test_outputs_are_kept_where_the_peak_stays() -> None:
    gesture = {"conv0": 320, "conv1": 80, "conv2": 20, "conv3": 5, "conv4": 1}
    later = dict.fromkeys(("conv1", "conv2", "conv3", "conv4"), "input and output")
    assert choose_kept(gesture) == {"conv0": "input", **later}
    equal = {"conv0": 64, "conv1": 64, "conv2": 64, "conv3": 16}
    kept = {"conv0": "input", "conv1": "input", "conv2": "input and output", "conv3": "input and output"}
    assert choose_kept(equal) == kept
    assert choose_kept({"conv0": 9}) == {"conv0": "input"}
