"""A run as a folder that others verify and add to their runs, and the zoo."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_runs import FIRING
from factories import write_gestures

from plifctl.exchange.folder import STATED
from plifctl.runs import Predictions, list_runs
from plifctl.runs.documents import add_checksum, fingerprint

Plifctl = Callable[..., Any]
FAST = ("--operations", 0, "--layer-times", 0)


def train_and_export(plifctl: Plifctl, folder: Path) -> None:
    write_gestures(folder / "raw")
    changes = ("--set", "train.batch_size=8", "--set", "T=4", *FIRING, "--epochs", 1)
    result = plifctl("train", "demo", *changes, "--prepare", "--raw", "raw", "--runs-dir", "elsewhere")
    assert result.code == 0, result.err
    result = plifctl("export", "last", "net", "--runs-dir", "elsewhere")
    assert result.code == 0, result.err
    assert "README.md" in result.out
    (folder / "runs").mkdir()


@pytest.fixture
def shared_folder(made_once: Callable[..., None], places: Path) -> Path:
    """A folder exported from a run of one epoch; the run is in elsewhere/, the cache is the user's own."""
    made_once(train_and_export)
    return places / "net"


def change_predictions(folder: Path, **changes: Any) -> None:
    replace(Predictions.load(folder / "predictions.npz"), **changes).save(folder / "predictions.npz")
    state_checksums(folder)


