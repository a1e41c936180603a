"""Controls against plain loops in float64: changed frames, and changed neurons."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.errors import UsageError
from plifctl.evaluation.controls import change_tau, change_time, check_tau
from plifctl.snn.keyed_random import hash_keys
from plifctl.snn.networks import SpikingNetwork

CONTROLS = ("shuffled", "reversed", "scattered", "collapsed")


def draw_frames(n: int = 6, T: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Counts in float64, keys and lengths; frames beyond the length of a sample are empty."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (n,), generator=generator)
    x = torch.randint(0, 9, (n, T, 2, 3, 4), generator=generator).double()
    x[torch.arange(T) >= lengths[:, None]] = 0
    return x, hash_keys(torch.arange(n), 7), lengths


def change_one(frames: list[Tensor], control: str, key: int) -> list[Tensor]:
    """The frames of one sample, without padding."""
    if control == "reversed":
        return frames[::-1]
    if control == "collapsed":
        total = torch.zeros_like(frames[0])
        for frame in frames:
            total = total + frame
        return [total / len(frames)] * len(frames)
    if control == "scattered":
        changed = torch.empty(len(frames), frames[0].numel()).double()
        for pixel in range(frames[0].numel()):
            order = sorted(range(len(frames)), key=lambda t: int(hash_keys(key, t, pixel, 6)))
            changed[:, pixel] = torch.stack([frames[t].flatten()[pixel] for t in order])
        return list(changed.view(-1, *frames[0].shape))
    draws = [int(hash_keys(key, t, 5)) for t in range(len(frames))]
    return [frames[t] for t in sorted(range(len(frames)), key=lambda t: draws[t])]


class TestChangeTime:
    @pytest.mark.parametrize("control", CONTROLS)
    def test_change_time_equals_a_loop_over_samples(self, control: Any) -> None:
        x, keys, lengths = draw_frames()
        found = change_time(x, control, keys, lengths)
        for sample, key, length, changed in zip(x, keys.tolist(), lengths.tolist(), found, strict=True):
            expected = change_one(list(sample[:length]), control, key) + list(sample[length:])
            assert torch.equal(changed, torch.stack(expected))

    @pytest.mark.parametrize("control", CONTROLS)
    def test_change_time_of_a_sample_is_the_same_in_any_batch(self, control: Any) -> None:
        x, keys, lengths = (part.flip(0) for part in draw_frames(16, 7))
        single = [change_time(x[i : i + 1], control, keys[i : i + 1], lengths[i : i + 1]) for i in range(16)]
        assert torch.equal(change_time(x, control, keys, lengths), torch.cat(single))
        assert not torch.equal(change_time(x, control, keys, lengths), x)

    @pytest.mark.parametrize("control", CONTROLS)
    def test_change_time_of_one_frame_or_equal_frames_changes_nothing(self, control: Any) -> None:
        x, keys, _ = draw_frames(T=1)
        ones = torch.ones(len(x), dtype=torch.int64)
        assert torch.equal(change_time(x, control, keys, ones), x)
        equal = x.float().expand(-1, 7, -1, -1, -1) / 3
        assert torch.equal(change_time(equal, control, keys, 7 * ones), equal)

    def test_reversing_twice_restores_the_frames(self) -> None:
        x, keys, lengths = draw_frames()
        once = change_time(x, "reversed", keys, lengths)
        assert torch.equal(change_time(once, "reversed", keys, lengths), x)

    def test_orders_are_drawn_uniformly_and_depend_on_the_key_alone(self) -> None:
        n = 6000
        x = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(n, -1, -1, -1, -1)
        keys, lengths = hash_keys(torch.arange(n)), torch.full((n,), 3)
        orders = change_time(x, "shuffled", keys, lengths).flatten(1)
        counts = Counter(tuple(order) for order in orders.tolist())
        assert len(counts) == 6
        assert all(850 < count < 1150 for count in counts.values())  # 5 standard deviations
        assert torch.equal(change_time(x, "shuffled", keys, lengths).flatten(1), orders)
        assert not torch.equal(change_time(x, "shuffled", hash_keys(keys), lengths).flatten(1), orders)


Charge = Callable[[Tensor, Tensor, Tensor], Tensor]
RESET = 0.1
CHARGES: dict[Any, Charge] = {
    None: lambda x, v, k: v + k * (x - (v - RESET)),
    "no-leak": lambda x, v, k: v + k * x,
    "no-memory": lambda x, v, k: RESET + k * x,
    2.5: lambda x, v, _: v + (x - (v - RESET)) / 2.5,
}


def make_network(tau_per: str = "layer", kind: str = "plif") -> SpikingNetwork:
    torch.manual_seed(3)
    network = NetworkSpec(name="n", structure="c3k3s1-BN-SN-FC8-SN-APk4s4", dropout=0.0, batch_norm="over-time")
    tau = {"tau_0": 2.0} if kind == "plif" else {"tau": 2.0}
    neuron = NeuronSpec(
        kind=kind, **tau, tau_per=tau_per, v_threshold=0.4, v_reset=RESET, surrogate="arctan", detach_reset=True
    )
    model = SpikingNetwork(network, neuron, (2, 3, 4), classes=2).double().eval()
    for weight in (model.layers["conv0"].weight, model.layers["fc0"].weight):
        weight.data *= 3  # so that the last layer fires without memory, too
    for number, layer in enumerate(model.spiking_layers().values()):
        if layer.a is not None:
            layer.a.data += torch.linspace(-0.3, 0.4, layer.a.numel()).view(layer.a.shape).double() + number / 2
    return model


def run_by_hand(model: SpikingNetwork, sample: Tensor, charge: Charge) -> list[Tensor]:
    """The spikes of the last layer at each step for one sample ``[T, C, H, W]``, neuron layers written out."""
    potentials: dict[str, Tensor] = {}
    outputs = []
    for frame in sample:
        x = frame[None, None]
        for name, layer in model.layers.items():
            if not name.startswith("sn"):
                x = layer(x.flatten(2) if name.startswith("fc") else x)
                continue
            k = torch.tensor(0.5).double() if layer.a is None else torch.sigmoid(layer.a)
            h = charge(x, potentials.get(name, torch.full_like(x, RESET)), k)
            x = (h >= 0.4).double()
            potentials[name] = torch.where(x == 1, RESET, h)
        outputs.append(x[0, 0])
    return outputs


class TestChangeTau:
    @pytest.mark.parametrize("control", [one for one in CHARGES if one is not None])
    @pytest.mark.parametrize("tau_per", ["layer", "channel", "neuron"])
    @torch.no_grad()
    def test_change_tau_fires_as_the_equation_says(self, control: Any, tau_per: str) -> None:
        x, _, _ = draw_frames(4, 6)
        model = make_network(tau_per)
        before = model(x)
        changed = change_tau(model, control)
        found = changed(x)
        for charge, rates in ((CHARGES[None], before), (CHARGES[control], found)):
            for index, sample in enumerate(x):
                spikes = torch.stack(run_by_hand(model, sample, charge))
                assert torch.equal(rates[:, index], spikes.view(6, 2, 4).mean(-1))
        assert 0 < found.mean() < 1
        assert not torch.equal(found, before)
        assert torch.equal(model(x), before)  # the network itself is not changed

    def test_change_tau_to_the_mean_gives_every_layer_the_mean(self) -> None:
        model = make_network("channel")
        mean = sum(model.taus()) / 2
        assert change_tau(model, "mean").taus() == [mean, mean]
        assert change_tau(model, 7.5).taus() == [7.5, 7.5]
        assert change_tau(model, "no-leak").taus() == model.taus()

    @torch.no_grad()
    def test_without_memory_the_order_of_frames_changes_no_vote(self) -> None:
        x, keys, _ = draw_frames(5, 6)
        lengths = torch.full((5,), 6)
        model = make_network()
        forgetful = change_tau(model, "no-memory")
        for control in ("shuffled", "reversed"):
            changed = change_time(x, control, keys, lengths)
            assert torch.equal(forgetful(changed).sum(0), forgetful(x).sum(0))
            assert not torch.equal(model(changed).sum(0), model(x).sum(0))

    @pytest.mark.parametrize("kernel", ["auto", "fused", "compiled"])
    @torch.no_grad()
    def test_neurons_with_another_leak_are_computed_by_the_definition(self, kernel: Any) -> None:
        x, _, _ = draw_frames(3, 4)
        changed = change_tau(make_network(), "no-leak")
        expected = changed(x)
        changed.kernel = kernel
        assert torch.equal(changed(x), expected)

    def test_mean_of_what_was_not_learnt_or_is_infinite_is_refused(self) -> None:
        with pytest.raises(UsageError, match="not learnt"):
            change_tau(make_network(kind="lif"), "mean")
        assert change_tau(make_network(kind="lif"), 3.0).taus() == [3.0, 3.0]
        model = make_network()
        layer = model.spiking_layers()["sn0"]
        assert layer.a is not None
        layer.a.data.fill_(-1e9)
        with pytest.raises(UsageError, match="infinite"):
            change_tau(model, "mean")


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("inf", "ignore their input", "--tau no-leak"),
        (float("inf"), "ignore their input", "--tau no-leak"),
        ("1", "above 1", "no-memory"),
        (0.5, "above 1", "no-memory"),
        ("nan", "above 1", "no-memory"),
        ("noleak", "expected mean, no-leak, no-memory", "did you mean no-leak"),
        (None, "expected mean", ""),
    ],
)
def test_tau_that_means_nothing_is_refused(value: Any, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_tau(value)
    assert hint in error.value.hint


def test_tau_is_a_name_or_a_number() -> None:
    assert [check_tau(value) for value in ("mean", "no-leak", "2.5", 16)] == ["mean", "no-leak", 2.5, 16.0]
