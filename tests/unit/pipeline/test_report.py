"""Tables, figures and the page without the command line: values in, values out, nothing printed."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from factories import made_record, make_run

from plifctl.config.choices import TABLES
from plifctl.errors import RunError, UsageError
from plifctl.pipeline import report
from plifctl.pipeline.report import (
    PageSource,
    build_table,
    build_tables,
    draw_figures,
    write_report_page,
    write_statement,
)
from plifctl.pipeline.runs import list_entries
from plifctl.report import TableOptions
from plifctl.runs import Predictions, curves
from plifctl.runs.documents import add_checksum
from plifctl.runs.records import record_text

pytestmark = pytest.mark.usefixtures("places")


def test_build_table_with_a_run_has_its_result_and_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "runs")
    found = build_table("demo")
    assert found.rows == [("synthetic gestures", "", "75.00 @3 (a)", "", "")]
    assert run.name in found.notes["a"]
    assert build_table("demo", tmp_path / "elsewhere").notes == {}
    assert capsys.readouterr() == ("", "")


def test_build_tables_with_all_gives_the_paper_s_tables_once() -> None:
    assert tuple(table.name for table in build_tables(["all", "4", "demo"])) == (*TABLES, "demo")


@pytest.mark.parametrize(("name", "hint"), [("optimism", "use --table selection"), ("44", "did you mean 4?")])
def test_build_table_with_an_old_or_unknown_name_hints_at_another(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=name) as error:
        build_table(name)
    assert error.value.hint == hint


def test_build_table_from_authors_without_imports_repeats_the_paper(tmp_path: Path) -> None:
    entries = build_table("4", tmp_path, TableOptions("authors")).entries
    assert len(entries) == 16
    for entry in entries:
        (number,) = entry.numbers
        assert (number.text, number.difference) == (entry.reported, 0)


def test_build_table_of_cells_for_runs_without_runs_names_the_shipped_results(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="plifctl"):
        build_tables(["1", "S1", "context", "selection", "runs"])
        assert caplog.text == ""  # they have no cells that runs could fill
        build_table("4")
    assert "no finished runs; results that come with plifctl: --source shipped" in caplog.text


@pytest.mark.parametrize("name", ["selection", "runs"])
def test_build_table_of_whole_runs_with_epochs_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"table {name} has all epochs of every run"):
        build_table(name, options=TableOptions(epochs=4))


def test_build_table_with_epoch_0_is_refused() -> None:
    with pytest.raises(UsageError, match="epochs: found 0, expected a number from 1 on"):
        build_table("4", options=TableOptions(epochs=0))


def test_draw_figures_returns_the_files_and_their_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs", epochs=2)
    (figure,) = draw_figures(["6"], tmp_path / "a.svg", runs=["last"])
    assert (figure.name, figure.path, figure.runs) == ("6", tmp_path / "a.svg", [run.name])
    assert "</svg>" in figure.path.read_text(encoding="utf-8")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("run", "drawn"),
    [
        ("authors-gesture-plif-validated", ["authors-gesture-plif-validated"]),  # not over the log of protocol A
        ("authors-cifar10-lif-tau16", ["authors-cifar10-lif-tau16"]),
    ],
)
def test_draw_figures_compares_runs_of_one_protocol(run: str, drawn: list[str], tmp_path: Path) -> None:
    (figure,) = draw_figures(["6"], tmp_path / "a.svg", tmp_path, runs=[run])
    assert figure.runs == drawn
    assert f"protocol {'B' if 'validated' in run else 'A'}" in figure.caption


def test_draw_figures_of_two_seeds_states_both_in_the_caption(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs", "neuron.tau_0=4", f"train.seed={seed}") for seed in (1, 2)]
    (figure,) = draw_figures(["6"], tmp_path / "a.svg", tmp_path / "runs", runs=[run.name for run in runs])
    assert figure.runs == [run.name for run in runs]
    assert "τ₀ = 4, average pooling, 2 seeds: demo, recipe paper" in figure.caption
    assert "seeds 1, 2" in figure.caption
    assert "modified: neuron.tau_0=4" in figure.caption


def test_draw_figures_with_an_unknown_ending_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report._FigureSource, "draw", lambda *_: pytest.fail("was drawn"))
    with pytest.raises(UsageError, match=r"a\.jpg: unknown format of figures"):
        draw_figures(["6"], tmp_path / "a.jpg")


def test_draw_figures_of_named_runs_reads_each_of_them_once_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make_run(tmp_path / "runs", f"train.seed={seed}").name for seed in range(4)]
    read, original = [], curves.curve_of_run
    monkeypatch.setattr(curves, "curve_of_run", lambda run: read.append(run.name) or original(run))
    drawn = draw_figures(["6", "7"], tmp_path, tmp_path / "runs", runs=names[:3])
    assert [figure.runs for figure in drawn] == [names[:3], names[:3]]
    assert read == names[:3]


@pytest.mark.long
def test_page_source_reads_a_run_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_run(tmp_path / "runs"), make_run(tmp_path / "runs", finished=False)
    source, read = PageSource(), []
    original = report._read_run
    monkeypatch.setattr(report, "_read_run", lambda run: read.append(run.name) or original(run))
    source.data()
    assert sorted(read) == sorted([first.name, second.name])
    read.clear()
    (second.path / "run.json").write_text((second.path / "run.json").read_text() + "\n")
    (entry,) = [entry for entry in source.data()["runs"] if entry["name"] == second.name]
    assert read == [second.name]
    assert entry["status"] == "killed"


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["A", "B"])
@pytest.mark.parametrize("finished", [True, False])
def test_page_shows_the_result_that_the_list_of_runs_shows(tmp_path: Path, protocol: str, finished: bool) -> None:
    make_run(tmp_path / "runs", protocol=protocol, finished=finished)
    (entry,) = list_entries()
    (run,) = [run for run in PageSource().data()["runs"] if run["whose"] == "mine"]
    expected = ("test", entry["best_test"]) if finished or protocol == "A" else ("validation", entry["best_validation"])
    assert (run["result"]["of"], run["result"]["value"]) == expected
    assert (run["status"], run["epochs"], run["planned"]) == (entry["status"], entry["epoch"], entry["epochs"])
    assert run["hours"] == pytest.approx(3 / 3600, abs=1e-4)


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


def test_statement_leaves_a_damaged_run_out_unless_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished, damaged = make_run(tmp_path / "runs"), make_run(tmp_path / "runs", finished=False)
    (damaged.path / "run.json").write_text("{")
    with caplog.at_level(logging.WARNING, logger="plifctl"):
        assert finished.name in write_statement()
    assert f"left out: {damaged.path}" in caplog.text
    with pytest.raises(RunError):
        write_statement([damaged.name])
