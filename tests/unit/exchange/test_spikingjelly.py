"""Networks in both directions between plifctl and SpikingJelly: equal spikes in float64, equal names and bits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import quick_cases
from torch import Tensor, nn

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_experiment
from plifctl.errors import UsageError
from plifctl.exchange.formats import write_network
from plifctl.exchange.model import TrainedModel
from plifctl.exchange.state_dicts import match_weights, read_state_dict
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.trainer import build_model

pytest.importorskip("spikingjelly")

from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import parametric_lif_net

pytestmark = pytest.mark.long

CHANNELS = 4
CLASSES = {
    "MNISTNet": ("mnist-plif", f"{{c{CHANNELS}k3s1-BN-SN-MPk2s2}}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10"),
    "FashionMNISTNet": ("fashion-mnist-plif", f"{{c{CHANNELS}k3s1-BN-SN-MPk2s2}}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10"),
    "NMNISTNet": ("nmnist-plif", f"{{c{CHANNELS}k3s1-BN-SN-MPk2s2}}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10"),
    "CIFAR10Net": ("cifar10-plif", f"{{{{c{CHANNELS}k3s1-BN-SN}}*3-MPk2s2}}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10"),
    "CIFAR10DVSNet": ("cifar10dvs-plif", f"{{c{CHANNELS}k3s1-BN-SN-MPk2s2}}*4-DP-FC512-SN-DP-FC100-SN-APk10s10"),
    "DVSGestureNet": ("gesture-plif", f"{{c{CHANNELS}k3s1-BN-SN-MPk2s2}}*5-DP-FC512-SN-DP-FC110-SN-APk10s10"),
}
LIF = ("neuron.kind=lif", "neuron.tau=2.0", "neuron.tau_0=null")
WIDTH = ("neuron.learn_surrogate_width=true",)
T, SAMPLES = 3, 2


def experiment(name: str, structure: str, *overrides: str) -> ExperimentSpec:
    return load_experiment(name, [f"network.structure={structure}", f"T={T}", *overrides]).spec


def inputs(spec: ExperimentSpec) -> Tensor:
    """Returns a batch ``[T, N, C, H, W]``: images that stay the same, or frames of counts."""
    torch.manual_seed(5)
    shape = spec.framing.shape
    if spec.dataset.kind == "images":
        return 2 * torch.randn(1, SAMPLES, *shape).expand(T, -1, -1, -1, -1)
    return torch.poisson(torch.full((T, SAMPLES, *shape), 0.4))


def let_it_fire(net: nn.Module) -> None:
    """Makes weights so large that every layer fires."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= 8
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data *= 3
            module.bias.data += 0.3


def train(net: nn.Module, x: Tensor) -> None:
    """Trains SpikingJelly's network for some steps, so that weights and statistics are no initial ones."""
    functional.set_step_mode(net, "m")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.9  # so that few steps are enough
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (net(x).mean() - 0.3).square().backward()
        optimizer.step()
        functional.reset_net(net)
    let_it_fire(net)
    net.eval()


