"""The loop: what is chosen, resumed bit for bit, and how it fails."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from plifctl.errors import CheckpointError, DivergedError, Interrupted
from plifctl.evaluation import evaluate
from plifctl.registry import load_registry
from plifctl.specs import ExperimentSpec
from plifctl.training.data import Feeder, augment
from plifctl.training.loop import EpochRow, Rows, Trainer, build_model, learning_rate, load_weights

CPU = torch.device("cpu")


class Samples:
    """Images of two shades; the class is the shade."""

    def __init__(self, n: int = 24) -> None:
        self.labels = np.arange(n) % 2
        rng = np.random.default_rng(0)
        self.images = (rng.integers(0, 60, (n, 1, 28, 28)) + 150 * self.labels[:, None, None, None]).astype(np.uint8)
        self.nbytes = self.images.nbytes

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows]


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


ROWS = Rows(np.arange(16), np.empty(0, np.int64), np.arange(16, 24))
ROWS_B = Rows(np.arange(12), np.arange(12, 16), np.arange(16, 24))


def trainer_of(recorder: Recorder, spec: ExperimentSpec | None = None, rows: Rows = ROWS) -> Trainer:
    spec = spec or spec_of()
    return Trainer(spec, Feeder(Samples(), spec, CPU), rows, recorder)


def plain(row: EpochRow) -> dict[str, Any]:
    return {key: value for key, value in vars(row).items() if key not in ("seconds", "samples_per_second")}


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
        assert outcome.accuracy == evaluate(model, trainer.feeder.plain(ROWS_B.test), 2).accuracy

    def test_published_b_tests_every_epoch_and_reports_at_the_choice(self) -> None:
        recorder = Recorder()
        outcome = trainer_of(recorder, spec_of(recipe="published"), ROWS_B).run()
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
    with pytest.raises(DivergedError, match="epoch 1, step 1"):
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
        feeder = Feeder(Samples(), spec, CPU)
        batches = list(feeder.training(ROWS.train, 0))
        assert [len(b.labels) for b in batches] == [5, 5, 5]
        assert feeder.steps(ROWS.train) == 3
        assert feeder.steps(np.arange(3)) == 1  # fewer than a batch still train
        keys = torch.cat([b.keys for b in batches])
        assert len(keys.unique()) == 15

    def test_order_changes_by_epoch_and_starts_anywhere(self) -> None:
        feeder = Feeder(Samples(), spec_of("train.augmentation=none"), CPU)
        first, second = (torch.cat([b.labels for b in feeder.training(ROWS.train, epoch)]) for epoch in (0, 1))
        assert not torch.equal(first, second)
        later = next(feeder.training(ROWS.train, 0, start=2))
        assert torch.equal(later.x, list(feeder.training(ROWS.train, 0))[2].x)

    def test_a_sample_does_not_depend_on_its_batch(self) -> None:
        samples = Samples()
        small, large = (
            Feeder(samples, spec_of(f"train.batch_size={n}", "train.drop_last=false"), CPU) for n in (3, 16)
        )
        found = [torch.cat([b.x for b in feeder.training(ROWS.train, 4)]) for feeder in (small, large)]
        assert torch.equal(found[0], found[1])

    def test_normalisation(self) -> None:
        feeder = Feeder(Samples(), spec_of(), CPU)
        x = next(feeder.plain(np.array([3]))).x
        expected = (Samples().images[[3]].astype(np.float32) / 255 - 0.1307) / 0.3081
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)


class TestAugmentation:
    IMAGES = torch.rand(200, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    KEYS = torch.arange(200)

    def test_flip_crop_is_a_shifted_window(self) -> None:
        found = augment(self.IMAGES, self.KEYS, "flip-crop")
        padded = torch.nn.functional.pad(self.IMAGES, (4,) * 4)
        mirrored = torch.nn.functional.pad(self.IMAGES.flip(-1), (4,) * 4)
        flips = 0
        for sample in range(200):
            windows = {
                (flip, top, left): torch.equal(found[sample], source[sample, :, top : top + 8, left : left + 9])
                for flip, source in enumerate((padded, mirrored))
                for top in range(9)
                for left in range(9)
            }
            assert any(windows.values())
            flips += next(flip for (flip, _, _), fits in windows.items() if fits)
        assert 70 < flips < 130

    @pytest.mark.parametrize("kind", ["flip-crop", "affine"])
    def test_each_sample_by_its_own_key(self, kind: str) -> None:
        whole = augment(self.IMAGES, self.KEYS, kind)
        assert torch.equal(augment(self.IMAGES[7:9], self.KEYS[7:9], kind), whole[7:9])
        assert not torch.equal(augment(self.IMAGES, self.KEYS + 1000, kind), whole)

    def test_none_and_nothing(self) -> None:
        assert augment(self.IMAGES, self.KEYS, "none") is self.IMAGES
        assert augment(self.IMAGES[:0], self.KEYS[:0], "affine").shape == (0, 3, 8, 9)


def test_evaluation_counts() -> None:
    spec = spec_of()
    feeder = Feeder(Samples(), spec, CPU)
    model = build_model(spec, CPU)
    found = evaluate(model, feeder.plain(np.arange(24)), 2)
    confusion = found.confusion(10)
    assert confusion.sum() == 24
    assert confusion.trace() / 24 == found.accuracy
    assert confusion.sum(1)[:2].tolist() == [12, 12]
    assert all(0 <= rate <= 1 for rate in found.firing_rate.values())
    assert model.training
