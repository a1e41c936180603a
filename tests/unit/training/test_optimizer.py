"""From losses to weights: optimisers, schedules, accumulation, clipping, precision, states of generators."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler
from unit.test_training import CPU, ROWS, Recorder, Samples, same, spec_of, trainer_of

from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import DivergedError, Interrupted, OutOfMemoryError, UsageError
from plifctl.training.batches import BatchLoader
from plifctl.training.nonfinite import find_nonfinite_layer
from plifctl.training.optimizer import Optimizer, learning_rate
from plifctl.training.randomness import random_state, set_random_state
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer

OPTIMIZERS = ("adadelta", "adagrad", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_is_torchs(name: str) -> None:
    classes = {kind.__name__.lower(): kind for kind in vars(torch.optim).values() if isinstance(kind, type)}
    train = spec_of(f"train.optimizer={name}", "train.optimizer_options.weight_decay=0.01", "train.lr=0.05").train
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimisation = Optimizer(ours, train, CPU)
    optimisation.begin_epoch(0)
    reference = classes[name](theirs.parameters(), lr=0.05, weight_decay=0.01)
    for x in torch.randn(3, 4, 3):
        for model in (ours, theirs):
            model.zero_grad()
            model(x).square().sum().backward()
        optimisation.step(torch.tensor(1.0))
        reference.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize(
    ("name", "options", "torchs"),
    [
        ("constant", {}, lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1.0)),
        ("step", {"step_size": 2, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 2, 0.3)),
        ("multi-step", {"milestones": [1, 4]}, lambda o: lr_scheduler.MultiStepLR(o, [1, 4])),
        ("exponential", {"gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
        ("linear", {"total_iters": 3}, lambda o: lr_scheduler.LinearLR(o, total_iters=3)),
        ("polynomial", {"total_iters": 4, "power": 2.0}, lambda o: lr_scheduler.PolynomialLR(o, 4, 2.0)),
        ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, 64)),
        ("cosine-restarts", {}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 64)),
    ],
)
def test_every_schedule_is_torchs(name: str, options: dict[str, Any], torchs: Any) -> None:
    settings = [f"train.schedule_options.{key}={value}" for key, value in options.items()]
    train = spec_of(f"train.schedule={name}", "train.epochs=6", *settings).train
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=train.lr)
    scheduler = torchs(optimizer)
    for epoch in range(8):  # more epochs than were asked for: a run may be made longer
        assert learning_rate(train, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("setting", "said", "hint"),
    [
        ("optimizer_options.momentun=0.9", "adam has no such option", ""),
        ("optimizer_options.lr=0.9", "adam has no such option", ""),
        ("optimizer_options.eps=-1.0", "Invalid epsilon", "betas"),
        ("schedule_options.gamma=0.9", "cosine has none", "leave them out"),
    ],
)
def test_options_that_there_are_not(setting: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        Optimizer(torch.nn.Linear(1, 1), spec_of(f"train.{setting}").train, CPU)
    assert hint in error.value.hint


def without_norm(*overrides: str) -> ExperimentSpec:
    """An experiment whose samples have nothing to do with each other."""
    spec = spec_of("train.epochs=2", "network.dropout=0.0", *overrides)
    structure = "c4k3s1-SN-MPk4s4-FC20-SN-FC100-SN-APk10s10"
    return spec.model_copy(update={"network": spec.network.model_copy(update={"structure": structure})})


@pytest.mark.parametrize("samples", [16, 15, 13])
def test_accumulated_batches_make_the_step_of_one(samples: int) -> None:
    rows = Split(np.arange(samples), np.empty(0, np.int64), np.arange(16, 24))
    found = []
    for size, accumulate in ((8, 1), (4, 2), (2, 4), (1, 8)):
        settings = [f"train.batch_size={size}", f"train.accumulate={accumulate}", "train.drop_last=false"]
        trainer = trainer_of(Recorder(), without_norm(*settings, "train.optimizer=sgd", "train.lr=1.0"), rows)
        trainer.run()
        found.append(trainer)
    for trainer in found[1:]:
        assert trainer.progress.history[-1]["loss"] == pytest.approx(found[0].progress.history[-1]["loss"], rel=1e-4)
        for own, other in zip(trainer.model.parameters(), found[0].model.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_a_stop_comes_between_steps() -> None:
    """With 4 batches to a step, of 5 batches: after 4, after 5."""
    whole = Recorder()
    spec = spec_of("train.batch_size=3", "train.accumulate=4", "train.epochs=2")
    trainer_of(whole, spec).run()
    stopped = Recorder(stop_after=1)
    with pytest.raises(Interrupted, match="step 4"):
        trainer_of(stopped, spec).run()
    again = Recorder(saved=stopped.saved)
    trainer = trainer_of(again, spec)
    trainer.restore(stopped.saved["last"])
    trainer.run()
    assert same(again.saved["last"], whole.saved["last"])


def test_clipping_bounds_the_norm() -> None:
    train = spec_of("train.clip_norm=0.5", "train.optimizer=sgd", "train.lr=1.0").train
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimisation = Optimizer(model, train, CPU)
    optimisation.begin_epoch(0)
    for gradient, expected in (([3.0, 4.0], [-0.3, -0.4]), ([0.03, 0.04], [-0.33, -0.44])):
        model.weight.grad = torch.tensor([gradient])
        optimisation.step(model.weight.grad.norm().double())
        assert model.weight.tolist()[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("patience", [1, 2])
def test_early_stop(patience: int) -> None:
    class Stuck(Trainer):
        def _evaluate(self, rows: np.ndarray, part: str, epoch: int) -> Any:
            found = super()._evaluate(rows, part, epoch)
            found.predictions[:] = found.labels if epoch == 2 else 9
            return found

    spec = spec_of(f"train.early_stop={patience}", "train.epochs=9")
    recorder = Recorder()
    outcome = Stuck(spec, BatchLoader(Samples(), spec, CPU), ROWS, recorder).run()
    assert outcome.best_epoch == 2
    assert len(outcome.history) == 2 + patience
    assert outcome.stopped_early
    again = Stuck(spec, BatchLoader(Samples(), spec, CPU), ROWS, recorder)
    again.restore(recorder.saved["last"])
    assert again.run() == outcome  # nothing more to do


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_resumes(precision: str) -> None:
    spec = spec_of(f"train.precision={precision}", "train.accumulate=2")
    whole, parts = Recorder(), Recorder(stop_after=5)
    trainer = trainer_of(whole, spec)
    trainer.run()
    full = trainer_of(Recorder(), spec_of("train.accumulate=2"))
    full.run()
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    ours, theirs = (t.model.layers["conv0"].weight for t in (trainer, full))
    assert not torch.equal(ours, theirs)  # it is another precision
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99
    with pytest.raises(Interrupted):
        trainer_of(parts, spec).run()
    again = trainer_of(Recorder(saved=parts.saved), spec)
    again.restore(parts.saved["last"])
    again.run()
    assert same(again.state(), trainer.state())
    assert again.optimisation.state()["scaler"] == trainer.optimisation.state()["scaler"]


def test_half_precision_forgives_overflow_and_halves_the_scale() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    optimisation = Optimizer(model, spec_of("train.precision=fp16").train, CPU)
    before = model.weight.clone()
    for halved in range(1, 17):
        optimisation.backward(model(torch.ones(1, 1)).sum() * torch.inf)
        optimisation.unscale()
        optimisation.step(torch.tensor(torch.inf))
        assert optimisation.state()["scaler"]["scale"] == 2.0 ** (16 - halved)
    assert torch.equal(model.weight, before)
    assert optimisation.failure()[0] == 0
    optimisation.backward(model(torch.ones(1, 1)).sum() * torch.inf)
    optimisation.unscale()
    optimisation.step(torch.tensor(torch.inf))
    assert optimisation.failure().tolist() == [1, 0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_fails_leaves_the_weights_as_they_were_and_is_known_later(name: str) -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    optimisation = Optimizer(model, spec_of(f"train.optimizer={name}").train, CPU)
    for step, gradient in enumerate([1.0, 2.0, torch.nan, 3.0]):
        model.weight.grad = torch.full((1, 2), gradient)
        optimisation.step(model.weight.grad.norm())
        if step == 1:
            before = model.weight.clone()
    assert torch.equal(model.weight, before)
    assert optimisation.failure().tolist() == [1, 2]


class Poisoned(BatchLoader):
    """Has targets that are no numbers in one batch."""

    def training(self, rows: np.ndarray, epoch: int, *, start: int = 0, mixed: bool = True) -> Any:
        for number, batch in enumerate(super().training(rows, epoch, start=start, mixed=mixed), start):
            poison = torch.nan if (epoch, number) == (0, 6) else 1.0
            yield replace(batch, targets=batch.targets * poison)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("look_every", [1, 4, 100])
def test_the_batch_that_failed_is_looked_at_again_however_late(look_every: int, late: bool, accumulate: int) -> None:
    spec = spec_of("train.batch_size=2", f"train.accumulate={accumulate}")
    trainer = Trainer(spec, Poisoned(Samples(), spec, CPU), ROWS, Recorder())
    trainer.look_every, trainer.look_late = look_every, late
    begin, step = 6 // accumulate * accumulate, {1: 7, 3: 8}[accumulate]
    stopped = Trainer(spec, Poisoned(Samples(), spec, CPU), ROWS, Recorder(stop_after=begin))
    with pytest.raises(Interrupted):
        stopped.run()
    with pytest.raises(DivergedError, match=f"epoch 1, step {step}, .*: sn2 has NaN in the gradient of its a"):
        trainer.run()
    for own, other in zip(trainer.model.parameters(), stopped.model.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("look_every", [1, 2, 5])
def test_looking_seldom_and_late_changes_nothing(look_every: int, late: bool) -> None:
    often, seldom = Recorder(), Recorder()
    spec = spec_of("train.batch_size=2")
    trainer_of(often, spec).run()
    trainer = trainer_of(seldom, spec)
    trainer.look_every, trainer.look_late = look_every, late
    trainer.run()
    assert same(often.saved["last"], seldom.saved["last"])
    for row, other in zip(often.rows, seldom.rows, strict=True):
        assert row.loss == pytest.approx(other.loss)
        assert row.train_accuracy == other.train_accuracy


def test_a_scale_that_falls_for_ever_is_an_error() -> None:
    trainer = trainer_of(Recorder(), spec_of("train.precision=fp16", "train.epochs=9"))
    with torch.no_grad():
        trainer.model.layers["fc1"].weight[0, 0] = torch.nan
    with pytest.raises(DivergedError, match="fc1 has NaN in its weight"):
        trainer.run()


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
    ],
    ids=lambda failure: str(failure)[:20],
)
def test_out_of_memory_names_a_smaller_batch(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    trainer = trainer_of(Recorder(), spec_of("train.batch_size=6", "train.accumulate=3"))
    monkeypatch.setattr(trainer.model, "forward", fail)
    with pytest.raises(OutOfMemoryError, match="batches of 6") as error:
        trainer.run()
    assert error.value.hint.startswith("try --set train.batch_size=3; with --set train.accumulate=6 ")


def test_out_of_memory_with_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(Recorder(), spec_of("train.batch_size=1"))
    monkeypatch.setattr(trainer.model, "forward", lambda *_, **__: torch.empty(2**60))
    with pytest.raises(OutOfMemoryError) as error:
        trainer.run()
    assert "one sample at a time" in error.value.hint


def test_other_errors_are_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    trainer = trainer_of(Recorder())
    monkeypatch.setattr(trainer.model, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        trainer.run()


class TestDiagnosis:
    def network(self) -> Any:
        return trainer_of(Recorder()).model.eval()

    def test_an_output(self) -> None:
        model = self.network()
        model.layers["conv0"].weight.data.fill_(3e38)
        assert (
            find_nonfinite_layer(model, lambda: model(torch.ones(2, 1, 28, 28), 2)) == "conv0 gives an infinite number"
        )

    def test_a_gradient_the_last_layers_first(self) -> None:
        model = self.network()
        for name in ("fc0", "fc1"):
            model.layers[name].weight.grad = torch.full_like(model.layers[name].weight, torch.nan)
        found = find_nonfinite_layer(model, lambda: model(torch.ones(2, 1, 28, 28), 2))
        assert found == "fc1 has NaN in the gradient of its weight"

    def test_nothing(self) -> None:
        model = self.network()
        assert find_nonfinite_layer(model, lambda: model(torch.ones(2, 1, 28, 28), 2)) is None
        assert not any(layer._forward_hooks for layer in model.layers.values())


def test_states_of_all_generators_are_taken_up(tmp_path: Any) -> None:
    def draw() -> list[float]:
        return [random.gauss(0, 1), np.random.standard_normal(), float(torch.randn(1))]

    for _ in range(3):  # an odd number of normal numbers leaves one in store
        draw()
    torch.save(random_state(), tmp_path / "state.pt")
    expected = [draw() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draw() for _ in range(3)] == expected
