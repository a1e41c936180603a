"""Training against the same algorithm written down again with plain torch, and what identifies an experiment."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.evaluation import evaluate
from plifctl.registry import load_registry
from plifctl.snn.functional import held_dropout_mask
from plifctl.snn.layers import Dropout
from plifctl.snn.networks import SpikingNetwork
from plifctl.specs import ExperimentSpec, Recipe
from plifctl.splits import Split
from plifctl.training.data import Batch, Feeder
from plifctl.training.loop import EpochRow, Outcome, Trainer

CPU = torch.device("cpu")
MEAN, STD = 0.1307, 0.3081  # of MNIST

TRAIN, VALIDATION, TEST = np.arange(12), np.arange(12, 25), np.arange(25, 37)  # 13 for validation: no multiple of 5
A = Split(np.concatenate([TRAIN, VALIDATION]), np.empty(0, np.int64), TEST)
B = Split(TRAIN, VALIDATION, TEST)


class Samples:
    """Images of two shades, one a class; the block in the middle is brighter than all else and names the row."""

    BLOCK = 150

    def __init__(self) -> None:
        self.labels = np.arange(37) % 2
        noise = np.random.default_rng(0).integers(0, 60, (37, 1, 28, 28))
        self.images = (noise + 60 * self.labels[:, None, None, None]).astype(np.uint8)
        self.images[:, :, 12:16, 12:16] = self.BLOCK + np.arange(37)[:, None, None, None]
        self.nbytes = self.images.nbytes

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows]

    @classmethod
    def rows_of(cls, x: Tensor) -> list[int]:
        """Which samples a normalised batch holds, moved or not."""
        return ((x.amax((1, 2, 3)) * STD + MEAN) * 255 - cls.BLOCK).round().int().tolist()

    def plain(self, row: int) -> Tensor:
        return (torch.from_numpy(self.images[row]).double() / 255 - MEAN) / STD


class DoubleFeeder(Feeder):
    """Batches in float64: two orders of addition then give the same spikes."""

    def _batch(self, rows: np.ndarray, epoch: int, *, augmentation: str) -> Batch:
        batch = super()._batch(rows, epoch, augmentation=augmentation)
        return Batch(batch.x.double(), batch.labels, batch.keys)


@dataclass
class Recorder:
    """Keeps everything in memory."""

    rows: list[EpochRow] = field(default_factory=list)
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None: ...

    def on_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)

    def save(self, name: str, state: dict[str, Any]) -> None:
        self.saved[name] = copy.deepcopy(state)

    def load_best(self) -> dict[str, Any]:
        return self.saved["best"]

    def stop_signal(self) -> int | None:
        return None


def spec_of(*overrides: str, recipe: Recipe = "paper") -> ExperimentSpec:
    settings = ["T=3", "train.batch_size=5", "train.epochs=3", "train.cosine_period=4", "train.lr=0.02", *overrides]
    spec = load_registry().experiment("mnist-plif", recipe=recipe, overrides=settings).spec
    structure = "c4k3s1-BN-SN-MPk4s4-c6k3s1-BN-SN-APk3s2-DP-FC20-SN-DP-FC100-SN-APk10s10"
    return spec.model_copy(update={"network": spec.network.model_copy(update={"structure": structure})})


@dataclass
class Run:
    """A training that is over, and what passed through the network meanwhile."""

    spec: ExperimentSpec
    feeder: Feeder
    start: dict[str, Tensor]
    recorder: Recorder
    outcome: Outcome
    dropout_keys: list[Tensor]
    evaluated: list[Tensor]


def trained(spec: ExperimentSpec, split: Split) -> Run:
    feeder, recorder = DoubleFeeder(Samples(), spec, CPU), Recorder()
    trainer = Trainer(spec, feeder, split, recorder)
    model = trainer.model.double()
    start = {name.removeprefix("layers."): tensor.detach().clone() for name, tensor in model.state_dict().items()}
    keys: list[Tensor] = []
    evaluated: list[Tensor] = []

    def note_keys(layer: torch.nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        if layer.training:
            keys.append(inputs[1])

    def note_inputs(network: torch.nn.Module, inputs: tuple[Tensor, int]) -> None:
        if not network.training:
            evaluated.append(inputs[0])

    model.register_forward_pre_hook(note_inputs)
    for layer in model.layers.values():
        if isinstance(layer, Dropout):
            layer.register_forward_pre_hook(note_keys)
    outcome = trainer.run()
    return Run(spec, feeder, start, recorder, outcome, keys, evaluated)


class Reference:
    """The network of :func:`spec_of` and its training, step by step in time; shares the drawn masks' keys, no more."""

    def __init__(self, run: Run) -> None:
        self.spec, self.feeder, self.keys = run.spec, run.feeder, iter(run.dropout_keys)
        self.running = {name: t.clone() for name, t in run.start.items() if "running" in name}
        learnt = {name: t for name, t in run.start.items() if "running" not in name and t.is_floating_point()}
        self.w = {name: t.clone().requires_grad_() for name, t in learnt.items()}
        self.adam = torch.optim.Adam(self.w.values(), lr=run.spec.train.lr)

    def batch_norm(self, x: Tensor, name: str, training: bool) -> Tensor:
        mean, var = self.running[f"{name}.running_mean"], self.running[f"{name}.running_var"]
        if training:
            n = x.numel() // x.shape[1]
            now = x.mean((0, 2, 3))
            spread = ((x - now[:, None, None]) ** 2).mean((0, 2, 3))
            mean.copy_(0.9 * mean + 0.1 * now.detach())
            var.copy_(0.9 * var + 0.1 * spread.detach() * n / (n - 1))
            mean, var = now, spread
        x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        return x * self.w[f"{name}.weight"][:, None, None] + self.w[f"{name}.bias"][:, None, None]

    def neurons(self, steps: list[Tensor], name: str) -> list[Tensor]:
        v, spikes = torch.zeros_like(steps[0]), []
        for x in steps:
            h = v + (x - v) / (1 + torch.exp(-self.w[f"{name}.a"]))
            soft = torch.atan(math.pi * (h - 1)) / math.pi
            fired = (h >= 1).to(h)
            spikes.append(fired + soft - soft.detach())  # 0 or 1, with the slope of the arctan
            v = torch.where(h >= 1, 0.0, h)
        self.fired[name] = torch.stack(spikes).detach()
        return spikes

    def dropped(self, steps: list[Tensor], training: bool) -> list[Tensor]:
        if not training:
            return steps
        mask = held_dropout_mask(next(self.keys), steps[0].shape[1], 0.5).double()
        return [x * mask for x in steps]

    def forward(self, images: Tensor, training: bool) -> Tensor:
        self.fired: dict[str, Tensor] = {}
        x = self.batch_norm(F.conv2d(images, self.w["conv0.weight"], padding=1), "bn0", training)
        steps = [F.max_pool2d(s, 4) for s in self.neurons([x] * self.spec.T, "sn0")]
        steps = [
            self.batch_norm(F.conv2d(s, self.w["conv1.weight"], padding=1), "bn1", training)
            for s in steps  # its statistics are those of each step
        ]
        steps = [F.avg_pool2d(s, 3, 2).flatten(1) for s in self.neurons(steps, "sn1")]
        steps = self.neurons([s @ self.w["fc0.weight"].T for s in self.dropped(steps, training)], "sn2")
        steps = self.neurons([s @ self.w["fc1.weight"].T for s in self.dropped(steps, training)], "sn3")
        votes = [[s[:, 10 * c : 10 * c + 10].sum(1) / 10 for c in range(10)] for s in steps]
        return torch.stack([torch.stack(of_step, 1) for of_step in votes])

    def rate(self, epoch: int) -> float:
        period = self.spec.train.cosine_period
        if self.spec.train.schedule == "cosine-restarts":
            epoch %= period
        return 0.5 * self.spec.train.lr * (1 + math.cos(math.pi * epoch / period))

    def train(self, rows: np.ndarray, epoch: int) -> tuple[float, float]:
        losses, right = [], []
        for batch in self.feeder.training(rows, epoch):
            rates = self.forward(batch.x, True)
            target = torch.zeros(len(batch.labels), 10, dtype=torch.float64)
            target[torch.arange(len(batch.labels)), batch.labels] = 1
            if self.spec.recipe == "paper":
                loss = sum(((step - target) ** 2).mean() for step in rates) / self.spec.T
            else:
                loss = ((sum(rates) / self.spec.T - target) ** 2).mean()
            assert isinstance(loss, Tensor)
            self.adam.param_groups[0]["lr"] = self.rate(epoch)
            for weight in self.w.values():
                weight.grad = None
            loss.backward()
            self.adam.step()
            losses.append(loss.item())
            right += self.right(rates, batch.labels)
        return float(np.mean(losses)), float(np.mean(right))  # all batches are as large, the last is left out

    @staticmethod
    def right(rates: Tensor, labels: Tensor) -> list[bool]:
        counts = (rates.detach() * 10).round().int().sum(0).tolist()
        return [votes.index(max(votes)) == label for votes, label in zip(counts, labels.tolist(), strict=True)]

    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, list[float]]:
        right: list[bool] = []
        fired, neurons = [0] * 4, [0] * 4
        for batch in batches:
            with torch.no_grad():
                right += self.right(self.forward(batch.x, False), batch.labels)
            for layer, spikes in enumerate(self.fired.values()):
                fired[layer] += int(torch.count_nonzero(spikes))
                neurons[layer] += spikes.numel()
        return float(np.mean(right)), [f / n for f, n in zip(fired, neurons, strict=True)]


