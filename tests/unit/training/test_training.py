"""The loop: what is chosen, resumed bit for bit, and how it fails."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.registry import load_registry
from plifctl.errors import CheckpointError, DivergedError, Interrupted, OutOfMemoryError, RunError
from plifctl.evaluation.accuracy import evaluate
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.optimizer import Optimizer, graph_unsupported_reason, learning_rate
from plifctl.training.progress import EpochRow
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer, build_model, load_weights

CPU = torch.device("cpu")


class Samples:
    """Images of two shades; the class is the shade."""

    def __init__(self, n: int = 24) -> None:
        self.labels = np.arange(n) % 2
        self.sample_ids = [f"train/{i}" for i in range(n)]
        rng = np.random.default_rng(0)
        self.images = (rng.integers(0, 60, (n, 1, 28, 28)) + 150 * self.labels[:, None, None, None]).astype(np.uint8)
        self.nbytes, self.shape, self.dtype = self.images.nbytes, self.images.shape, self.images.dtype

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.take(self.images, rows, 0, out)


@dataclass
class Recorder:
    """Keeps everything in memory; can ask for a stop after so many steps."""

    stop_after: int | None = None
    rows: list[EpochRow] = field(default_factory=list)
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: int = 0
    parts: set[str] = field(default_factory=set)

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        self.parts.add(part)
        self.steps += 1
        assert 1 <= step <= steps

    def on_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)

    def save(self, name: str, state: dict[str, Any]) -> None:
        self.saved[name] = copy.deepcopy(state)

    def load_best(self) -> dict[str, Any]:
        return self.saved["best"]

    def stop_signal(self) -> int | None:
        return 2 if self.stop_after is not None and self.steps >= self.stop_after else None


def spec_of(*overrides: str, recipe: str = "paper") -> ExperimentSpec:
    settings = ["T=2", "train.batch_size=5", "train.epochs=3", *overrides]
    spec = load_registry().experiment("mnist-plif", recipe=recipe, overrides=settings).spec  # type: ignore[arg-type]
    structure = "c4k3s1-BN-SN-MPk4s4-DP-FC20-SN-DP-FC100-SN-APk10s10"
    return spec.model_copy(update={"network": spec.network.model_copy(update={"structure": structure})})


ROWS = Split(np.arange(16), np.empty(0, np.int64), np.arange(16, 24))
ROWS_B = Split(np.arange(12), np.arange(12, 16), np.arange(16, 24))


def trainer_of(
    recorder: Recorder, spec: ExperimentSpec | None = None, rows: Split = ROWS, *, graph: bool = False
) -> Trainer:
    spec = spec or spec_of()
    return Trainer(spec, BatchLoader(Samples(), spec, CPU), rows, recorder, graph=graph)


def pairs(feeder: BatchLoader, rows: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return ((batch.x, batch.labels) for batch in feeder.plain(rows))


def plain(row: EpochRow) -> dict[str, Any]:
    passing = ("seconds", "samples_per_second", "peak_rss_bytes", "peak_gpu_bytes")
    return {key: value for key, value in vars(row).items() if key not in passing}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(one["model"][name], weight) for name, weight in other["model"].items())


class TestProtocols:
    def test_a_reports_the_best_test_epoch(self) -> None:
        recorder = Recorder()
        outcome = trainer_of(recorder).run()
        tests = [row.test_accuracy for row in recorder.rows]
        assert outcome.accuracy == max(t for t in tests if t is not None)
        assert outcome.best_epoch == tests.index(outcome.accuracy) + 1
        assert outcome.validation_accuracy is None
        assert recorder.parts == {"train", "test"}

    def test_b_tests_once_with_the_model_chosen(self) -> None:
        recorder = Recorder()
        trainer = trainer_of(recorder, rows=ROWS_B)
        outcome = trainer.run()
        assert [row.test_accuracy for row in recorder.rows] == [None] * 3
        validation = [row.validation_accuracy for row in recorder.rows]
        assert outcome.validation_accuracy == max(v for v in validation if v is not None)
        assert outcome.best_epoch == validation.index(outcome.validation_accuracy) + 1
        model = build_model(trainer.spec, CPU)
        load_weights(model, recorder.saved["best"])
        assert outcome.accuracy == evaluate(model, pairs(trainer.feeder, ROWS_B.test), 2).accuracy

    def test_published_b_tests_every_epoch_and_reports_at_the_choice(self) -> None:
        recorder = Recorder()
        outcome = trainer_of(recorder, spec_of(recipe="authors"), ROWS_B).run()
        assert outcome.accuracy == recorder.rows[outcome.best_epoch - 1].test_accuracy

    @pytest.mark.parametrize(("ties", "epoch"), [("earliest", 1), ("latest", 3)])
    def test_ties(self, ties: str, epoch: int) -> None:
        spec = spec_of("train.lr=1e-30", f"train.ties={ties}")  # nothing is learnt, so all epochs are equal
        assert trainer_of(Recorder(), spec).run().best_epoch == epoch

    def test_it_learns(self) -> None:
        outcome = trainer_of(Recorder(), spec_of("train.epochs=12", "train.augmentation=none", "train.lr=1e-2")).run()
        assert outcome.accuracy == 1.0


class TestResume:
    @pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5, 7, 12])
    def test_interrupted_anywhere_equals_uninterrupted(self, stop_after: int) -> None:
        whole, first, second = Recorder(), Recorder(stop_after), Recorder()
        whole_outcome = trainer_of(whole).run()
        with pytest.raises(Interrupted) as stopped:
            trainer_of(first).run()
        assert stopped.value.exit_code == 130
        again = trainer_of(second)
        again.restore(first.saved["last"])
        outcome = again.run()
        assert same(whole.saved["last"], second.saved["last"])
        assert [plain(row) for row in outcome.history] == [plain(row) for row in whole_outcome.history]
        assert (outcome.accuracy, outcome.best_epoch) == (whole_outcome.accuracy, whole_outcome.best_epoch)

    def test_the_state_is_tensors_and_plain_values(self, tmp_path: Any) -> None:
        recorder = Recorder()
        trainer_of(recorder).run()
        torch.save(recorder.saved["last"], tmp_path / "x.pt")
        torch.load(tmp_path / "x.pt", weights_only=True)

    def test_another_network_is_refused(self) -> None:
        recorder = Recorder()
        trainer_of(recorder).run()
        spec = spec_of()
        bigger = spec.network.model_copy(update={"structure": spec.network.structure.replace("FC20", "FC30")})
        with pytest.raises(CheckpointError, match="another network"):
            trainer_of(Recorder(), spec.model_copy(update={"network": bigger})).restore(recorder.saved["last"])


def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    runs = [Recorder(), Recorder(), Recorder()]
    for recorder, seed in zip(runs, (1, 1, 2), strict=True):
        trainer_of(recorder, spec_of(f"train.seed={seed}")).run()
    assert same(runs[0].saved["last"], runs[1].saved["last"])
    assert not same(runs[0].saved["last"], runs[2].saved["last"])


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    trainer = trainer_of(Recorder())
    # spikes stay finite whatever the weights are, so the vote is made to fail
    forward: Callable[..., torch.Tensor] = trainer.model.forward
    trainer.model.forward = lambda *a, **k: forward(*a, **k) * math.nan  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"epoch 1, step 1,.*: sn2 has NaN in the gradient of its a"):
        trainer.run()


def test_learning_rate_falls_and_rises() -> None:
    train = spec_of().train
    rates = [learning_rate(train, epoch) for epoch in (0, 32, 64, 96, 128)]
    assert rates == pytest.approx([1e-3, 5e-4, 0, 5e-4, 1e-3], abs=1e-12)
    restarts = train.model_copy(update={"schedule": "cosine-restarts"})
    assert learning_rate(restarts, 64) == 1e-3


class TestBatches:
    def test_every_sample_once_and_the_rest_dropped(self) -> None:
        spec = spec_of()
        feeder = BatchLoader(Samples(), spec, CPU)
        batches = list(feeder.training(ROWS.train, 0))
        assert [len(b.labels) for b in batches] == [5, 5, 5]
        assert feeder.steps(ROWS.train) == 3
        assert feeder.steps(np.arange(3)) == 1  # fewer than a batch still train
        keys = torch.cat([b.keys for b in batches])
        assert len(keys.unique()) == 15

    def test_order_changes_by_epoch_and_starts_anywhere(self) -> None:
        feeder = BatchLoader(Samples(), spec_of("train.augmentation=none"), CPU)
        first, second = (torch.cat([b.labels for b in feeder.training(ROWS.train, epoch)]) for epoch in (0, 1))
        assert not torch.equal(first, second)
        later = next(feeder.training(ROWS.train, 0, start=2))
        assert torch.equal(later.x, list(feeder.training(ROWS.train, 0))[2].x)

    def test_a_sample_does_not_depend_on_its_batch(self) -> None:
        samples = Samples()
        small, large = (
            BatchLoader(samples, spec_of(f"train.batch_size={n}", "train.drop_last=false"), CPU) for n in (3, 16)
        )
        found = [torch.cat([b.x for b in feeder.training(ROWS.train, 4)]) for feeder in (small, large)]
        assert torch.equal(found[0], found[1])

    def test_normalisation(self) -> None:
        feeder = BatchLoader(Samples(), spec_of(), CPU)
        x = next(feeder.plain(np.array([3]))).x
        expected = (Samples().images[[3]].astype(np.float32) / 255 - 0.1307) / 0.3081
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_evaluation_counts() -> None:
    spec = spec_of()
    feeder = BatchLoader(Samples(), spec, CPU)
    model = build_model(spec, CPU)
    found = evaluate(model, pairs(feeder, np.arange(24)), 2)
    confusion = found.confusion(10)
    assert confusion.sum() == 24
    assert confusion.trace() / 24 == found.accuracy
    assert confusion.sum(1)[:2].tolist() == [12, 12]
    assert all(0 <= rate <= 1 for rate in found.firing_rate.values())
    assert model.training


class TestFailures:
    def test_weights_that_explode_are_an_error(self) -> None:
        with pytest.raises(DivergedError, match=r"epoch 1, step 2, .*1e\+38: conv0 has \w.* in ") as error:
            trainer_of(Recorder(), spec_of("train.lr=1e38")).run()
        assert "--set train.lr=1e+37" in error.value.hint

    def test_a_time_constant_without_end_is_an_error(self) -> None:
        trainer = trainer_of(Recorder())
        with torch.no_grad():
            assert trainer.model.spiking_layers()["sn1"].a is not None
            trainer.model.spiking_layers()["sn1"].a.fill_(-1000.0)  # type: ignore[union-attr]
        with pytest.raises(DivergedError, match="τ of layer sn1 is inf"):
            trainer.run()

    def test_the_layer_is_named(self) -> None:
        trainer = trainer_of(Recorder())
        with torch.no_grad():
            trainer.model.layers["fc1"].weight[0, 0] = math.nan
        with pytest.raises(DivergedError, match=r"step 1,.*: fc1 has NaN in its weight"):
            trainer.run()

    def test_memory_of_the_cpu_runs_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            torch.empty(2**60)

        trainer = trainer_of(Recorder())
        monkeypatch.setattr(trainer.model, "forward", fail)
        with pytest.raises(OutOfMemoryError, match="batches of 5") as error:
            trainer.run()
        assert "train.batch_size=2" in error.value.hint

    def test_a_batch_of_one_value_a_channel(self) -> None:
        spec = spec_of("train.batch_size=1")
        structure = "APk28s28-c4k1s1-BN-SN-FC20-SN-FC100-SN-APk10s10"
        spec = spec.model_copy(update={"network": spec.network.model_copy(update={"structure": structure})})
        with pytest.raises(RunError, match="one value a channel"):
            trainer_of(Recorder(), spec).run()

    @pytest.mark.parametrize("part", ["train", "validate", "test"])
    def test_a_stop_in_any_part_is_a_stop(self, part: str) -> None:
        class Stopping(Recorder):
            def stop_signal(self) -> int | None:
                return 15 if part in self.parts else None

        recorder = Stopping()
        with pytest.raises(Interrupted) as stopped:
            trainer_of(recorder, rows=ROWS_B).run()
        assert stopped.value.exit_code == 143
        if part == "test":  # the model tested is the best; the state to go on from stays the last
            whole = Recorder()
            trainer_of(whole, rows=ROWS_B).run()
            assert same(recorder.saved["last"], whole.saved["last"])
        again = trainer_of(Recorder(saved=recorder.saved), rows=ROWS_B)
        again.restore(recorder.saved["last"])
        assert again.run().accuracy == trainer_of(Recorder(), rows=ROWS_B).run().accuracy


class TestForeignStates:
    def state(self) -> dict[str, Any]:
        recorder = Recorder()
        trainer_of(recorder, spec_of("train.epochs=1")).run()
        return recorder.saved["last"]

    def test_of_another_experiment(self) -> None:
        with pytest.raises(CheckpointError, match="another experiment"):
            trainer_of(Recorder()).restore({**self.state(), "digest": "0" * 64})

    @pytest.mark.parametrize("missing", ["optimisation", "progress", "vitals", "random"])
    def test_that_are_no_whole_state(self, missing: str) -> None:
        state = self.state()
        del state[missing]
        with pytest.raises(CheckpointError, match="no state to go on from"):
            trainer_of(Recorder()).restore(state)

    @pytest.mark.parametrize("model", [None, [], {"a": 1}])
    def test_without_weights(self, model: object) -> None:
        with pytest.raises(CheckpointError, match="no weights"):
            trainer_of(Recorder()).restore({**self.state(), "model": model})


class Plain:
    """The experiment of these tests written down again with nothing but torch, for two recipes.

    c4k3s1-BN-SN-MPk4s4-FC20-SN-FC100-SN-APk10s10, batch norm per step, the first conv + BN once; no dropout.
    """

    def __init__(self, weights: dict[str, torch.Tensor], spec: ExperimentSpec) -> None:
        self.spec = spec
        self.buffers = {k: v.clone() for k, v in weights.items() if "running" in k}
        learnt = {k: v.clone().requires_grad_() for k, v in weights.items() if v.is_floating_point()}
        self.weights = {k: v for k, v in learnt.items() if "running" not in k}
        self.adam = torch.optim.Adam(self.weights.values(), lr=spec.train.lr)
        self.spikes: list[torch.Tensor] = []

    def neurons(self, x: list[torch.Tensor], a: torch.Tensor) -> list[torch.Tensor]:
        k, v, spikes = torch.sigmoid(a), torch.zeros_like(x[0]), []
        for x_t in x:
            h = v + k * (x_t - v)
            over = h - 1.0
            hard = (over >= 0).to(h)
            soft = torch.atan(math.pi * over) / math.pi + 0.5
            spike = hard.detach() + (soft - soft.detach())  # exactly 0 or 1 forward, the slope of the arctan backward
            v = h * (1 - hard)
            spikes.append(spike)
        self.spikes.append(torch.stack(spikes).detach())
        return spikes

    def forward(self, images: torch.Tensor, training: bool) -> torch.Tensor:
        w, functional = {k.removeprefix("layers."): v for k, v in self.weights.items()}, torch.nn.functional
        x = functional.conv2d(images, w["conv0.weight"], padding=1)
        running = (self.buffers["layers.bn0.running_mean"], self.buffers["layers.bn0.running_var"])
        x = functional.batch_norm(x, *running, w["bn0.weight"], w["bn0.bias"], training, momentum=0.1, eps=1e-5)
        self.spikes = []
        steps = self.neurons([x] * self.spec.T, w["sn0.a"])
        steps = [functional.max_pool2d(s, 4).flatten(1) @ w["fc0.weight"].T for s in steps]
        steps = [s @ w["fc1.weight"].T for s in self.neurons(steps, w["sn1.a"])]
        return torch.stack([s.view(len(s), 10, 10).mean(2) for s in self.neurons(steps, w["sn2.a"])])

    def train(self, feeder: BatchLoader, rows: np.ndarray, epoch: int) -> None:
        rate = self.spec.train.lr * (1 + math.cos(math.pi * epoch / self.spec.train.cosine_period)) / 2
        for group in self.adam.param_groups:
            group["lr"] = rate
        for batch in feeder.training(rows, epoch):
            rates, target = self.forward(batch.x, True), torch.nn.functional.one_hot(batch.labels, 10)
            per_step = ((rates - target) ** 2).mean()
            of_the_rate = ((rates.mean(0) - target) ** 2).mean()
            self.adam.zero_grad()
            (per_step if self.spec.recipe == "paper" else of_the_rate).backward()
            self.adam.step()

    def test(self, feeder: BatchLoader, batches: Iterator[Any]) -> tuple[float, list[float]]:
        right, seen, fired, neurons = 0, 0, [0.0] * 3, [0] * 3
        for batch in batches:
            with torch.no_grad():
                votes = (self.forward(batch.x, False).sum(0) * 10).round()
            for answer, label in zip(votes.tolist(), batch.labels.tolist(), strict=True):
                right += answer.index(max(answer)) == label
                seen += 1
            for layer, s in enumerate(self.spikes):
                fired[layer] += s.sum().item()
                neurons[layer] += s.numel()
        return right / seen, [f / n for f, n in zip(fired, neurons, strict=True)]


class Exact(BatchLoader):
    """Batches in float64: two ways of adding up then fire the same spikes."""

    def _batches(self, *arguments: Any, **options: Any) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super()._batches(*arguments, **options):
            yield replace(batch, x=batch.x.double())


@pytest.mark.parametrize("recipe", ["paper", "authors"])
@pytest.mark.parametrize("rows", [ROWS, ROWS_B], ids=["A", "B"])
def test_training_is_what_plain_torch_does(recipe: str, rows: Split) -> None:
    spec = spec_of("train.lr=0.05", "train.cosine_period=2", "T=3", recipe=recipe)
    structure = spec.network.structure.replace("DP-", "")
    spec = spec.model_copy(update={"network": spec.network.model_copy(update={"structure": structure})})
    recorder = Recorder()
    feeder = Exact(Samples(), spec, CPU)
    trainer = Trainer(spec, feeder, rows, recorder)
    trainer.model.double()
    plain_one = Plain({k: v.detach().clone() for k, v in trainer.model.state_dict().items()}, spec)
    trainer.run()
    for epoch, row in enumerate(recorder.rows):
        plain_one.train(feeder, rows.train, epoch)
        if row.validation_accuracy is None:
            accuracy, fired = plain_one.test(feeder, feeder.plain(rows.test))
            assert row.test_accuracy == accuracy
        else:
            shuffled = recipe == "authors"  # with the training's augmentation, too
            batches = feeder.training(rows.validation, epoch) if shuffled else feeder.plain(rows.validation)
            accuracy, fired = plain_one.test(feeder, batches)
            assert row.validation_accuracy == accuracy
        assert row.firing_rate == pytest.approx(fired, rel=1e-9)
        assert row.tau == pytest.approx([1 + math.exp(-plain_one.weights[f"layers.sn{i}.a"].item()) for i in range(3)])
    for name, weight in {**plain_one.weights, **plain_one.buffers}.items():
        torch.testing.assert_close(recorder.saved["last"]["model"][name], weight.detach(), rtol=1e-7, atol=1e-9)


def test_what_makes_another_experiment() -> None:
    base = spec_of()
    digests = {base.digest}
    for change in ("T=3", "neuron.tau_0=3.0", "neuron.detach_reset=false", "train.loss=mse-rate", "train.ties=latest"):
        digests.add(spec_of(change).digest)
    assert len(digests) == 6
    assert spec_of("train.epochs=9", "train.seed=1").digest == base.digest
    gesture = [
        load_registry().experiment("gesture-plif", overrides=o).spec.digest for o in ([], ["frames.slicing=time"])
    ]
    assert gesture[0] != gesture[1]


class TestSteps:
    """Steps that a CUDA graph could hold are the others, bit for bit; on a CPU nothing is recorded."""

    @pytest.mark.parametrize(
        "settings", [(), ("train.clip_norm=0.1", "train.augmentation=flip-crop"), ("train.batch_size=4",)], ids=str
    )
    def test_of_a_graph(self, settings: tuple[str, ...]) -> None:
        one, other = Recorder(), Recorder()
        trainer_of(one, spec_of(*settings)).run()
        trainer = trainer_of(other, spec_of(*settings), graph=True)
        calls: list[list[int]] = []
        whole_step = trainer._whole_step

        def watched(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            calls.append([part.data_ptr() for part in inputs])
            return whole_step(*inputs)

        assert trainer._recorded is not None
        trainer._recorded._work = watched
        trainer.run()
        assert [plain(row) for row in one.rows] == [plain(row) for row in other.rows]
        assert same(one.saved["last"], other.saved["last"])
        size = trainer.spec.train.batch_size
        assert len(calls) == 3 * (16 // size)  # a part of a batch goes the other way
        assert all(call == calls[0] for call in calls)  # and inputs always lie in the same place

    def test_of_a_graph_go_on_where_they_were(self) -> None:
        undisturbed, stopped, again = Recorder(), Recorder(stop_after=6), Recorder()
        trainer_of(undisturbed).run()
        with pytest.raises(Interrupted):
            trainer_of(stopped, graph=True).run()
        trainer = trainer_of(again, graph=True)
        trainer.restore(stopped.saved["last"])
        trainer.run()
        assert same(undisturbed.saved["last"], again.saved["last"])

    @pytest.mark.parametrize(
        ("device", "processes", "settings", "why"),
        [
            ("cpu", 1, (), "CUDA graphs are for GPUs, not for cpu"),
            ("cuda", 2, (), "several processes exchange gradients"),
            ("cuda", 1, ("train.accumulate=2",), "several batches"),
            ("cuda", 1, ("train.precision=fp16",), "bf16 does not"),
            ("cuda", 1, ("train.optimizer=sgd",), "sgd of torch is not made for it"),
            ("cuda", 1, ("train.precision=bf16",), None),
        ],
    )
    def test_when_there_is_none(self, device: str, processes: int, settings: tuple[str, ...], why: str | None) -> None:
        found = graph_unsupported_reason(spec_of(*settings).train, torch.device(device), processes)
        assert (found is None) == (why is None)
        assert (why or "") in (found or "")

    def test_states_are_the_same_with_a_graph(self) -> None:
        """A checkpoint of a GPU's can be taken up on a CPU."""
        model = torch.nn.Linear(3, 2)
        own, other = (Optimizer(model, spec_of().train, CPU) for _ in range(2))
        own._capturable = True  # as on a GPU, whose Adam could not run here
        for group in own._optimizer.param_groups:
            group.update(capturable=True, lr=torch.tensor(1e-3))
        own.begin_epoch(1)
        (group,) = own._optimizer.param_groups
        assert group["lr"].item() == pytest.approx(learning_rate(spec_of().train, 1))
        saved = own.state()
        assert saved["optimizer"]["param_groups"][0]["capturable"] is False
        assert isinstance(saved["optimizer"]["param_groups"][0]["lr"], float)
        other.restore(saved)
        own.restore(other.state())
        (group,) = own._optimizer.param_groups
        assert group["capturable"] is True
        assert isinstance(group["lr"], torch.Tensor)
