"""From losses to weights: optimizers, schedules, accumulation, clipping, precision, failures."""

import copy
import inspect
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import (
    CPU,
    SPLIT_A,
    Float64Loader,
    MemoryRecorder,
    ShadeSamples,
    same_weights,
    tiny_spec,
    tiny_trainer,
    with_structure,
)
from torch.optim import lr_scheduler

from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import DivergedError, Interrupted, OutOfMemoryError, UsageError
from plifctl.snn.layers import Linear
from plifctl.training.batches import BatchLoader
from plifctl.training.optimizer import Optimizer, autocast, check_options, float32_products, learning_rate
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer

OPTIMIZERS = ("adadelta", "adagrad", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_every_optimizer_equals_torch(name: str) -> None:
    classes = {kind.__name__.lower(): kind for kind in vars(torch.optim).values() if isinstance(kind, type)}
    train = tiny_spec(f"train.optimizer={name}", "train.optimizer_options.weight_decay=0.01", "train.lr=0.05").train
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = Optimizer(ours, train, CPU)
    optimizer.begin_epoch(0)
    reference = classes[name](theirs.parameters(), lr=0.05, weight_decay=0.01)
    for x in torch.randn(3, 4, 3):
        for model in (ours, theirs):
            model.zero_grad()
            model(x).square().sum().backward()
        optimizer.step(torch.tensor(1.0))
        reference.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_restore_state_of_another_layout_continues_the_same_training(name: str) -> None:
    momentum = ["train.optimizer_options.momentum=0.9"] if name == "sgd" else []
    train = tiny_spec(f"train.optimizer={name}", "train.lr=0.05", *momentum).train
    rows, columns = torch.nn.Linear(7, 5, bias=False), Linear(7, 5)  # as 0.1.0 had it, and as it is now
    assert rows.weight.stride() != columns.weight.stride()
    first, second = Optimizer(rows, train, CPU), Optimizer(columns, train, CPU)

    def step(model: torch.nn.Linear, optimizer: Optimizer, x: torch.Tensor) -> None:
        optimizer.begin_epoch(0)
        model(x).square().sum().backward()
        optimizer.step(torch.tensor(1.0))

    inputs = torch.randn(4, 3, 7)
    for x in inputs[:2]:
        step(rows, first, x)
    columns.load_state_dict(rows.state_dict())
    second.restore(copy.deepcopy(first.state()))
    for x in inputs[2:]:
        step(rows, first, x)
        step(columns, second, x)
    torch.testing.assert_close(columns.weight, rows.weight)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", ["null", "0.1"])
def test_state_and_step_do_not_depend_on_the_order_of_weights_in_memory(name: str, clip_norm: str) -> None:
    train = tiny_spec(f"train.optimizer={name}", "train.lr=0.05", f"train.clip_norm={clip_norm}").train
    rows, columns = torch.nn.Linear(5, 5, bias=False), Linear(5, 5)  # square: shapes cannot tell the order
    columns.load_state_dict(rows.state_dict())
    optimizers = Optimizer(rows, train, CPU), Optimizer(columns, train, CPU)
    for x in torch.randn(3, 4, 5):
        for model, optimizer in zip((rows, columns), optimizers, strict=True):
            optimizer.begin_epoch(0)
            model(x).square().sum().backward()
            assert model.weight.grad is not None
            optimizer.step(model.weight.grad.norm())
    torch.testing.assert_close(columns.weight, rows.weight)
    ours, theirs = (optimizer.state()["optimizer"]["state"].get(0, {}) for optimizer in optimizers)
    torch.testing.assert_close(ours, theirs)


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
def test_learning_rate_every_schedule_equals_torch(name: str, options: dict[str, Any], torchs: Any) -> None:
    settings = [f"train.schedule_options.{key}={value}" for key, value in options.items()]
    train = tiny_spec(f"train.schedule={name}", "train.epochs=6", *settings).train
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=train.lr)
    scheduler = torchs(optimizer)
    for epoch in range(8):  # more epochs than requested: a run can be continued
        assert learning_rate(train, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ("optimizer_options.momentun=0.9", "adam has no such option", ""),
        ("optimizer_options.lr=0.9", "adam has no such option", ""),
        ("optimizer_options.eps=-1.0", "Invalid epsilon", "betas"),
        ("optimizer_options.amsgrad=no", "amsgrad: found 'no' .a text: write true or false., expected true", ""),
        ("optimizer_options.maximize=1", "found 1, expected true or false", ""),
        ("optimizer_options.weight_decay=true", "found true, expected a number", ""),
        ("optimizer_options.betas=0.9", r"found 0.9, expected a \[list\] of numbers", ""),
        ("optimizer_options.betas=[0.9]", r"adam rejects {'betas': \[0.9\]}", "betas"),
        ("optimizer_options.betas=[0.9, 0.9, 0.9]", "adam rejects", "betas"),
        ("optimizer=rmsprop optimizer_options.centered=off", "centered: found 'off'", ""),
        ("optimizer=sgd optimizer_options.dampening=abc", "dampening: found 'abc' .a text., expected a number", ""),
        ("optimizer=sgd optimizer_options.nesterov=true", "Nesterov momentum requires a momentum", "momentum"),
        ("schedule_options.gamma=0.9", "cosine has no options", "omit them"),
        ("schedule=exponential", "gamma is missing", "gamma=…"),
        ("schedule=exponential schedule_options.gamma=abc", "gamma: found 'abc' .a text., expected a number", ""),
        ("schedule=step schedule_options.step_size=0", "step rejects {'step_size': 0}", "step_size"),
        ("schedule=step schedule_options.step_size=2.5", "found 2.5, expected an integer", ""),
        (
            "schedule=multi-step schedule_options.milestones=[1.5]",
            r"found \[1.5\], expected a \[list\] of integers",
            "",
        ),
        ("schedule=linear schedule_options.start_factor=0", "linear rejects", "start_factor"),
    ],
)
def test_check_options_of_wrong_names_types_or_values_are_refused(settings: str, message: str, hint: str) -> None:
    train = tiny_spec(*(f"train.{setting}" for setting in re.split(r" (?=[a-z])", settings))).train
    with pytest.raises(UsageError, match=message) as error:
        check_options(train)
    assert hint in error.value.hint


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_check_options_accepts_the_defaults_of_every_optimizer(name: str) -> None:
    kind = next(kind for kind in vars(torch.optim).values() if getattr(kind, "__name__", "").lower() == name)
    not_options = {"params", "lr", "fused", "foreach", "capturable", "differentiable"}
    parameters = inspect.signature(kind).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.name not in not_options}
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    train = tiny_spec(f"train.optimizer={name}", f"train.optimizer_options={json.dumps(options)}").train
    assert train.optimizer_options == options
    check_options(train)


