"""Tests under controls that a run keeps: which are kept, which count after a longer training, and damaged ones."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from factories import made_control, make_run

from plifctl.config.lookup import load_registry
from plifctl.errors import RunError
from plifctl.pipeline.runs import describe_run
from plifctl.runs import Run, RunRecorder, keep_controls, load_records, read_controls, verify_run
from plifctl.runs.documents import add_checksum
from plifctl.runs.records import read_record, record_text, with_controls
from plifctl.training.progress import EpochRow, Outcome

pytestmark = pytest.mark.usefixtures("places")


def train_longer(run: Run, epochs: int) -> None:
    resolved = load_registry().experiment("demo", overrides=[f"train.epochs={epochs}"])
    record, recorder = run.record(), RunRecorder(run, resolved.spec)
    with recorder.live():
        recorder.begin(resolved, record.epochs)
        row = EpochRow(epochs, 0.1, 0.5, None, 0.9, 1e-3, [2.0], [0.1], 1.0, 9.0, layers=["sn0"], a=[0.0])
        recorder.on_epoch(row)
        assert record.data is not None
        recorder.finish(Outcome(0.9, None, epochs, [row] * epochs, False), resolved, record.data, {"torch": "2"})


def only_record(folder: Path) -> Any:
    (record,) = load_records(folder, [])
    return record


def test_controls_are_kept_beside_a_result_that_stays_as_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    keep_controls(run, [made_control(), made_control(None, 2.0)])
    keep_controls(run, [made_control(plifctl="0.3.0"), made_control("reversed", "no-memory")])
    assert [(one.name, one.plifctl) for one in read_controls(run.path)] == [
        ("τ = 2", "0.2.0"),
        ("shuffled", "0.3.0"),
        ("reversed, no-memory", "0.2.0"),
    ]
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert after.pop(run.path / "controls.json")
    assert after == before
    assert verify_run(run) == []
    record = only_record(tmp_path)
    assert record.control("shuffled") == made_control(plifctl="0.3.0")
    assert record.control(None, 2.0).difference == -1.0
    assert record.control("reversed") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 2}, "of epoch 2, and the result is of epoch 3"),
        ({"epoch": None}, "of epoch None"),
        ({"cache": "d" * 64}, "of other test samples"),
        ({"samples": 2}, "of other test samples"),
        ({"lost": 0}, r"the unchanged network has 0.00 %, and the result is 75.00 %"),
    ],
)
def test_controls_of_another_network_or_other_samples_are_not_kept(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    run = make_run(tmp_path)
    with pytest.raises(RunError, match=message):
        keep_controls(run, [made_control(**changes)])
    assert not (run.path / "controls.json").exists()


def test_controls_of_a_run_that_is_being_trained_are_not_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with RunRecorder(run, run.config().spec).live(), pytest.raises(RunError, match="being trained"):
        keep_controls(run, [made_control()])


def test_controls_of_an_epoch_that_a_longer_training_surpassed_do_not_count(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    keep_controls(run, [made_control(), made_control("reversed")])
    train_longer(run, 4)
    assert only_record(tmp_path).control("shuffled") is None
    assert {one["problem"] for one in describe_run(run)["controls"]} == {"of epoch 3, and the result is of epoch 4"}
    keep_controls(run, [made_control("reversed", epoch=4)])
    assert [(one.name, one.epoch) for one in read_controls(run.path)] == [("reversed", 4)]  # the old ones go
    assert verify_run(run) == []  # the manifest of the longer training does not list what is replaced


@pytest.mark.parametrize("text", ["{", '{"controls": [], "checksum": "0"}', "pipe-like\0", "tree"])
def test_damaged_controls_are_one_line_and_can_be_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    run = make_run(tmp_path)
    tree = add_checksum({"schema_version": 1, "controls": [{"time": "sorted"}]})
    path = run.path / "controls.json"
    path.write_text(str(tree).replace("'", '"') if text == "tree" else text)
    with caplog.at_level(logging.WARNING, logger="plifctl"):
        assert only_record(tmp_path).controls == ()
        assert describe_run(run)["controls"] == []
    assert [record.message.count("controls.json: damaged") for record in caplog.records] == [1, 1]
    (problem,) = verify_run(run)
    assert problem.startswith("controls.json: damaged: ")
    keep_controls(run, [made_control()])
    assert read_controls(run.path) == (made_control(),)


@pytest.mark.parametrize(
    "changes",
    [
        {"time": None},
        {"time": None, "tau": 0.5},
        {"gained": 1},  # none is right with the change
        {"lost": 2},
        {"lost": 10**400},  # no float
        {"gained": 10**400, "lost": 10**400},
        {"samples": 10**400},
        {"epoch": -1},
    ],
    ids=str,
)
def test_controls_with_impossible_values_are_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = make_run(tmp_path)
    entry = made_control().model_dump(mode="json") | changes
    (run.path / "controls.json").write_text(json.dumps(add_checksum({"schema_version": 1, "controls": [entry]})))
    with pytest.raises(RunError, match=r"controls\.json: damaged: controls\.0"):
        read_controls(run.path)
    assert only_record(tmp_path).controls == ()


def test_record_has_controls_only_if_there_are_some(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    text = (run.path / "result.json").read_text(encoding="utf-8")
    assert record_text(with_controls(run.record(), run.path)) == text
    keep_controls(run, [made_control(None, "mean"), made_control(None, 2.5)])
    (tmp_path / "record.json").write_text(record_text(with_controls(run.record(), run.path)), encoding="utf-8")
    assert read_record(tmp_path / "record.json").controls == (made_control(None, "mean"), made_control(None, 2.5))
    shipped = sorted((load_registry().folders[0] / "results").glob("nmnist-*.json"))
    assert shipped
    assert all(record_text(read_record(path)) == path.read_text(encoding="utf-8") for path in shipped)