@pytest.mark.parametrize("schedule", ["cosine", "cosine-restarts"])
@pytest.mark.parametrize("split", [A, B], ids=["A", "B"])
@pytest.mark.parametrize("recipe", ["paper", "published"])
def test_training_gives_what_the_algorithm_written_again_gives(recipe: Recipe, split: Split, schedule: str) -> None:
    period = 4 if schedule == "cosine" else 2
    run = trained(spec_of(f"train.schedule={schedule}", f"train.cosine_period={period}", recipe=recipe), split)
    reference = Reference(run)
    rates = []
    for epoch, row in enumerate(run.recorder.rows):
        loss, accuracy = reference.train(split.train, epoch)
        assert row.loss == pytest.approx(loss, rel=1e-9)
        assert row.train_accuracy == accuracy
        assert row.lr == pytest.approx(reference.rate(epoch))
        test, fired = reference.evaluate(run.feeder.plain(split.test))
        if split is A:
            assert (row.test_accuracy, row.validation_accuracy) == (test, None)
        else:
            as_training = run.feeder.training(split.validation, epoch)
            plain = run.feeder.plain(split.validation)
            validation, fired = reference.evaluate(as_training if recipe == "published" else plain)
            assert row.validation_accuracy == validation
            assert row.test_accuracy == (test if recipe == "published" else None)
        assert row.firing_rate == pytest.approx(fired, rel=1e-9)
        assert row.tau == pytest.approx([1 + math.exp(-reference.w[f"sn{layer}.a"].item()) for layer in range(4)])
        rates.append(row.firing_rate)
    assert min(map(min, rates)) > 0.01  # a silent layer would hold nothing
    assert next(reference.keys, None) is None
    final = run.recorder.saved["last"]["model"]
    for name, expected in {**reference.w, **reference.running}.items():
        assert not torch.equal(expected, run.start[name]), f"{name} was not trained"
        torch.testing.assert_close(final[f"layers.{name}"], expected.detach(), rtol=1e-6, atol=1e-9)
    assert final["layers.bn0.num_batches_tracked"] * 3 == final["layers.bn1.num_batches_tracked"]