def without_norm(*overrides: str) -> ExperimentSpec:
    """Returns an experiment whose samples are independent of each other."""
    spec = tiny_spec("train.epochs=2", "network.dropout=0.0", *overrides)
    return with_structure(spec, "c4k3s1-SN-MPk4s4-FC20-SN-FC100-SN-APk10s10")


@pytest.mark.parametrize("samples", [16, 15, 13, 5])
@pytest.mark.long
def test_run_accumulated_batches_equal_one_large_batch(samples: int) -> None:
    rows = Split(np.arange(samples), np.empty(0, np.int64), np.arange(16, 24))
    losses, changes = [], []
    for size, accumulate in ((min(8, samples), 1), (4, 2), (2, 4), (1, 8)):
        settings = [f"train.batch_size={size}", f"train.accumulate={accumulate}", "train.drop_last=false"]
        spec = without_norm(*settings, "train.optimizer=sgd", "train.lr=1.0", "neuron.v_threshold=0.3")
        trainer = Trainer(spec, Float64Loader(ShadeSamples(), spec, CPU), rows, MemoryRecorder())
        trainer.model.double()
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        trainer.run()
        losses.append(trainer.progress.history[-1]["loss"])
        changes.append([after - start for after, start in zip(trainer.model.parameters(), before, strict=True)])
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    for found in changes[1:]:
        for change, wanted in zip(found, changes[0], strict=True):
            assert wanted.any()
            torch.testing.assert_close(change, wanted, rtol=1e-6, atol=1e-12)


