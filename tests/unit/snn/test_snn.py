"""Neurons, layers, losses and networks against hand-computed values and against the definition."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import plifctl
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.errors import UsageError
from plifctl.snn import functional, keyed_random, losses, networks
from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels import held_dropout, spiking_stage
from plifctl.snn.kernels.reference import scan
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer

PLIF = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)
LIF = PLIF.model_copy(update={"kind": "lif", "tau_0": None, "tau": 2.0})
KERNELS = ["eager", "fused"]


def run(x: Tensor, k: Tensor, *, kernel: Any, v_reset: float = 0.0, detach_reset: bool = True) -> Tensor:
    """Returns the spikes of inputs of any shape, as the features of one sample."""
    dynamics = Dynamics(k, x.new_tensor(1.0), v_reset, False, detach_reset, "arctan", x.new_tensor(1.0))
    features = x.reshape(len(x), 1, math.prod(x.shape[1:]))
    return spiking_stage(features, len(x), dynamics, kernel=kernel).pooled.view(x.shape)


@pytest.mark.parametrize("kernel", KERNELS)
def test_stage_hand_computed_trajectory_gives_spikes(kernel: str) -> None:
    """tau = 2: H = 0.6, 0.9, 1.05 (fires, back to 0), 0.6, 1.0 (fires at equality)."""
    x = torch.tensor([1.2, 1.2, 1.2, 1.2, 1.4], dtype=torch.float64)[:, None]
    assert run(x, torch.tensor(0.5, dtype=torch.float64), kernel=kernel).ravel().tolist() == [0, 0, 1, 0, 1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_stage_negative_reset_potential_gives_hand_computed_spikes(kernel: str) -> None:
    """V_reset = −1, tau = 2: H = −1 + (4 − 0)/2 = 1 fires, again from −1; then −1 + (1 − 0)/2 = −0.5."""
    x = torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64)[:, None]
    assert run(x, torch.tensor(0.5, dtype=torch.float64), v_reset=-1.0, kernel=kernel).ravel().tolist() == [1, 1, 0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3, 5), (7, 1), (5, 3, 701), (3, 2, 1024), (4, 0), (20, 2, 33, 31)])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, -0.5])
def test_fused_float64_equals_definition(shape: tuple[int, ...], detach: bool, v_reset: float) -> None:
    torch.manual_seed(sum(shape))
    weight = torch.randn(shape, dtype=torch.float64)
    found = []
    for kernel in KERNELS:
        generator = torch.Generator().manual_seed(1)
        x = (2 * torch.randn(shape, dtype=torch.float64, generator=generator)).requires_grad_()
        a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        spikes = run(x, a.sigmoid(), v_reset=v_reset, detach_reset=detach, kernel=kernel)
        (spikes * weight).sum().backward()
        found.append((spikes.detach(), x.grad, a.grad if a.grad is not None else torch.zeros(())))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-9, atol=1e-9)


def test_fused_constant_input_equals_definition() -> None:
    image = torch.randn(1, 3, 4, requires_grad=True)
    dynamics = SpikingLayer(LIF, (4,)).dynamics(image)
    for kernel in KERNELS:
        spiking_stage(image, 6, dynamics, kernel=kernel).pooled.sum().backward()  # type: ignore[arg-type]
        gradient, image.grad = image.grad, None
        if kernel == "eager":
            expected = gradient
    torch.testing.assert_close(gradient, expected)


def closed_form(
    x: list[float], a: float, upstream: list[float], v_reset: float, detach: bool
) -> tuple[list[float], float]:
    """Eq. 8 to 16 in plain Python for one neuron, with Eq. 15's missing brackets."""
    k = 1 / (1 + math.exp(-a))
    v, potentials = v_reset, []
    for x_t in x:
        h = v + k * (x_t - (v - v_reset))
        spike = float(h >= 1.0)
        potentials.append((h, spike, v, x_t))
        v = h * (1 - spike) + v_reset * spike
    dh_da, before, dh_das = 0.0, 0.0, []
    for h, spike, v, x_t in potentials:
        slope = 1 / (1 + (math.pi * (h - 1.0)) ** 2)
        dh_da = (x_t - (v - v_reset)) * k * (1 - k) + (1 - k) * before * dh_da
        before = (1 - spike) + (0.0 if detach else (v_reset - h) * slope)  # Eq. 12
        dh_das.append(dh_da)
    grad_x, grad_a, later = [0.0] * len(x), 0.0, 0.0
    for t in reversed(range(len(x))):
        h, spike, v, _ = potentials[t]
        slope = 1 / (1 + (math.pi * (h - 1.0)) ** 2)
        dv_dh = (1 - spike) + (0.0 if detach else (v_reset - h) * slope)
        own = upstream[t] * slope  # ∂L_t/∂H_t, Eq. 10
        grad_h = later * (1 - k) * dv_dh + own  # Eq. 8, 9, 11
        grad_x[t] = grad_h * k  # Eq. 14
        grad_a += own * dh_das[t]  # Eq. 16 with the whole history of H_t in Eq. 15
        later = grad_h
    return grad_x, grad_a


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("detach", [True, False])
def test_gradients_single_neuron_equal_closed_form(kernel: str, detach: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x = (1.5 * torch.randn(9, 4, dtype=torch.float64, generator=generator)).requires_grad_()
    upstream = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    a = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    (run(x, a.sigmoid(), v_reset=-0.25, detach_reset=detach, kernel=kernel) * upstream).sum().backward()
    columns = [closed_form(x[:, i].tolist(), -0.7, upstream[:, i].tolist(), -0.25, detach) for i in range(4)]
    torch.testing.assert_close(x.grad, torch.tensor([c[0] for c in columns], dtype=torch.float64).T, rtol=1e-9, atol=0)
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(sum(c[1] for c in columns), rel=1e-9)


def test_tau_before_training_is_that_of_spec() -> None:
    for tau in (1.5, 2.0, 16.0):
        assert SpikingLayer(PLIF.model_copy(update={"tau_0": tau}), (3,)).tau == pytest.approx(tau, rel=1e-6)
    lif = SpikingLayer(LIF.model_copy(update={"tau": 16.0}), (3,))
    assert lif.tau == 16.0
    assert list(lif.parameters()) == []


def test_dropout_masks_by_key_are_balanced_and_independent() -> None:
    keys = keyed_random.hash_keys(2020, torch.arange(64))
    masks = keyed_random.held_dropout_mask(keys, 5000, 0.5)
    assert set(masks.unique().tolist()) == {0.0, 2.0}
    assert masks.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(keyed_random.held_dropout_mask(keys[[5, 3]], 5000, 0.5), masks[[5, 3]])
    agreement = (masks[0] == masks[1:]).float().mean(1)
    assert (agreement - 0.5).abs().max() < 0.05


def network(structure: str, shape: tuple[int, int, int], classes: int = 10, **choices: Any) -> SpikingNetwork:
    spec = NetworkSpec(name="test", structure=structure, dropout=0.5, batch_norm="per-step")
    return SpikingNetwork(spec.model_copy(update=choices), PLIF, shape, classes)


MNIST = "{c128k3s1-BN-SN-MPk2s2}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10"
GESTURE = "{c128k3s1-BN-SN-MPk2s2}*5-DP-FC512-SN-DP-FC110-SN-APk10s10"


def test_network_of_table_s1_has_its_parameters() -> None:
    """Convolutions 9·C·128, BN 2·128, FC without bias, one a for each of the PLIF layers."""
    mnist = network(MNIST, (1, 28, 28))
    assert sum(p.numel() for p in mnist.parameters()) == 9 * 128 + 9 * 128**2 + 4 * 128 + 6272 * 2048 + 2048 * 100 + 4
    gesture = network(GESTURE, (2, 128, 128), 11)
    expected = 9 * 2 * 128 + 4 * 9 * 128**2 + 10 * 128 + 2048 * 512 + 512 * 110 + 7
    assert sum(p.numel() for p in gesture.parameters()) == expected
    assert list(mnist.layers)[:5] == ["conv0", "bn0", "sn0", "pool0", "conv1"]


SMALL = "c4k3s1-BN-SN-MPk2s2-DP-FC16-SN-DP-FC20-SN-APk10s10"


def firing_network(shape: tuple[int, int, int]) -> SpikingNetwork:
    """Returns a network of two classes with random weights in float64, whose votes differ."""
    torch.manual_seed(0)
    net = network(SMALL, shape, 2).double()
    with torch.no_grad():
        for name in ("conv0", "fc0", "fc1"):
            net.layers[name].weight.normal_()
    return net


def test_forward_images_equal_repeated_frames() -> None:
    """The first conv + BN computed once gives what computing it at every step gives."""
    net = firing_network((1, 6, 6))
    images, keys = torch.randn(3, 1, 6, 6, dtype=torch.float64), torch.arange(3)
    for mode in (True, False):
        net.train(mode)
        once = net(images, 5, keys=keys)
        every = net(images[:, None].expand(3, 5, 1, 6, 6), keys=keys)
        assert once.unique().numel() > 2
        torch.testing.assert_close(once, every)


def test_forward_twice_leaves_no_state() -> None:
    net = firing_network((2, 6, 6)).eval()
    frames = torch.randint(0, 3, (4, 5, 2, 6, 6)).double()
    first = net(frames)
    assert first.unique().numel() > 2
    net(3 * frames)
    assert torch.equal(net(frames), first)
    assert torch.equal(net(frames[1:2]), first[:, 1:2])


def test_batch_norm_per_step_and_over_time_normalises() -> None:
    x = torch.randn(4, 3, 5, 2, 2) + torch.arange(4.0)[:, None, None, None, None]
    from plifctl.snn.layers import BatchNorm

    per_step, over_time = BatchNorm(5, per_step=True), BatchNorm(5, per_step=False)
    torch.testing.assert_close(per_step(x).mean((1, 3, 4)), torch.zeros(4, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(over_time(x).mean((0, 1, 3, 4)), torch.zeros(5), atol=1e-6, rtol=0)
    assert per_step.num_batches_tracked == 4
    mean = torch.zeros(5)
    for x_t in x:
        mean = 0.9 * mean + 0.1 * x_t.mean((0, 2, 3))
    torch.testing.assert_close(per_step.running_mean, mean)


def test_network_wrong_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="11 classes need FC110"):
        network(MNIST, (1, 28, 28), 11)


def test_losses_hand_computed_values() -> None:
    rates = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])  # T = 2, one sample, two classes
    targets = torch.tensor([[1.0, 0.0]])
    assert losses.mse_per_step(rates, targets).item() == pytest.approx((0 + 0 + 1 + 0) / 4)
    assert losses.mse_rate(rates, targets).item() == pytest.approx((0.5**2 + 0) / 2)
    per_step = (math.log(1 + math.exp(-1.0)) + math.log(2)) / 2
    assert losses.ce_rate(rates, targets).item() == pytest.approx(math.log(1 + math.exp(-0.5)))
    assert losses.tet(rates, targets, 0.0).item() == pytest.approx(per_step)
    assert losses.tet(rates, targets, 0.25).item() == pytest.approx(0.75 * per_step + 0.25 * 3 / 4)
    mixed = torch.tensor([[0.75, 0.25]])
    assert losses.mse_rate(rates, mixed).item() == pytest.approx((0.25**2 + 0.25**2) / 2)
    assert functional.predict(torch.tensor([[[0.5, 0.5, 0.1]]])).item() == 0


