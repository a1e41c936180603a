"""A folded network against the original."""

import pytest
import torch
from torch import Tensor

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.snn.bn_folding import fold_batch_norm, fold_targets
from plifctl.snn.functional import charge
from plifctl.snn.layers import BatchNorm, Conv
from plifctl.snn.networks import SpikingNetwork

PLIF = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)
TAIL = "DP-FC20-SN-APk10s10"
STRUCTURES = {  # and the structure after folding
    f"c4k3s1-BN-SN-MPk2s2-c6k3s2-BN-SN-{TAIL}": f"c4k3s1b-SN-MPk2s2-c6k3s2b-SN-{TAIL}",
    f"c4k3s1-BN-BN-BN-SN-{TAIL}": f"c4k3s1b-SN-{TAIL}",
    f"c4k3s1b-BN-SN-{TAIL}": f"c4k3s1b-SN-{TAIL}",
    f"BN-c4k3s1-BN-SN-{TAIL}": f"BN-c4k3s1b-SN-{TAIL}",
    f"c4k3s1-APk2s2-BN-BN-SN-c4k1s1-SN-{TAIL}": f"c4k3s1-APk2s2-BN-BN-SN-c4k1s1-SN-{TAIL}",
    f"c4k3s1-SN-BN-c4k5s1-BN-SN-{TAIL}": f"c4k3s1-SN-BN-c4k5s1b-SN-{TAIL}",
    f"c4k3s1-DP-BN-SN-{TAIL}": f"c4k3s1-DP-BN-SN-{TAIL}",
    f"c4k3s1-BN-SN-FC30b-SN-{TAIL}": f"c4k3s1b-SN-FC30b-SN-{TAIL}",
    f"FC30-SN-{TAIL}": f"FC30-SN-{TAIL}",
}


def network_with_statistics(structure: str, dtype: torch.dtype, neuron: NeuronSpec = PLIF) -> SpikingNetwork:
    """Returns a network with statistics and weights of batch norm of every size and sign."""
    torch.manual_seed(len(structure))
    network = NetworkSpec(name="s", structure=structure, dropout=0.5, batch_norm="per-step")
    model = SpikingNetwork(network, neuron, (2, 10, 9), 2).to(dtype)
    for layer in model.layers.values():
        if isinstance(layer, BatchNorm):
            for values, low, high in (
                (layer.weight.data, -1.0, 1.5),
                (layer.bias.data, -0.5, 1.0),
                (layer.running_mean, -0.3, 0.3),
                (layer.running_var, 0.3, 1.0),
            ):
                assert values is not None
                values.uniform_(low, high)
    return model


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("neuron", [PLIF, PLIF.model_copy(update={"tau_per": "channel", "learn_threshold": True})])
def test_fold_float64_gives_equal_spikes(structure: str, neuron: NeuronSpec) -> None:
    model = network_with_statistics(structure, torch.float64, neuron)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert folded.network.structure == STRUCTURES[structure]
    assert not folded.training
    assert model.training
    for shape in ((3, 4, 2, 10, 9), (3, 2, 10, 9)):  # frames, images
        frames = 4 * torch.randn(shape, dtype=torch.float64)
        seen: list[dict[str, Tensor]] = [{}, {}]
        rates = [net(frames, 4, observe=s.__setitem__) for net, s in zip((model.eval(), folded), seen, strict=True)]
        assert torch.equal(rates[0], rates[1])
        assert list(seen[0]) == list(seen[1])
        assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])
        assert 0 < seen[0]["sn0"].mean() < 1
    for weight in folded.state_dict().values():
        weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def conv_and_norms(model: SpikingNetwork, name: str) -> tuple[Conv, list[BatchNorm]]:
    """Returns a convolution and the batch norms directly after it."""
    names = list(model.layers)
    norms: list[BatchNorm] = []
    for after in names[names.index(name) + 1 :]:
        layer = model.layers[after]
        if not isinstance(layer, BatchNorm):
            break
        norms.append(layer)
    conv = model.layers[name]
    assert isinstance(conv, Conv)
    return conv, norms


def potentials(x: Tensor, k: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Returns H and the spikes of each step, by the definition."""
    v, hs, spikes = torch.zeros_like(x[0]), [], []
    for t in range(steps):
        h = charge(x[t], v, k, 0.0)
        spike = (h >= 1.0).to(h)
        v = h * (1.0 - spike)
        hs.append(h)
        spikes.append(spike)
    return torch.stack(hs), torch.stack(spikes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.no_grad()
@pytest.mark.long
def test_fold_potentials_equal_up_to_rounding(dtype: torch.dtype) -> None:
    """Compares each layer on the same input; a first spike that differs lies at the threshold."""
    compared = 0
    for structure in STRUCTURES:
        model = network_with_statistics(structure, dtype).eval()
        folded = fold_batch_norm(model)
        convs = [name for name in model.layers if name.startswith("conv")]
        assert convs == [name for name in folded.layers if name.startswith("conv")]
        for name in convs:
            (conv, norms), (folded_conv, remaining) = conv_and_norms(model, name), conv_and_norms(folded, name)
            assert remaining == []
            x = torch.randint(0, 2, (6, 8, conv.in_channels, 12, 11)).to(dtype)
            expected, found = conv(x), folded_conv(x)
            for norm in norms:
                expected = norm(expected)
            tolerance = 1e-9 if dtype == torch.float64 else 1e-5
            k = torch.tensor(0.5, dtype=dtype)
            (h, spikes), (h_folded, spikes_folded) = (potentials(y, k, 6) for y in (expected, found))
            different = spikes != spikes_folded
            first = different & (different.cumsum(0) == 1)
            assert (h[first] - 1.0).abs().lt(tolerance).all()
            same = ~different.any(0)
            torch.testing.assert_close(h_folded[:, same], h[:, same], rtol=tolerance, atol=tolerance)
            assert same.float().mean() > 0.99
            compared += len(norms)
    assert compared == 9


def test_fold_targets_of_structure_name_the_convolution() -> None:
    structure = f"BN-c4k3s1-BN-BN-SN-BN-c4k3s1-APk2s2-BN-SN-c4k3s1-BN-SN-{TAIL}"
    network = NetworkSpec(name="s", structure=structure, dropout=0.0, batch_norm="per-step")
    assert fold_targets(network) == {
        "bn0": None,
        "bn1": "conv0",
        "bn2": "conv0",
        "bn3": None,
        "bn4": None,
        "bn5": "conv2",
    }


def test_fold_twice_changes_nothing() -> None:
    once = fold_batch_norm(network_with_statistics(next(iter(STRUCTURES)), torch.float32))
    twice = fold_batch_norm(once)
    assert twice.network == once.network
    for name, weight in once.state_dict().items():
        assert torch.equal(twice.state_dict()[name], weight)
