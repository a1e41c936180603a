"""The page of the report without the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import made_record, make_run

from plifctl.errors import UsageError
from plifctl.pipeline import page
from plifctl.pipeline.external_runs import import_logs
from plifctl.pipeline.page import PageSource, write_report_page
from plifctl.pipeline.report import build_table
from plifctl.pipeline.runs import list_entries
from plifctl.runs import Predictions
from plifctl.runs.changes import CHANGED_SINCE
from plifctl.runs.documents import add_checksum
from plifctl.runs.records import record_text

pytestmark = pytest.mark.usefixtures("places")


@pytest.mark.long
def test_page_source_reads_a_run_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_run(tmp_path / "runs"), make_run(tmp_path / "runs", finished=False)
    source, read = PageSource(), []
    original = page._read_run
    monkeypatch.setattr(page, "_read_run", lambda run, known: read.append(run.name) or original(run, known))
    source.data()
    assert sorted(read) == sorted([first.name, second.name])
    read.clear()
    (second.path / "run.json").write_text((second.path / "run.json").read_text() + "\n")
    (entry,) = [entry for entry in source.data()["runs"] if entry["name"] == second.name]
    assert read == [second.name]
    assert entry["status"] == "killed"


def test_page_shows_a_shipped_record_beside_a_run_of_its_name(tmp_path: Path) -> None:
    before = {entry["name"] for entry in PageSource().data()["runs"]}
    make_run(tmp_path / "runs", name="fast-s1")
    runs = {entry["name"]: entry["whose"] for entry in PageSource().data()["runs"]}
    assert "fast-s1" in before
    assert runs.keys() == before | {"shipped:fast-s1"}
    assert (runs["fast-s1"], runs["shipped:fast-s1"]) == ("mine", "shipped")


EVERY_EPOCH = ((0.9, 0.7), (0.95, 0.72), (0.91, 0.8))
"""Validation and test accuracies of protocol B with validation.test = every-epoch."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("protocol", "finished", "accuracies", "text", "result"),
    [
        ("A", True, None, "75.00", (0.75, 3, "test")),
        ("A", False, None, "75.00", (0.75, 3, "test")),
        ("B", True, EVERY_EPOCH, "75.00", (0.75, 3, "test")),  # what the record says
        ("B", False, None, "75.00 val", (0.75, 3, "validation")),
        ("B", False, EVERY_EPOCH, "95.00 val", (0.95, 2, "validation")),
        ("C", False, ((None, None),) * 3, "", None),
    ],
)
def test_page_shows_the_result_that_the_list_of_runs_shows(
    tmp_path: Path, protocol: str, finished: bool, accuracies: Any, text: str, result: Any
) -> None:
    make_run(tmp_path / "runs", protocol=protocol, finished=finished, accuracies=accuracies)
    (entry,) = list_entries()
    (run,) = [run for run in PageSource().data()["runs"] if run["whose"] == "mine"]
    assert (entry.best_text, entry.accuracy_of) == (text, None if result is None else result[2])
    assert run["result"] == (result and dict(zip(("value", "epoch", "of"), result, strict=True)))
    assert (run["status"], run["epochs"], run["planned"]) == (entry.status, entry.epoch, entry.epochs)
    assert run["hours"] == pytest.approx(3 / 3600, abs=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("series", "text", "result"),
    [
        ({"test_acc": (0.5, 0.75, 0.25), "val_acc": (0.9, 0.1, 0.2)}, "75.00", (0.75, 2, "test")),
        ({"val_acc": (0.5, 0.9, 0.2)}, "90.00 val", (0.9, 2, "validation")),
        ({"train_acc": (0.5, 0.9, 0.2)}, "", None),
    ],
)
def test_page_shows_the_result_of_an_imported_log_that_the_list_shows(
    tmp_path: Path, series: dict[str, tuple[float, ...]], text: str, result: Any
) -> None:
    (tmp_path / "logs").mkdir()
    for tag, values in series.items():
        rows = "".join(f"{step},{step},{value}\n" for step, value in enumerate(values, 1))
        (tmp_path / f"logs/run-mine-tag-{tag}.csv").write_text(f"Wall time,Step,Value\n{rows}")
    import_logs(tmp_path / "logs")
    (entry,) = list_entries()
    (run,) = [run for run in PageSource().data()["runs"] if run["name"] == entry.run]
    assert entry.best_text == text
    assert run["result"] == (result and dict(zip(("value", "epoch", "of"), result, strict=True)))


