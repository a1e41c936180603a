"""plifctl eval: its results, recorded spikes, and figures drawn from them."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_runs import FIRING, prepare_gestures
from factories import make_run

from plifctl.evaluation.latency import summarize_steps
from plifctl.pipeline.evaluate import EvaluateOptions, evaluate
from plifctl.runs import list_runs, load_spikes
from plifctl.runs.records import record_text

Plifctl = Callable[..., Any]
FAST = ("--operations", 0, "--layer-times", 0)
TINY = ("--set", "train.batch_size=8", "--set", "T=4", *FIRING, "--epochs", 1)


def train_demo(plifctl: Plifctl, folder: Path) -> None:
    prepare_gestures(plifctl, folder)
    assert plifctl("train", "demo", *TINY).code == 0
    (run,) = list_runs(folder / "runs")
    kept = run.predictions()
    assert kept is not None
    assert len(set(kept.predicted.tolist())) > 2


@pytest.fixture
def trained(plifctl: Plifctl, made_once: Callable[..., None]) -> Plifctl:
    """The command line with a run of the demo of one epoch."""
    made_once(train_demo)
    return plifctl


def test_evaluate_returns_the_objects_that_the_json_is_made_of(trained: Plifctl, places: Path) -> None:
    result = evaluate(EvaluateOptions("last", layer_times=0.1, record_spikes=2, device="cpu"))
    assert result.operations is not None
    assert result.layer_times is not None
    assert result.kept_predictions is not None
    assert result.spikes is not None
    assert (result.kept_predictions.equal, result.kept_predictions.different) == (11, ())
    tree = json.loads(json.dumps(result.to_json()))
    assert tree["operations"]["energy_estimate_joule"] == result.operations.energy > 0
    assert tree["operations"]["total"]["dense"] == sum(layer.dense for layer in result.operations.layers)
    assert tree["layer_times"]["layers"][0]["dense_seconds"] == result.layer_times.layers[0].dense
    assert tree["latency"]["wrong_at_the_end"] == result.latency.wrong_at_end
    stable = summarize_steps(result.latency.stable_from)
    assert tree["latency"]["right_from"] == (None if stable is None else vars(stable))
    assert tree["spikes"] == vars(result.spikes)
    changed = evaluate(EvaluateOptions("last", operations=0, layer_times=0.0, tau="no-memory", device="cpu"))
    assert changed.differences is not None
    assert changed.to_json()["differences"] == vars(changed.differences)


def test_eval_prints_accuracy_latency_operations_and_energy(trained: Plifctl) -> None:
    tree = json.loads(trained("eval", "last", "--json").out)
    assert tree["accuracy_after_steps"][-1] == tree["accuracy"]
    assert len(tree["accuracy_after_steps"]) == tree["T"] == 4
    operations = tree["operations"]
    assert operations["samples"] == 11
    assert 0 < operations["total"]["effective_macs"] < operations["total"]["dense"]
    assert "45 nm" in operations["assumptions"]
    latency = tree["latency"]
    assert latency["wrong_at_the_end"] == round(11 * (1 - tree["accuracy"]))
    assert "spikes" not in tree
    timed = tree["layer_times"]
    assert [layer["name"] for layer in timed["layers"]] == [row["name"] for row in operations["layers"] if row["dense"]]
    assert (timed["batch"], timed["samples"]) == (8, 8)  # 11 samples: a batch of 8, and a smaller one
    assert timed["total"]["chosen_seconds"] > 0
    fast = json.loads(trained("eval", "last", "--operations", 0, "--layer-times", 0, "--json").out)
    assert fast["operations"] is None
    assert fast["layer_times"] is None
    result = trained("eval", "last").out
    for text in (
        "If the network stopped",
        "first correct prediction",
        "effective ACs",
        "estimated energy",
        "assumed: 4.6 pJ",
        "auto takes",
        "ms as auto takes them",
    ):
        assert text in result


@pytest.mark.slow
def test_eval_record_spikes_saves_spikes_that_figures_draw(trained: Plifctl, places: Path) -> None:
    result = trained("eval", "last", "--record-spikes", 4, "--json")
    tree = json.loads(result.out)["spikes"]
    recording = load_spikes(Path(tree["path"]))
    assert (recording.saved_after, json.loads(result.out)["saved_after"]) == ("epoch 1", "epoch 1")
    assert recording.labels.tolist() == [0, 1, 2, 3]  # one of each class first
    assert recording.inputs.shape[:3] == (4, 4, 2)
    assert list(recording.spikes) == ["sn0"]
    assert recording.spikes["sn0"].any()
    for name in ("S2", "S3", "S4", "S5"):
        drawn = trained("report", "--figure", name, "--out", places / f"{name}.png")
        assert (drawn.code, "Weights: epoch 1." in drawn.out) == (0, True)
        assert (places / f"{name}.png").stat().st_size > 1000
    assert trained("runs", "verify").code == 0
    chosen = recording.sample_ids[2]
    tree = json.loads(trained("eval", "last", "--sample", chosen, "--record-layers", "all", "--json").out)["spikes"]
    one = load_spikes(Path(tree["path"]))
    assert one.sample_ids == (chosen,)
    assert len(one.spikes) > 1
    np.testing.assert_array_equal(one.spikes["sn0"][0], recording.spikes["sn0"][2])


def test_eval_record_spikes_outside_a_run_is_refused(
    trained: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = trained("eval", "last", "--sample", "unknown")
    assert result.code == 2
    assert "no sample 'unknown'" in result.err
    assert trained("export", "last", places / "model.pt").code == 0
    result = trained("eval", places / "model.pt", "--record-spikes", 2)
    assert result.code == 2
    assert "not in a run directory" in result.err
    result = trained("report", "--figure", "S2")
    assert result.code == 2
    assert "--record-spikes" in result.err
    monkeypatch.setattr("plifctl.pipeline.evaluate.os.access", lambda path, mode: False)
    monkeypatch.setattr("plifctl.pipeline.evaluate.open_samples", lambda *_, **__: pytest.fail("evaluated"))
    result = trained("eval", "last", "--record-spikes", 2)  # a run of somebody else
    assert (result.code, "permission denied, so spikes cannot be saved" in result.err) == (7, True)


def test_eval_compares_its_predictions_with_those_that_the_run_keeps(trained: Plifctl, places: Path) -> None:
    (run,) = list_runs(places / "runs")
    kept = run.predictions()
    assert kept is not None
    assert list(kept.sample_ids) == run.split()["test"]
    assert kept.accuracy == run.record().accuracy
    assert " of 11 right, all 11 predictions equal those kept in the run\n" in trained("eval", "last", *FAST).out
    tree = json.loads(trained("eval", "last", *FAST, "--json", "--checkpoint", "last").out)  # the same, only epoch
    assert tree["kept_predictions"] == {"path": str(run.path), "equal": 11, "different": [], "other_label": []}
    assert "equal those kept in the run (by the network that is not" in trained("eval", "last", *FAST, "--fold-bn").out
    other = kept.predicted.copy()
    other[3] = (other[3] + 1) % 11
    other[[0, 2]] = other[[2, 0]]
    replace(kept, predicted=other).save(run.path / "predictions.npz")
    record = run.record().model_copy(update={"accuracy": replace(kept, predicted=other).accuracy})
    (run.path / "result.json").write_text(record_text(record))
    changed = [kept.sample_ids[index] for index in (0, 2, 3)]
    tree = json.loads(trained("eval", "last", *FAST, "--json").out)
    assert tree["kept_predictions"]["different"] == changed
    text = trained("eval", "last", *FAST).out
    assert f"3 of 11 predictions differ from those kept in the run: {changed[0]}" in text
    (run.path / "predictions.npz").write_bytes(b"PK")
    result = trained("eval", "last", *FAST, "--json")
    assert json.loads(result.out)["kept_predictions"] is None
    assert "predictions.npz: damaged" in result.err
    (run.path / "predictions.npz").unlink()
    assert json.loads(trained("eval", "last", *FAST, "--json").out)["kept_predictions"] is None


def test_eval_csv_writes_a_row_for_each_test_sample(trained: Plifctl, places: Path) -> None:
    (run,) = list_runs(places / "runs")
    result = trained("eval", "last", *FAST, "--csv", places / "new/out.csv", "--json")
    assert result.code == 0, result.err
    text = (places / "new/out.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["sample_id"] for row in rows] == run.split()["test"]
    names = run.config().spec.dataset.classes
    assert list(rows[0]) == [
        *("sample_id", "label", "class", "predicted", "predicted_class"),
        *(f"votes_{name}" for name in names),
    ]
    kept = run.predictions()
    assert kept is not None
    for row, label, predicted in zip(rows, kept.labels, kept.predicted, strict=True):
        assert (row["label"], row["class"]) == (str(label), names[label])
        assert (row["predicted"], row["predicted_class"]) == (str(predicted), names[predicted])
        votes = [float(row[f"votes_{name}"]) for name in names]
        assert max(votes) == votes[predicted]
        assert all(0 <= share <= 1 for share in votes)
    assert "predictions" not in json.loads(result.out)
    assert trained("eval", "last", *FAST, "--csv", "-").out == text


def test_eval_csv_that_cannot_be_written_is_refused_before_the_evaluation(
    trained: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.pipeline.evaluation_samples.evaluate", lambda *_, **__: pytest.fail("evaluated"))
    (places / "there.csv").write_text("mine")
    for name, code, message in (
        ("there.csv", 2, "there.csv: exists already"),
        ("there.csv/x.csv", 7, "there.csv"),
        ("", 2, "exists already"),
    ):
        result = trained("eval", "last", "--csv", places / name)
        assert (result.code, message in result.err) == (code, True), result.err
    assert (places / "there.csv").read_text() == "mine"
    result = trained("eval", "last", "--csv", "-", "--json")
    assert (result.code, "exclude each other" in result.err) == (2, True)


def test_eval_of_a_run_in_its_first_epoch_hints_what_to_do(plifctl: Plifctl, places: Path) -> None:
    run = make_run(places / "runs", finished=False)
    run.checkpoint("best").unlink()
    result = plifctl("eval", "last")
    assert result.code == 6
    assert f"{run.name} (killed) has no best checkpoint yet" in result.err
    assert f"hint: plifctl train --resume {run.name}" in result.err
    with run.lock():
        assert f"hint: plifctl watch {run.name}" in plifctl("eval", "last").err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: 9 bytes")])
def test_eval_out_of_memory_fails_with_code_6(
    trained: Plifctl, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run_out(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("plifctl.pipeline.evaluation_samples.evaluate", run_out)
    result = trained("eval", "last")
    assert (result.code, "error: out of memory" in result.err) == (6, True)
    monkeypatch.setattr(
        "plifctl.pipeline.evaluation_samples.experiment_cache", run_out
    )  # in any other part of a command
    assert trained("eval", "last").code == 6


@pytest.mark.parametrize("make", [lambda weight: weight.to_sparse(), lambda weight: weight.to("meta"), lambda _: None])
def test_eval_of_weights_that_torch_cannot_load_fails_with_code_6(trained: Plifctl, places: Path, make: Any) -> None:
    (path,) = (places / "runs").glob("*/checkpoints/best.pt")
    state = torch.load(path, weights_only=True)
    state["model"] = {name: make(weight) for name, weight in state["model"].items()}
    torch.save(state, path)
    result = trained("eval", "last")
    assert result.code == 6, result.err
    assert "checkpoint" in result.err
