"""Neurons and networks against SpikingJelly; make_spikingjelly.py writes the files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.drawing import NETWORKS, NEURONS, Network, Neurons, digest, sampled
from torch import Tensor

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.snn import functional, losses
from plifctl.snn.kernels import spiking_stage
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer

HERE = Path(__file__).parent
KERNELS = ("eager", "fused")
AT_THRESHOLD = 1e-5  # within this distance float32 rounding decides whether a neuron fires


@pytest.fixture(scope="module")
def neurons() -> dict[str, np.ndarray]:
    return dict(np.load(HERE / "neurons.npz"))


@pytest.fixture(scope="module")
def networks() -> dict[str, np.ndarray]:
    return dict(np.load(HERE / "networks.npz"))


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Everything is built in float64, time constants too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def spec_of(case: Neurons | Network) -> NeuronSpec:
    own = {"tau_0" if case.kind == "plif" else "tau": case.tau}
    return NeuronSpec(
        kind=case.kind,
        **own,
        v_threshold=case.v_threshold if isinstance(case, Neurons) else 1.0,
        v_reset=0.0 if case.v_reset is None else case.v_reset,
        reset="soft" if case.v_reset is None else "hard",
        surrogate=case.surrogate,
        surrogate_width=case.width,
        detach_reset=case.detach_reset,
    )


def _loss(case: Network, votes: Tensor) -> Tensor:
    loss = {"mse-per-step": losses.mse_per_step, "mse-rate": losses.mse_rate}[case.loss]
    labels = torch.from_numpy(case.labels())
    return loss(votes, torch.nn.functional.one_hot(labels, votes.shape[-1]).to(votes))


def layer_of(case: Neurons, kernel: str) -> tuple[SpikingLayer, Callable[[Tensor], Tensor]]:
    """Returns the layer, and a function from its input to its spikes."""
    layer = SpikingLayer(spec_of(case), case.shape[1:])
    return layer, lambda x: spiking_stage(x, case.T, layer.dynamics(x), kernel=kernel).pooled


def potentials(x: Tensor, tau: float, spec: NeuronSpec) -> tuple[Tensor, Tensor]:
    """Returns H and V of every step, by the definition."""
    v, hs, vs = torch.full_like(x[0], spec.v_reset), [], []
    for x_t in x:
        h = functional.charge(x_t, v, 1 / tau, spec.v_reset)
        spike = functional.fire(h, spec.v_threshold)
        v = functional.reset(h, spike, spec.v_threshold, spec.v_reset, soft=spec.reset == "soft", detach=True)
        hs.append(h)
        vs.append(v)
    return torch.stack(hs), torch.stack(vs)


def assert_close(found: Any, expected: np.ndarray, relative: float = 1e-9, scale: float | None = None) -> None:
    """Compares to ``relative`` of each value, and of the size of its summands: ``scale``, or the largest value."""
    scale = float(np.abs(expected).max(initial=0)) if scale is None else scale
    found = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
    np.testing.assert_allclose(found, expected, rtol=relative, atol=relative * scale)


def first_differences(found: Tensor, expected: Tensor, h: Tensor, threshold: float) -> tuple[int, float]:
    """Returns the number of neurons whose spikes differ, and the largest |H − V_th| at the first step of each.

    After that step the trajectories are different ones.
    """
    different = (found != expected).flatten(1)
    neurons = different.any(0)
    first = different.to(torch.uint8).argmax(0)
    over = (h.flatten(1) - threshold).abs().gather(0, first[None])[0][neurons]
    return int(neurons.sum()), float(over.max()) if len(over) else 0.0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", NEURONS)
def test_neurons_float64_equal_spikingjelly(name: str, kernel: str, neurons: dict[str, np.ndarray]) -> None:
    case = NEURONS[name]
    layer, run = layer_of(case, kernel)
    x = torch.from_numpy(case.input()).requires_grad_()
    spikes = run(x)
    (spikes * torch.from_numpy(case.upstream())).sum().backward()
    assert np.array_equal(np.packbits(spikes.detach().numpy() != 0), neurons[f"{name}/spikes"])
    assert x.grad is not None
    assert_close(sampled(x.grad.numpy(), 150), neurons[f"{name}/grad_x"])
    if case.kind == "plif":
        assert layer.a is not None
        assert_close(layer.a.grad, neurons[f"{name}/grad_w"], scale=float(x.grad.abs().sum()))
    _, v = potentials(x.detach(), layer.tau, spec_of(case))
    assert_close(sampled(v[-1].numpy(), 50), neurons[f"{name}/v"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_neurons_float32_differ_at_threshold_only(kernel: str, neurons: dict[str, np.ndarray]) -> None:
    count = total = 0
    for name, case in NEURONS.items():
        layer, run = layer_of(case, kernel)
        expected = np.unpackbits(neurons[f"{name}/spikes"], count=case.T * int(np.prod(case.shape)))
        x = torch.from_numpy(case.input())
        own = x.float().requires_grad_()
        layer.float()
        spikes = run(own)
        (spikes * torch.from_numpy(case.upstream()).float()).sum().backward()
        h, _ = potentials(x, case.tau, spec_of(case))
        golden = torch.from_numpy(expected).view(x.shape).to(spikes)
        differing, over = first_differences(spikes.detach(), golden, h, case.v_threshold)
        assert over < AT_THRESHOLD, f"{name}: spikes differ {over:.1e} from the threshold"
        count, total = count + differing, total + x[0].numel()
        if differing == 0 and case.surrogate != "rectangular":  # whose edges are thresholds as well
            assert own.grad is not None
            assert_close(sampled(own.grad.numpy(), 150), neurons[f"{name}/grad_x"], relative=1e-5)
    assert count <= total // 1000


def network_of(case: Network, kernel: str, monkeypatch: pytest.MonkeyPatch) -> SpikingNetwork:
    """Returns the network of a case with its weights; its dropout uses the masks of the case."""
    network = NetworkSpec(name=case.name, structure=case.structure, dropout=case.p, batch_norm="per-step")
    net = SpikingNetwork(network, spec_of(case), case.input_shape, case.classes, kernel)
    own = {name.removeprefix("layers."): tensor for name, tensor in net.state_dict(keep_vars=True).items()}
    named = {name: own[name] for name in own if not name.endswith(("num_batches_tracked", ".k"))}
    drawn = case.draw({name: tuple(tensor.shape) for name, tensor in named.items()})
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(torch.from_numpy(np.asarray(drawn[name])))
    calls: list[int] = []

    def mask(keys: Tensor, features: int, p: float) -> Tensor:
        calls.append(features)
        assert (len(keys), p) == (case.N, case.p)
        return torch.from_numpy(case.mask(len(calls) - 1, features))

    monkeypatch.setattr("plifctl.snn.kernels.held_dropout_mask", mask)
    return net


def run_network(case: Network, net: SpikingNetwork) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the votes, and the spikes of each layer."""
    spikes: dict[str, Tensor] = {}
    x = torch.from_numpy(case.input()).to(next(net.parameters()))
    votes = net(x, case.T, keys=torch.arange(case.N), observe=lambda name, fired: spikes.update({name: fired.detach()}))
    return votes, spikes


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        pytest.param(name, kernel, marks=pytest.mark.slow if case.large else ())
        for name, case in NETWORKS.items()
        for kernel in (("auto",) if case.large else KERNELS)
    ],
)
def test_networks_float64_equal_spikingjelly(
    name: str, kernel: str, mode: str, networks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = NETWORKS[name]
    net = network_of(case, kernel, monkeypatch).train(mode == "train")
    if mode == "eval":
        _, spikes = run_network(case, net)
        for layer, fired in spikes.items():  # the first layer that differs is the cause
            assert np.array_equal(fired.flatten(1).sum(1), networks[f"{name}/eval/spikes/{layer}"]), layer
            assert np.array_equal(digest(fired.numpy()), networks[f"{name}/eval/sha256/{layer}"]), layer
        assert len(spikes) == sum(key.startswith(f"{name}/eval/sha256/") for key in networks)
        if case.large:
            return
    x = torch.from_numpy(case.input())
    votes = net(x, case.T, keys=torch.arange(case.N))  # without observer, as in training
    loss = _loss(case, votes)
    assert np.array_equal((votes.detach() * 10).round(), networks[f"{name}/{mode}/votes"])
    assert_close(loss, networks[f"{name}/{mode}/loss"])
    if mode == "eval":
        return
    loss.backward()
    parameters = {key.removeprefix("layers."): parameter for key, parameter in net.named_parameters()}
    assert {f"{name}/grad/{key}" for key in parameters} == {key for key in networks if key.startswith(f"{name}/grad/")}
    for key, parameter in parameters.items():
        assert parameter.grad is not None
        norm = networks[f"{name}/norm/{key}"]
        assert_close(parameter.grad.norm(), norm)
        assert_close(sampled(parameter.grad.numpy(), 12), networks[f"{name}/grad/{key}"], scale=float(norm))
    running = {key: value for key, value in networks.items() if key.startswith(f"{name}/running/")}
    assert running
    for key, value in running.items():
        assert_close(sampled(net.get_buffer(f"layers.{key.removeprefix(f'{name}/running/')}").numpy(), 12), value)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_networks_float32_differ_at_threshold_only(
    mode: str, networks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first layer whose spikes differ from float64, the potential was at the threshold; most have none."""
    names = ("fashion-mnist", "nmnist", "cifar10", "gesture")
    equal = [f"{name}, {kernel}" for name in names for kernel in compare_float32(name, mode, networks, monkeypatch)]
    assert len(equal) > len(names) * len(KERNELS) // 2, equal


def compare_float32(
    name: str, mode: str, networks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Compares a network in float32 with float64, layer by layer; returns the kernels whose spikes are all equal.

    These give the votes, and the norms of the gradients, of SpikingJelly.
    """
    case = NETWORKS[name]
    precise = network_of(case, "eager", monkeypatch).train(mode == "train")
    inputs: list[Tensor] = []
    for key, module in precise.layers.items():
        if key.startswith(("bn", "fc")):
            module.register_forward_hook(lambda _, __, x: inputs.append(x.detach()))
    _, expected = run_network(case, precise)
    equal = []
    for kernel in KERNELS:
        net = network_of(case, kernel, monkeypatch).float().train(mode == "train")
        votes, found = run_network(case, net)
        for (layer, spikes), x in zip(expected.items(), inputs, strict=True):
            h, _ = potentials(x.expand(spikes.shape), precise.spiking_layers()[layer].tau, spec_of(case))
            count, over = first_differences(found[layer].double(), spikes, h, 1.0)
            assert over < AT_THRESHOLD, f"{name}, {kernel}, {layer}: spikes differ {over:.1e} from the threshold"
            if count:
                break  # the following layers have another input
        else:
            equal.append(kernel)
            assert np.array_equal((votes.detach() * 10).round(), networks[f"{name}/{mode}/votes"])
            if mode == "train":
                _loss(case, votes).backward()
                for key, parameter in net.named_parameters():
                    norm = networks[f"{name}/norm/{key.removeprefix('layers.')}"]
                    assert parameter.grad is not None
                    assert_close(parameter.grad.norm(), norm, relative=1e-4)
    return equal
