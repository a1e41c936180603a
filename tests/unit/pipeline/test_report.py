"""Tables and the statement without the command line: values in, values out, nothing printed."""

import logging
from pathlib import Path

import pytest
from factories import make_run

from plifctl.config.choices import TABLES
from plifctl.config.lookup import load_registry
from plifctl.errors import RunError, UsageError
from plifctl.pipeline.report import build_table, build_tables, write_statement
from plifctl.report import TableOptions
from plifctl.runs import RunRecorder
from plifctl.runs.metrics import MetricsFile

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


def test_statement_on_a_run_that_is_named_twice_has_it_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    assert write_statement([run.name, str(run.path)]) == write_statement([run.name])


def test_statement_has_the_result_of_a_run_whose_longer_training_has_not_ended(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", name="longer")
    before = write_statement()
    longer = load_registry().experiment("demo", overrides=["train.epochs=5"])
    recorder = RunRecorder(run, longer.spec)
    with recorder.live():
        recorder.begin(longer, 3)
        MetricsFile(run.path).append({"epoch": 4, "seconds": 3600.0})
        assert run.status() == "running"
        assert write_statement() == before  # hours, too, are those of the epochs of the result
    assert write_statement([run.name]) == before
    other = make_run(tmp_path / "runs", name="other", finished=False)
    with pytest.raises(UsageError, match="other: killed, so it has no result to state"):
        write_statement([other.name])


def test_statement_calls_a_run_by_its_folder_as_tables_do(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", name="before")
    run.path.rename(tmp_path / "runs" / "after")
    assert "| `after` |" in write_statement()
    assert "before" not in write_statement()
