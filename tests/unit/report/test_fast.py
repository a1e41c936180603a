"""Table and figure of the recipe ``fast``: accuracy, processor time and operations, beside the authors' training."""

import csv
import io
import json
from functools import cache
from typing import Any

import pytest
from factories import made_record

from plifctl.cli.tables import table_text
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import UsageError
from plifctl.evaluation.step_cost import epoch_operations
from plifctl.report import Table, TableOptions, build_table
from plifctl.runs import ResultRecord, RunData

CPU = {"processor": "Some CPU", "device": "cpu"}
B_DATA = RunData(verified=True, complete=True, train=54000, validation=6000, test=10000, cache="c")
MINUTES, PFLOP, TO_LEVEL, AFTER = (
    *("CPU min", "PFLOP"),
    *("Authors: CPU min to the same accuracy (epochs)", "Authors: accuracy after the same CPU min (epochs)"),
)


@cache
def registry() -> Registry:
    return load_registry()


def made(recipe: str, protocol: str, tests: tuple[float, ...], seed: int = 1, **changes: Any) -> ResultRecord:
    """Returns a record of mnist-plif; its epochs take a minute of processor time."""
    spec = registry().experiment("mnist-plif", recipe=recipe).for_protocol(protocol).spec  # type: ignore[arg-type]
    values = {"recipe": recipe, "protocol": protocol, "digest": spec.digest, "environment": CPU, "T": spec.T}
    values |= {"run": f"{recipe}-{protocol}-{seed}", "cpu_seconds": (60.0,) * len(tests)}
    found: ResultRecord = made_record("mnist-plif", tests, seed, **(values | changes))
    return found


def fast(accuracy: float, seed: int = 1, **changes: Any) -> ResultRecord:
    """Returns a run of 3 epochs in protocol B: 1, 2 and 3 minutes."""
    values = {"data": B_DATA, "accuracy": accuracy, "validation_accuracy": 0.9, "cpu_seconds": (60.0, 120.0, 180.0)}
    values |= {"validation_curve": (0.7, 0.8, 0.9), "test_accuracy": (None,) * 3, "best_epoch": 3}
    return made("fast", "B", (0.0,) * 3, seed, **(values | changes))


def log(*tests: float | None) -> ResultRecord:
    """Returns the authors' run, whose record knows neither data nor processor time."""
    known = tuple(0.0 if value is None else value for value in tests)
    values = {"origin": "imported", "run": "authors-mnist-plif", "data": None, "digest": None, "environment": {}}
    return made("authors", "A", known, **(values | {"test_accuracy": tests, "cpu_seconds": ()}))


LOG = log(0.90, 0.95, 0.93, None, 0.98)
TIMED = made("authors", "A", (0.5, 0.6), cpu_seconds=(120.0, 240.0))
"""A run of plifctl whose epochs take 3 minutes."""


def build(*records: ResultRecord, **options: Any) -> Table:
    return build_table("fast", records, registry(), TableOptions(**options))


def shown(table: Table) -> list[dict[str, str]]:
    """Returns the cells of each row by column, without the letters of notes."""
    return [
        {
            column: cell.text or " ".join(n.shown for n in cell.numbers)
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.cells
    ]


def test_row_has_means_over_seeds_and_the_authors_curve_over_our_minutes() -> None:
    table = build(fast(0.96), fast(0.98, 2, cpu_seconds=(60.0, 180.0, 360.0)), TIMED, LOG)
    (row,) = shown(table)
    operations = row.pop(PFLOP)
    assert row == {
        "Experiment": "mnist-plif",
        "A/B": "B",
        "Epochs": "3",
        "Accuracy (%)": "97.00 ± 1.41 @3",
        MINUTES: "8.0",  # the mean of 6 and 10
        TO_LEVEL: "15.0 (5)",  # 97 % in the fifth epoch; 3 minutes each
        AFTER: "95.00 (2)",  # two epochs in 8 minutes
    }
    spec = registry().experiment("mnist-plif", recipe="fast").for_protocol("B").spec
    assert float(operations) == pytest.approx(3e-15 * epoch_operations(spec, 54000, 6000, 10000), rel=5e-3)
    assert "on Some CPU, runs fast-B-1, fast-B-2" in table.notes.values()
    assert any("3 CPU min, as in run authors-A-1: recipe authors, protocol A" in note for note in table.notes.values())
    assert table.warnings == ()


def test_level_that_the_authors_do_not_reach_is_more_than_all_their_epochs() -> None:
    (row,) = shown(build(fast(0.99), TIMED, LOG))
    assert row[TO_LEVEL] == "> 15.0 (5)"
    (row,) = shown(build(fast(0.99, cpu_seconds=(1.0, 1.0, 1.0)), TIMED, LOG))
    assert row[AFTER] == "less than an epoch (0)"
    (row,) = shown(build(fast(0.99, cpu_seconds=(9000.0,) * 3), TIMED, LOG))
    assert row[AFTER] == "98.00 (5)"


def test_epochs_are_timed_by_recipe_authors_then_paper_on_the_same_processor() -> None:
    paper = made("paper", "B", (0.5,), data=B_DATA)
    other = made("authors", "A", (0.5,), 2, environment=CPU | {"processor": "Another CPU"})
    assert shown(build(fast(0.97), TIMED, paper, other, LOG))[0][TO_LEVEL] == "15.0 (5)"
    assert shown(build(fast(0.97), paper, other, LOG))[0][TO_LEVEL] == "5.0 (5)"
    table = build(fast(0.97), other, LOG)
    assert shown(table)[0][TO_LEVEL] == shown(table)[0][AFTER] == ""
    assert table.warnings == (
        "mnist-plif, protocol B: NOT COMPARED with the authors' run: "
        "no run of recipe authors or paper on Some CPU has CPU minutes",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_seconds": ()},
        {"cpu_seconds": (None, 60.0)},
        {"overrides": ("train.subset=0.1",)},
        {"data": B_DATA.model_copy(update={"complete": False})},
        {"environment": CPU | {"device": "NVIDIA H200"}},
    ],
    ids=["no time", "time of a part", "modified", "subset", "GPU"],
)
def test_epochs_of_other_trainings_are_not_timed(changes: dict[str, Any]) -> None:
    table = build(fast(0.97), made("authors", "A", (0.5, 0.6), **changes), LOG, include_modified=True)
    assert shown(table)[0][TO_LEVEL] == ""


