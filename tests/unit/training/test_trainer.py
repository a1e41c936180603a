"""The trainer: selection of the model, resuming bit for bit, stopping, and its errors."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import (
    CPU,
    SPLIT_A,
    SPLIT_B,
    CpuClock,
    Float64Loader,
    MemoryRecorder,
    ShadeSamples,
    reproducible,
    same_weights,
    tiny_spec,
    tiny_trainer,
    with_structure,
)

from plifctl.config.choices import Recipe
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.errors import (
    CheckpointError,
    DivergedError,
    Interrupted,
    OutOfMemoryError,
    RunError,
    StoppedByCallback,
)
from plifctl.evaluation.accuracy import evaluate
from plifctl.snn.bn_folding import fold_batch_norm
from plifctl.snn.keyed_random import hash_keys
from plifctl.snn.layers import BatchNorm
from plifctl.training.batches import BatchLoader
from plifctl.training.optimizer import Optimizer, autocast, graph_unsupported_reason, learning_rate
from plifctl.training.progress import EpochRow, Progress, Recorder
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer, build_model, load_weights


def pairs(loader: BatchLoader, rows: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return ((batch.x, batch.labels) for batch in loader.evaluation_batches(rows))


class TestProtocols:
    def test_run_protocol_a_reports_best_test_epoch(self) -> None:
        recorder = MemoryRecorder()
        outcome = tiny_trainer(recorder).run()
        tests = [row.test_accuracy for row in recorder.rows]
        assert outcome.accuracy == max(t for t in tests if t is not None)
        assert outcome.best_epoch == tests.index(outcome.accuracy) + 1
        assert outcome.validation_accuracy is None
        assert recorder.parts == {"train", "test"}

    def test_run_protocol_b_tests_the_selected_model_once(self) -> None:
        recorder = MemoryRecorder()
        trainer = tiny_trainer(recorder, split=SPLIT_B)
        outcome = trainer.run()
        assert [row.test_accuracy for row in recorder.rows] == [None] * 3
        validation = [row.validation_accuracy for row in recorder.rows]
        assert outcome.validation_accuracy == max(v for v in validation if v is not None)
        assert outcome.best_epoch == validation.index(outcome.validation_accuracy) + 1
        model = build_model(trainer.spec, CPU)
        load_weights(model, recorder.saved["best"])
        assert outcome.accuracy == evaluate(model, pairs(trainer.loader, SPLIT_B.test), 2).accuracy

    def test_run_protocol_b_of_authors_reports_at_the_selected_epoch(self) -> None:
        recorder = MemoryRecorder()
        outcome = tiny_trainer(recorder, tiny_spec(recipe="authors"), SPLIT_B).run()
        assert outcome.accuracy == recorder.rows[outcome.best_epoch - 1].test_accuracy

    def test_run_protocol_c_tests_the_last_epoch_only_and_trains_as_a(self) -> None:
        of_a, of_c = MemoryRecorder(), MemoryRecorder()
        tiny_trainer(of_a).run()
        outcome = tiny_trainer(of_c, last_epoch=True).run()
        assert [row.test_accuracy for row in of_c.rows] == [None, None, of_a.rows[-1].test_accuracy]
        assert of_c.parts == {"train", "observe", "test"}
        assert all(len(row.firing_rate) == 3 and any(row.firing_rate) for row in of_c.rows)
        assert (outcome.accuracy, outcome.best_epoch) == (of_a.rows[-1].test_accuracy, 3)
        assert outcome.validation_accuracy is None
        assert outcome.predictions is not None
        assert same_weights(of_a.saved["last"], of_c.saved["last"])
        assert all(torch.equal(of_c.saved["best"]["model"][k], v) for k, v in of_c.saved["last"]["model"].items())

    def test_run_protocol_c_observes_rows_of_all_classes(self) -> None:
        samples, spec = ShadeSamples(200), tiny_spec()
        split = Split(np.arange(160), np.arange(0), np.arange(160, 200))
        trainer = Trainer(spec, BatchLoader(samples, spec, CPU), split, MemoryRecorder(), last_epoch=True)
        rows = trainer._observed_rows()
        assert len(rows) == 40  # 8 batches of 5; each fourth row would be of one class
        assert np.bincount(samples.labels[rows]).tolist() == [20, 20]
        assert (np.diff(rows) > 0).all()

    @pytest.mark.parametrize("stop_after", [2, 6, 10])  # in training, at the end of an epoch, in the test
    def test_run_protocol_c_interrupted_and_resumed_equals_uninterrupted(self, stop_after: int) -> None:
        uninterrupted, first = MemoryRecorder(), MemoryRecorder(stop_after)
        expected = tiny_trainer(uninterrupted, last_epoch=True).run()
        with pytest.raises(Interrupted):
            tiny_trainer(first, last_epoch=True).run()
        assert "best" not in first.saved
        second = MemoryRecorder(saved=first.saved)
        again = tiny_trainer(second, last_epoch=True)
        again.restore(first.saved["last"])
        again.repair_best()
        outcome = again.run()
        assert (outcome.accuracy, outcome.best_epoch) == (expected.accuracy, 3)
        assert same_weights(uninterrupted.saved["last"], second.saved["last"])

    @pytest.mark.parametrize(("ties", "epoch"), [("earliest", 1), ("latest", 3)])
    def test_run_equal_epochs_selects_by_ties(self, ties: str, epoch: int) -> None:
        spec = tiny_spec("train.lr=1e-30", f"train.ties={ties}")  # nothing changes, so all epochs are equal
        assert tiny_trainer(MemoryRecorder(), spec).run().best_epoch == epoch

    def test_run_separable_classes_learns_them(self) -> None:
        outcome = tiny_trainer(
            MemoryRecorder(), tiny_spec("train.epochs=12", "train.augmentation=none", "train.lr=1e-2")
        ).run()
        assert outcome.accuracy == 1.0


def test_recorder_that_stores_nothing_has_no_best_state() -> None:
    recorder = Recorder()
    recorder.save("best", {})
    with pytest.raises(CheckpointError, match="stores nothing"):
        recorder.load_best()


class TestResume:
    @pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5, 7, 12])
    @pytest.mark.long
    def test_run_interrupted_and_resumed_equals_uninterrupted(self, stop_after: int) -> None:
        uninterrupted, first = MemoryRecorder(), MemoryRecorder(stop_after)
        second = MemoryRecorder(saved=first.saved)
        expected = tiny_trainer(uninterrupted).run()
        with pytest.raises(Interrupted) as stopped:
            tiny_trainer(first).run()
        assert stopped.value.exit_code == 130
        again = tiny_trainer(second)
        again.restore(first.saved["last"])
        outcome = again.run()
        assert same_weights(uninterrupted.saved["last"], second.saved["last"])
        assert [reproducible(row) for row in outcome.history] == [reproducible(row) for row in expected.history]
        assert (outcome.accuracy, outcome.best_epoch) == (expected.accuracy, expected.best_epoch)

    def test_run_with_drawn_ties_of_max_pooling_resumed_equals_uninterrupted(self) -> None:
        spec = tiny_spec("network.pool_ties=random-firing")
        uninterrupted, first, plain = MemoryRecorder(), MemoryRecorder(stop_after=4), MemoryRecorder()
        second = MemoryRecorder(saved=first.saved)
        tiny_trainer(uninterrupted, spec).run()
        with pytest.raises(Interrupted):
            tiny_trainer(first, spec).run()
        again = tiny_trainer(second, spec)
        again.restore(first.saved["last"])
        again.run()
        assert same_weights(uninterrupted.saved["last"], second.saved["last"])
        tiny_trainer(plain).run()
        assert not same_weights(uninterrupted.saved["last"], plain.saved["last"])

    def test_state_saved_loads_with_weights_only(self, tmp_path: Any) -> None:
        recorder = MemoryRecorder()
        tiny_trainer(recorder).run()
        torch.save(recorder.saved["last"], tmp_path / "x.pt")
        torch.load(tmp_path / "x.pt", weights_only=True)

    def test_restore_of_another_network_is_refused(self) -> None:
        recorder = MemoryRecorder()
        tiny_trainer(recorder).run()
        spec = tiny_spec()
        larger = with_structure(spec, spec.network.structure.replace("FC20", "FC30"))
        with pytest.raises(CheckpointError, match="another network"):
            tiny_trainer(MemoryRecorder(), larger).restore(recorder.saved["last"])


class TestCpuSeconds:
    """An epoch has 4 steps of training and 2 of testing; each takes a second of the clock."""

    def resumed(
        self, monkeypatch: pytest.MonkeyPatch, stop_after: int, change: Callable[[dict[str, Any]], None]
    ) -> list[float | None]:
        """Returns the processor time of each epoch of a training that is stopped after some steps and resumed."""
        spec, first = tiny_spec("train.drop_last=false"), MemoryRecorder(stop_after)
        monkeypatch.setattr("time.process_time", CpuClock(first))
        with pytest.raises(Interrupted):
            tiny_trainer(first, spec).run()
        change(first.saved["last"]["progress"])
        second = MemoryRecorder(saved=first.saved)
        monkeypatch.setattr("time.process_time", CpuClock(second))
        again = tiny_trainer(second, spec)
        again.restore(first.saved["last"])
        return [row.cpu_seconds for row in again.run().history]

    @pytest.mark.parametrize("stop_after", [1, 4, 5, 6, 9])  # in training, in testing, between epochs
    def test_cpu_seconds_of_resumed_epochs_are_those_of_uninterrupted_ones(
        self, stop_after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.resumed(monkeypatch, stop_after, lambda progress: None) == [6.0, 6.0, 6.0]

    def test_cpu_seconds_of_an_epoch_begun_by_an_earlier_version_are_unknown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.resumed(monkeypatch, 9, lambda progress: progress.pop("cpu_seconds"))
        assert found == [6.0, None, 6.0]
        assert Progress.from_state({"epoch": 1, "step": 0}).cpu_seconds == 0  # a whole epoch is to come

    def test_cpu_seconds_with_a_checkpoint_every_step_are_counted_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec, recorder = tiny_spec("train.drop_last=false"), MemoryRecorder()
        monkeypatch.setattr("time.process_time", CpuClock(recorder))
        loader = BatchLoader(ShadeSamples(), spec, CPU)
        outcome = Trainer(spec, loader, SPLIT_A, recorder, checkpoint_every=1).run()
        assert [row.cpu_seconds for row in outcome.history] == [6.0, 6.0, 6.0]


class TestBestCheckpoint:
    """The order of an epoch's end is row, state, best checkpoint; a process may be killed between any two of them."""

    @pytest.mark.parametrize("split", [SPLIT_A, SPLIT_B])
    def test_best_states_the_epoch_and_accuracy_of_the_history(self, split: Split) -> None:
        recorder = MemoryRecorder()
        outcome = tiny_trainer(recorder, split=split).run()
        best, row = recorder.saved["best"], recorder.rows[outcome.best_epoch - 1]
        selecting = row.test_accuracy if split is SPLIT_A else row.validation_accuracy
        assert (best["epoch"], best["accuracy"]) == (outcome.best_epoch, selecting)

    def test_best_is_written_after_the_row_and_the_state(self) -> None:
        order: list[str] = []

        class Ordered(MemoryRecorder):
            def on_epoch(self, row: EpochRow) -> None:
                order.append("row")
                super().on_epoch(row)

            def on_saved_epoch(self, row: EpochRow) -> bool | None:
                order.append("observer")
                return super().on_saved_epoch(row)

            def save(self, name: str, state: dict[str, Any]) -> None:
                order.append(name)
                super().save(name, state)

        tiny_trainer(Ordered(), tiny_spec("train.epochs=1")).run()
        assert order == ["row", "last", "best", "observer"]

    def test_repair_best_killed_before_it_was_written_writes_it_from_the_state(self) -> None:
        recorder = MemoryRecorder()
        tiny_trainer(recorder, tiny_spec("train.epochs=1"), SPLIT_B).run()
        written = recorder.saved.pop("best")
        for left in (None, {**written, "epoch": 7, "accuracy": 0.25}):  # none yet, or that of another epoch
            resumed = MemoryRecorder(saved={"last": recorder.saved["last"], **({"best": left} if left else {})})
            trainer = tiny_trainer(resumed, split=SPLIT_B)
            trainer.restore(resumed.saved["last"])
            trainer.repair_best()
            assert (resumed.saved["best"]["epoch"], resumed.saved["best"]["accuracy"]) == (1, written["accuracy"])
            assert same_weights(resumed.saved["best"], written)

    @pytest.mark.parametrize("wrong", [{"epoch": 7}, {"accuracy": 0.123}])
    def test_best_of_another_epoch_is_refused_on_resume_and_at_the_end(self, wrong: dict[str, Any]) -> None:
        first = MemoryRecorder(stop_after=5)  # within the second epoch
        with pytest.raises(Interrupted):
            tiny_trainer(first, tiny_spec("train.lr=1e-30"), SPLIT_B).run()
        first.saved["best"] |= wrong
        trainer = tiny_trainer(first, tiny_spec("train.lr=1e-30"), SPLIT_B)
        trainer.restore(first.saved["last"])
        assert (trainer.progress.epoch, trainer.progress.best_epoch) == (1, 1)
        with pytest.raises(CheckpointError, match="but the best epoch of the history is 1"):
            trainer.repair_best()
        first.stop_after = None
        with pytest.raises(CheckpointError, match="but the best epoch of the history is 1"):
            trainer.run()

    def test_best_of_0_1_0_without_epoch_is_compared_by_its_accuracy_at_the_end(self) -> None:
        recorder = MemoryRecorder()
        spec = tiny_spec("train.epochs=12", "train.lr=1e-2", "train.augmentation=none")
        trainer = tiny_trainer(recorder, spec, SPLIT_B)
        outcome = trainer.run()
        assert outcome.validation_accuracy == 1.0
        for key in ("epoch", "accuracy"):
            del recorder.saved["best"][key]
        assert trainer._outcome() == outcome
        wrong = {name: torch.zeros_like(weight) for name, weight in recorder.saved["best"]["model"].items()}
        recorder.saved["best"]["model"] = wrong  # always class 0, right for half of the samples
        with pytest.raises(CheckpointError, match="but the best epoch of the history"):
            trainer._outcome()


