"""plifctl eval --time and --tau: controls beside the unchanged evaluation."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import write_gestures
from untrained import event_spec, image_spec, make_model, write_untrained

import plifctl as api
from plifctl.errors import UsageError
from plifctl.pipeline.controls import list_controls
from plifctl.runs import Run, list_runs, read_controls
from plifctl.runs.records import read_record
from plifctl.snn.keyed_random import hash_keys
from plifctl.training.batches import hash_sample_ids

Plifctl = Callable[..., Any]
FAST = ("--operations", 0, "--layer-times", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, their caches of T = 2 and 4, and a run of one epoch whose neurons fire; read by all tests."""
    folder = tmp_path_factory.mktemp("controls")
    write_gestures(folder / "raw")
    for T in (2, 4):
        api.prepare("synthetic-gesture", T, raw=folder / "raw", cache_dir=folder / "data_cache")
    changes = {"train.batch_size": 8, "T": 4, "neuron.v_threshold": 0.05}
    api.train("demo", epochs=1, overrides=changes, cache_dir=folder / "data_cache", runs_dir=folder / "runs")
    return folder


@pytest.fixture
def trained(plifctl: Plifctl, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Plifctl:
    monkeypatch.setenv("PLIFCTL_CACHE_DIR", str(folder / "data_cache"))
    monkeypatch.setenv("PLIFCTL_RUNS_DIR", str(folder / "runs"))
    return plifctl


@pytest.fixture
def own_run(folder: Path, tmp_path: Path) -> Run:
    """A copy of the run that a test may write to."""
    (run,) = list_runs(folder / "runs")
    copy = Path(shutil.copytree(run.path, tmp_path / "own" / run.name))
    (copy / "controls.json").unlink(missing_ok=True)
    return Run(copy)


@pytest.fixture
def run(folder: Path) -> Run:
    (run,) = list_runs(folder / "runs")
    return run


def votes_of(sheet: str) -> np.ndarray:
    return np.array(
        [[float(row[key]) for key in row if key.startswith("votes_")] for row in csv.DictReader(io.StringIO(sheet))]
    )


def test_eval_of_a_control_is_shown_beside_the_unchanged_evaluation(trained: Plifctl, run: Run) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    ordinary = json.loads(trained("eval", "last", *FAST, "--json").out)
    tree = json.loads(trained("eval", "last", *FAST, "--time", "shuffled", "--tau", "no-leak", "--json").out)
    assert tree["control"] == {"time": "shuffled", "tau": "no-leak", "seed": 2020}
    assert tree["unchanged"] == ordinary
    assert "control" not in ordinary
    assert "unchanged" not in ordinary
    assert ordinary["kept_predictions"]["equal"] == 11
    assert tree["kept_predictions"] is None  # of a changed network nothing is reproduced
    difference = round(11 * tree["accuracy"]) - round(11 * ordinary["accuracy"])
    assert difference == tree["differences"]["gained"] - tree["differences"]["lost"]
    text = trained("eval", "last", "--time", "reversed", "--tau", "3", "--layer-times", "0.1").out
    assert "changed: frames backwards; every neuron has τ = 3.0\n" in text
    assert "predictions that differ: " in text
    assert "unchanged: " in text
    assert "all 11 predictions equal those kept in the run\n" in text
    assert "Operations per sample" in text
    assert "Measured time" not in text
    kept = run.path / "controls.json"
    assert "kept with the run: plifctl runs show" in text
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path != kept} == before


def test_control_of_each_sample_equals_a_loop_over_single_samples(trained: Plifctl, run: Run) -> None:
    data = api.dataset("synthetic-gesture", T=4, split="test")
    model = api.load("last")
    ids = run.split()["test"]
    keys = hash_keys(2020, 0, torch.from_numpy(hash_sample_ids(ids).copy()), 2)
    expected = []
    for index in range(len(ids)):
        frames = torch.from_numpy(np.asarray(data[index][0])).float()
        order = sorted(range(4), key=lambda t, key=int(keys[index]): int(hash_keys(key, t, 5)))
        expected.append(model(frames[order][None]).mean(0)[0].detach().numpy())
    sheet = trained("eval", "last", *FAST, "--time", "shuffled", "--csv", "-").out  # in batches of 8
    np.testing.assert_allclose(votes_of(sheet), expected, atol=1e-6)
    assert np.abs(votes_of(trained("eval", "last", *FAST, "--csv", "-").out) - expected).max() > 0.01
    for placement in ("memory", "disk"):
        assert trained("eval", "last", *FAST, "--time", "shuffled", "--data-in", placement, "--csv", "-").out == sheet