def test_run_stopped_while_accumulating_stops_after_the_step() -> None:
    """5 batches, 4 per step: it stops after 4 or 5."""
    whole = MemoryRecorder()
    spec = tiny_spec("train.batch_size=3", "train.accumulate=4", "train.epochs=2")
    tiny_trainer(whole, spec).run()
    stopped = MemoryRecorder(stop_after=1)
    with pytest.raises(Interrupted, match="step 4"):
        tiny_trainer(stopped, spec).run()
    again = MemoryRecorder(saved=stopped.saved)
    trainer = tiny_trainer(again, spec)
    trainer.restore(stopped.saved["last"])
    trainer.run()
    assert same_weights(again.saved["last"], whole.saved["last"])


def test_step_clip_norm_bounds_the_gradient() -> None:
    train = tiny_spec("train.clip_norm=0.5", "train.optimizer=sgd", "train.lr=1.0").train
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = Optimizer(model, train, CPU)
    optimizer.begin_epoch(0)
    for gradient, expected in (([3.0, 4.0], [-0.3, -0.4]), ([0.03, 0.04], [-0.33, -0.44])):
        model.weight.grad = torch.tensor([gradient])
        optimizer.step(model.weight.grad.norm().double())
        assert model.weight.tolist()[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("patience", "ties"), [(1, "earliest"), (2, "earliest"), (2, "latest")])
@pytest.mark.parametrize("saturated", [False, True])
def test_run_early_stop_ends_after_patience(patience: int, ties: str, saturated: bool) -> None:
    class Stuck(Trainer):
        def _evaluate(self, rows: np.ndarray, part: str, epoch: int) -> Any:
            found = super()._evaluate(rows, part, epoch)
            found.predictions[:] = found.labels if epoch == 2 or (saturated and epoch > 2) else 9
            return found

    spec = tiny_spec(f"train.early_stop={patience}", "train.epochs=9", f"train.ties={ties}")
    recorder = MemoryRecorder()
    outcome = Stuck(spec, BatchLoader(ShadeSamples(), spec, CPU), SPLIT_A, recorder).run()
    assert outcome.best_epoch == (2 + patience if saturated and ties == "latest" else 2)
    assert len(outcome.history) == 2 + patience
    assert outcome.stopped_early
    again = Stuck(spec, BatchLoader(ShadeSamples(), spec, CPU), SPLIT_A, recorder)
    again.restore(recorder.saved["last"])
    assert again.run() == outcome  # nothing is left to train


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_run_half_precision_resumes_bit_for_bit(precision: str) -> None:
    spec = tiny_spec(f"train.precision={precision}", "train.accumulate=2")
    whole, parts = MemoryRecorder(), MemoryRecorder(stop_after=5)
    trainer = tiny_trainer(whole, spec)
    trainer.run()
    full = tiny_trainer(MemoryRecorder(), tiny_spec("train.accumulate=2"))
    full.run()
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    ours, theirs = (t.model.layers["conv0"].weight for t in (trainer, full))
    assert not torch.equal(ours, theirs)  # the precision has an effect
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99
    with pytest.raises(Interrupted):
        tiny_trainer(parts, spec).run()
    again = tiny_trainer(MemoryRecorder(saved=parts.saved), spec)
    again.restore(parts.saved["last"])
    again.run()
    assert same_weights(again.state(), trainer.state())
    assert again.optimizer.state()["scaler"] == trainer.optimizer.state()["scaler"]