def change_record(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    record.pop("checksum")
    (folder / "result.json").write_text(json.dumps(add_checksum({**record, **changes})), encoding="utf-8")
    state_checksums(folder)


def state_checksums(folder: Path) -> None:
    """Changes the description of a folder as somebody would who forges its files."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated = {name: fingerprint(folder / name) for name in STATED}
    (folder / "config.json").write_text(json.dumps({**config, "files": stated}), encoding="utf-8")


@pytest.mark.long
def test_folder_is_reproduced_on_a_cache_of_ones_own(plifctl: Plifctl, shared_folder: Path) -> None:
    (run,) = list_runs(shared_folder.parent / "elsewhere")
    kept = run.predictions()
    assert kept is not None
    assert len(set(kept.predicted.tolist())) > 2  # weights that are not read would predict something else
    result = plifctl("eval", "net", *FAST)
    assert result.code == 0, result.err
    assert f"{kept.right} of 11 right, all 11 predictions equal those kept in net\n" in result.out
    card = (shared_folder / "README.md").read_text(encoding="utf-8")
    assert f"**{100 * kept.accuracy:.2f} %** ({kept.right} of 11 samples)" in card
    assert "µJ" in card

    predicted = kept.predicted.copy()
    predicted[2] = (predicted[2] + 1) % 11
    change_predictions(shared_folder, predicted=predicted)
    result = plifctl("eval", "net", *FAST)
    assert result.code == 1
    assert f"1 of 11 predictions differ from those kept in net: {kept.sample_ids[2]}" in result.out
    tree = json.loads(plifctl("eval", "net", *FAST, "--json").out)
    assert tree["kept_predictions"]["different"] == [kept.sample_ids[2]]

    labels = kept.labels.copy()
    labels[4] = (labels[4] + 1) % 11
    change_predictions(shared_folder, predicted=kept.predicted, labels=labels)
    result = plifctl("eval", "net", *FAST)
    assert (result.code, f"1 samples have another class than in net: {kept.sample_ids[4]}" in result.out) == (1, True)

    change_predictions(shared_folder, sample_ids=("another", *kept.sample_ids[1:]))
    result = plifctl("eval", "net", *FAST)
    assert result.code == 5
    assert "1 of the 11 test samples of net are missing: another" in result.err


@pytest.mark.long
def test_predictions_of_a_folder_are_read_once(
    plifctl: Plifctl, shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, reads = Predictions.load, []
    monkeypatch.setattr(Predictions, "load", lambda path: reads.append(path) or load(path))
    for command in (("eval", "net", *FAST), ("export", "net", "again")):
        reads.clear()
        assert plifctl(*command).code == 0
        assert reads == [shared_folder.relative_to(Path.cwd()) / "predictions.npz"]


@pytest.mark.long
def test_added_run_is_a_source_of_its_own(plifctl: Plifctl, shared_folder: Path, places: Path) -> None:
    (run,) = list_runs(places / "elsewhere")
    result = plifctl("runs", "add", "net")
    assert result.code == 0, result.err
    assert f"added: {run.name} (demo, " in result.out
    assert plifctl("runs", "add", "net").code == 0  # again, the same
    for like in ("net", run.name):
        assert plifctl("new", f"like-{like}.yaml", "--like", like).code == 0

    (entry,) = json.loads(plifctl("runs", "--json").out)
    assert (entry["run"], entry["status"], entry["experiment"]) == (run.name, "added", "demo")
    shown = plifctl("runs", "show", "demo").out
    assert "added from" in shown
    assert f"plifctl eval {run.name}" in shown
    assert plifctl("runs", "verify").code == 0
    assert "equal those kept in" in plifctl("eval", run.name, *FAST).out
    assert plifctl("export", run.name, "again").code == 0

    record = run.record()
    options = ("report", "--table", "demo", "--include-modified", "--json")
    ours, others = (plifctl(*options, *source).out for source in ((), ("--source", "added")))
    number = f"{100 * record.accuracy:.2f}"
    assert (number in ours, number in others) == (False, True)
    assert "trained by somebody else" in others
    ours, others = (plifctl("report", "--table", "runs", *source).out for source in ((), ("--source", "added")))
    assert (run.name in ours, run.name in others) == (False, True)

    (places / "runs" / run.name / "model.safetensors").write_bytes(b"damaged")
    result = plifctl("runs", "verify", run.name)
    assert (result.code, "model.safetensors: 7 bytes, expected" in result.out) == (1, True)
    assert plifctl("runs", "rm", run.name, "--yes").code == 0
    assert json.loads(plifctl("runs", "--json").out) == []


@pytest.mark.long
def test_add_refuses_what_is_not_a_result(plifctl: Plifctl, shared_folder: Path, places: Path) -> None:
    assert plifctl("runs", "add", "nowhere").code == 2
    result = plifctl("runs", "add", "raw")
    assert (result.code, "config.json is missing" in result.err) == (6, True)
    (run,) = list_runs(places / "elsewhere")
    result = plifctl("runs", "add", "net", "--runs-dir", "elsewhere")
    assert (result.code, "is a run of your own" in result.err) == (2, True)
    assert plifctl("runs", "add", "net", "--name", "theirs", "--runs-dir", "elsewhere").code == 0
    assert plifctl("runs", "add", "net", "--name", "../x").code == 2

    kept = Predictions.load(shared_folder / "predictions.npz")
    shutil.copytree(shared_folder, places / "other")
    change_predictions(places / "other", predicted=(kept.labels + 1) % 11)
    result = plifctl("runs", "add", "other")
    assert result.code == 6
    assert "states an accuracy of" in result.err or kept.accuracy == 0

    for name in ("../../x", "last"):
        change_record(shared_folder, run=name)
        result = plifctl("runs", "add", "net")
        assert (result.code, "hint: choose another name: --name NAME" in result.err) == (2, True)
    change_record(shared_folder, accuracy=0.99)
    result = plifctl("runs", "add", "net")
    assert (result.code, "states an accuracy of 99.00 %" in result.err) == (6, True)
    (shared_folder / "result.json").unlink()
    result = plifctl("runs", "add", "net")
    assert (result.code, "result.json is missing" in result.err) == (6, True)
    assert json.loads(plifctl("runs", "--json").out) == []
    assert run.path.is_dir()


@pytest.mark.long
def test_half_precision_keeps_the_predictions_of_its_own_weights(plifctl: Plifctl, shared_folder: Path) -> None:
    result = plifctl("export", "net", "half", "--half")
    assert result.code == 0, result.err
    assert "in float32, they reach" in Path("half/README.md").read_text(encoding="utf-8")
    result = plifctl("eval", "half", *FAST)
    assert (result.code, "all 11 predictions equal those kept in half" in result.out) == (0, True)
    assert plifctl("export", "net", "half.pt", "--half").code == 2
    tables = [plifctl("eval", name, *FAST, "--csv", "-").out.splitlines() for name in ("net", "half")]
    votes, half = (np.loadtxt(rows[1:], delimiter=",", usecols=range(5, 16)) for rows in tables)
    np.testing.assert_allclose(half, votes, rtol=0, atol=0.051)  # a spike of the 40 or two may differ
    assert votes.max() > 0.1


@pytest.mark.long
def test_export_without_a_cache_states_what_the_run_knows(plifctl: Plifctl, shared_folder: Path, places: Path) -> None:
    shutil.rmtree(places / "data_cache")
    result = plifctl("export", "net", "again")
    assert result.code == 0, result.err
    assert "no cache to test the network on" in result.err
    again = Predictions.load(Path("again/predictions.npz"))
    assert again.compare(Predictions.load(shared_folder / "predictions.npz")).equal == 11
    assert "µJ" not in Path("again/README.md").read_text(encoding="utf-8")
    assert plifctl("export", "net", "half", "--half").code == 0
    assert not Path("half/predictions.npz").exists()
    assert "test accuracy |" not in Path("half/README.md").read_text(encoding="utf-8")


def test_network_of_the_zoo_exported_again_keeps_its_caveat(plifctl: Plifctl) -> None:
    assert plifctl("export", "zoo:demo", "again").code == 0
    card = Path("again/README.md").read_text(encoding="utf-8")
    assert "The weights are stored in half precision. As they were trained, in float32, they reach" in card


def test_network_of_the_zoo_is_trained_again_from_its_own_settings(plifctl: Plifctl) -> None:
    assert plifctl("new", "again.yaml", "--like", "zoo:nmnist-narrow").code == 0
    shown = json.loads(plifctl("show", "again.yaml", "--json").out)
    assert "FC128" in json.dumps(shown)
    assert plifctl("check", "again.yaml").code == 0


def test_unknown_network_of_the_zoo_names_those_there_are(plifctl: Plifctl) -> None:
    result = plifctl("eval", "zoo:dem")
    assert (result.code, "hint: did you mean demo?" in result.err) == (2, True)


def test_run_whose_predictions_changed_says_so_when_it_is_exported(
    plifctl: Plifctl, shared_folder: Path, places: Path
) -> None:
    (run,) = list_runs(places / "elsewhere")
    (run.path / "predictions.npz").unlink()
    record = json.loads((run.path / "result.json").read_text(encoding="utf-8"))
    record.pop("checksum")
    accuracies = [0.99 for _ in record["test_accuracy"]]
    changed = record | {"accuracy": 0.99, "test_accuracy": accuracies}
    (run.path / "result.json").write_text(json.dumps(add_checksum(changed)), encoding="utf-8")
    result = plifctl("export", "last", "again", "--runs-dir", "elsewhere")
    assert result.code == 0, result.err
    assert "its record states 99.00 %: plifctl runs add will refuse the folder" in result.err
    result = plifctl("runs", "add", "again")
    assert result.code == 6
    assert "kept no predictions" in result.err