def test_page_calls_only_the_authors_logs_theirs(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for name in ("MNIST_init_tau_2.0_use_plif_True_use_max_pool_True_T_8_detach_reset_True", "resnet"):
        text = "Wall time,Step,Value\n1,0,0.5\n2,1,0.6\n"
        (tmp_path / "logs" / f"run-{name}-tag-test_accuracy.csv").write_text(text)
    import_logs(tmp_path / "logs")
    (tmp_path / "runs/imported-mnist-plif").rename(tmp_path / "runs/authors-mnist-plif")  # as earlier versions named it
    names = ("authors-mnist-plif", "authors:authors-mnist-plif", "imported-resnet")
    runs = [run for run in PageSource().data()["runs"] if run["name"] in names]
    found = sorted((run["name"], run["whose"], run["status"], run["epochs"]) for run in runs)
    assert found == [
        ("authors-mnist-plif", "imported", "imported", 2),
        ("authors:authors-mnist-plif", "authors", "imported", 1024),
        ("imported-resnet", "imported", "imported", 2),
    ]
    results = {run["whose"]: run["result"]["value"] for run in runs if "mnist" in run["name"]}
    assert results == {"authors": pytest.approx(0.9972, abs=1e-4), "imported": 0.6}


def test_page_lists_a_record_as_changed_since_where_its_tables_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own/results").mkdir(parents=True)
    record = made_record("mnist-plif", (0.5, 0.6), run="old", digest="d" * 64)
    (tmp_path / "own/results/old.json").write_text(record_text(record))
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "own"))
    (run,) = [run for run in PageSource().data()["runs"] if run["name"] == "old"]
    assert run["changes"] == [CHANGED_SINCE]
    warnings = build_table("selection").warnings
    assert any("old" in text and f"modified ({CHANGED_SINCE})" in text for text in warnings)


def test_page_with_figures_has_their_pictures(tmp_path: Path) -> None:
    text = write_report_page(tmp_path / "page", figures=["1b"]).read_text(encoding="utf-8")
    assert "data:image/svg+xml;base64," in text


def test_write_report_page_beside_a_foreign_page_is_refused(tmp_path: Path) -> None:
    assert write_report_page(tmp_path / "page") == tmp_path / "page/index.html"
    (tmp_path / "page/index.html").write_text("mine")
    with pytest.raises(UsageError, match="not a page"):
        write_report_page(tmp_path / "page")


def test_page_has_the_numbers_of_the_table_with_stored_predictions(tmp_path: Path) -> None:
    runs = [made_record(f"gesture-{neuron}", tests) for neuron, tests in (("plif", (0.75,)), ("lif", (0.25,)))]
    for record in runs:
        folder = tmp_path / "runs" / record.run
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(add_checksum({"cache": {}})))
        (folder / "result.json").write_text(record_text(record))
        predicted = np.arange(8, dtype=np.uint8) >= round(8 * record.accuracy)
        ids = tuple(map(str, range(8)))
        Predictions(ids, np.zeros(8, np.uint8), predicted.astype(np.uint8), 1).save(folder / "predictions.npz")
    table = build_table("significance", tmp_path / "runs")
    (shown,) = [one for one in PageSource().data()["tables"] if one["name"] == "significance"]
    assert "McNemar, 4 : 0" in str(table.rows)
    assert "McNemar, 4 : 0" in str(shown["rows"])
