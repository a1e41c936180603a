"""The neuron that receives the gradient of max pooling of spikes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from plifctl.config.choices import Kernel, PoolTies
from plifctl.config.lookup import load_experiment
from plifctl.config.network import NetworkSpec
from plifctl.errors import UsageError
from plifctl.snn.keyed_random import hash_keys, small_integers
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.pool_ties import draw_max_pool
from tests.stages import PLIF

KEYS = torch.tensor([5, -3, 2**62])
STRUCTURE = "c6k3s1-BN-SN-MPk2s2-c4k3s1-BN-SN-MPk3s2-DP-FC20-SN-APk10s10"


def drawn_neuron(window: list[bool], number: int, *, only_firing: bool) -> int | None:
    """The definition: place of the neuron in its window, from the 16-bit number of the window."""
    candidates = [place for place, fires in enumerate(window) if fires]
    if not candidates and not only_firing:
        candidates = list(range(len(window)))
    return candidates[number * len(candidates) >> 16] if candidates else None


def definition(spikes: Tensor, grad: Tensor, kernel: int, stride: int, ties: PoolTies) -> tuple[Tensor, Tensor]:
    """Output and gradient of pooling, window by window."""
    T, N, C, height, width = spikes.shape
    rows, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    out, back = spikes.new_zeros(T, N, C, rows, columns), torch.zeros_like(spikes)
    for t in range(T):
        words = hash_keys(hash_keys(KEYS, t)[:, None], torch.arange(C * rows * columns))
        for n in range(N):
            numbers = words[n].view(torch.int16).int() + 2**15
            for place in range(C * rows * columns):
                c, row, column = place // (rows * columns), place // columns % rows, place % columns
                top, left = row * stride, column * stride
                window = spikes[t, n, c, top : top + kernel, left : left + kernel].flatten().bool().tolist()
                neuron = drawn_neuron(window, int(numbers[place]), only_firing=ties == "random-firing")
                out[t, n, c, row, column] = float(any(window))
                if neuron is not None:
                    y, x = top + neuron // kernel, left + neuron % kernel
                    back[t, n, c, y, x] += grad[t, n, c, row, column]
    return out, back


def network(ties: PoolTies, kernel: Kernel = "auto", structure: str = STRUCTURE, **options: Any) -> SpikingNetwork:
    spec = NetworkSpec(name="n", structure=structure, dropout=0.5, batch_norm="per-step", pool_ties=ties)
    torch.manual_seed(0)
    return SpikingNetwork(spec, PLIF, (2, 9, 7), 2, kernel, **options).double().train()


def gradients(model: SpikingNetwork, samples: slice = slice(None), keys: Tensor = KEYS) -> dict[str, Tensor]:
    x = 3 * torch.rand(3, 4, 2, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    votes = model(x[samples], keys=keys[samples])
    (votes - 0.3).square().sum().backward()
    return {"votes": votes.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


class TestDrawMaxPool:
    @pytest.mark.parametrize("ties", ["random", "random-firing"])
    @pytest.mark.parametrize(
        ("shape", "kernel", "stride"),
        [((3, 3, 2, 6, 4), 2, 2), ((1, 3, 3, 7, 5), 2, 2), ((2, 3, 1, 9, 7), 3, 2), ((2, 3, 2, 3, 3), 3, 3)],
        ids=["even", "odd sizes and T = 1", "overlapping windows", "one window"],
    )
    @pytest.mark.parametrize("rate", [0.1, 0.6])
    def test_values_and_gradients_equal_the_definition(
        self, ties: PoolTies, shape: tuple[int, ...], kernel: int, stride: int, rate: float
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        spikes = (torch.rand(shape, generator=generator, dtype=torch.float64) < rate).double().requires_grad_()
        pooled = draw_max_pool(spikes, KEYS, kernel, stride, ties)
        grad = torch.randn(pooled.shape, generator=generator, dtype=torch.float64)
        pooled.backward(grad)
        expected, expected_grad = definition(spikes.detach(), grad, kernel, stride, ties)
        assert torch.equal(pooled.detach(), expected)
        torch.testing.assert_close(spikes.grad, expected_grad, rtol=1e-12, atol=0)
        torch_pooled = torch.nn.functional.max_pool2d(spikes.detach().flatten(0, 1), kernel, stride)
        assert torch.equal(expected.flatten(0, 1), torch_pooled)

    def test_firing_neurons_are_drawn_equally_often_and_silent_ones_never(self) -> None:
        spikes = torch.zeros(500, 3, 1, 2, 2)
        spikes[..., 0, 1] = spikes[..., 1, :] = 1
        spikes.requires_grad_()
        draw_max_pool(spikes, KEYS, 2, 2, "random-firing").sum().backward()
        assert spikes.grad is not None
        share = spikes.grad.mean((0, 1)).flatten()
        assert share[0] == 0
        assert (share[1:] - 1 / 3).abs().max() < 0.06  # five standard deviations of 1500 draws

    def test_small_integers_stay_below_the_limit(self) -> None:
        limits = torch.tensor([0, 1, 3, 9, 2**15, 200**2], dtype=torch.int32)
        found = small_integers(torch.arange(2000), limits.expand(2000, 6))
        assert found.amin(0)[:4].tolist() == [0, 0, 0, 0]
        assert found.amax(0)[:4].tolist() == [0, 0, 2, 8]
        for limit, drawn in zip(limits[4:], found.T[4:], strict=True):  # windows of 182 and more pixels a side
            assert 0 <= drawn.min() < limit / 100
            assert limit * 0.99 < drawn.max() < limit


class TestNetwork:
    @pytest.mark.parametrize("ties", ["random", "random-firing"])
    def test_outputs_are_those_of_the_first_and_gradients_are_not(self, ties: PoolTies) -> None:
        expected, found = gradients(network("first")), gradients(network(ties))
        assert torch.equal(found["votes"], expected["votes"])
        assert not torch.allclose(found["layers.conv0.weight"], expected["layers.conv0.weight"])
        assert torch.equal(found["layers.fc0.weight"], expected["layers.fc0.weight"])  # behind the pooling

    def test_every_kernel_and_memory_gives_the_gradients_of_the_definition(self) -> None:
        expected = gradients(network("random-firing", "eager"))
        for found in (
            gradients(network("random-firing", "fused")),
            gradients(network("random-firing", "fused", memory="compact")),
        ):
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)

    @pytest.mark.parametrize("ties", ["random", "random-firing"])
    def test_draws_of_a_sample_do_not_depend_on_its_batch(self, ties: PoolTies) -> None:
        """Ranks, batch sizes and resumed trainings give the same gradients; batch norm is left out."""

        def backward(samples: slice = slice(None)) -> dict[str, Tensor]:
            model = network(ties, structure=STRUCTURE.replace("BN-", ""))
            with torch.no_grad():
                for layer in ("conv0", "conv1", "fc0"):
                    model.layers[layer].weight.abs_()  # fires without batch norm
            return gradients(model, samples)

        whole, *parts = backward(), *(backward(slice(n, n + 1)) for n in range(3))
        for name in whole.keys() - {"votes"}:
            assert whole[name].any(), name
            torch.testing.assert_close(sum(part[name] for part in parts), whole[name], rtol=1e-9, atol=1e-12)

    def test_other_keys_draw_other_neurons(self) -> None:
        structure = STRUCTURE.replace("DP-", "")  # dropout depends on the keys as well
        one, other = (gradients(network("random", structure=structure), keys=KEYS + more) for more in (0, 1))
        assert torch.equal(one["votes"], other["votes"])
        assert not torch.allclose(one["layers.conv0.weight"], other["layers.conv0.weight"])


class TestExperiment:
    def test_default_keeps_the_digest_and_a_draw_changes_it(self) -> None:
        default = load_experiment("gesture-plif").spec
        assert load_experiment("gesture-plif", {"network.pool_ties": "first"}).spec.digest == default.digest
        drawn = [
            load_experiment("gesture-plif", {"network.pool_ties": ties}).spec for ties in ("random", "random-firing")
        ]
        assert len({default.digest, *(spec.digest for spec in drawn)}) == 3

    def test_network_without_max_pooling_of_spikes_refuses_a_draw(self) -> None:
        with pytest.raises(UsageError, match="no max pooling of spikes"):
            load_experiment("gesture-plif-avgpool", {"network.pool_ties": "random"})