def test_csv_of_a_control_has_the_unchanged_predictions_too(trained: Plifctl, run: Run) -> None:
    rows = [*csv.DictReader(io.StringIO(trained("eval", "last", *FAST, "--time", "reversed", "--csv", "-").out))]
    kept = run.predictions()
    assert kept is not None
    assert [int(row["unchanged_predicted"]) for row in rows] == kept.predicted.tolist()
    assert [*rows[0]][5:7] == ["unchanged_predicted", "unchanged_predicted_class"]


def test_control_of_an_exported_folder_is_no_failure_to_reproduce_it(trained: Plifctl, places: Path) -> None:
    assert trained("export", "last", places / "folder").code == 0
    assert trained("eval", places / "folder", *FAST).code == 0
    result = trained("eval", places / "folder", *FAST, "--time", "collapsed", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["unchanged"]["kept_predictions"]["equal"] == 11
    found = api.evaluate(places / "folder", time="collapsed", tau=2.0, operations=0, layer_times=0)
    assert found.unchanged is not None
    assert (found.reproduced, found.unchanged.reproduced) == (False, True)
    assert (found.control.time, found.control.tau, found.control.seed) == ("collapsed", 2.0, None)
    assert {layer.tau for layer in found.layers} == {2.0}


def test_all_controls_are_tested_and_kept_in_the_run(trained: Plifctl, own_run: Run) -> None:
    single = json.loads(trained("eval", own_run.path, *FAST, "--time", "scattered", "--json").out)
    assert single["kept_in"] == str(own_run.path)
    result = trained("eval", own_run.path, "--controls")
    assert result.code == 0, result.err
    assert re.search(r"\nscattered +\d+\.\d\d +[+-]\d+\.\d\d +\d+ +\d+\n", result.out)
    assert f"kept with the run: plifctl runs show {own_run.path} lists" in result.out
    assert "firing rate" not in result.out
    tree = json.loads(trained("eval", own_run.path, "--controls", "--json").out)
    names = ["shuffled", "reversed", "scattered", "collapsed", "mean τ", "no-leak", "no-memory"]
    assert [one["name"] for one in tree["controls"]] == names
    by_name = {one["name"]: one for one in tree["controls"]}
    counts = {key: single["differences"][key] for key in ("lost", "gained")}
    assert {key: by_name["scattered"][key] for key in ("accuracy", "lost", "gained")} == {
        "accuracy": single["accuracy"],
        **counts,
    }
    record = own_run.record()
    for one in tree["controls"]:
        assert round(11 * record.accuracy) - one["lost"] + one["gained"] == round(11 * one["accuracy"])
        assert (one["samples"], one["epoch"], one["cache"]) == (11, 1, own_run.info()["cache"]["content_digest"])
    assert [one.name for one in read_controls(own_run.path)] == names
    shown = trained("runs", "show", own_run.path)
    assert re.search(r"\nno-memory +\d+\.\d\d", shown.out)
    assert [one["problem"] for one in json.loads(trained("runs", "show", own_run.path, "--json").out)["controls"]] == [
        ""
    ] * 7
    assert trained("runs", "verify", own_run.name, "--runs-dir", own_run.path.parent).code == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--checkpoint", "last"), "not of the checkpoint whose accuracy the run reports"),
        (("--T", 2), "of T = 2, and the result is of T = 4"),
        (("--fold-bn",), "of folded batch norms"),
    ],
)
def test_control_of_another_network_than_the_reported_one_is_not_kept(
    trained: Plifctl, own_run: Run, options: tuple[Any, ...], reason: str
) -> None:
    result = trained("eval", own_run.path, *FAST, "--time", "reversed", *options)
    assert result.code == 0, result.err
    assert f"not kept with the run: {reason}" in result.err
    assert "kept with the run" not in result.out
    assert not (own_run.path / "controls.json").exists()


