"""The table of the runs folder: what is one row, and what stands in it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plifctl.config.lookup import load_registry
from plifctl.paths import registry_dirs
from plifctl.report import Table, TableOptions, fill_table
from plifctl.report.page import build_page_data
from plifctl.report.page.build import render_page
from plifctl.report.runs_table import build_runs_table
from plifctl.report.selection import build_selection_table
from plifctl.runs import RegisteredExperiments, ResultRecord, load_records
from plifctl.runs.records import Fold, RunData
from plifctl.runs.sessions import Session

DATA = RunData(verified=False, complete=True, train=80, validation=0, test=20, cache="c" * 64)


def record(accuracy: float, **changes: Any) -> ResultRecord:
    """Returns a record of a run of 3 epochs."""
    values = {
        "schema_version": 1,
        "run": f"run-{accuracy}",
        "experiment": "hands",
        "recipe": "paper",
        "protocol": "A",
        "dataset": "hands",
        "T": 8,
        "seed": 1,
        "epochs": 3,
        "digest": "d" * 64,
        "overrides": (),
        "data": DATA,
        "accuracy": accuracy,
        "best_epoch": 3,
        "validation_accuracy": None,
        "test_accuracy": (0.1, 0.2, accuracy),
        "tau": ((2.0,), (2.0,), (2.0,)),
        "environment": {},
        "finished": f"2026-01-01T00:00:{int(100 * accuracy):02d}Z",
    }
    return ResultRecord(**(values | changes))  # type: ignore[arg-type]


def runs_table(records: Sequence[ResultRecord], *options: Any, **more: Any) -> Table:
    """Returns the table of runs, by the registry."""
    return build_runs_table(records, RegisteredExperiments(load_registry()).changes, *options, **more)


def selection_table(records: Sequence[ResultRecord], **options: Any) -> Table:
    """Returns the table of selection bias, by the registry."""
    return build_selection_table(records, RegisteredExperiments(load_registry()).changes, **options)


def fold(number: int) -> Fold:
    """Returns a fold of five."""
    return Fold(number=number, folds=5, series="s" * 64)


def test_runs_table_folds_are_one_row_with_mean_and_deviation() -> None:
    records = [record(value, fold=fold(at), digest=f"{at}" * 64) for at, value in enumerate((0.5, 0.6, 0.7), 1)]
    table = runs_table(records)
    assert table.rows == [("hands", "paper", "A", "8", "3", "folds", "1", "1, 2, 3 of 5", "60.00 ± 10.00 (1)")]
    assert "ONLY 3 OF 5 FOLDS" in table.notes["1"]
    assert table.entries[0].numbers[0].value == 60.0


def test_runs_table_counts_the_folds_of_all_seeds() -> None:
    runs = [
        record(0.5 + (5 * seed + at) / 100, seed=seed, fold=fold(at), digest=f"{at}" * 64)
        for seed, folds in ((1, 5), (2, 2))
        for at in range(1, folds + 1)
    ]
    table = runs_table(runs)
    assert [row[6:8] for row in table.rows] == [("1, 2", "1, 2, 3, 4, 5 of 5")]
    assert "ONLY 7 OF 10 FOLDS OF 2 SEEDS" in table.notes["1"]
    groups = [one.model_copy(update={"fold": one.fold and one.fold.model_copy(update={"folds": None})}) for one in runs]
    assert "ONLY 7 OF 10 FOLDS OF 2 SEEDS" in runs_table(groups).notes["1"]
    assert "ONLY" not in runs_table(runs[:5]).notes["1"]


def test_runs_table_samples_without_events_are_those_of_one_run() -> None:
    data = DATA.model_copy(update={"without_events": 3})
    runs = [record(0.5 + seed / 10, seed=seed, data=data) for seed in (1, 2)]
    assert "; 3 SAMPLES WITHOUT EVENTS" in runs_table(runs).notes["1"]


@pytest.mark.parametrize(
    ("other", "texts"),
    [
        ({"digest": "e" * 64}, ("experiment dddddddd", "experiment eeeeeeee")),
        ({"data": DATA.model_copy(update={"cache": "f" * 64})}, ("data cccccccc", "data ffffffff")),
        (
            {"sessions": (Session(epochs=(1, 3), training_version=4, host="", environment={}),)},
            ("training version 1", "training version 4"),
        ),
    ],
)
def test_rows_that_look_the_same_name_what_they_differ_in(other: dict[str, Any], texts: tuple[str, str]) -> None:
    runs = [record(0.5), record(0.6, **other)]
    assert [row[1] for row in runs_table(runs).rows] == list(texts)
    unlike = runs_table([record(0.5), record(0.6, recipe="authors", **other)])
    assert "Changes" not in unlike.columns
    if "sessions" not in other:  # named for every run
        called = [row[1] for row in selection_table(runs).rows]
        assert [name.removeprefix("recipe paper, seed 1, training version 1, ") for name in called] == list(texts)


def test_selection_table_names_what_runs_of_one_name_change_or_the_runs() -> None:
    runs = [record(0.5), record(0.6, overrides=("train.lr=0.1",), digest="e" * 64), record(0.7)]
    table = selection_table(runs[:2], include_modified=True)
    assert [row[1].partition("training version 1")[2] for row in table.rows] == ["", ", train.lr=0.1"]
    again = [row[1].rpartition(", ")[2] for row in selection_table([runs[0], runs[2]]).rows]
    assert again == ["run run-0.5", "run run-0.7"]


def test_runs_table_seeds_are_one_row_and_the_latest_of_a_seed_counts() -> None:
    table = runs_table([record(0.5), record(0.55), record(0.65, seed=2)])
    assert [row[6:] for row in table.rows] == [("1, 2", "", "60.00 ± 7.07 (1)")]
    first, older, unverified, left_out = table.notes["1"].split("; ")
    assert first == "hands, runs run-0.55, run-0.65"
    assert older.startswith("training version 1: ")
    assert unverified == "source not verified"
    assert left_out == "left out, earlier with the same seed: run run-0.5"


def test_runs_table_names_versions_that_differ_and_sources_that_are_not_verified() -> None:
    verified = DATA.model_copy(update={"verified": True})
    cpu, gpu = {"torch": "2.5.1", "device": "cpu"}, {"torch": "2.13.0", "device": "NVIDIA H200"}
    runs = [record(0.5, data=verified, environment=cpu), record(0.6, seed=2, environment=gpu)]
    note = runs_table(runs).notes["1"]
    for text in ("DIFFERENT torch: 2.13.0, 2.5.1", "DIFFERENT device: NVIDIA H200, cpu", "source not verified"):
        assert f"; {text}" in note
    assert "DIFFERENT" not in runs_table(runs[:1]).notes["1"]
    assert "not verified" not in runs_table(runs[:1]).notes["1"]


def test_runs_table_what_is_not_comparable_has_a_row_of_its_own() -> None:
    different = [
        {"epochs": 2, "test_accuracy": (0.1, 0.2), "tau": ((2.0,), (2.0,)), "overrides": ("train.epochs=2",)},
        {"protocol": "B", "validation_accuracy": 0.5},
        {"digest": "e" * 64},
        {"recipe": "authors"},
        {"data": DATA.model_copy(update={"cache": "x" * 64})},
    ]
    table = runs_table([record(0.5), *(record(0.5, **changes) for changes in different)])
    assert len(table.rows) == 6


def test_runs_table_folds_that_stopped_at_different_epochs_are_one_row() -> None:
    lengths = {1: 2, 2: 3, 3: 3}
    stopped = [
        record(0.5 + at / 10, fold=fold(at), digest=f"{at}" * 64, epochs=epochs, stopped_early=at < 3)
        for at, epochs in lengths.items()
    ]
    table = runs_table(stopped)
    assert table.rows == [("hands", "paper", "A", "8", "2–3", "folds", "1", "1, 2, 3 of 5", "70.00 ± 10.00 (1)")]
    assert "stopped early" in table.notes["1"]


def test_runs_table_in_csv_and_json_has_the_epochs_samples_folds_and_deviation_of_all_runs_of_a_row() -> None:
    sizes = {1: (2, 19), 2: (3, 20), 3: (3, 21)}
    stopped = [
        record(
            0.5 + at / 10,
            fold=fold(at),
            digest=f"{at}" * 64,
            data=DATA.model_copy(update={"test": test}),
            epochs=epochs,
            stopped_early=at < 3,
        )
        for at, (epochs, test) in sizes.items()
    ]
    pooled, single = runs_table(stopped), runs_table([record(0.5)])
    (line,) = csv.DictReader(io.StringIO(pooled.to_csv()))
    names = ("experiment", "result", "std", "epochs", "test_samples", "seeds", "folds")
    assert [line[name] for name in names] == ["hands", "70.0", "10.0", "2–3", "", "1 1 1", "1 2 3"]
    (entry,) = pooled.to_dict()["entries"]
    assert [entry[name] for name in names[1:]] == [70.0, 10.0, "2–3", None, [1, 1, 1], [1, 2, 3]]
    (alone,) = single.to_dict()["entries"]
    assert [alone[name] for name in ("epochs", "test_samples", "folds")] == [3, 20, None]
    assert "std" not in alone


def test_runs_table_seeds_that_stopped_early_are_one_row_beside_a_shorter_run_of_another_protocol() -> None:
    seeds = [
        record(0.5 + seed / 10, seed=seed, epochs=epochs, stopped_early=epochs < 9, protocol="B")
        for seed, epochs in ((1, 5), (2, 9), (3, 7))
    ]
    refitted = record(0.9, epochs=4, protocol="C")
    rows = runs_table([*seeds, refitted]).rows
    assert sorted((row[2], row[4], row[6]) for row in rows) == [("B", "5–9", "1, 2, 3"), ("C", "4", "1")]


def test_runs_table_keeps_trainings_apart_that_were_planned_with_different_epochs() -> None:
    runs = [record(0.5, epochs=2), record(0.9, epochs=3, seed=2, stopped_early=True)]
    assert [row[4] for row in runs_table(runs).rows] == ["2", "3"]


def test_runs_table_names_an_experiment_that_was_changed_since() -> None:
    old, new = record(0.5, digest="e" * 64, run="old"), record(0.6)
    changed = {"old": ["the experiment has been changed since"]}
    table = build_runs_table([old, new], lambda one: changed.get(one.run, []))
    assert [(row[1], row[-1]) for row in table.rows] == [
        ("", "60.00 (1)"),
        ("the experiment has been changed since", "50.00 modified (2)"),
    ]


def test_runs_table_modified_subset_and_empty_samples_are_named() -> None:
    data = DATA.model_copy(update={"complete": False, "without_events": 3})
    table = runs_table([record(0.5, overrides=("neuron.tau_0=4.0",), data=data)])
    assert "SUBSET; 3 SAMPLES WITHOUT EVENTS; source not verified; MODIFIED: neuron.tau_0=4.0" in table.notes["1"]


def test_runs_table_explains_the_protocols_that_it_has() -> None:
    records = [record(0.5), record(0.6, protocol="C")]
    assert (
        "Protocol A: maximum over test epochs. "
        "Protocol C: test accuracy of the last epoch, trained on all but the test samples. Compare rows"
    ) in runs_table(records).source
    assert "Protocol C" not in runs_table(records[:1]).source


def test_runs_table_and_page_say_what_runs_must_share_to_be_compared() -> None:
    shared = "of the same protocol, recipe, T, epochs, samples and training version only."
    assert f"Compare rows {shared}" in runs_table([record(0.5)]).source
    assert f"Compare runs {shared}" in render_page(build_page_data([], [], "0"))


def test_runs_table_of_runs_on_a_part_of_the_samples_says_so() -> None:
    table = runs_table([record(0.5, overrides=("train.subset=0.1",))])
    assert table.rows[0][-1] == "50.00 subset modified (1)"
    assert "SUBSET; source not verified; MODIFIED: train.subset=0.1" in table.notes["1"]


def test_runs_table_imported_logs_are_left_out() -> None:
    assert runs_table([record(0.5, origin="imported")]).rows == []


def test_runs_table_marks_experiments_that_are_not_in_the_paper() -> None:
    records = [record(0.5, origin="authors"), record(0.6, origin="authors", experiment="feet")]
    table = runs_table(records, "authors", not_in_paper={"feet"})
    assert [row[0] for row in table.rows] == ["feet *", "hands"]
    assert "* not in the paper" in table.source
    assert "*" not in runs_table(records[:1], "authors", not_in_paper={"feet"}).source


def test_runs_table_of_the_authors_marks_the_eight_variants_of_their_logs_alone() -> None:
    table = fill_table("runs", load_records(Path("nowhere"), registry_dirs()), load_registry(), TableOptions("authors"))
    marked = [row[0].removesuffix(" *") for row in table.rows if row[0].endswith(" *")]
    others = ("lif", "lif-tau16", "plif-avgpool", "plif-tau16")
    assert marked == [f"{name}-{other}" for name in ("mnist", "nmnist") for other in others]


def test_runs_table_of_one_experiment_changed_in_a_file_and_by_an_option_is_one_row() -> None:
    changed = record(0.5, overrides=("neuron.tau_0=16.0",))
    table = runs_table([changed, record(0.6, seed=2)])  # the same digest: the file says it meanwhile
    assert [(row[0], row[6]) for row in table.rows] == [("hands", "1, 2")]  # unchanged: no such column
    both = runs_table([changed, record(0.6, seed=2, overrides=("neuron.tau_0=16", "train.seed=2"))])
    assert [(row[1], row[7]) for row in both.rows] == [("tau_0=16.0", "1, 2")]


def test_runs_table_change_that_is_none_in_protocol_c_is_one_in_the_others() -> None:
    changed = ("train.early_stop=null",)
    records = [record(0.5, protocol="B", overrides=changed), record(0.6, protocol="C", overrides=changed)]
    table = runs_table(records)
    assert {row[3]: row[1] for row in table.rows} == {"B": "early_stop=null", "C": ""}


def test_runs_table_folds_of_ones_own_experiment_are_not_modified() -> None:
    splits = ("split.method=folds", "split.test=null", "split.folds=5")
    records = [
        record(value, fold=fold(at), digest=f"{at}" * 64, overrides=(*splits, f"split.fold={at}"))
        for at, value in enumerate((0.5, 0.7), 1)
    ]
    table = runs_table(records)
    assert table.rows == [("hands", "paper", "A", "8", "3", "folds", "1", "1, 2 of 5", "60.00 ± 14.14 (1)")]
    assert "MODIFIED" not in table.notes["1"]