class TestPredictions:
    """The predicted classes of the reported epoch: with the best checkpoint, or tested again where it lacks them."""

    SPEC = tiny_spec("train.epochs=4", "train.lr=3e-3", "train.augmentation=none")

    def expected(self, recorder: MemoryRecorder, trainer: Trainer) -> np.ndarray:
        """Returns the predictions of the best checkpoint, computed on their own."""
        model = build_model(trainer.spec, CPU)
        load_weights(model, recorder.saved["best"])
        return evaluate(model, pairs(trainer.loader, trainer.split.test), 2).predictions

    @pytest.mark.parametrize(("split", "recipe"), [(SPLIT_A, "paper"), (SPLIT_B, "paper"), (SPLIT_B, "authors")])
    def test_run_any_protocol_gives_those_of_the_best_epoch(self, split: Split, recipe: Recipe) -> None:
        recorder = MemoryRecorder()
        spec = tiny_spec("train.epochs=4", "train.lr=3e-3", recipe=recipe)
        trainer = tiny_trainer(recorder, spec, split)
        outcome = trainer.run()
        assert outcome.predictions is not None
        assert outcome.predictions.dtype == np.uint8
        np.testing.assert_array_equal(outcome.predictions, self.expected(recorder, trainer))
        assert (outcome.predictions == ShadeSamples().labels[split.test]).mean() == outcome.accuracy
        tested_once = split is SPLIT_B and recipe == "paper"
        assert ("predictions" in recorder.saved["best"]) is not tested_once
        assert "predictions" not in recorder.saved["last"]

    @pytest.mark.parametrize("stop_after", [3, 5, 9, 12, 17])
    @pytest.mark.long
    def test_run_killed_anywhere_and_resumed_gives_those_of_an_uninterrupted_run(self, stop_after: int) -> None:
        expected = tiny_trainer(MemoryRecorder(), self.SPEC).run()
        first = MemoryRecorder(stop_after)
        with pytest.raises(Interrupted):
            tiny_trainer(first, self.SPEC).run()
        trainer = tiny_trainer(MemoryRecorder(saved=first.saved), self.SPEC)
        trainer.restore(first.saved["last"])
        trainer.repair_best()
        np.testing.assert_array_equal(trainer.run().predictions, expected.predictions)  # type: ignore[arg-type]

    def test_run_killed_before_the_best_checkpoint_tests_its_weights_again(self) -> None:
        recorder = MemoryRecorder()
        outcome = tiny_trainer(recorder, tiny_spec("train.epochs=1")).run()
        saved = {"last": recorder.saved["last"]}
        trainer = tiny_trainer(MemoryRecorder(saved=saved), tiny_spec("train.epochs=1"))
        trainer.restore(saved["last"])
        trainer.repair_best()
        assert "predictions" not in saved["best"]
        np.testing.assert_array_equal(trainer.run().predictions, outcome.predictions)  # type: ignore[arg-type]

    def test_best_without_predictions_that_now_gives_another_accuracy_keeps_none(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The best checkpoint of 0.1.0, on a machine where a sample or two come out another way."""
        recorder = MemoryRecorder()
        trainer = tiny_trainer(recorder, self.SPEC)
        outcome = trainer.run()
        saved = recorder.saved["best"]
        del saved["predictions"]
        saved["model"] = {name: torch.zeros_like(weight) for name, weight in saved["model"].items()}
        trainer.progress.history[outcome.best_epoch - 1]["test_accuracy"] = 0.75
        again = trainer._outcome()
        assert (again.accuracy, again.predictions) == (0.75, None)
        assert "are not kept: its weights now give a test accuracy of 0.500000, then 0.750000" in caplog.text


def test_run_same_seed_gives_same_weights() -> None:
    runs = [MemoryRecorder(), MemoryRecorder(), MemoryRecorder()]
    for recorder, seed in zip(runs, (1, 1, 2), strict=True):
        tiny_trainer(recorder, tiny_spec(f"train.seed={seed}")).run()
    assert same_weights(runs[0].saved["last"], runs[1].saved["last"])
    assert not same_weights(runs[0].saved["last"], runs[2].saved["last"])


def test_run_loss_not_finite_is_an_error() -> None:
    trainer = tiny_trainer(MemoryRecorder())
    # spikes stay finite whatever the weights are, so the vote is made to fail
    forward: Callable[..., torch.Tensor] = trainer.model.forward
    trainer.model.forward = lambda *a, **k: forward(*a, **k) * math.nan  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"epoch 1, step 1,.*: sn2 has NaN in the gradient of its a"):
        trainer.run()


def test_learning_rate_cosine_falls_and_rises() -> None:
    train = tiny_spec().train
    rates = [learning_rate(train, epoch) for epoch in (0, 32, 64, 96, 128)]
    assert rates == pytest.approx([1e-3, 5e-4, 0, 5e-4, 1e-3], abs=1e-12)
    restarts = train.model_copy(update={"schedule": "cosine-restarts"})
    assert learning_rate(restarts, 64) == 1e-3


def test_evaluate_predictions_fill_the_confusion_matrix() -> None:
    spec = tiny_spec()
    loader = BatchLoader(ShadeSamples(), spec, CPU)
    model = build_model(spec, CPU)
    found = evaluate(model, pairs(loader, np.arange(24)), 2)
    confusion = found.confusion(10)
    assert confusion.sum() == 24
    assert confusion.trace() / 24 == found.accuracy
    assert confusion.sum(1)[:2].tolist() == [12, 12]
    assert all(0 <= rate <= 1 for rate in found.firing_rate.values())
    assert model.training


class TestFailures:
    def test_run_exploding_weights_name_the_layer(self) -> None:
        with pytest.raises(DivergedError, match=r"epoch 1, step 2, .*1e\+38: conv0 has \w.* in ") as error:
            tiny_trainer(MemoryRecorder(), tiny_spec("train.lr=1e38")).run()
        assert "--set train.lr=1e+37" in error.value.hint

    def test_run_infinite_time_constant_is_an_error(self) -> None:
        trainer = tiny_trainer(MemoryRecorder())
        with torch.no_grad():
            assert trainer.model.spiking_layers()["sn1"].a is not None
            trainer.model.spiking_layers()["sn1"].a.fill_(-1000.0)  # type: ignore[union-attr]
        with pytest.raises(DivergedError, match="τ of layer sn1 is inf"):
            trainer.run()

    def test_run_nan_in_weight_names_the_layer(self) -> None:
        trainer = tiny_trainer(MemoryRecorder())
        with torch.no_grad():
            trainer.model.layers["fc1"].weight[0, 0] = math.nan
        with pytest.raises(DivergedError, match=r"step 1,.*: fc1 has NaN in its weight"):
            trainer.run()

    def test_run_out_of_cpu_memory_suggests_smaller_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            torch.empty(2**60)

        trainer = tiny_trainer(MemoryRecorder())
        monkeypatch.setattr(trainer.model, "forward", fail)
        with pytest.raises(OutOfMemoryError, match="batches of 5") as error:
            trainer.run()
        assert "train.batch_size=2" in error.value.hint

    def test_run_one_value_per_channel_is_an_error(self) -> None:
        spec = tiny_spec("train.batch_size=1")
        spec = with_structure(spec, "APk28s28-c4k1s1-BN-SN-FC20-SN-FC100-SN-APk10s10")
        with pytest.raises(RunError, match="one value per channel"):
            tiny_trainer(MemoryRecorder(), spec).run()

    def test_run_one_value_per_channel_in_the_last_batch_names_it(self) -> None:
        trainer = tiny_trainer(MemoryRecorder())
        size = len(trainer.split.train) - 1
        spec = tiny_spec(f"train.batch_size={size}", "train.drop_last=false")
        spec = with_structure(spec, "APk28s28-c4k1s1-BN-SN-FC20-SN-FC100-SN-APk10s10")
        with pytest.raises(RunError, match="the last batch, of 1: batch normalisation has one value") as error:
            tiny_trainer(MemoryRecorder(), spec).run()
        assert error.value.hint.startswith("--set train.drop_last=true")

    @pytest.mark.parametrize("part", ["train", "validate", "test"])
    def test_run_stopped_in_any_part_resumes(self, part: str) -> None:
        class Stopping(MemoryRecorder):
            def stop_signal(self) -> int | None:
                return 15 if part in self.parts else None

        recorder = Stopping()
        with pytest.raises(Interrupted) as stopped:
            tiny_trainer(recorder, split=SPLIT_B).run()
        assert stopped.value.exit_code == 143
        if part == "test":  # the model tested is the best one; the saved state stays the last one
            uninterrupted = MemoryRecorder()
            tiny_trainer(uninterrupted, split=SPLIT_B).run()
            assert same_weights(recorder.saved["last"], uninterrupted.saved["last"])
        again = tiny_trainer(MemoryRecorder(saved=recorder.saved), split=SPLIT_B)
        again.restore(recorder.saved["last"])
        assert again.run().accuracy == tiny_trainer(MemoryRecorder(), split=SPLIT_B).run().accuracy


class TestUnusableStates:
    def state(self) -> dict[str, Any]:
        recorder = MemoryRecorder()
        tiny_trainer(recorder, tiny_spec("train.epochs=1")).run()
        return recorder.saved["last"]

    def test_restore_of_another_experiment_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="another experiment"):
            tiny_trainer(MemoryRecorder()).restore({**self.state(), "digest": "0" * 64})

    @pytest.mark.parametrize("name", ["last", "best"])
    def test_checkpoint_of_another_seed_is_refused(self, name: str) -> None:
        recorder = MemoryRecorder()
        tiny_trainer(recorder, tiny_spec("train.epochs=1")).run()
        own, other = tiny_spec("train.epochs=2"), tiny_spec("train.epochs=2", "train.seed=7")
        assert own.digest == other.digest  # of an experiment, whatever the seed
        for spec, refused in ((own, False), (other, True)):
            resumed = MemoryRecorder(saved={**recorder.saved})
            resumed.saved[name] = {**recorder.saved[name], "spec": spec.model_dump_json()}
            trainer = tiny_trainer(resumed, own)
            with pytest.raises(CheckpointError, match="another seed: found 7") if refused else nullcontext():
                trainer.restore(resumed.saved["last"])
                trainer._check_best(resumed.saved["best"])

    @pytest.mark.parametrize("missing", ["optimisation", "progress", "vitals"])
    def test_restore_of_incomplete_state_is_refused(self, missing: str) -> None:
        state = self.state()
        del state[missing]
        with pytest.raises(CheckpointError, match="no training state to resume"):
            tiny_trainer(MemoryRecorder()).restore(state)

    @pytest.mark.parametrize("model", [None, [], {"a": 1}])
    def test_restore_without_weights_is_refused(self, model: object) -> None:
        with pytest.raises(CheckpointError, match="no weights"):
            tiny_trainer(MemoryRecorder()).restore({**self.state(), "model": model})


class PlainTorchTraining:
    """The experiment of these tests written again in plain torch, for two recipes.

    c4k3s1-BN-SN-MPk4s4-FC20-SN-FC100-SN-APk10s10, batch norm per step, the first conv + BN once, no dropout.
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

    def train(self, loader: BatchLoader, rows: np.ndarray, epoch: int) -> None:
        rate = self.spec.train.lr * (1 + math.cos(math.pi * epoch / self.spec.train.cosine_period)) / 2
        for group in self.adam.param_groups:
            group["lr"] = rate
        for batch in loader.training_batches(rows, epoch):
            rates, target = self.forward(batch.x, True), torch.nn.functional.one_hot(batch.labels, 10)
            per_step = ((rates - target) ** 2).mean()
            rate_loss = ((rates.mean(0) - target) ** 2).mean()
            self.adam.zero_grad()
            (per_step if self.spec.recipe == "paper" else rate_loss).backward()
            self.adam.step()

    def test(self, loader: BatchLoader, batches: Iterator[Any]) -> tuple[float, list[float]]:
        correct, seen, fired, neurons = 0, 0, [0.0] * 3, [0] * 3
        for batch in batches:
            with torch.no_grad():
                votes = (self.forward(batch.x, False).sum(0) * 10).round()
            for answer, label in zip(votes.tolist(), batch.labels.tolist(), strict=True):
                correct += answer.index(max(answer)) == label
                seen += 1
            for layer, s in enumerate(self.spikes):
                fired[layer] += s.sum().item()
                neurons[layer] += s.numel()
        return correct / seen, [f / n for f, n in zip(fired, neurons, strict=True)]


@pytest.mark.parametrize("recipe", ["paper", "authors"])
@pytest.mark.parametrize("split", [SPLIT_A, SPLIT_B], ids=["A", "B"])
def test_run_both_recipes_equals_plain_torch(recipe: Recipe, split: Split) -> None:
    spec = tiny_spec("train.lr=0.05", "train.cosine_period=2", "T=3", recipe=recipe)
    spec = with_structure(spec, spec.network.structure.replace("DP-", ""))
    recorder = MemoryRecorder()
    loader = Float64Loader(ShadeSamples(), spec, CPU)
    trainer = Trainer(spec, loader, split, recorder)
    trainer.model.double()
    reference = PlainTorchTraining({k: v.detach().clone() for k, v in trainer.model.state_dict().items()}, spec)
    trainer.run()
    for epoch, row in enumerate(recorder.rows):
        reference.train(loader, split.train, epoch)
        if row.validation_accuracy is None:
            accuracy, fired = reference.test(loader, loader.evaluation_batches(split.test))
            assert row.test_accuracy == accuracy
        else:
            shuffled = recipe == "authors"  # and augmented as in training
            batches = (
                loader.training_batches(split.validation, epoch)
                if shuffled
                else loader.evaluation_batches(split.validation)
            )
            accuracy, fired = reference.test(loader, batches)
            assert row.validation_accuracy == accuracy
        assert row.firing_rate == pytest.approx(fired, rel=1e-9)
        assert row.tau == pytest.approx([1 + math.exp(-reference.weights[f"layers.sn{i}.a"].item()) for i in range(3)])
    for name, weight in {**reference.weights, **reference.buffers}.items():
        torch.testing.assert_close(recorder.saved["last"]["model"][name], weight.detach(), rtol=1e-7, atol=1e-9)


def test_digest_changed_setting_changes_it() -> None:
    base = tiny_spec()
    digests = {base.digest}
    for change in ("T=3", "neuron.tau_0=3.0", "neuron.detach_reset=false", "train.loss=mse-rate", "train.ties=latest"):
        digests.add(tiny_spec(change).digest)
    assert len(digests) == 6
    assert tiny_spec("train.epochs=9", "train.seed=1").digest == base.digest
    gesture = [
        load_registry().experiment("gesture-plif", overrides=o).spec.digest for o in ([], ["frames.slicing=time"])
    ]
    assert gesture[0] != gesture[1]


class TestGraphedSteps:
    """Steps that a CUDA graph could record equal the others, bit for bit; on a CPU nothing is recorded."""

    @pytest.mark.parametrize(
        "settings", [(), ("train.clip_norm=0.1", "train.augmentation=flip-crop"), ("train.batch_size=4",)], ids=str
    )
    def test_run_with_graph_equals_run_without(self, settings: tuple[str, ...]) -> None:
        one, other = MemoryRecorder(), MemoryRecorder()
        tiny_trainer(one, tiny_spec(*settings)).run()
        trainer = tiny_trainer(other, tiny_spec(*settings), graph=True)
        calls: list[list[int]] = []
        full_step = trainer._full_step

        def watched(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            calls.append([part.data_ptr() for part in inputs])
            return full_step(*inputs)

        assert trainer._graphed_step is not None
        trainer._graphed_step._work = watched
        trainer.run()
        assert [reproducible(row) for row in one.rows] == [reproducible(row) for row in other.rows]
        assert same_weights(one.saved["last"], other.saved["last"])
        size = trainer.spec.train.batch_size
        assert len(calls) == 3 * (16 // size)  # smaller batches are not graphed
        assert all(call == calls[0] for call in calls)  # the inputs are static

    def test_run_with_graph_interrupted_and_resumed_equals_uninterrupted(self) -> None:
        undisturbed, stopped = MemoryRecorder(), MemoryRecorder(stop_after=6)
        again = MemoryRecorder(saved=stopped.saved)
        tiny_trainer(undisturbed).run()
        with pytest.raises(Interrupted):
            tiny_trainer(stopped, graph=True).run()
        trainer = tiny_trainer(again, graph=True)
        trainer.restore(stopped.saved["last"])
        trainer.run()
        assert same_weights(undisturbed.saved["last"], again.saved["last"])

    @pytest.mark.parametrize(
        ("device", "processes", "settings", "why"),
        [
            ("cpu", 1, (), "CUDA graphs need a GPU, the device is cpu"),
            ("cuda", 2, (), "ranks exchange gradients"),
            ("cuda", 1, ("train.accumulate=2",), "several batches"),
            ("cuda", 1, ("train.precision=fp16",), "bf16 does not"),
            ("cuda", 1, ("train.optimizer=sgd",), "torch's sgd cannot be captured"),
            ("cuda", 1, ("train.precision=bf16",), None),
        ],
    )
    def test_graph_unsupported_reason_by_settings(
        self, device: str, processes: int, settings: tuple[str, ...], why: str | None
    ) -> None:
        found = graph_unsupported_reason(tiny_spec(*settings).train, torch.device(device), processes)
        assert (found is None) == (why is None)
        assert (why or "") in (found or "")

    def test_optimizer_state_with_graph_restores_without(self) -> None:
        """A checkpoint from a GPU can be resumed on a CPU."""
        model = torch.nn.Linear(3, 2)
        own, other = (Optimizer(model, tiny_spec().train, CPU) for _ in range(2))
        own._capturable = True  # as on a GPU, whose Adam could not run here
        for group in own._optimizer.param_groups:
            group.update(capturable=True, lr=torch.tensor(1e-3))
        own.begin_epoch(1)
        (group,) = own._optimizer.param_groups
        assert group["lr"].item() == pytest.approx(learning_rate(tiny_spec().train, 1))
        saved = own.state()
        assert saved["optimizer"]["param_groups"][0]["capturable"] is False
        assert isinstance(saved["optimizer"]["param_groups"][0]["lr"], float)
        other.restore(saved)
        own.restore(other.state())
        (group,) = own._optimizer.param_groups
        assert group["capturable"] is True
        assert isinstance(group["lr"], torch.Tensor)


class TestCallback:
    def test_run_on_epoch_false_stops_after_it_and_resumes(self) -> None:
        uninterrupted, first = MemoryRecorder(), MemoryRecorder(stop_after_epoch=2)
        second = MemoryRecorder(saved=first.saved)
        tiny_trainer(uninterrupted).run()
        with pytest.raises(StoppedByCallback, match="after epoch 2; the state is saved") as stopped:
            tiny_trainer(first).run()
        assert isinstance(stopped.value, Interrupted)
        assert stopped.value.exit_code == 0
        assert [row.epoch for row in first.rows] == [1, 2]
        resumed = tiny_trainer(second)
        resumed.restore(first.saved["last"])
        resumed.run()
        assert [row.epoch for row in second.rows] == [3]
        assert same_weights(uninterrupted.saved["last"], second.saved["last"])

    def test_run_on_epoch_false_after_the_last_epoch_finishes(self) -> None:
        assert len(tiny_trainer(MemoryRecorder(stop_after_epoch=3)).run().history) == 3


def global_state() -> list[Any]:
    """Returns what a training must not change in its process."""
    import random
    import signal

    import numba

    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state(legacy=True)[1].tolist(),  # type: ignore[index]
        torch.get_num_threads(),
        numba.get_num_threads(),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cuda.matmul.fp32_precision,
        torch.get_default_dtype(),
    ]


def test_run_and_restore_leave_global_state_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = global_state()
    recorder = MemoryRecorder(stop_after=4)
    with pytest.raises(Interrupted):
        tiny_trainer(recorder).run()
    trainer = tiny_trainer(MemoryRecorder(saved=recorder.saved))
    trainer.restore(recorder.saved["last"])
    trainer.run()
    assert global_state() == before
    assert capsys.readouterr() == ("", "")


def test_training_in_a_program_of_another_default_type_is_in_float32() -> None:
    recorders = MemoryRecorder(), MemoryRecorder()
    tiny_trainer(recorders[0]).run()
    torch.set_default_dtype(torch.float64)
    try:
        tiny_trainer(recorders[1]).run()
    finally:
        torch.set_default_dtype(torch.float32)
    expected, found = (recorder.saved["last"]["model"] for recorder in recorders)
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype
        assert torch.equal(found[name], weight)


def test_build_model_any_global_seed_gives_weights_of_manual_seed() -> None:
    spec = tiny_spec("train.seed=5")
    torch.manual_seed(77)
    model = build_model(spec, CPU)
    torch.manual_seed(5)
    expected = type(model)(spec.network, spec.neuron, model.input_shape, model.classes)
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)


def test_build_model_in_several_threads_gives_each_the_weights_of_its_seed() -> None:
    specs = [tiny_spec(f"train.seed={seed}") for seed in range(8)] * 4
    state = torch.get_rng_state()
    alone = [build_model(spec, CPU).state_dict() for spec in specs]
    with ThreadPoolExecutor(8) as pool:
        other = build_model(specs[0], CPU).eval()
        folding = [pool.submit(fold_batch_norm, other) for _ in specs]  # which builds networks, too
        together = [model.state_dict() for model in pool.map(lambda spec: build_model(spec, CPU), specs)]
        assert all(future.result() is not None for future in folding)
    for expected, found in zip(alone, together, strict=True):
        assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_batch_norm_that_is_not_before_neurons_has_statistics_of_float32_in_half_precision(precision: str) -> None:
    found = []
    for used in ("fp32", precision):
        spec = with_structure(tiny_spec(f"train.precision={used}"), "c2k1s1-BN-MPk2s2-SN-FC100-SN-APk10s10")
        model = build_model(spec, CPU).train()
        with autocast(spec.train, CPU):
            x = 30 * torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(1))
            model(x, 2, keys=hash_keys(torch.arange(64)))
        norm = model.layers["bn0"]
        found.append((norm.running_mean, norm.running_var))
    for exact, half in zip(*found, strict=True):
        torch.testing.assert_close(half, exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_running_statistics_are_not_of_half_precision(precision: str) -> None:
    x = 300 * torch.randn(3, 16, 2, 8, 8, generator=torch.Generator().manual_seed(1))  # variances above 65504
    found = []
    for used in ("fp32", precision):
        norm = BatchNorm(2, per_step=True)
        with autocast(tiny_spec(f"train.precision={used}").train, CPU):
            norm(x)
        found.append(norm.running_var)
    assert torch.equal(found[1], found[0])