def seen_in_each_epoch(run: Run, rows: np.ndarray) -> Iterator[list[tuple[int, Tensor]]]:
    """The images of ``rows`` that the network was evaluated on, with the row of each, one list an epoch."""
    seen = [
        (row, image)
        for x in run.evaluated
        for row, image in zip(Samples.rows_of(x), x, strict=True)
        if row in rows.tolist()
    ]
    size, rest = divmod(len(seen), run.spec.train.epochs)
    assert rest == 0
    for epoch in range(run.spec.train.epochs):
        yield seen[epoch * size : (epoch + 1) * size]


class TestValidationSamples:
    def test_by_the_text_each_is_seen_once_in_order_as_it_is(self) -> None:
        run = trained(spec_of(), B)
        for seen in seen_in_each_epoch(run, VALIDATION):
            assert [row for row, _ in seen] == VALIDATION.tolist()
            for row, image in seen:
                torch.testing.assert_close(image, Samples().plain(row), rtol=1e-5, atol=1e-6)

    def test_by_the_published_code_they_are_fed_as_in_training(self) -> None:
        run = trained(spec_of(recipe="published"), B)
        orders = []
        for seen in seen_in_each_epoch(run, VALIDATION):
            rows = [row for row, _ in seen]
            assert len(set(rows)) == len(rows) == 10  # of 13 in batches of 5 the last 3 are left out
            assert rows != sorted(rows)
            moved = [not torch.allclose(image, Samples().plain(row), atol=1e-3) for row, image in seen]
            assert sum(moved) > 7
            orders.append(rows)
        assert orders[0] != orders[1] != orders[2]

    @pytest.mark.parametrize("recipe", ["paper", "published"])
    def test_those_of_the_test_are_always_as_they_are(self, recipe: Recipe) -> None:
        run = trained(spec_of(recipe=recipe), A)
        for seen in seen_in_each_epoch(run, TEST):
            assert [row for row, _ in seen] == TEST.tolist()
            for row, image in seen:
                torch.testing.assert_close(image, Samples().plain(row), rtol=1e-5, atol=1e-6)


