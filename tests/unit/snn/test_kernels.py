"""The fast kernels against the definition: values, gradients and statistics of stages and networks.

Triton runs in its interpreter here, with tiles small enough to need many; ``tests/gpu`` runs it on a GPU.
"""

from typing import Any

import pytest
import torch
from stages import NEURONS, PLIF, Result, drawn_stage, stage
from torch import Tensor

from plifctl.config.choices import Kernel
from plifctl.config.network import NetworkSpec
from plifctl.snn.functional import charge, reset
from plifctl.snn.kernels import held_dropout, spiking_stage
from plifctl.snn.layers import BatchNorm, Conv, Pool
from plifctl.snn.networks import SpikeCounter, SpikingNetwork, firing_rates
from plifctl.snn.neurons import SpikingLayer

AT_THRESHOLD = 1e-5  # within this distance float32 rounding decides whether a neuron fires


@pytest.fixture(params=["fused", pytest.param("triton", marks=pytest.mark.slow)])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Each fast kernel."""
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton is not installed")
        from plifctl.snn.kernels import triton

        monkeypatch.setattr(triton, "TILE", 256)
    kernel: Kernel = request.param
    return kernel


def compare(fast: Kernel, *arguments: Any, **options: Any) -> Result:
    expected, found = (stage(kernel, *arguments, **options) for kernel in ("eager", fast))
    assert expected.keys() == found.keys()
    assert torch.equal(expected["spikes"], found["spikes"])
    assert expected["fired"] == found["fired"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")
    return found


def test_stage_triton_small_shapes_equals_definition() -> None:
    """A quick sample of the slow tests of Triton."""
    pytest.importorskip("triton", reason="Triton is not installed")
    compare("triton", (2, 2, 3, 5, 4), 2, {"detach_reset": False, "learn_threshold": True})
    compare("triton", (1, 2, 3, 4, 4), 2, {"tau_per": "channel"}, norm="over-time", pool=("average", 2))
    compare("triton", (2, 3, 40), 2, {"reset": "soft"}, norm=None, pool=None)


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_stage_every_neuron_on_maps_equals_definition(fast: Kernel, neuron: dict[str, Any]) -> None:
    found = compare(fast, (5, 3, 6, 7, 9), 5, neuron)
    assert 0.005 < found["fired"] / (5 * 3 * 6 * 7 * 9) < 0.9
    learnt = {"a"} - ({"a"} if neuron.get("kind") == "lif" else set())
    learnt |= {"v_threshold"} if neuron.get("learn_threshold") else set()
    learnt |= {"log_width"} if neuron.get("learn_surrogate_width") else set()
    assert {name for name in found if name.startswith("sn.")} == {f"sn.{name}" for name in learnt}


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_stage_every_neuron_on_features_equals_definition(fast: Kernel, neuron: dict[str, Any]) -> None:
    compare(fast, (4, 3, 521), 4, neuron, norm=None, pool=None)


@pytest.mark.parametrize("pool", [None, ("max", 2), ("max", 3), ("average", 2), ("average", 5)])
@pytest.mark.parametrize("size", [(1, 1), (6, 6), (7, 9), (5, 20)])
@pytest.mark.parametrize("steps", [(1, 1), (1, 6), (6, 6)], ids=str)
def test_stage_sizes_and_pooling_equals_definition(
    fast: Kernel, pool: tuple[str, int] | None, size: tuple[int, int], steps: tuple[int, int]
) -> None:
    if pool is not None and pool[1] > min(size):
        return
    compare(fast, (steps[0], 2, 3, *size), steps[1], {}, pool=pool)


@pytest.mark.parametrize("norm", [None, "per-step", "over-time"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [1, 4])
def test_stage_batch_norm_equals_definition(fast: Kernel, norm: str | None, training: bool, steps: int) -> None:
    compare(fast, (steps, 2, 130, 4, 6), 4, {"tau_per": "neuron"}, norm=norm, training=training)


def test_batch_statistics_far_from_zero_keep_precision(fast: Kernel) -> None:
    """The mean is 10⁴ deviations away: sums of squares would have lost everything."""
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        x = 1e4 + torch.randn(3, 2, 5, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        norms = [BatchNorm(5, per_step=True).to(dtype) for _ in range(2)]
        for norm, kernel in zip(norms, ("eager", fast), strict=True):
            spiking = SpikingLayer(PLIF, (5, 8, 8)).to(dtype)
            spiking_stage(x.to(dtype), 3, spiking.dynamics(x.to(dtype)), norm, kernel=kernel)
        torch.testing.assert_close(norms[1].running_mean, norms[0].running_mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(norms[1].running_var, norms[0].running_var, rtol=tolerance, atol=0)


def test_batch_statistics_hot_pixel_in_a_constant_channel_has_a_variance(fast: Kernel) -> None:
    """The first pixel is far from all others, which are equal: what float32 loses is more than the variance."""
    x = torch.full((1, 1024, 1, 1, 256), 0.5)
    x[0, 0, 0, 0, 0] = hot = 3000.3
    norms = [BatchNorm(1, per_step=True) for _ in range(2)]
    for norm, kernel in zip(norms, ("eager", fast), strict=True):
        spiking_stage(x, 1, SpikingLayer(PLIF, (1, 1, 256)).dynamics(x), norm, kernel=kernel)
    expected, found = norms
    assert found.running_var is not None
    assert found.running_var >= 0.9 * (1 - 1e-6)  # 1 before, with a momentum of 0.1
    torch.testing.assert_close(found.running_var, expected.running_var, rtol=0, atol=1e-6 * hot**2)
    torch.testing.assert_close(found.running_mean, expected.running_mean, rtol=0, atol=1e-6 * hot)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4, 4), (3, 0, 3, 4, 4), (0, 2, 5), (3, 0, 5)])
def test_stage_empty_input_gives_empty_output(fast: Kernel, shape: tuple[int, ...]) -> None:
    maps = len(shape) == 5
    found = stage(fast, shape, shape[0], {}, norm=None, pool=("max", 2) if maps else None)
    assert found["spikes"].shape == ((*shape[:3], 2, 2) if maps else shape)
    assert found["fired"] == 0


def test_stage_one_value_per_channel_is_refused(fast: Kernel) -> None:
    for kernel in ("eager", fast):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            stage(kernel, (2, 1, 3, 1, 1), 2, {}, pool=None)


@pytest.mark.parametrize("shape", [(5, 3, 20), (5, 2, 3, 6, 6), (0, 3, 20)])
@pytest.mark.parametrize("steps", [7, 3])
def test_stage_of_other_steps_than_its_input_is_refused(shape: tuple[int, ...], steps: int) -> None:
    x = torch.zeros(shape)
    synapses = Conv(3, 16, 3, 1) if len(shape) == 5 else None  # together with its convolution
    spiking = SpikingLayer(PLIF, shape[2:])
    for kernel in ("eager", "fused"):
        with pytest.raises(ValueError, match=f"an input of {len(x)} time steps, expected T = {steps}"):
            spiking_stage(x, steps, spiking.dynamics(x), kernel=kernel, synapses=synapses)  # type: ignore[arg-type]


@torch.no_grad()
def potentials(shape: tuple[int, ...]) -> Tensor:
    """Returns the potentials before firing of a drawn stage with batch norm, by the definition in float64."""
    x, (spiking, norm), _ = drawn_stage(shape, {})
    assert norm is not None
    k, v_threshold, v_reset, soft, detach, *_ = spiking.dynamics(x)
    v, found = torch.full_like(x[0], v_reset), []
    for x_t in norm(x):
        h = charge(x_t, v, k, v_reset)
        v = reset(h, (h >= v_threshold).to(h), v_threshold, v_reset, soft=soft, detach=detach)
        found.append(h)
    return torch.stack(found)


@torch.no_grad()
def spikes_before_pooling(kernel: Kernel, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    x, (spiking, norm), _ = drawn_stage(shape, {}, dtype)
    return spiking_stage(x, shape[0], spiking.dynamics(x), norm, kernel=kernel).pooled


def test_stage_float32_differs_at_threshold_only(fast: Kernel) -> None:
    """Spikes differ first where a potential is within rounding of the threshold; gradients agree where spikes do."""
    shape = (8, 4, 32, 14, 14)
    h = potentials(shape)
    assert torch.equal(spikes_before_pooling("eager", shape, torch.float64), (h >= PLIF.v_threshold).double())
    different = spikes_before_pooling(fast, shape, torch.float32) != (h >= PLIF.v_threshold)
    first = different & (different.cumsum(0) == 1)  # later ones follow from it
    assert ((h - PLIF.v_threshold).abs()[first] < AT_THRESHOLD).all()
    exact = stage("eager", shape, 8, {})
    found = stage(fast, shape, 8, {}, dtype=torch.float32)
    assert found["spikes"].dtype == torch.float32
    maps = (found["spikes"] != exact["spikes"]).flatten(3).any(3).any(0)
    assert maps.float().mean() < 0.05
    for name in ("bn.weight", "bn.bias", "sn.a"):
        torch.testing.assert_close(
            found[name].double(), exact[name], rtol=1e-2, atol=1e-2 * exact[name].abs().max().item()
        )
    one = stage("eager", shape, 8, {}, dtype=torch.float32)
    same = (one["spikes"] == found["spikes"]).transpose(2, 0).flatten(1).all(1)  # channels know nothing of others
    assert same.float().mean() > 0.9
    scale = one["grad"].abs().max()
    assert (one["grad"] - found["grad"])[:, :, same].abs().max() < 1e-5 * scale


def test_fused_any_number_of_threads_gives_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        found.append(stage("fused", (5, 3, 6, 18, 9), 5, {"tau_per": "channel"}, dtype=torch.float32))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


STRUCTURE = "c6k3s1-BN-SN-MPk2s2-c5k3s2-BN-MPk2s2-SN-MPk2s1-DP-FC16b-SN-DP-FC20-SN-APk10s10"


def test_network_fast_kernel_equals_definition(fast: Kernel) -> None:
    spec = NetworkSpec(name="test", structure=STRUCTURE, dropout=0.5, batch_norm="per-step")
    found = []
    for kernel in ("eager", fast):
        torch.manual_seed(0)
        net = SpikingNetwork(spec, PLIF, (2, 19, 22), 2, kernel).double()
        for parameter in net.parameters():
            parameter.data *= 3.0 if parameter.dim() > 1 else 1.0
        x = torch.randn(3, 4, 2, 19, 22, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        counter = SpikeCounter()
        votes = net(x, keys=torch.arange(3), counter=counter)
        votes.square().sum().backward()
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            net.eval()(x, observe=seen.__setitem__)
        grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        found.append((votes.detach(), firing_rates([counter.counts()]), seen, grads, net.state_dict()))
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


def test_spike_counter_with_pooling_counts_before_it() -> None:
    spec = NetworkSpec(name="test", structure="c2k1s1-SN-MPk3s3-FC20-SN-APk10s10", dropout=0.0, batch_norm="per-step")
    net = SpikingNetwork(spec, PLIF, (1, 4, 5), 2).eval()
    x, counter, means = torch.randn(3, 1, 4, 5), SpikeCounter(), dict[str, float]()
    for _ in range(2):
        net(x, 6, counter=counter)
    net(x, 6, observe=lambda name, spikes: means.__setitem__(name, spikes.mean().item()))
    assert firing_rates([counter.counts()]) == pytest.approx(means)


def test_dynamics_of_spec_keep_float64_values() -> None:
    spec = PLIF.model_copy(update={"tau_0": 4.0, "v_threshold": 0.3, "surrogate_width": 0.7, "reset": "soft"})
    found = SpikingLayer(spec, (3,)).double().dynamics(torch.zeros(1, dtype=torch.float64))
    assert found[2:6] == (0.0, True, True, "arctan")
    assert (found.v_threshold.item(), found.width.item()) == (0.3, 0.7)  # not rounded to float32 on the way
    assert found.k.item() == pytest.approx(0.25)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_stage_half_precision_input_is_computed_in_float32(fast: Kernel, kind: torch.dtype) -> None:
    """Spikes are numbers that half precision has; on a GPU they stay in it, which halves what is written."""
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)).to(kind)
    dynamics = SpikingLayer(PLIF, (5,)).dynamics(x)
    assert dynamics.k.dtype == torch.float32
    expected = spiking_stage(x.float(), 3, dynamics, kernel="eager").pooled
    for kernel, dtype in (("eager", torch.float32), (fast, kind if fast == "triton" else torch.float32)):
        found = spiking_stage(x, 3, dynamics, kernel=kernel).pooled
        assert found.dtype == dtype
        assert torch.equal(found.float(), expected)


def test_gradients_half_precision_equal_float32_rounded_once(fast: Kernel) -> None:
    def gradients(kernel: Kernel, dtype: torch.dtype) -> list[Tensor]:
        x = torch.randn(9, 2, 3, 6, 7, generator=torch.Generator().manual_seed(0)).bfloat16().to(dtype).requires_grad_()
        spiking, norm = SpikingLayer(PLIF, (3, 6, 7)), BatchNorm(3, per_step=True)
        spikes = spiking_stage(x, 9, spiking.dynamics(x), norm, Pool("max", 2, 2), kernel).pooled
        weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        (spikes.float() * weights).sum().backward()
        found = [x.grad, spiking.a.grad if spiking.a is not None else None, norm.weight.grad, norm.bias.grad]
        return [grad for grad in found if grad is not None]

    (own, *others), (exact, *expected) = gradients(fast, torch.bfloat16), gradients("eager", torch.float32)
    assert own.dtype == torch.bfloat16
    torch.testing.assert_close(own.float(), exact, rtol=2**-7, atol=1e-6)  # Triton's interpreter does not round
    for other, wanted in zip(others, expected, strict=True):
        torch.testing.assert_close(other, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("T", [1, 2, 7, 8, 9, 17, 32])
def test_stage_any_number_of_steps_equals_definition(fast: Kernel, T: int) -> None:
    compare(fast, (T, 2, 3, 5, 4), T, {"detach_reset": False, "tau_per": "channel"})
    compare(fast, (T, 2, 30), T, {"reset": "soft"}, norm=None, pool=None)


def test_stage_repeated_gives_same_bits(fast: Kernel) -> None:
    one, other = (stage(fast, (4, 3, 5, 9, 8), 4, {"learn_threshold": True}, dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stage_second_derivative_is_refused(fast: Kernel) -> None:
    x = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    spikes = spiking_stage(x, 3, SpikingLayer(PLIF, (5,)).double().dynamics(x), kernel=fast).pooled
    (gradient,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


def test_gradients_after_running_statistics_changed_are_unaffected(fast: Kernel) -> None:
    x = torch.randn(3, 2, 5, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for moved in (0.0, 1.0):
        norm = BatchNorm(5, per_step=True).double().eval()
        spikes = spiking_stage(x, 3, SpikingLayer(PLIF, (5, 4, 4)).double().dynamics(x), norm, kernel=fast).pooled
        assert norm.running_mean is not None
        norm.running_mean += moved
        found.append(torch.autograd.grad(spikes.sum(), (norm.weight, x)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(3, 2, 5, 3, 7), (1, 4, 1500), (2, 0, 6), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.long
def test_dropout_triton_equals_definition(shape: tuple[int, ...], p: float, dtype: torch.dtype) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    keys = torch.arange(shape[1]) * 3**39 - 2**62
    for layer in (0, 1, 16, 2**31 - 1):
        x = torch.randn(shape).to(dtype).requires_grad_()
        expected, found = (held_dropout(x, keys, layer, p, kernel) for kernel in ("eager", "triton"))  # type: ignore[arg-type]
        assert torch.equal(expected, found)
        by_expected, by_found = (torch.autograd.grad(y.sum(), x)[0] for y in (expected, found))
        assert torch.equal(by_expected, by_found)


STEP_STRUCTURES = {
    "norm and max pooling": "c6k3s1-BN-SN-MPk2s2-c5k3s2-BN-SN-DP-FC16b-SN-DP-FC20-SN-APk10s10",
    "average pooling before and after neurons": "c6k3s1-APk2s2-BN-SN-APk3s2-FC20-SN-APk10s10",
    "no convolution": "FC24-SN-FC20-SN-APk10s10",
}


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("structure", STEP_STRUCTURES.values(), ids=STEP_STRUCTURES)
@pytest.mark.parametrize("T", [1, 5])
@pytest.mark.long
def test_network_step_by_step_equals_forward(neuron: dict[str, Any], structure: str, T: int) -> None:
    spec = NetworkSpec(name="test", structure=structure, dropout=0.5, batch_norm="per-step")
    torch.manual_seed(1)
    net = SpikingNetwork(spec, PLIF.model_copy(update=neuron), (2, 11, 10), 2).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, layer in net.layers.items():
            if not name.startswith("sn"):
                for parameter in layer.parameters():
                    parameter.mul_(10.0)
            elif layer.a is not None:
                layer.a += torch.rand(layer.a.shape, generator=generator)  # channels and neurons differ
    net(torch.randn(4, 3, 2, 11, 10, dtype=torch.float64), keys=torch.arange(4))  # updates the running statistics
    net.eval()
    frames = 2 * torch.randn(3, T, 2, 11, 10, dtype=torch.float64)
    fired = 0.0
    for sequence in (frames.transpose(0, 1), frames[:, :1].transpose(0, 1).expand(T, -1, -1, -1, -1)):
        expected = net(sequence.transpose(0, 1))
        state, votes = None, []
        for frame in sequence:
            before = None if state is None else {name: v.clone() for name, v in state.items()}
            rates, new_state = net.step(frame, state)
            if state is not None and before is not None:
                assert all(torch.equal(state[name], before[name]) for name in before)  # not changed in place
            state = new_state
            votes.append(rates)
        assert state is not None
        assert list(state) == list(net.spiking_layers())
        assert torch.equal(torch.stack(votes), expected)
        fired += expected.sum().item()
    assert torch.equal(torch.stack(votes), net(frames[:, 0], T))  # an image, shown T times
    assert fired > 0


def test_network_step_in_training_mode_is_refused() -> None:
    spec = NetworkSpec(name="test", structure="FC20-SN-APk10s10", dropout=0.0, batch_norm="per-step")
    net = SpikingNetwork(spec, PLIF, (1, 4, 4), 2)
    with pytest.raises(RuntimeError, match=r"call eval\(\)"):
        net.step(torch.zeros(1, 1, 4, 4))


def test_network_step_gives_gradients_through_time() -> None:
    spec = NetworkSpec(name="test", structure="FC20-SN-FC20-SN-APk10s10", dropout=0.0, batch_norm="per-step")
    torch.manual_seed(2)
    net = SpikingNetwork(spec, PLIF, (1, 4, 4), 2, "eager").double().eval()
    frames = 5 * torch.randn(3, 4, 1, 4, 4, dtype=torch.float64)
    weight = torch.randn(4, 3, 2, dtype=torch.float64)
    (net(frames) * weight).sum().backward()
    expected = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    state, votes = None, []
    for frame in frames.transpose(0, 1):
        rates, state = net.step(frame, state)
        votes.append(rates)
    (torch.stack(votes) * weight).sum().backward()
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert gradient is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-15)
