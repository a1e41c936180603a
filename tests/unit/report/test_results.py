"""What a number of a table says: its epochs and flags, what it is compared with, whose it is, what is left out."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from plifctl.cli.tables import table_text
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import RegistryError
from plifctl.paths import registry_dirs
from plifctl.report import Table, TableOptions, fill_table
from plifctl.report.page import build_page_data
from plifctl.report.render import is_numeric
from plifctl.report.results import SOURCES, Results, cut_record
from plifctl.report.tables import check_tables
from plifctl.runs import ResultRecord, RunData, load_records
from plifctl.runs.records import Fold, record_text
from plifctl.runs.sessions import Session

REGISTRY = load_registry()
PLACE = ("PLIF (τ₀ = 2)", "Fashion-MNIST")
"""Row and column of fashion-mnist-plif in Table 4; the paper reports 94.38."""
SMALL = RunData(verified=False, complete=False, train=800, validation=0, test=100, cache="small")
FULL = RunData(verified=True, complete=True, train=60000, validation=0, test=10000, cache="full")


def run(*tests: float | None, of: str = "fashion-mnist-plif", **changes: Any) -> ResultRecord:
    """Returns the record of a run of the recipe ``authors`` with these test accuracies."""
    known = [value for value in tests if value is not None]
    values: dict[str, Any] = {
        "schema_version": 1,
        "run": "mine",
        "experiment": of,
        "recipe": "authors",
        "protocol": "A",
        "dataset": "fashion-mnist",
        "T": 8,
        "seed": 2020,
        "epochs": len(tests),
        "overrides": (),
        "data": FULL,
        "accuracy": max(known, default=0.5),
        "best_epoch": 1,
        "validation_accuracy": None,
        "test_accuracy": tests,
        "tau": tuple((2.0, 2.0, 2.0, 2.0) for _ in tests),
        "environment": {"plifctl": "0.3.0", "device": "cpu"},
        "finished": "2026-01-01T00:00:00Z",
    } | changes
    if of in REGISTRY.experiments():
        resolved = REGISTRY.experiment(of, recipe=values["recipe"], overrides=values["overrides"])
        values = {"digest": resolved.for_protocol(values["protocol"]).spec.digest} | values
    return ResultRecord(**({"digest": None} | values))


def authors(*tests: float | None, **changes: Any) -> ResultRecord:
    return run(*tests, **({"origin": "authors", "run": "log", "data": None, "digest": None} | changes))


def table(name: str, *records: ResultRecord, **options: Any) -> Table:
    return fill_table(name, records, REGISTRY, TableOptions(**options))


def cell(found: Table, place: tuple[str, str] = PLACE) -> list[tuple[str, float | None]]:
    """Returns the numbers of a cell as shown, each with its difference in points."""
    (entry,) = [entry for entry in found.entries if (entry.row, entry.column) == place]
    return [(n.shown, None if n.difference is None else round(n.difference, 4)) for n in entry.numbers]


def lines(found: Table) -> list[dict[str, str]]:
    return [line for line in csv.DictReader(io.StringIO(found.to_csv())) if line["result"]]


# ------------------------------------------------------------------------------------------------ Δ


def test_difference_of_fewer_epochs_is_to_the_best_of_the_authors_same_epochs() -> None:
    found = table("4", run(0.90, 0.9134), authors(0.88, 0.91, 0.9438))
    assert cell(found) == [("91.34 @2", 0.34)]
    assert "Δ to 91.00, the best of the first 2 epochs of the authors' run" in found.notes["a"]
    assert found.rows[0][2] == "91.34 @2 +0.34 (a)"
    found = table("4", run(0.90), authors(0.88, 0.91))
    assert cell(found) == [("90.00 @1", 2.0)]
    assert "Δ to 88.00, the first epoch of the authors' run" in found.notes["a"]


def test_difference_of_other_logs_with_fewer_epochs_is_to_the_authors_same_epochs() -> None:
    """A rerun of the authors' code by somebody else is no authors' run, whose end may be missing in its log."""
    other = authors(0.80, 0.83, origin="imported", run="rerun")
    found = table("4", other, authors(0.88, 0.91, 0.9438), source="imported")
    assert cell(found) == [("83.00 @2", -8.0)]
    assert "Δ to 91.00, the best of the first 2 epochs of the authors' run" in found.notes["a"]
    assert "a log of other code, 2 epochs logged" in found.notes["a"]
    assert cell(table("4", other, source="authors")) == []
    mine = run(0.90, 0.9134)
    assert cell(table("4", mine, other, authors(0.88, 0.91, 0.9438))) == [("91.34 @2", 0.34)]
    assert cell(table("4", mine, other)) == [("91.34 @2", None)]


@pytest.mark.parametrize("recipe", ["paper", "fast"])
def test_difference_of_fewer_epochs_of_another_recipe_than_the_authors_is_none(recipe: str) -> None:
    other, log = run(0.90, 0.9134, recipe=recipe), authors(0.88, 0.91, 0.9438)
    ((shown, difference),) = cell(table("4", other, log))
    assert (shown.split(" fast")[0], difference) == ("91.34 @2", None)
    assert "Δ" not in table("4", other, log).notes["a"]
    ((_, difference),) = cell(table("early", other, log), ("PLIF (τ₀ = 2), 1", "accuracy"))
    assert difference is None
    whole = run(0.94, recipe="paper", epochs=1024)
    assert cell(table("4", whole, log)) == [("94.00", -0.38)]  # the paper reports it of its own recipe


@pytest.mark.parametrize(
    "log",
    [(0.88, None, 0.93), (0.88,), (None, 0.91)],
    ids=["a gap", "a shorter log", "a gap at the beginning"],
)
def test_difference_is_none_where_the_authors_log_lacks_one_of_the_epochs(log: tuple[float | None, ...]) -> None:
    assert cell(table("4", run(0.90, 0.9134), authors(*log))) == [("91.34 @2", None)]


def test_difference_of_fewer_epochs_without_the_authors_log_is_none() -> None:
    assert cell(table("4", run(0.90, 0.9134))) == [("91.34 @2", None)]


def test_difference_is_of_the_rounded_numbers_that_are_shown() -> None:
    assert cell(table("4", run(0.91004), authors(0.909996))) == [("91.00 @1", 0.0)]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"data": SMALL}, "90.00 @1 subset"),
        ({"overrides": ("train.lr=0.1",)}, "90.00 @1 modified"),
        ({"data": SMALL, "overrides": ("train.lr=0.1",), "epochs": 1024}, "90.00 subset modified"),
    ],
)
def test_difference_of_a_subset_or_of_modified_settings_is_none(changes: dict[str, Any], shown: str) -> None:
    found = table("4", run(0.90, **changes), authors(0.88), include_modified=True)
    assert cell(found) == [(shown, None)]


@pytest.mark.parametrize(("epochs", "expected"), [(1024, ("94.00", -0.38)), (1025, ("94.00 @1025", None))])
def test_difference_to_the_reported_number_needs_the_planned_epochs(epochs: int, expected: tuple[str, float]) -> None:
    assert cell(table("4", run(0.9, 0.94, epochs=epochs), authors(0.88, 0.91))) == [expected]


def test_difference_of_protocol_b_with_fewer_epochs_is_none() -> None:
    found = table("S2", run(0.90, 0.91, protocol="B", run="b"), authors(0.88, 0.91))
    assert cell(found, ("Fashion-MNIST", "15 % validation")) == [("91.00 @2", None)]


def test_difference_of_a_mean_over_seeds_is_that_of_the_mean() -> None:
    runs = [run(accuracy, seed=seed, run=f"r{seed}") for seed, accuracy in ((1, 0.90), (2, 0.92))]
    found = table("4", *runs, authors(0.88))
    assert cell(found) == [("91.00 ± 1.41 @1", 3.0)]  # sample standard deviation: √2
    assert "seeds 1, 2; runs r1, r2" in found.notes["a"]


def test_difference_in_time_steps_is_none_and_t_has_no_epochs() -> None:
    (entry,) = [entry for entry in table("3", run(0.9, 0.91)).entries if entry.numbers]
    assert (entry.numbers[0].shown, entry.numbers[0].difference) == ("8", None)


@pytest.mark.parametrize("name", ["early", "3"])
@pytest.mark.parametrize("source", ["mine", "authors"])
def test_note_on_a_number_of_one_epoch_or_on_t_names_no_measure_of_the_whole_run(name: str, source: Any) -> None:
    notes = table(name, run(0.89, 0.91), authors(0.89, 0.91), source=source).notes
    assert {note.split(";")[0] for note in notes.values()} == {"fashion-mnist-plif: protocol A"}
    assert not any("best epoch" in note for note in notes.values())
    whole = table("4", run(0.89, 0.91), authors(0.89, 0.91), source=source).notes["a"]
    assert whole.startswith("fashion-mnist-plif: protocol A (maximum over test epochs); ")
    assert ("best epoch 1" in whole) == (source == "authors")


# ------------------------------------------------------------------------------------------------ --epochs


def test_epochs_cuts_runs_and_the_authors_log() -> None:
    records = (run(0.90, 0.91, 0.91, 0.95), authors(0.905, 0.90, 0.93, 0.99))
    assert cell(table("4", *records, epochs=3)) == [("91.00 @3", -2.0)]
    assert cell(table("4", *records, source="authors", epochs=2)) == [("90.50 @2", None)]
    assert cut_record(records[0], 3).best_epoch == 3  # of equal ones the latest, as recipe authors trains
    assert cut_record(records[0].model_copy(update={"recipe": "paper"}), 3).best_epoch == 2
    assert cut_record(records[0].model_copy(update={"best_epoch": 2}), 3).best_epoch == 2
    assert cut_record(authors(0.90, 0.91, 0.91, 0.95), 3).best_epoch == 3  # as the authors' code
    assert table("4", *records, epochs=3).caption.endswith(", of the first 3 epochs")
    assert table("1", epochs=3).caption == table("1").caption  # it has no numbers of runs


def test_epochs_beyond_a_whole_training_keep_the_difference_to_the_reported_number() -> None:
    assert cell(table("4", run(0.94, epochs=1024), epochs=2000)) == [("94.00", -0.38)]


def test_epochs_leaves_longer_runs_of_protocol_b_out() -> None:
    validated = run(None, 0.91, protocol="B", run="b")
    assert cell(table("S2", validated, epochs=2), ("Fashion-MNIST", "15 % validation")) == [("91.00 @2", None)]
    found = table("S2", validated, epochs=1)
    assert cell(found, ("Fashion-MNIST", "15 % validation")) == []
    assert found.warnings == ("left out: b: a run of protocol B cannot be cut to fewer epochs",)


def test_epochs_leaves_a_run_without_a_test_in_them_out() -> None:
    found = table("4", run(None, None, 0.91), epochs=2)
    assert cell(found) == []
    assert found.warnings == ("left out: mine: not tested within 2 epochs",)


def test_epochs_of_the_early_table_keep_its_differences() -> None:
    found = table("early", run(0.89, 0.91, 0.92), epochs=2)
    assert cell(found, ("PLIF (τ₀ = 2), 1", "accuracy")) == [("89.00", 0.04)]  # 88.96 in the log
    assert cell(found, ("PLIF (τ₀ = 2), 3", "accuracy")) == []


# ------------------------------------------------------------------------------------------------ what is left out


def test_a_run_that_is_longer_than_planned_does_not_hide_those_of_the_planned_length() -> None:
    planned = [run(*2 * (value,), seed=seed, run=f"r{seed}", epochs=1024) for seed, value in ((1, 0.93), (2, 0.95))]
    longer = run(0.99, 0.99, seed=3, run="longer", epochs=1025)
    found = table("4", *planned, longer, run(0.9, 0.9))
    assert cell(found) == [("94.00 ± 1.41", -0.38)]
    assert "left out: longer: 1025 epochs, while there is a run of 1024" in found.warnings
    assert "left out: mine: 2 epochs, while there is a run of 1024" in found.warnings
    assert cell(table("4", longer, run(0.9, 0.9))) == [("99.00 @1025", None)]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (run(0.9, 0.9, 0.9, data=SMALL, run="x"), "on a subset, while there is a run on all samples"),
        (run(0.9, run="x"), "1 epoch, while there is a run of 2"),
        (run(0.9, 0.9, run="x", finished="2025"), "the same seed as a later run (2020)"),
        (
            run(0.9, 0.9, run="x", finished="2025", data=FULL.model_copy(update={"cache": "y"})),
            "other samples or settings",
        ),
        (
            run(
                *(0.9, 0.9),
                run="x",
                finished="2025",
                sessions=(Session(epochs=(1, 2), training_version=7, host="h", environment={}),),
            ),
            "training version 7, which gives other numbers",
        ),
        (
            run(0.9, 0.9, run="x", overrides=("train.lr=0.1",)),
            "modified (train.lr=0.1): --include-modified counts such runs",
        ),
        (
            run(0.9, 0.9, run="x", digest="0" * 64),
            "modified (the experiment has been changed since): --include-modified counts such runs",
        ),
    ],
)
def test_left_out_run_is_named_with_the_reason(other: ResultRecord, reason: str) -> None:
    found = table("4", other, run(0.90, 0.91))
    assert cell(found) == [("91.00 @2", None)]
    assert found.warnings == (f"left out: x: {reason}",)


def test_changes_of_a_modified_run_say_whether_the_experiment_was_changed_since() -> None:
    modified = run(0.9, overrides=("train.lr=0.1",))
    results = Results([], REGISTRY)
    assert results.changes(modified) == ("train.lr=0.1",)
    assert results.changes(modified.model_copy(update={"digest": None})) == ("train.lr=0.1",)
    since = "the experiment has been changed since"
    assert results.changes(modified.model_copy(update={"digest": "0" * 64})) == ("train.lr=0.1", since)
    gone = modified.model_copy(update={"overrides": ("train.gone=1",)})
    assert results.changes(gone) == ("train.gone=1", since)


def test_fold_is_not_shown_as_the_result_of_its_experiment(tmp_path: Path) -> None:
    registry = own_table(tmp_path, "accuracy A", "{cells: ['90.00'], of: hands}")
    folds = [
        run(0.9, of="hands", run=f"f{at}", digest=f"{at}" * 64, fold=Fold(number=at, folds=5, series="s"))
        for at in (1, 2)
    ]
    folds[1] = folds[1].model_copy(update={"finished": "2027-01-01T00:00:00Z"})
    found = fill_table("own", folds, registry)
    assert found.rows == [("r", "90.00", "90.00 @1 fold 2 (a)")]
    assert "fold 2 of 5 ONLY: the table runs has the mean of folds" in found.notes["a"]
    assert found.warnings == ("left out: f1: fold 1 of 5: the table runs has the mean of folds",)
    whole = fill_table("own", [*folds, run(0.8, of="hands", run="whole", digest="w" * 64)], registry)
    assert whole.rows == [("r", "90.00", "80.00 @1 (a)")]


def test_modified_run_stands_beside_one_that_is_not() -> None:
    modified = run(0.5, 0.5, 0.5, run="x", overrides=("train.lr=0.1",), finished="2027")
    found = table("4", run(0.90, 0.91), modified, include_modified=True)
    assert cell(found) == [("91.00 @2", None), ("50.00 @3 modified", None)]
    assert not [warning for warning in found.warnings if warning.startswith("left out")]


@pytest.mark.parametrize(
    "other",
    [
        {"T": 4},
        {"data": FULL.model_copy(update={"cache": "y"})},
        {"sessions": (Session(epochs=(1, 2), training_version=7, host="h", environment={}),)},
    ],
)
def test_accuracy_that_validation_chose_is_of_a_run_that_differs_in_nothing_else(other: dict[str, Any]) -> None:
    same = {"run": "b", "protocol": "B", "validation_accuracy": 0.9, "test_accuracy": (), "accuracy": 0.8}
    shown = [lines(table("4", run(0.90, 0.91), run(0.1, 0.1, **same | more))) for more in ({}, other)]
    assert [[line["validation_chosen"] for line in found] for found in shown] == [["80.0"], [""]]


def test_mean_of_an_epoch_counts_only_the_seeds_that_have_it() -> None:
    runs = [run(0.89, seed=1, run="r1"), run(None, seed=2, run="r2", tau=((1.0,),))]
    found = table("early", *runs)
    assert cell(found, ("PLIF (τ₀ = 2), 1", "accuracy")) == [("89.00", 0.04)]
    assert cell(found, ("PLIF (τ₀ = 2), 1", "τ(0)")) == [("1.500 ± 0.707", -0.26)]
    assert [note for note in found.notes.values() if "seed 1; run r1" in note]
    assert found.warnings == ("left out: r2: without a value of epoch 1",)


def test_warning_names_columns_whose_rows_differ_in_epochs() -> None:
    runs = (run(0.90, 0.91, 0.92), run(0.88, 0.89, of="fashion-mnist-lif", run="lif"))
    text = "NOT COMPARABLE, trained for different numbers of epochs (Fashion-MNIST: 2, 3)"
    assert table("4", *runs).warnings == (f"{text}; --epochs 2 counts the same epochs of every row",)
    assert table("4", *runs, epochs=2).warnings == ()
    assert table("4", run(0.90, 0.91, 0.92), run(0.88, 0.89, recipe="fast", run="fast")).warnings == ()  # marked
    validated = [one.model_copy(update={"protocol": "B"}) for one in (runs[0], run(0.9, of="mnist-plif", run="m"))]
    found = table("S2", *validated, include_modified=True)  # protocol B cannot be cut
    assert found.warnings == ("NOT COMPARABLE, trained for different numbers of epochs (15 % validation: 1, 3)",)


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html", "json", "page"])
def test_every_form_has_the_warnings(form: str) -> None:
    found = table("4", run(0.9, overrides=("train.lr=0.1",), run="other"))
    text = {
        "terminal": lambda: table_text(found, 118),
        "markdown": found.to_markdown,
        "latex": found.to_latex,
        "html": found._repr_html_,
        "json": found.to_json,
        "page": lambda: str(build_page_data([found], [], "0")["tables"][0]["warnings"]),
    }[form]()
    assert "left out: other: modified (train.lr=0.1)" in text


# ------------------------------------------------------------------------------------------------ whose


def test_sources_are_never_pooled() -> None:
    records = [
        run(accuracy, origin=origin, run=origin, seed=seed)
        for seed, (origin, accuracy) in enumerate(
            [("trained", 0.91), ("shipped", 0.92), ("added", 0.93), ("authors", 0.94), ("imported", 0.95)]
        )
    ]
    shown = {source: cell(table("4", *records, source=source)) for source in SOURCES.values()}
    assert {source: numbers[0][0] for source, numbers in shown.items()} == {
        "mine": "91.00 @1",
        "shipped": "92.00 @1",
        "added": "93.00 @1",
        "authors": "94.00 @1",
        "imported": "95.00 @1",
    }
    assert all(len(numbers) == 1 for numbers in shown.values())
    assert shown["mine"][0][1] == -3.0
    for other in records[1:]:
        assert cell(table("4", other)) == []


def test_records_of_a_registry_folder_are_shipped_and_a_run_of_one_s_own_is_mine(tmp_path: Path) -> None:
    (tmp_path / "registry/results").mkdir(parents=True)
    (tmp_path / "registry/results/x.json").write_text(record_text(run(0.9, run="x")), encoding="utf-8")
    for name, accuracy in (("x", 0.8), ("y", 0.9)):  # of x, a sweep was repeated
        (tmp_path / "runs" / name).mkdir(parents=True)
        text = record_text(run(accuracy, run=name))
        (tmp_path / "runs" / name / "result.json").write_text(text, encoding="utf-8")
    records = load_records(tmp_path / "runs", [tmp_path / "registry"])
    found = sorted((record.run, record.origin, record.accuracy) for record in records)
    assert found == [("x", "shipped", 0.9), ("x", "trained", 0.8), ("y", "trained", 0.9)]


# ------------------------------------------------------------------------------------------------ long form


def test_csv_has_a_column_for_each_fact() -> None:
    (line,) = lines(table("4", run(0.90, 0.92, 0.91, data=SMALL)))
    wanted = {
        "measure": "maximum over test epochs",
        "result": "92.0",
        "difference": "",
        "epochs": "3",
        "planned_epochs": "1024",
        "source": "trained",
        "subset": "True",
        "verified": "False",
        "modified": "False",
        "test_samples": "100",
        "plifctl": "0.3.0",
        "device": "cpu",
        "last": "91.0",
        "mean_last_64": "",
    }
    assert {name: line[name] for name in wanted} == wanted


def test_csv_of_seeds_has_means_and_every_device() -> None:
    first, second = run(0.90, 0.92, seed=1, run="r1"), run(0.92, 0.90, seed=2, run="r2", environment={"device": "H200"})
    (line,) = lines(table("4", first, second))
    assert (line["result"], line["last"], line["mean_last_64"]) == ("92.0", "91.0", "")
    assert (line["device"], line["plifctl"], line["seeds"]) == ("H200, cpu", "0.3.0", "1 2")


def test_csv_has_the_validation_chosen_accuracy_beside_the_maximum() -> None:
    """Of runs of protocol B with the same experiment, recipe and epochs only."""
    a = run(0.90, 0.92, run="a")
    b = a.model_copy(update={"protocol": "B", "test_accuracy": (None, 0.89)})
    seeds = [b.model_copy(update={"run": f"b{seed}", "seed": seed, "accuracy": 0.88 + seed / 100}) for seed in (1, 2)]
    other = [
        b.model_copy(update={"run": "longer", "epochs": 4}),
        b.model_copy(update={"run": "x", "recipe": "paper"}),
    ]
    (alone,) = lines(table("4", a, *other))
    assert alone["validation_chosen"] == ""
    (found,) = lines(table("4", a, *seeds, *other))
    assert (found["result"], float(found["validation_chosen"])) == ("92.0", pytest.approx(89.5))
    assert found["validated_runs"] == "b1 b2"


def test_csv_mean_counts_the_last_64_epochs_not_the_last_64_tests() -> None:
    tests = (0.1, *(0.9 if epoch % 2 else None for epoch in range(1, 101)))
    (line,) = lines(table("4", run(*tests)))
    assert line["mean_last_64"] == "90.0"
    (line,) = lines(table("4", run(*tests[:64])))
    assert line["mean_last_64"] == ""  # it would be the mean from the first epoch on


@pytest.mark.parametrize(("name", "column"), [("runs", "accuracy"), ("selection", "result"), ("4", PLACE[1])])
def test_csv_of_a_run_names_its_measure_and_that_it_trained_on_a_part_of_the_samples(name: str, column: str) -> None:
    part = run(0.90, 0.91, overrides=("train.subset=0.1",))
    found = [line for line in lines(table(name, part, include_modified=True)) if line["column"] == column]
    assert [(line["measure"], line["subset"], line["modified"]) for line in found] == [
        ("maximum over test epochs", "True", "True")
    ]
    assert {line["measure"] for line in lines(table("selection", run(0.9, 0.91))) if line["column"] != "result"} == {""}


def test_run_on_a_part_of_the_samples_is_a_subset_whether_its_cache_or_its_experiment_has_them() -> None:
    part = ("train.subset=0.1",)
    assert all(run(0.9, **changes).is_subset for changes in ({"data": SMALL}, {"overrides": part}))
    assert run(0.9, overrides=part, data=None).is_subset
    assert not any(run(0.9, overrides=changes).is_subset for changes in ((), ("train.subset=1.0",)))
    found = table("4", run(0.9, overrides=part), include_modified=True)
    assert cell(found) == [("90.00 @1 subset modified", None)]
    assert "SUBSET: 60000 training and 10000 test samples" in found.notes["a"]


def test_csv_of_a_number_of_one_epoch_has_no_measure_of_the_run() -> None:
    found = [line for line in lines(table("early", run(0.89))) if line["row"] == "PLIF (τ₀ = 2), 1"]
    assert [line["measure"] for line in found] == [""] * 5


def test_csv_of_a_record_without_data_leaves_its_columns_empty() -> None:
    (line,) = lines(table("4", authors(0.9, 0.91), source="authors"))
    assert [line[name] for name in ("subset", "verified", "test_samples", "device")] == ["", "", "", "cpu"]
    assert line["source"] == "authors"


def test_csv_marks_modified_runs_of_the_selection_and_runs_tables() -> None:
    modified = run(0.9, 0.91, overrides=("train.lr=0.1",), data=SMALL)
    assert {line["modified"] for line in lines(table("selection", modified, include_modified=True))} == {"True"}
    found = table("runs", modified)
    assert [line["modified"] for line in lines(found)] == ["True"]
    assert found.rows[0][-1] == "91.00 subset modified (1)"


def test_columns_of_numbers_are_right_aligned_and_those_of_structures_are_not() -> None:
    found = table("4", run(0.9, data=SMALL), run(0.9, recipe="paper", run="p"))
    assert found.rows[0][2] == "90.00 @1 (a), 90.00 @1 subset (b)"
    assert [is_numeric(found, index) for index in range(4)] == [False, True, True, True]
    assert not is_numeric(table("S1"), 2)


# ------------------------------------------------------------------------------------------------ odd records


def test_record_without_tau_of_an_epoch_has_no_number_there() -> None:
    found = table("early", run(0.89, 0.91, tau=()))
    assert cell(found, ("PLIF (τ₀ = 2), 2", "accuracy")) == [("91.00", 0.54)]
    assert cell(found, ("PLIF (τ₀ = 2), 2", "τ(0)")) == []


def own_table(folder: Path, measure: str, row: str) -> Registry:
    (folder / "tables").mkdir()
    text = f"caption: c\nsource: s\nours: columns\ncolumns: {{a: , b: {measure}}}\nrows: {{r: {row}}}\n"
    (folder / "tables/table-own.yaml").write_text(text, encoding="utf-8")
    (folder / "networks").mkdir()
    (folder / "networks/flat.yaml").write_text(
        "flat: {structure: FC100-SN-APk10s10, dropout: 0.0, batch_norm: per-step}\n"
    )
    return Registry([*registry_dirs(), folder])


def test_experiment_outside_the_registry_has_epochs_but_no_planned_ones(tmp_path: Path) -> None:
    registry = own_table(tmp_path, "accuracy A", "{cells: ['90.00'], of: hands}")
    found = fill_table("own", [run(0.9, 0.91, of="hands")], registry)
    assert found.rows == [("r", "90.00", "91.00 @2 (a)")]
    assert "; 2 epochs; " in found.notes["a"]
    assert lines(found)[0]["planned_epochs"] == ""


@pytest.mark.parametrize(
    ("measure", "row", "message"),
    [
        (
            "test accuracy",
            "{cells: [''], of: demo}",
            "column b: test accuracy belongs to one epoch, found none",
        ),
        ("tau 0", "{cells: [''], of: demo}", "rows.r, column b: tau 0 belongs to one epoch, found none"),
        ("tau 0", "{cells: [''], of: demo, epoch: 0}", "greater than or equal to 1"),
        ("accuracy A", "{cells: [''], of: demo, epoch: 3}", "is of a whole training, found epoch 3"),
        ("accuracy A", "{cells: [''], of: {bb: demo}}", "rows.r, of: unknown column bb; "),
        ("accuracy A", "{cells: [''], bold: [c]}", "rows.r, bold: unknown column c; "),
        ("accuracy A", "{cells: []}", "rows.r: expected 1 cells, found 0"),
        (
            "N_fc",
            "{cells: [''], of: gestur}",
            r"rows.r, column b: no network or experiment gestur; did you mean gesture",
        ),
        ("N_conv", "{cells: [''], of: flat}", "rows.r, column b: network flat has no pooling, so N_conv is undefined"),
    ],
)
def test_own_table_that_no_number_fits_is_refused(tmp_path: Path, measure: str, row: str, message: str) -> None:
    registry = own_table(tmp_path, measure, row)
    with pytest.raises(RegistryError, match=message) as error:
        fill_table("own", [], registry)
    assert "table-own.yaml" in str(error.value)
    assert check_tables(registry) == error.value.problems


def test_own_table_with_an_unknown_experiment_is_warned_of_until_it_has_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = own_table(tmp_path, "accuracy A", "{cells: [''], of: gesture-plf}")
    text = "rows.r, column b: experiment gesture-plf is not in the registry; "
    (warning,) = fill_table("own", [], registry).warnings
    assert text in warning
    assert "did you mean gesture-plif" in warning
    assert fill_table("own", [run(0.9, of="gesture-plf")], registry).warnings == ()
    assert check_tables(registry) == []
    assert caplog.messages == [warning]


def test_number_is_verified_only_if_the_data_of_all_its_runs_are() -> None:
    other = FULL.model_copy(update={"verified": False})
    runs = [run(0.9, seed=1, run="s1"), run(0.9, seed=2, run="s2", data=other)]
    (line,) = lines(table("4", *runs))
    assert (line["seeds"], line["verified"]) == ("1 2", "False")
    (line,) = lines(table("4", runs[0]))
    assert line["verified"] == "True"