def test_the_firing_rate_is_spikes_per_neuron_and_step() -> None:
    spec = spec_of()
    torch.manual_seed(1)
    model = SpikingNetwork(spec.network, spec.neuron, spec.dataset.shape, 10)
    fired: dict[str, int] = dict.fromkeys(model.spiking_layers(), 0)

    def count(name: str) -> Any:
        def hook(_: torch.nn.Module, __: tuple[Tensor], spikes: Tensor) -> None:
            assert set(spikes.unique().tolist()) <= {0.0, 1.0}
            fired[name] += int(spikes.count_nonzero())

        return hook

    for name, layer in model.spiking_layers().items():
        layer.register_forward_hook(count(name))
    batches = [(6 * torch.rand(n, 1, 28, 28), torch.zeros(n, dtype=torch.int64)) for n in (5, 5, 2)]
    found = evaluate(model, batches, 7).firing_rate
    neurons = {"sn0": 4 * 28 * 28, "sn1": 6 * 7 * 7, "sn2": 20, "sn3": 100}
    assert found == pytest.approx({name: fired[name] / (neurons[name] * 12 * 7) for name in neurons})
    assert found["sn0"] > 0.05


class TestTimeStepsOfProtocolB:
    @pytest.mark.parametrize(
        ("recipe", "protocol", "T"),
        [("published", "B", 20), ("published", "A", 10), ("paper", "B", 10), ("paper", "A", 10)],
    )
    def test_the_published_validation_of_nmnist_took_20(self, recipe: Recipe, protocol: Any, T: int) -> None:
        resolved = load_registry().experiment("nmnist-plif", recipe=recipe).under(protocol)
        assert resolved.spec.T == T
        source = resolved.origins["T"]
        assert source == resolved.origins["validation.T"] if T == 20 else "validation" not in str(source)

    @pytest.mark.parametrize("T", [5, 10])
    @pytest.mark.parametrize("protocol", ["A", "B"])
    def test_one_that_is_asked_for_comes_first(self, T: int, protocol: Any) -> None:
        resolved = load_registry().experiment("nmnist-plif", recipe="published", overrides=[f"T={T}"]).under(protocol)
        assert resolved.spec.T == T
        assert str(resolved.origins["T"]) == f"--set T={T}"

    def test_other_experiments_keep_theirs(self) -> None:
        for name in ("mnist-plif", "gesture-plif", "cifar10dvs-plif"):
            resolved = load_registry().experiment(name, recipe="published")
            assert resolved.under("B").spec == resolved.spec


class TestDigest:
    def digest(self, *overrides: str, name: str = "gesture-plif", recipe: Recipe = "paper") -> str:
        return load_registry().experiment(name, recipe=recipe, overrides=overrides).spec.digest

    @pytest.mark.parametrize(
        "override",
        [
            "T=21",
            "neuron.tau_0=3.0",
            "neuron.v_threshold=0.5",
            "neuron.v_reset=-0.5",
            "neuron.detach_reset=false",
            "train.loss=mse-rate",
            "train.lr=0.1",
            "train.cosine_period=65",
            "train.batch_size=8",
            "frames.slicing=time",
            "frames.invalid_events=keep",
            "frames.training_set=first-78",
            "network.dropout=0.1",
            "network.batch_norm=over-time",
            "validation.train_fraction=0.5",
        ],
    )
    def test_what_decides_a_result_is_part_of_it(self, override: str) -> None:
        assert self.digest(override) != self.digest()

    def test_so_are_the_kind_of_neuron_the_recipe_and_the_data_set(self) -> None:
        found = {self.digest(name=name) for name in ("gesture-plif", "gesture-lif", "cifar10dvs-plif")}
        assert len(found | {self.digest(recipe="published")}) == 4
        of_b = load_registry().experiment("nmnist-plif", recipe="published")
        assert of_b.under("B").spec.digest != of_b.spec.digest

    @pytest.mark.parametrize("override", ["train.epochs=3", "train.seed=7"])
    def test_epochs_and_seed_are_not(self, override: str) -> None:
        assert self.digest(override) == self.digest()

    def test_titles_and_what_was_published_are_not(self) -> None:
        spec = load_registry().experiment("gesture-plif").spec
        dataset = spec.dataset.model_copy(update={"title": "another", "classes": tuple("abcdefghijk")})
        assert spec.published is not None
        told = spec.model_copy(update={"title": "another", "published": None, "dataset": dataset})
        assert told.digest == spec.digest
