"""Kept predictions: writing, reading, damage, comparison, and what a finished run keeps."""

from pathlib import Path

import numpy as np
import pytest
from factories import make_run

from plifctl.config.lookup import load_registry
from plifctl.errors import RunError
from plifctl.evaluation.accuracy import as_class_indices
from plifctl.runs import Predictions, Run, RunData, RunRecorder, verify_run
from plifctl.training.progress import EpochRow, Outcome

IDS = ("test/3", "test/5", "test/ä", "test/\udcff")
"""The last one is of a file whose name is not UTF-8."""
EPOCHS = ["train.epochs=3"]
DATA = RunData(verified=True, complete=True, train=2, validation=0, test=4, cache="c" * 64)


def predictions(predicted: tuple[int, ...] = (1, 0, 2, 2), epoch: int | None = 3, classes: int = 3) -> Predictions:
    labels, found = (as_class_indices(np.array(values), classes) for values in ((1, 0, 2, 0), predicted))
    return Predictions(IDS, labels, found, epoch)


@pytest.mark.parametrize(("classes", "dtype"), [(3, np.uint8), (256, np.uint8), (257, np.uint16)])
@pytest.mark.parametrize("epoch", [3, None])
def test_save_when_loaded_gives_equal_predictions(tmp_path: Path, classes: int, dtype: type, epoch: int | None) -> None:
    wanted = predictions(epoch=epoch, classes=classes)
    wanted.save(tmp_path / "predictions.npz")
    found = Predictions.load(tmp_path / "predictions.npz")
    assert (found.sample_ids, found.epoch, found.accuracy) == (IDS, epoch, 0.75)
    for values, expected in ((found.labels, wanted.labels), (found.predicted, wanted.predicted)):
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, expected)


def test_save_equal_predictions_gives_equal_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions().save(tmp_path / "one.npz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    predictions().save(tmp_path / "other.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_count_discordant_counts_by_sample_in_any_order() -> None:
    ours, theirs = predictions((1, 0, 0, 0)), predictions((0, 1, 2, 0))  # of the labels 1, 0, 2, 0
    reordered = Predictions(IDS[::-1], theirs.labels[::-1], theirs.predicted[::-1])
    assert ours.count_discordant(reordered) == (2, 1)
    assert reordered.count_discordant(ours) == (1, 2)
    assert ours.count_discordant(Predictions(IDS, ours.labels[::-1], ours.predicted)) is None
    assert ours.count_discordant(Predictions(IDS[:2], ours.labels[:2], ours.predicted[:2])) is None


def test_load_damaged_anywhere_is_an_error_or_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    predictions().save(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            found = Predictions.load(path)
        except RunError as error:
            refused += 1
            assert str(error).startswith(f"{path}: damaged: ")  # noqa: PT017
            assert "--csv" in error.hint  # noqa: PT017
        else:  # a byte without meaning, such as a time in the archive
            assert (found.sample_ids, found.epoch) == (IDS, 3)
            np.testing.assert_array_equal(found.predicted, predictions().predicted)
            np.testing.assert_array_equal(found.labels, predictions().labels)
    assert refused > len(whole) / 3
    with pytest.raises(RunError, match=r"no\.npz: missing"):
        Predictions.load(tmp_path / "no.npz")


@pytest.mark.parametrize(
    "wrong",
    [
        Predictions(IDS[:3], predictions().labels, predictions().predicted),
        Predictions(IDS, predictions().labels.astype(float), predictions().predicted),
        Predictions(("a", "a", "b", "c"), predictions().labels, predictions().predicted),
        Predictions((), *2 * (np.zeros(0, np.uint8),)),
    ],
)
def test_load_of_arrays_that_do_not_match_is_an_error(tmp_path: Path, wrong: Predictions) -> None:
    wrong.save(tmp_path / "predictions.npz")
    with pytest.raises(RunError, match="damaged"):
        Predictions.load(tmp_path / "predictions.npz")


def test_compare_names_the_samples_that_differ_in_any_order() -> None:
    one, other = predictions(), predictions((1, 1, 2, 2))
    turned = Predictions(IDS[::-1], other.labels[::-1], other.predicted[::-1])
    found = one.compare(turned)
    assert found is not None
    assert (found.total, found.equal, found.different) == (4, 3, ("test/5",))
    assert one.compare(Predictions(("x", *IDS[1:]), one.labels, one.predicted)) is None


def finish(run: Run, kept: Predictions | None) -> Run:
    """Finishes a run of three epochs again, the third of which is the best."""
    recorder, experiment = RunRecorder(run, run.config().spec), load_registry().experiment("demo", overrides=EPOCHS)
    rows = [EpochRow(n, 0.1, 0.5, None, n / 4, 1e-3, [2.0], [0.1], 1.0, 9.0) for n in (1, 2, 3)]
    with recorder.live():
        recorder.finish(Outcome(0.75, None, 3, rows, False), experiment, DATA, {"torch": "2"}, kept)
    return run


class TestRun:
    def test_predictions_of_a_finished_run_are_listed_in_the_manifest(self, tmp_path: Path) -> None:
        run = finish(make_run(tmp_path), predictions())
        found = run.predictions()
        assert found is not None
        assert found.compare(predictions()) == predictions().compare(predictions())
        assert verify_run(run) == []
        predictions((0, 0, 2, 2)).save(run.path / "predictions.npz")
        assert [problem.split(":")[0] for problem in verify_run(run)] == ["predictions.npz"]

    def test_finish_with_predictions_of_another_accuracy_or_epoch_is_a_bug(self, tmp_path: Path) -> None:
        for wrong in (predictions((0, 0, 0, 0)), predictions(epoch=2)):
            with pytest.raises(AssertionError, match="but the run reports"):
                finish(make_run(tmp_path), wrong)

    def test_predictions_of_a_run_without_them_are_none(self, tmp_path: Path) -> None:
        assert make_run(tmp_path).predictions() is None
        assert make_run(tmp_path, finished=False).predictions() is None

    def test_predictions_of_another_epoch_than_the_result_are_none(self, tmp_path: Path) -> None:
        """A longer training writes its predictions first, and may be killed before its result replaces the earlier."""
        run = finish(make_run(tmp_path), predictions())
        predictions(epoch=5).save(run.path / "predictions.npz")
        assert run.predictions() is None

    def test_finish_without_predictions_removes_those_of_a_shorter_training(self, tmp_path: Path) -> None:
        run = finish(make_run(tmp_path), predictions())
        finish(run, None)
        assert not (run.path / "predictions.npz").exists()
        assert verify_run(run) == []