@pytest.mark.parametrize("loss", [losses.mse_per_step, losses.mse_rate, partial(losses.tet, weight=0.1)])
def test_losses_of_class_indices_are_refused(loss: losses.Loss) -> None:
    """Of as many samples as classes they would be broadcast, to a number that means nothing."""
    with pytest.raises(ValueError, match=r"found targets of shape \[3\], expected \[N, C\] = \[3, 3\]"):
        loss(torch.rand(2, 3, 3), torch.tensor([0, 1, 2]))


def test_training_mode_without_keys_draws_dropout_from_torch() -> None:
    net = network("DP-FC20-SN-APk10s10", (1, 4, 4), 2)
    with torch.no_grad():
        net.layers["fc0"].weight.uniform_(-0.5, 1.0)
    images = torch.ones(30, 1, 4, 4)
    votes = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        votes.append(net(images, 3))
    assert torch.equal(votes[0], votes[1])
    assert not torch.equal(votes[0], votes[2])
    assert votes[0].unique(dim=1).shape[1] > 1  # samples have masks of their own
    assert torch.equal(net.eval()(images, 3), net(images, 3))


class TestLayers:
    def test_dropout_mask_is_held_over_time_and_differs_by_sample_and_layer(self) -> None:
        keys = keyed_random.hash_keys(1, torch.arange(3))
        ones = torch.ones(6, 3, 4, 5)
        found, other = (held_dropout(ones, keys, layer, 0.5) for layer in (1, 2))
        assert set(found.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(found, found[:1].expand_as(found))
        assert not torch.equal(found[0, 0], found[0, 1])
        assert not torch.equal(found, other)

    def test_dropout_in_evaluation_is_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layers: list[int] = []
        monkeypatch.setattr(networks, "held_dropout", lambda x, keys, layer, p, kernel: layers.append(layer) or x)
        net = network("DP-FC20-SN-DP-FC20-SN-APk10s10", (1, 2, 2), 2).train()
        net(torch.ones(3, 1, 2, 2), 2, keys=torch.arange(3))
        assert len(set(layers)) == 2
        net.eval()(torch.ones(3, 1, 2, 2), 2, keys=torch.arange(3))
        assert len(layers) == 2

    def test_pool_any_mode_equals_torch(self) -> None:
        from plifctl.snn.layers import Pool

        x = torch.randn(2, 3, 4, 7, 7)
        for mode, pool in (("max", torch.nn.functional.max_pool2d), ("average", torch.nn.functional.avg_pool2d)):
            expected = torch.stack([pool(x_t, 3, 2) for x_t in x])
            assert torch.equal(Pool(mode, 3, 2)(x), expected)

    def test_vote_averages_adjacent_neurons(self) -> None:
        spikes = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0])
        assert functional.vote(spikes, 2).tolist() == [1.0, 0.0, 0.5]

    def test_batch_norm_per_step_equals_torch_at_each_step(self) -> None:
        from plifctl.snn.layers import BatchNorm

        ours, theirs = BatchNorm(3, per_step=True).double(), torch.nn.BatchNorm2d(3).double()
        x = 1e-3 * torch.randn(4, 2, 3, 5, 5, dtype=torch.float64)  # so small that eps matters
        torch.testing.assert_close(ours(x), torch.stack([theirs(x_t) for x_t in x]), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-12, atol=0)
        assert ours.num_batches_tracked == 4

    @pytest.mark.parametrize("kernel", KERNELS)
    @pytest.mark.parametrize("per_step", [True, False])
    def test_batch_norm_without_momentum_keeps_the_mean_as_torch_does(self, per_step: bool, kernel: Any) -> None:
        from plifctl.snn.layers import BatchNorm

        ours = BatchNorm(3, per_step=per_step).double()
        theirs = torch.nn.BatchNorm2d(3, momentum=None).double()  # type: ignore[arg-type]
        ours.momentum = None  # type: ignore[assignment]
        for samples in (2, 5, 3):
            x = 3 + torch.randn(4, samples, 3, 5, 5, dtype=torch.float64)
            spiking_stage(x, 4, SpikingLayer(PLIF, (3, 5, 5)).double().dynamics(x), ours, kernel=kernel)
            for part in x if per_step else [x.flatten(0, 1)]:
                theirs(part)
        for name, expected in theirs.named_buffers():
            torch.testing.assert_close(ours.get_buffer(name), expected, rtol=1e-12, atol=0)

    def test_update_bn_of_averaged_weights_gives_the_statistics_of_the_data(self) -> None:
        from torch.optim.swa_utils import AveragedModel, update_bn

        net = network("BN-SN-FC20-SN-APk10s10", (1, 4, 4), 2)
        batches = [torch.rand(6, 3, 1, 4, 4) for _ in range(2)]
        averaged = AveragedModel(net)
        update_bn(batches, averaged)
        norm = averaged.module.layers["bn0"]
        mean = torch.cat(batches).mean((0, 1, 3, 4))
        torch.testing.assert_close(norm.running_mean, mean)
        assert norm.momentum == 0.1

    @pytest.mark.parametrize("norm", [torch.nn.SyncBatchNorm, torch.nn.BatchNorm3d])
    def test_batch_norm_of_torch_is_refused(self, norm: Any) -> None:
        """Of as many samples as channels it would take the samples for channels."""
        net = network("c4k3s1-BN-SN-FC20-SN-APk10s10", (2, 4, 4), 2).eval()
        net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net) if norm is torch.nn.SyncBatchNorm else net
        if norm is not torch.nn.SyncBatchNorm:
            net.layers["bn0"] = norm(4).eval()
        frames = torch.ones(4, 3, 2, 4, 4)
        for call in (lambda: net(frames), lambda: net.step(frames[:, 0])):
            with pytest.raises(UsageError, match="plifctl's batch norm, which already takes the statistics of all"):
                call()

    @pytest.mark.parametrize("samples", [1, 2])
    def test_gradients_channels_last_images_equal_between_kernels(self, samples: int) -> None:
        """torch's own batch norm gets those of a single image wrong."""
        found = []
        for kernel in KERNELS:
            torch.manual_seed(0)
            net = network("c4k3s1-BN-SN-MPk2s2-c5k3s1-BN-SN-FC20-SN-APk10s10", (2, 6, 6), 2).double()
            net.kernel = kernel  # type: ignore[assignment]
            x = torch.randn(samples, 3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
            (net(x, keys=torch.arange(samples)) - 1).square().sum().backward()
            found.append([parameter.grad for parameter in net.parameters()])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("samples", [0, 1, 3])
    def test_convolution_of_any_layout_returns_channels_last(self, channels: int, samples: int) -> None:
        from plifctl.snn.layers import Conv

        conv = Conv(channels, 8, 3, 1).double()
        plain = torch.randn(1, samples, channels, 5, 4, dtype=torch.float64)
        for x in (plain, plain.transpose(3, 4).contiguous().transpose(3, 4), plain[:, :, :, :, ::2]):
            x = x.detach().requires_grad_()
            found, expected = conv(x), torch.nn.functional.conv2d(x[0], conv.weight, padding=1)
            assert found.permute(0, 1, 3, 4, 2).is_contiguous()
            torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)
            weights = torch.randn_like(expected)
            of_found, of_expected = (
                torch.autograd.grad((y * weights).sum(), [x, conv.weight]) for y in (found, expected)
            )
            torch.testing.assert_close(of_found, of_expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(
        "changes", [{"v_threshold": 0.3}, {"v_reset": -0.7}, {"detach_reset": False}, {"tau_0": 5.0}]
    )
    def test_spiking_layer_changed_spec_changes_result(self, changes: dict[str, Any]) -> None:
        spec = PLIF.model_copy(update=changes)
        x = 3 * torch.randn(5, 1, 40, generator=torch.Generator().manual_seed(0))
        found = []
        for layer in (SpikingLayer(spec, (40,)), SpikingLayer(PLIF, (40,))):
            own = x.clone().requires_grad_()
            spikes = spiking_stage(own, 5, layer.dynamics(own)).pooled
            spikes.sum().backward()
            found.append((spikes.detach(), own.grad))
        own = x.clone().requires_grad_()
        constants = (torch.tensor(1 / spec.start_tau), torch.tensor(spec.v_threshold), spec.v_reset)
        dynamics = Dynamics(*constants, False, spec.detach_reset, "arctan", torch.tensor(1.0))
        expected = spiking_stage(own, 5, dynamics, kernel="eager").pooled
        expected.sum().backward()
        assert torch.equal(found[0][0], expected.detach())
        torch.testing.assert_close(found[0][1], own.grad, rtol=1e-5, atol=1e-6)
        changed = not torch.equal(found[0][0], found[1][0]) or not torch.allclose(found[0][1], found[1][1])  # type: ignore[arg-type]
        assert changed

    def test_auto_kernel_on_cpu_is_fused(self) -> None:
        for dtype in (torch.float32, torch.float64):
            x = torch.randn(3, 2, 4, dtype=dtype, requires_grad=True)
            spikes = spiking_stage(x, 3, SpikingLayer(PLIF, (4,)).to(dtype).dynamics(x)).pooled
            names = {type(node).__name__ for node in _graph(spikes.grad_fn)}
            assert any("_Stage" in name for name in names)


class TestNeuronsAsModules:
    @pytest.mark.parametrize("neuron", [{}, {"reset": "soft", "detach_reset": False, "learn_threshold": True}], ids=str)
    @pytest.mark.parametrize(
        "shape",
        [(5, 3), (5, 3, 7), (5, 3, 4, 6), (1, 3, 7), (1, 2, 3, 4, 4), (5, 0, 7), (5, 0, 2, 3), (3, 2, 2, 2, 2, 2)],
    )
    def test_forward_equals_the_definition(self, shape: tuple[int, ...], neuron: dict[str, Any]) -> None:
        x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = []
        for definition in (False, True):
            layer, own = plifctl.PLIF(3.0, **neuron).double(), x.clone().requires_grad_()
            spikes = scan(own, layer.dynamics(own)) if definition else layer(own)
            (spikes * torch.linspace(0, 1, x.numel(), dtype=x.dtype).view(shape)).sum().backward()
            found.append([spikes.detach(), own.grad, *(parameter.grad for parameter in layer.parameters())])
        assert torch.equal(found[0][0], found[1][0])  # type: ignore[arg-type]
        assert found[0][0].any() or not x.numel()  # type: ignore[union-attr]
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("tau_per", ["channel", "neuron"])
    @pytest.mark.parametrize("sample", [(4,), (4, 3), (4, 3, 2)])
    def test_forward_with_several_time_constants_equals_the_definition(
        self, tau_per: str, sample: tuple[int, ...]
    ) -> None:
        layer = plifctl.PLIF(shape=sample, tau_per=tau_per).double()
        assert layer.a is not None
        torch.nn.init.uniform_(layer.a, -1, 1, generator=torch.Generator().manual_seed(0))
        x = 3 * torch.rand(6, 2, *sample, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = []
        for spikes in (layer(x), scan(x, layer.dynamics(x))):
            found.append((spikes.detach(), *torch.autograd.grad(spikes[1:].sum(), layer.a)))
        assert torch.equal(found[0][0], found[1][0])
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)
        with pytest.raises(ValueError, match="and τ has the shape"):
            layer(torch.rand(6, 2, 8, *sample[1:]))

    def test_forward_twice_keeps_no_state(self) -> None:
        layer, x = plifctl.LIF(tau=4.0), torch.rand(5, 2, 3)
        first = layer(x)
        layer(5 * x)
        assert torch.equal(layer(x), first)

    def test_forward_of_other_types_is_that_of_float32(self) -> None:
        layer, counts = plifctl.PLIF(), torch.randint(0, 4, (5, 3, 2, 4))
        expected = layer(counts.float())
        for dtype in (torch.uint8, torch.int64, torch.bfloat16, torch.float64):
            spikes = layer(counts.to(dtype))
            assert torch.equal(spikes.float(), expected)
            assert spikes.dtype == (dtype if dtype.is_floating_point else torch.float32)
        net = torch.nn.Sequential(torch.nn.Linear(4, 5), plifctl.PLIF(), torch.nn.Linear(5, 2)).bfloat16()
        assert net(torch.rand(5, 3, 4).bfloat16()).dtype == torch.bfloat16
        with pytest.raises(ValueError, match=r"found an input of shape \[5\], expected \[T, N, ...\]"):
            layer(torch.rand(5))

    def test_shape_takes_whole_numbers_of_numpy(self) -> None:
        sizes = np.array([4, 5])
        layer = plifctl.PLIF(tau_per="neuron", shape=(sizes[0], sizes[1]))
        assert layer.a is not None
        assert layer.a.shape == (4, 5)

    @pytest.mark.filterwarnings("ignore")  # of torch, which warns that a program is recorded for one shape
    @pytest.mark.parametrize("record", ["trace", "export", "strict export"])
    def test_recorded_program_gives_the_same_spikes(self, record: str) -> None:
        torch.manual_seed(0)
        first, second = plifctl.PLIF(v_threshold=0.3), plifctl.LIF(3.0, v_threshold=0.02)
        net = torch.nn.Sequential(torch.nn.Linear(20, 30), first, torch.nn.Linear(30, 4), second)
        x = 3 * torch.randn(6, 3, 20)
        if record == "trace":
            recorded = torch.jit.trace(net, (x,))  # type: ignore[no-untyped-call]
        else:
            recorded = torch.export.export(net, (x,), strict=record == "strict export").module()
        for frames in (x, 2 * x):
            assert net(frames).any()
            assert torch.equal(recorded(frames), net(frames))

    @pytest.mark.filterwarnings("ignore")  # of torch, which warns that a program is recorded for one shape
    @pytest.mark.parametrize("channels", [1, 2])
    def test_layout_that_was_recorded_for_one_image_takes_any_number(self, channels: int) -> None:
        from plifctl.snn.layers import to_channels_last

        recorded = torch.jit.trace(to_channels_last, (torch.rand(1, channels, 4, 6),))  # type: ignore[no-untyped-call]
        images = torch.rand(5, channels, 4, 6)
        assert torch.equal(recorded(images), images)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: plifctl.PLIF(0.5), "PLIF: tau_0: Input should be greater than 1"),
            (lambda: plifctl.PLIF(tua=3.0), "PLIF: tua: Extra inputs are not permitted"),
            (lambda: plifctl.PLIF(tau_per="neuron"), "PLIF: tau_per neuron needs the shape of a sample"),
            (lambda: plifctl.LIF(tau_per="channel"), "LIF: .* a fixed τ is the same for all neurons"),
            (lambda: plifctl.LIF(tau_0=3.0), "^LIF: no argument tau_0; its time constant is tau$"),
            (lambda: plifctl.PLIF(kind="lif"), "^PLIF: no argument kind; its time constant is tau_0$"),
            (lambda: plifctl.PLIF(shape=5), "PLIF: shape: found 5, expected whole numbers above 0"),  # type: ignore[arg-type]
            (lambda: plifctl.PLIF(shape=(4, 0)), r"PLIF: shape: found \(4, 0\), expected"),
            (lambda: plifctl.PLIF(shape=(True, 2)), r"PLIF: shape: found \(True, 2\), expected"),
            (lambda: plifctl.PLIF(shape=(4.0, 2)), r"PLIF: shape: found \(4.0, 2\), expected"),  # type: ignore[arg-type]
        ],
    )
    def test_neuron_of_invalid_settings_is_refused(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            make()


def test_fused_float32_differs_at_threshold_only() -> None:
    x = 2 * torch.randn(16, 33, 257, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(16, 33, 257, generator=torch.Generator().manual_seed(2))
    found = []
    for kernel in KERNELS:
        own, a = x.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True)
        spikes = run(own, a.sigmoid(), kernel=kernel)
        (spikes * weight).sum().backward()
        found.append((spikes.detach(), own.grad, a.grad))
    different = (found[0][0] != found[1][0]).flatten(1).any(0)
    assert different.sum() <= 3  # only where the potential is within rounding of the threshold
    same = ~different.view(33, 257)
    torch.testing.assert_close(found[0][1][:, same], found[1][1][:, same], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-4, atol=1e-3)


def test_predict_equal_rates_gives_lowest_class_in_every_batch() -> None:
    votes = torch.randint(0, 11, (8, 3000, 10), generator=torch.Generator().manual_seed(0))
    rates = votes.float() / 10
    counts = votes.sum(0).tolist()
    expected = [row.index(max(row)) for row in counts]
    assert functional.predict(rates).tolist() == expected
    assert [functional.predict(rates[:, n : n + 1]).item() for n in range(200)] == expected[:200]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    assert functional.predict(rates[order]).tolist() == expected


def _graph(node: Any) -> list[Any]:
    return [] if node is None else [node, *(one for after, _ in node.next_functions for one in _graph(after))]
