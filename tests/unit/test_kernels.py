"""The fused kernel against the definition: values, gradients, statistics, of whole stages and networks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from plifctl.snn.kernels import Kernel, spiking_stage
from plifctl.snn.layers import BatchNorm, Pool
from plifctl.snn.networks import FiringRates, SpikingNetwork, rates_of
from plifctl.snn.neurons import Spiking
from plifctl.specs import NetworkSpec, NeuronSpec

PLIF = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)
KERNELS: tuple[Kernel, ...] = ("eager", "fused")

NEURONS: list[dict[str, Any]] = [
    {},
    {"kind": "lif", "tau_0": None, "tau": 3.0},
    {"v_reset": -0.5, "v_threshold": 0.7},
    {"detach_reset": False, "v_reset": -0.5},
    {"reset": "soft"},
    {"reset": "soft", "detach_reset": False, "v_threshold": 0.7},
    {"surrogate": "sigmoid", "surrogate_width": 0.25},
    {"surrogate": "rectangular"},
    {"surrogate": "triangular", "surrogate_width": 0.7},
    {"tau_per": "channel"},
    {"tau_per": "neuron"},
    {"learn_threshold": True},
    {"learn_threshold": True, "reset": "soft", "detach_reset": False, "learn_surrogate_width": True},
    {"learn_surrogate_width": True, "surrogate": "sigmoid", "tau_per": "neuron"},
    {"learn_surrogate_width": True, "surrogate": "triangular"},
]

Result = dict[str, Tensor]


def stage(
    kernel: Kernel,
    shape: tuple[int, ...],
    T: int,
    neuron: dict[str, Any],
    dtype: torch.dtype = torch.float64,
    norm: str | None = "per-step",
    pool: tuple[str, int] | None = ("max", 2),
    training: bool = True,
) -> Result:
    """Everything that a stage gives and leaves behind, for inputs ``shape`` of [T or 1, N, …] drawn by a seed."""
    generator = torch.Generator().manual_seed(7)

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    x = (1.5 * drawn(*shape) + 0.5).requires_grad_()
    spiking = Spiking(PLIF.model_copy(update=neuron), shape[2:]).to(dtype)
    if spiking.a is not None:
        spiking.a.data += 0.5 * drawn(*spiking.a.shape)
    found: Result = {}
    layer = None
    if norm is not None:
        layer = BatchNorm(shape[2], per_step=norm == "per-step").to(dtype).train(training)
        layer.weight.data = 1.5 + 0.3 * drawn(shape[2])
        layer.bias.data = 0.3 * drawn(shape[2])
        layer.running_var += 0.5
    pooling = Pool(*pool, pool[1]) if pool is not None else None
    spikes = spiking_stage(x, T, spiking.dynamics(x), layer, pooling, kernel)
    (spikes.pooled * drawn(*spikes.pooled.shape)).sum().backward()
    found |= {"spikes": spikes.pooled.detach(), "fired": spikes.fired, "grad": x.grad if x.grad is not None else x}
    modules: dict[str, torch.nn.Module] = {"sn": spiking} | ({"bn": layer} if layer is not None else {})
    for name, module in modules.items():
        found |= {f"{name}.{key}": p.grad for key, p in module.named_parameters() if p.grad is not None}
        found |= {f"{name}.{key}": b.clone() for key, b in module.named_buffers()}
    return found


def compare(*arguments: Any, **options: Any) -> Result:
    expected, found = (stage(kernel, *arguments, **options) for kernel in KERNELS)
    assert expected.keys() == found.keys()
    assert torch.equal(expected["spikes"], found["spikes"])
    assert expected["fired"] == found["fired"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")
    return found


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_every_neuron_on_maps(neuron: dict[str, Any]) -> None:
    found = compare((5, 3, 6, 7, 9), 5, neuron)
    assert 0.005 < found["fired"] / (5 * 3 * 6 * 7 * 9) < 0.9
    learnt = {"a"} - ({"a"} if neuron.get("kind") == "lif" else set())
    learnt |= {"v_threshold"} if neuron.get("learn_threshold") else set()
    learnt |= {"log_width"} if neuron.get("learn_surrogate_width") else set()
    assert {name for name in found if name.startswith("sn.")} == {f"sn.{name}" for name in learnt}


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_every_neuron_on_features(neuron: dict[str, Any]) -> None:
    compare((4, 3, 521), 4, neuron, norm=None, pool=None)


@pytest.mark.parametrize("pool", [None, ("max", 2), ("max", 3), ("average", 2), ("average", 5)])
@pytest.mark.parametrize("size", [(1, 1), (6, 6), (7, 9), (5, 20)])
@pytest.mark.parametrize("steps", [(1, 1), (1, 6), (6, 6)], ids=str)
def test_sizes_and_pooling(pool: tuple[str, int] | None, size: tuple[int, int], steps: tuple[int, int]) -> None:
    if pool is not None and pool[1] > min(size):
        return
    compare((steps[0], 2, 3, *size), steps[1], {}, pool=pool)


@pytest.mark.parametrize("norm", [None, "per-step", "over-time"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [1, 4])
def test_batch_norm(norm: str | None, training: bool, steps: int) -> None:
    compare((steps, 2, 130, 4, 6), 4, {"tau_per": "neuron"}, norm=norm, training=training)


def test_statistics_far_from_zero() -> None:
    """The mean is 10⁴ deviations away: sums of squares would have lost everything."""
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        x = 1e4 + torch.randn(3, 2, 5, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        norms = [BatchNorm(5, per_step=True).to(dtype) for _ in KERNELS]
        for norm, kernel in zip(norms, KERNELS, strict=True):
            spiking = Spiking(PLIF, (5, 8, 8)).to(dtype)
            spiking_stage(x.to(dtype), 3, spiking.dynamics(x.to(dtype)), norm, kernel=kernel)
        torch.testing.assert_close(norms[1].running_mean, norms[0].running_mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(norms[1].running_var, norms[0].running_var, rtol=tolerance, atol=0)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4, 4), (3, 0, 3, 4, 4), (0, 2, 5), (3, 0, 5)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    maps = len(shape) == 5
    found = stage("fused", shape, shape[0], {}, norm=None, pool=("max", 2) if maps else None)
    assert found["spikes"].shape == ((*shape[:3], 2, 2) if maps else shape)
    assert found["fired"] == 0


def test_one_value_a_channel_has_no_statistics() -> None:
    for kernel in KERNELS:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            stage(kernel, (2, 1, 3, 1, 1), 2, {}, pool=None)


def test_single_precision() -> None:
    """Spikes differ only where a potential is within rounding of the threshold; gradients agree where spikes do."""
    shape = (8, 4, 32, 14, 14)
    exact = stage("eager", shape, 8, {})
    found = stage("fused", shape, 8, {}, dtype=torch.float32)
    assert found["spikes"].dtype == torch.float32
    different = (found["spikes"] != exact["spikes"]).flatten(3).any(3).any(0)
    assert different.float().mean() < 0.05
    for name in ("bn.weight", "bn.bias", "sn.a"):
        torch.testing.assert_close(
            found[name].double(), exact[name], rtol=1e-2, atol=1e-2 * exact[name].abs().max().item()
        )
    one = stage("eager", shape, 8, {}, dtype=torch.float32)
    same = (one["spikes"] == found["spikes"]).transpose(2, 0).flatten(1).all(1)  # channels know nothing of others
    assert same.float().mean() > 0.9
    scale = one["grad"].abs().max()
    assert (one["grad"] - found["grad"])[:, :, same].abs().max() < 1e-5 * scale


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        found.append(stage("fused", (5, 3, 6, 18, 9), 5, {"tau_per": "channel"}, dtype=torch.float32))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


STRUCTURE = "c6k3s1-BN-SN-MPk2s2-c5k3s2-BN-MPk2s2-SN-MPk2s1-DP-FC16-SN-DP-FC20-SN-APk10s10"


def test_a_network_is_the_same_by_both() -> None:
    spec = NetworkSpec(name="test", structure=STRUCTURE, dropout=0.5, batch_norm="per-step")
    found = []
    for kernel in KERNELS:
        torch.manual_seed(0)
        net = SpikingNetwork(spec, PLIF, (2, 19, 22), 2, kernel).double()
        for parameter in net.parameters():
            parameter.data *= 3.0 if parameter.dim() > 1 else 1.0
        x = torch.randn(3, 4, 2, 19, 22, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        firing = FiringRates()
        votes = net(x, keys=torch.arange(3), firing=firing)
        votes.square().sum().backward()
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            net.eval()(x, observe=seen.__setitem__)
        grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        found.append((votes.detach(), rates_of([firing.counts()]), seen, grads, net.state_dict()))
    (votes, rates, seen, grads, state), other = found
    assert torch.equal(votes, other[0])
    assert votes.any()
    assert rates == other[1]
    assert list(rates) == ["sn0", "sn1", "sn2", "sn3"]
    assert all(torch.equal(seen[name], other[2][name]) for name in rates)
    assert seen["sn0"].shape == (4, 3, 6, 19, 22)  # before pooling
    for name in grads:
        torch.testing.assert_close(other[3][name], grads[name], rtol=1e-9, atol=1e-12)
    for name in state:
        torch.testing.assert_close(other[4][name], state[name], rtol=1e-12, atol=1e-12)


def test_firing_rates_count_spikes_before_pooling() -> None:
    spec = NetworkSpec(name="test", structure="c2k1s1-SN-MPk3s3-FC20-SN-APk10s10", dropout=0.0, batch_norm="per-step")
    net = SpikingNetwork(spec, PLIF, (1, 4, 5), 2).eval()
    x, firing, counts = torch.randn(3, 1, 4, 5), FiringRates(), dict[str, float]()
    for _ in range(2):
        net(x, 6, firing=firing)
    net(x, 6, observe=lambda name, spikes: counts.__setitem__(name, spikes.mean().item()))
    assert rates_of([firing.counts()]) == pytest.approx(counts)


def test_dynamics_come_from_the_spec() -> None:
    spec = PLIF.model_copy(update={"tau_0": 4.0, "v_threshold": 0.3, "surrogate_width": 0.7, "reset": "soft"})
    found = Spiking(spec, (3,)).double().dynamics(torch.zeros(1, dtype=torch.float64))
    assert found[2:6] == (0.0, True, True, "arctan")
    assert (found.v_threshold.item(), found.width.item()) == (0.3, 0.7)  # not rounded to float32 on the way
    assert found.k.item() == pytest.approx(0.25)


def test_half_precision_is_computed_in_single() -> None:
    x = torch.randn(3, 2, 5).bfloat16()
    dynamics = Spiking(PLIF, (5,)).dynamics(x)
    for kernel in KERNELS:
        found = spiking_stage(x, 3, dynamics, kernel=kernel).pooled
        assert torch.equal(found, spiking_stage(x.float(), 3, dynamics, kernel=kernel).pooled)
        assert found.dtype == torch.float32


def test_there_is_no_second_derivative() -> None:
    x = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    spikes = spiking_stage(x, 3, Spiking(PLIF, (5,)).double().dynamics(x), kernel="fused").pooled
    (gradient,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


def test_running_statistics_that_move_between_forward_and_backward_change_nothing() -> None:
    x = torch.randn(3, 2, 5, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for moved in (0.0, 1.0):
        norm = BatchNorm(5, per_step=True).double().eval()
        spikes = spiking_stage(x, 3, Spiking(PLIF, (5, 4, 4)).double().dynamics(x), norm, kernel="fused").pooled
        assert norm.running_mean is not None
        norm.running_mean += moved
        found.append(torch.autograd.grad(spikes.sum(), (norm.weight, x)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