def test_control_on_other_recordings_is_not_kept(trained: Plifctl, own_run: Run, places: Path) -> None:
    write_gestures(places / "raw", events=300)
    api.prepare("synthetic-gesture", 4, raw=places / "raw", cache_dir=places / "other")
    result = trained("eval", own_run.path, *FAST, "--time", "reversed", "--cache-dir", places / "other")
    assert result.code == 0, result.err
    assert "not kept with the run: of other test samples than the result" in result.err
    assert not (own_run.path / "controls.json").exists()


def test_control_of_a_run_that_cannot_be_written_is_shown_all_the_same(
    trained: Plifctl, own_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("plifctl.files.write_text", refuse)
    found = api.evaluate(own_run.path, time="reversed", operations=0, layer_times=0)
    assert (found.kept_in, found.control.time) == (None, "reversed")


def test_controls_travel_with_an_exported_folder_to_a_table(trained: Plifctl, own_run: Run, places: Path) -> None:
    assert trained("eval", own_run.path, "--controls").code == 0
    assert trained("export", own_run.path, places / "folder").code == 0
    record = read_record(places / "folder" / "result.json")
    assert record.controls == read_controls(own_run.path)
    before = (places / "folder" / "result.json").read_bytes()
    result = trained("eval", places / "folder", "--controls")
    assert result.code == 0, result.err
    assert "kept" not in result.err
    assert (places / "folder" / "result.json").read_bytes() == before
    own = ("--runs-dir", places / "runs")  # elsewhere than the run itself, which has the same name
    name = json.loads(trained("runs", "add", places / "folder", *own, "--json").out)["run"]
    assert re.search(r"\nshuffled +\d", trained("runs", "show", name, *own).out)
    assert json.loads(trained("runs", "show", name, *own, "--json").out)["controls"][0]["problem"] == ""
    table = api.table("claims", source="added", include_modified=True, runs_dir=places / "runs")
    assert "synthetic gestures: shuffled" in table.rows[5][4]


def test_all_controls_exclude_a_single_one_and_what_is_not_shown(trained: Plifctl, places: Path) -> None:
    for options in (("--time", "shuffled"), ("--tau", "mean"), ("--csv", places / "x.csv"), ("--record-spikes", 2)):
        result = trained("eval", "last", "--controls", *options)
        assert (result.code, "omit --controls" in result.err) == (2, True), result.err


def test_all_controls_of_images_and_fixed_time_constants_are_those_that_mean_something() -> None:
    found = list_controls(make_model(image_spec("mnist-lif")).trained)
    assert [(one.time, one.tau) for one in found] == [(None, "no-leak"), (None, "no-memory")]


def test_control_with_another_T_is_compared_at_that_T(trained: Plifctl) -> None:
    tree = json.loads(trained("eval", "last", *FAST, "--T", 2, "--time", "reversed", "--json").out)
    assert (tree["T"], tree["unchanged"]["T"], tree["trained_steps"]) == (2, 2, 4)
    assert tree["unchanged"]["kept_predictions"] is None


def test_control_that_means_nothing_is_refused_before_the_cache_is_read(
    plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.pipeline.evaluation_samples.experiment_cache", lambda *_, **__: pytest.fail("read"))
    events = write_untrained(places / "events.pt", event_spec(places))
    images = write_untrained(places / "images.pt", image_spec("mnist-lif"))
    for path, options, message in (
        (images, ("--time", "shuffled"), "MNIST has images, which are the same at every time step"),
        (images, ("--tau", "mean"), "their time constant was not learnt"),
        (events, ("--tau", "inf"), "hint: --tau no-leak"),
        (events, ("--tau", "0.9"), "above 1"),
        (events, ("--tau", "no-leek"), "did you mean no-leak?"),
        (events, ("--time", "sorted"), "'sorted' is not one of"),
        (events, ("--time", "reversed", "--record-spikes", 2), "omit --time and --tau"),
        (events, ("--tau", "mean", "--sample", "x"), "omit --time and --tau"),
    ):
        result = plifctl("eval", path, *options)
        assert (result.code, message in result.err) == (2, True), result.err
    with pytest.raises(UsageError, match="--time: found 'sorted'"):
        api.evaluate(events, time="sorted")  # type: ignore[arg-type]