def run_one_step(*settings: str) -> tuple[float, torch.Tensor]:
    """Returns the norm of the gradients that a training of one step records, and the change of all weights."""
    spec = tiny_spec("train.epochs=1", "train.batch_size=16", "train.optimizer=sgd", "train.lr=0.5", *settings)
    recorder = MemoryRecorder()
    trainer = tiny_trainer(recorder, spec)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.run()
    change = [after.detach() - start for after, start in zip(trainer.model.parameters(), before, strict=True)]
    (row,) = recorder.rows
    norm = sum(layer**2 for layer in row.gradient_norm.values() if layer is not None) ** 0.5
    return norm, torch.cat([values.flatten() for values in change])


@pytest.mark.parametrize("clips", [True, False])
def test_run_fp16_clips_and_records_the_gradients_without_their_scale(clips: bool) -> None:
    norm, _ = run_one_step()
    limit = (0.95 if clips else 1.05) * norm
    found, change = run_one_step(f"train.clip_norm={limit}", "train.precision=fp16")
    wanted, expected = run_one_step(f"train.clip_norm={limit}")
    assert wanted == pytest.approx(norm, rel=1e-6)  # recorded before they are clipped
    assert found == pytest.approx(norm, rel=1e-2)
    assert expected.norm().item() == pytest.approx(0.5 * min(norm, limit), rel=1e-2)
    assert change.norm().item() == pytest.approx(0.5 * min(norm, limit), rel=1e-2)
    assert (change - expected).norm() < 0.05 * expected.norm()  # single spikes may differ


def test_step_fp16_overflow_halves_the_scale() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = Optimizer(model, tiny_spec("train.precision=fp16").train, CPU)
    before = model.weight.clone()
    for halved in range(1, 17):
        optimizer.backward(model(torch.ones(1, 1)).sum() * torch.inf)
        optimizer.unscale()
        optimizer.step(torch.tensor(torch.inf))
        assert optimizer.state()["scaler"]["scale"] == 2.0 ** (16 - halved)
    assert torch.equal(model.weight, before)
    assert optimizer.failure()[0] == 0
    optimizer.backward(model(torch.ones(1, 1)).sum() * torch.inf)
    optimizer.unscale()
    optimizer.step(torch.tensor(torch.inf))
    assert optimizer.failure().tolist() == [1, 0]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_step_fp16_skips_leaves_no_state(name: str) -> None:
    options = ["train.optimizer_options.momentum=0.9"] if name == "sgd" else []
    found = []
    for overflows in (True, False):
        model = torch.nn.Linear(64, 64, bias=False)
        torch.nn.init.ones_(model.weight)
        optimizer = Optimizer(model, tiny_spec("train.precision=fp16", f"train.optimizer={name}", *options).train, CPU)
        for infinite in (*([True] if overflows else []), False):
            loss = model(torch.ones(1, 64)).sum() * (torch.inf if infinite else 1e-3)
            full = [torch.full((64, 64), 1e30) for _ in range(64)]  # what freed memory contains
            del full
            optimizer.backward(loss)
            optimizer.unscale()
            optimizer.step(torch.tensor(torch.inf if infinite else 1.0))
        found.append(model.weight.detach().clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_nonfinite_gradient_keeps_weights_and_is_reported(name: str) -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = Optimizer(model, tiny_spec(f"train.optimizer={name}").train, CPU)
    for step, gradient in enumerate([1.0, 2.0, torch.nan, 3.0]):
        model.weight.grad = torch.full((1, 2), gradient)
        optimizer.step(model.weight.grad.norm())
        if step == 1:
            before = model.weight.clone()
    assert torch.equal(model.weight, before)
    assert optimizer.failure().tolist() == [1, 2]


class Poisoned(BatchLoader):
    """Has NaN targets in one batch."""

    def training_batches(self, rows: np.ndarray, epoch: int, *, start: int = 0, cut_mix: bool = True) -> Any:
        for number, batch in enumerate(super().training_batches(rows, epoch, start=start, cut_mix=cut_mix), start):
            poison = torch.nan if (epoch, number) == (0, 6) else 1.0
            yield replace(batch, targets=batch.targets * poison)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("collect_every", [1, 4, 100])
@pytest.mark.long
def test_run_failed_step_is_replayed_and_names_the_layer(collect_every: int, late: bool, accumulate: int) -> None:
    spec = tiny_spec("train.batch_size=2", f"train.accumulate={accumulate}")
    trainer = Trainer(spec, Poisoned(ShadeSamples(), spec, CPU), SPLIT_A, MemoryRecorder())
    trainer.collect_every, trainer.collect_late = collect_every, late
    begin, step = 6 // accumulate * accumulate, {1: 7, 3: 8}[accumulate]
    stopped = Trainer(spec, Poisoned(ShadeSamples(), spec, CPU), SPLIT_A, MemoryRecorder(stop_after=begin))
    with pytest.raises(Interrupted):
        stopped.run()
    with pytest.raises(DivergedError, match=f"epoch 1, step {step}, .*: sn2 has NaN in the gradient of its a"):
        trainer.run()
    for own, other in zip(trainer.model.parameters(), stopped.model.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize(
    ("collect_every", "late"),
    [
        (2, False),
        (5, True),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, False), (1, True), (2, True), (5, False))),
    ],
)
@pytest.mark.long
def test_run_collecting_rarely_or_late_changes_nothing(collect_every: int, late: bool) -> None:
    often, seldom = MemoryRecorder(), MemoryRecorder()
    spec = tiny_spec("train.batch_size=2")
    tiny_trainer(often, spec).run()
    trainer = tiny_trainer(seldom, spec)
    trainer.collect_every, trainer.collect_late = collect_every, late
    trainer.run()
    assert same_weights(often.saved["last"], seldom.saved["last"])
    for row, other in zip(often.rows, seldom.rows, strict=True):
        assert row.loss == pytest.approx(other.loss)
        assert row.train_accuracy == other.train_accuracy