def spikes_of(net: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yields the spikes of each layer of SpikingJelly's network, and its votes."""
    found: list[Tensor] = []
    layers = [module for module in net.modules() if isinstance(module, neuron.ParametricLIFNode | neuron.LIFNode)]
    hooks = [layer.register_forward_hook(lambda *arguments: found.append(arguments[2])) for layer in layers]
    with torch.no_grad():
        votes = net(x)
    functional.reset_net(net)
    for hook in hooks:
        hook.remove()
    yield from found
    yield votes


def assert_equal(ours: SpikingNetwork, theirs: nn.Module, x: Tensor) -> None:
    """Compares spikes and votes in float64, and votes in float32."""
    with torch.no_grad():
        rates = ours(x.transpose(0, 1))
        *_, votes = spikes_of(theirs, x)
        assert (rates - votes).abs().gt(1e-6).float().mean() < 0.01  # 1/τ is rounded in another order
        found: dict[str, Tensor] = {}
        rates = ours.double()(x.double().transpose(0, 1), observe=found.__setitem__)
    *spikes, votes = spikes_of(theirs.double(), x.double())
    for (name, one), other in zip(found.items(), spikes, strict=True):
        assert one.any(), name
        assert torch.equal(one, other), name
    torch.testing.assert_close(rates, votes, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["plif", "lif"])
@pytest.mark.parametrize("name", quick_cases(CLASSES, "NMNISTNet"))
def test_network_of_spikingjelly_has_equal_spikes_and_returns_with_equal_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    spec = experiment(*CLASSES[name], *(LIF if kind == "lif" else ()))
    torch.manual_seed(1)
    node = neuron.LIFNode if kind == "lif" else neuron.ParametricLIFNode
    theirs = getattr(parametric_lif_net, name)(CHANNELS, node, surrogate_function=surrogate.ATan(), detach_reset=True)
    x = inputs(spec)
    train(theirs, x)
    before = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    torch.save(before, tmp_path / "net.pth")
    found = match_weights(read_state_dict(tmp_path / "net.pth"), spec)
    assert found.spec.network.structure.count("b-SN") == 2
    assert_equal(found.network, theirs, x)

    monkeypatch.chdir(tmp_path)
    for file in (Path("back.pth"), Path("back.safetensors")):
        trained = TrainedModel(file, found.spec, found.network.float(), None, found.spec.digest, {})
        *notes, listing = write_network(file, trained, "spikingjelly")
        assert not [note for note in notes if "bias" in note]
        scope = run(listing, x)
        owner = name.replace("Fashion", "")
        assert type(scope["net"]).__name__ == owner
        after = scope["net"].state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert list(torch.load("back.pth")) == list(before)


def run(listing: str, x: Tensor) -> dict[str, Any]:
    """Runs the code of a note for a batch; returns its variables."""
    scope: dict[str, Any] = {"x": x}
    exec(listing.split("\n\n", 1)[1], scope)
    return scope


SEQUENTIALS = {
    "LIF": (
        "c4k3s1-BN-SN-MPk2s2-DP-FC30-SN-FC100-SN-APk10s10",
        ("neuron.kind=lif", "neuron.tau=3.0", "neuron.tau_0=null"),
    ),
    "soft reset": ("c4k3s1-BN-SN-MPk2s2-FC30-SN-FC100-SN-APk10s10", ("neuron.reset=soft",)),
    "average pooling": ("c4k3s1-BN-SN-APk2s2-c5k5s2-BN-SN-APk3s2-FC100-SN-APk10s10", ()),
    "V_reset and threshold": ("c4k3s1-BN-SN-FC100-SN-APk10s10", ("neuron.v_reset=-0.5", "neuron.v_threshold=0.6")),
    "biases": ("c4k3s1b-SN-MPk2s2-DP-FC30b-SN-FC100-SN-APk10s10", ()),
    "no convolution": ("DP-FC30-SN-FC100b-SN-APk10s10", ()),
    "other dropout": (CLASSES["MNISTNet"][1], ("network.dropout=0.2",)),
    "learnt threshold": (CLASSES["MNISTNet"][1], ("neuron.learn_threshold=true", "neuron.surrogate=sigmoid")),
    "learnt width": (
        "c4k3s1-BN-SN-FC100-SN-APk10s10",
        (*WIDTH, "neuron.surrogate=triangular"),
    ),
    "rectangular": ("c4k3s1-BN-SN-FC100-SN-APk10s10", ("neuron.surrogate=rectangular", "neuron.surrogate_width=0.5")),
}


@pytest.mark.parametrize("name", quick_cases(SEQUENTIALS, "soft reset", "biases"))
def test_network_of_ours_runs_in_spikingjelly_by_the_code_of_the_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    structure, overrides = SEQUENTIALS[name]
    spec = experiment("fashion-mnist-plif", structure, *overrides)
    ours = build_model(spec, torch.device("cpu"))
    x = inputs(spec)
    torch.manual_seed(2)
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.rand_like(parameter)
    let_it_fire(ours)
    ours(x.transpose(0, 1), keys=torch.arange(SAMPLES))  # updates the running statistics
    bits = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    trained = TrainedModel(tmp_path, spec, ours.eval(), None, spec.digest, {})
    *_, listing = write_network(Path("net.pth"), trained, "spikingjelly")
    scope = run(listing, x)
    assert isinstance(scope["net"], nn.Sequential)
    assert_equal(ours, scope["net"], x)
    if "learn_threshold" not in "".join(overrides) and "learn_surrogate" not in "".join(overrides):
        back = match_weights(read_state_dict(Path("net.pth")), spec).network.state_dict()
        assert all(torch.equal(back[key], tensor) for key, tensor in bits.items())


@pytest.mark.parametrize(("name", "channels"), [("fashion-mnist-plif", 1), ("cifar10-plif", 3)])
def test_code_of_the_note_normalises_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, channels: int
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = experiment(name, "c4k3s1-BN-SN-MPk2s2-FC100-SN-APk10s10")
    ours = build_model(spec, torch.device("cpu")).eval()
    let_it_fire(ours)
    *_, kind, listing = write_network(Path("net.pth"), TrainedModel(tmp_path, spec, ours, None, "", {}), "spikingjelly")
    assert kind.endswith("images of values from 0 to 1, the same at each step")
    images = torch.rand(SAMPLES, channels, *spec.framing.shape[1:])
    assert spec.normalisation is not None
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in spec.normalisation)
    with torch.no_grad():
        rates = ours((images - mean) / std, T)
        found = run(listing, images.expand(T, -1, -1, -1, -1))["rates"]
    assert rates.any()
    assert (rates - found).abs().gt(1e-6).float().mean() < 0.01  # 1/τ is rounded in another order


def test_fully_connected_layers_without_bias_get_one_of_0_in_a_class_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = experiment(*CLASSES["DVSGestureNet"])
    ours = build_model(spec, torch.device("cpu")).eval()
    notes = write_network(Path("net.pth"), TrainedModel(tmp_path, spec, ours, None, "", {}), "spikingjelly")
    assert notes[0] == "fully connected layers of DVSGestureNet have a bias; theirs is 0 here"
    net = run(notes[-1], inputs(spec))["net"]
    assert not net.state_dict()["conv_fc.22.bias"].any()
    found = match_weights(read_state_dict(Path("net.pth")), spec)
    assert found.spec == spec
    assert found.notes == ("the biases of fc0, fc1 are all 0 and were left out",)
    assert all(
        torch.equal(one, two)
        for one, two in zip(found.network.state_dict().values(), ours.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("neuron.tau_per=channel",), "neuron.tau_per is channel"),
        (("neuron.reset=soft", "neuron.v_reset=-0.5"), "neuron.v_reset is -0.5 with a soft reset"),
    ],
)
def test_network_that_spikingjelly_does_not_have_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    spec = experiment("fashion-mnist-plif", "FC100-SN-APk10s10", *overrides)
    trained = TrainedModel(tmp_path, spec, build_model(spec, torch.device("cpu")), None, "", {})
    with pytest.raises(UsageError, match=f"SpikingJelly cannot describe this network:\n  {message}"):
        write_network(tmp_path / "net.pth", trained, "spikingjelly")
    assert list(tmp_path.iterdir()) == []