def test_runs_on_different_processors_have_no_mean_of_minutes() -> None:
    table = build(fast(0.96), fast(0.98, 2, environment=CPU | {"processor": "Another CPU"}), TIMED, LOG)
    (row,) = shown(table)
    assert row["Accuracy (%)"] == "97.00 ± 1.41 @3"
    assert row[MINUTES] == row[TO_LEVEL] == row[AFTER] == ""
    assert table.warnings == ("mnist-plif, protocol B: no CPU minutes: on different processors: Another CPU; Some CPU",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cpu_seconds": (60.0, None, 60.0)}, "no CPU minutes: not counted in every epoch"),
        ({"cpu_seconds": ()}, "no CPU minutes: not counted in every epoch"),
        ({"environment": CPU | {"device": "NVIDIA H200"}}, "no CPU minutes: not trained on CPUs alone"),
        ({"environment": {"device": "cpu"}}, "no CPU minutes: on an unknown processor"),
    ],
)
def test_run_without_processor_time_has_no_minutes(changes: dict[str, Any], problem: str) -> None:
    table = build(fast(0.97, **changes), TIMED, LOG)
    assert shown(table)[0][MINUTES] == shown(table)[0][AFTER] == ""
    assert table.warnings == (f"mnist-plif, protocol B: {problem}",)


def test_modified_run_is_left_out_or_not_compared() -> None:
    modified = fast(0.97, overrides=("train.lr=0.5",))
    assert build(modified, TIMED, LOG).rows == []
    table = build(modified, TIMED, LOG, include_modified=True)
    assert shown(table)[0]["Accuracy (%)"] == "97.00 @3 modified"
    assert shown(table)[0][TO_LEVEL] == ""
    assert "mnist-plif, protocol B: NOT COMPARED with the authors' run: modified" in table.warnings


def test_experiment_without_the_authors_log_or_changed_since_says_so() -> None:
    table = build(fast(0.97, digest="0" * 64), TIMED, include_modified=True)
    assert shown(table)[0][PFLOP] == ""
    assert "no PFLOP: the registry lacks its experiment, or has changed it" in table.warnings[0]
    assert build(fast(0.97), TIMED).warnings == (
        "mnist-plif, protocol B: NOT COMPARED with the authors' run: its accuracies by epoch are not known",
    )


def test_table_without_runs_names_the_command() -> None:
    table = build(TIMED, LOG)
    assert table.rows == []
    assert table.warnings == ("no finished run of recipe fast: plifctl validate EXPERIMENT --recipe fast",)
    assert "plifctl validate" in table_text(table, 80)


def test_protocols_are_rows_of_their_own_and_sources_and_sweeps_are_kept_apart() -> None:
    of_a = made("fast", "A", (0.9, 0.91), cpu_seconds=(30.0, 30.0))
    table = build(of_a, fast(0.97), fast(0.98, 2), TIMED, LOG)
    assert [row[1:3] for row in table.rows] == [("A", "2"), ("B", "3")]
    (row,) = shown(build(of_a, fast(0.97), fast(0.98, 2), TIMED, LOG, runs=frozenset(("fast-B-2",))))
    assert (row["Accuracy (%)"], row[TO_LEVEL]) == ("98.00 @3", "")
    shipped = [record.model_copy(update={"origin": "shipped"}) for record in (fast(0.97), TIMED)]
    assert build(*shipped, LOG).rows == []
    assert shown(build(*shipped, LOG, source="shipped"))[0][TO_LEVEL] == "15.0 (5)"


def test_epochs_option_is_refused() -> None:
    with pytest.raises(UsageError, match="table fast has all epochs"):
        build(fast(0.97), epochs=2)


def test_every_format_has_the_numbers() -> None:
    table = build(fast(0.97), TIMED, LOG)
    assert "15.0 (5)" in table.to_markdown()
    assert "15.0 (5)" in table.to_latex()
    lines = {line["column"]: line for line in csv.DictReader(io.StringIO(table.to_csv()))}
    assert (lines[MINUTES]["result"], lines[MINUTES]["runs"]) == ("6.0", "fast-B-1")
    assert lines[TO_LEVEL]["result"] == "15.0"
    assert "protocol A" in lines[TO_LEVEL]["note"]
    assert json.loads(table.to_json())["rows"][0][0] == "mnist-plif"