def test_run_fp16_scale_below_one_is_an_error() -> None:
    trainer = tiny_trainer(MemoryRecorder(), tiny_spec("train.precision=fp16", "train.epochs=9"))
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
def test_run_out_of_memory_suggests_a_smaller_batch(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    trainer = tiny_trainer(MemoryRecorder(), tiny_spec("train.batch_size=6", "train.accumulate=3"))
    monkeypatch.setattr(trainer.model, "forward", fail)
    with pytest.raises(OutOfMemoryError, match="batches of 6") as error:
        trainer.run()
    assert error.value.hint.startswith("try --set train.memory=compact, which gives the same results; or ")
    assert "--set train.batch_size=3; --set train.accumulate=6 keeps" in error.value.hint


def test_run_out_of_memory_with_compact_memory_suggests_a_smaller_batch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(MemoryRecorder(), tiny_spec("train.batch_size=6", "train.memory=compact"))
    monkeypatch.setattr(trainer.model, "forward", lambda *_, **__: torch.empty(2**60))
    with pytest.raises(OutOfMemoryError) as error:
        trainer.run()
    assert error.value.hint.startswith("try --set train.batch_size=3; ")


def test_run_out_of_memory_with_one_sample_suggests_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(MemoryRecorder(), tiny_spec("train.batch_size=1"))
    monkeypatch.setattr(trainer.model, "forward", lambda *_, **__: torch.empty(2**60))
    with pytest.raises(OutOfMemoryError) as error:
        trainer.run()
    assert "batches have one sample" in error.value.hint


def test_run_other_runtime_error_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    trainer = tiny_trainer(MemoryRecorder())
    monkeypatch.setattr(trainer.model, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        trainer.run()


@pytest.mark.parametrize(("precision", "expected"), [("tf32", "tf32"), ("fp32", "ieee"), ("bf16", "ieee")])
def test_float32_products_on_gpu_sets_and_restores_tf32(precision: str, expected: str) -> None:
    """The settings exist without a GPU."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    with float32_products(tiny_spec(f"train.precision={precision}").train, torch.device("cuda")):
        assert [backend.fp32_precision for backend in backends] == [expected] * 2
    assert [backend.fp32_precision for backend in backends] == before


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_on_cpu_sets_the_type_of_products(precision: str, dtype: torch.dtype) -> None:
    with autocast(tiny_spec(f"train.precision={precision}").train, CPU):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
