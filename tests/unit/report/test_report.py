"""Tables: the printed numbers, which cell a run fills, and every format."""

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plifctl.config.registry import Registry, load_registry
from plifctl.errors import RegistryError, UsageError
from plifctl.paths import registry_dirs
from plifctl.report import FORMATS, TABLES, Table, build_table, render
from plifctl.report.selection import build_optimism
from plifctl.runs import ResultRecord, RunData, find_logs, import_log, load_records, save_imported


def record(experiment: str = "fashion-mnist-plif", **changes: Any) -> ResultRecord:
    data = {"verified": True, "complete": True, "train": 60000, "validation": 0, "test": 10000, "cache": "c"}
    data |= changes.pop("data", {})
    values: dict[str, Any] = {
        "schema_version": 1,
        "run": f"run-{experiment}",
        "experiment": experiment,
        "recipe": "paper",
        "protocol": "A",
        "dataset": "fashion-mnist",
        "T": 8,
        "seed": 2020,
        "epochs": 2,
        "overrides": (),
        "accuracy": 0.9046,
        "best_epoch": 2,
        "validation_accuracy": None,
        "test_accuracy": (0.9, 0.9046),
        "tau": ((2.0,), (2.1,)),
        "environment": {},
        "finished": "2026-01-01T00:00:00Z",
    }
    values |= changes
    spec = load_registry().experiment(experiment, recipe=values["recipe"]).for_protocol(values["protocol"]).spec
    return ResultRecord(**({"digest": spec.digest} | values), data=RunData(**data))


def table(name: str, *records: ResultRecord, **options: Any) -> Table:
    return build_table(name, records, load_registry(), **options)


def ours(found: Table) -> dict[tuple[str, str], list[str]]:
    return {(e.row, e.column): [n.text for n in e.numbers] for e in found.entries if e.numbers}


def published(name: str) -> dict[tuple[str, str], str]:
    return {(entry.row, entry.column): entry.published for entry in table(name).entries}


def test_printed_numbers() -> None:
    assert published("2")[("paper", "CIFAR10-DVS")] == "74.80"
    assert published("2")[("[75]", "Fashion-MNIST")] == "90.13"
    assert len({row for row, _ in published("2")}) == 21
    assert published("3")[("N-MNIST", "T")] == "10"
    assert published("4")[("LIF (τ = 16)", "CIFAR-10")] == "47.50"
    assert published("5")[("average", "Fashion-MNIST")] == "94.74"
    assert published("S2")[("CIFAR10-DVS", "15 % validation")] == "69.00"


def test_printed_numbers_are_the_experiments_own() -> None:
    registry = load_registry()
    for name in ("4", "5", "S2"):
        for entry in table(name, *(record(e) for e in registry.experiments())).entries:
            for number in entry.numbers:
                of = registry.experiment(number.records[0].experiment).spec.reported
                assert of is not None
                assert f"{of.accuracy_a:.2f}" == entry.published


def test_the_registry_builds_the_printed_networks() -> None:
    for entry in (*table("1").entries, *table("S1").entries):
        (number,) = entry.numbers
        assert number.text == entry.published.replace("PLIF", "SN")


@pytest.mark.parametrize("name", ["2", "3", "4", "5", "S2"])
def test_without_runs_our_cells_are_empty(name: str) -> None:
    assert ours(table(name)) == {}
    assert table(name).notes == ()


def test_a_run_fills_its_cells_and_no_other() -> None:
    runs = [record(), record("gesture-lif-tau16", T=20), record(protocol="B", accuracy=0.9)]
    assert ours(table("4", *runs)) == {
        ("PLIF (τ₀ = 2)", "Fashion-MNIST"): ["90.46"],
        ("LIF (τ = 16)", "DVS128 Gesture"): ["90.46"],
    }
    assert ours(table("S2", *runs)) == {
        ("Fashion-MNIST", "without validation"): ["90.46"],
        ("Fashion-MNIST", "15 % validation"): ["90.00"],
    }
    assert ours(table("3", *runs)) == {("Fashion-MNIST", "T"): ["8"]}
    assert ours(table("2", *runs)) == {("paper", "Fashion-MNIST"): ["90.46"]}


def test_a_note_says_how_a_number_came_about() -> None:
    ((mark, note),) = table("4", record(data={"complete": False, "verified": False, "train": 800, "test": 100})).notes
    assert mark == "a"
    for part in (
        "fashion-mnist-plif",
        "protocol A",
        "recipe paper",
        "T = 8",
        "2 of 1024 epochs",
        "seed 2020",
        "run run-",
    ):
        assert part in note
    assert "SUBSET: 800 training and 100 test samples" in note
    assert "not verified" in note


def test_how_far_ours_is_from_the_published() -> None:
    runs = [record(), record(protocol="B", accuracy=0.95, run="b")]
    differences = {e.column: n.difference for e in table("S2", *runs).entries for n in e.numbers}
    assert differences == {"without validation": pytest.approx(-3.92), "15 % validation": pytest.approx(1.15)}
    assert [n.difference for e in table("3", *runs).entries for n in e.numbers] == [None]
    (row,) = [r for r in csv.DictReader(io.StringIO(render([table("4", *runs)], "csv"))) if r["ours"]]
    assert row["difference"] == "-3.92"


def test_numbers_of_one_epoch() -> None:
    run = record(recipe="authors", epochs=2, test_accuracy=(0.88, None), tau=((1.5, 1.9, 2.0, 2.5), ()))
    found = {(e.row, e.column): [(n.text, n.difference) for n in e.numbers] for e in table("early", run).entries}
    first = "PLIF (τ₀ = 2), 1"
    assert found[(first, "accuracy")] == [("88.00", pytest.approx(-0.96))]
    assert found[(first, "τ(0)")] == [("1.500", pytest.approx(-0.26))]
    assert found[(first, "τ(3)")] == [("2.500", pytest.approx(0.231))]
    assert all(not numbers for (row, _), numbers in found.items() if row != first)
    text = render([table("early", run)], "markdown")
    assert "1.500 −0.260 (a)" in text


def imported(**changes: Any) -> ResultRecord:
    found = record(origin="imported", recipe="authors", epochs=3, test_accuracy=(0.5, None, 0.25), **changes)
    return found.model_copy(update={"data": None, "digest": None})


def test_imported_runs_do_not_count_as_ours() -> None:
    log = imported(accuracy=0.5, best_epoch=1)
    assert ours(table("4", log)) == {}
    assert ours(table("4", record(), log, source="published")) == {("PLIF (τ₀ = 2)", "Fashion-MNIST"): ["50.00"]}
    ((_, note),) = table("4", log, source="published").notes
    assert "imported, 2 epochs logged, chosen: epoch 1" in note


def test_what_else_a_run_could_have_reported() -> None:
    tests = (0.5, 0.9, *(0.8,) * 70, None, 0.6)
    long = record(epochs=74, test_accuracy=tests, accuracy=0.9, tau=())
    chosen = record(protocol="B", accuracy=0.7, test_accuracy=(0.7, 0.75), run="b")
    modified = record(overrides=("train.lr=0.1",), run="m")
    once = record(protocol="B", test_accuracy=(None, 0.9), run="once")
    found = build_optimism([long, chosen, modified, once, imported()])
    values = {(e.row, e.column): e.numbers[0].value for e in found.entries}
    assert {row for row, _ in values} == {long.run, "b"} | {imported().run}
    last = [0.8] * 62 + [0.6]
    assert values[(long.run, "mean of the last 64 (logged)")] == pytest.approx(100 * sum(last) / len(last))
    assert values[(long.run, "best − last")] == pytest.approx(30)
    assert values[("b", "best − reported")] == pytest.approx(5)
    assert "In one of the published logs, protocol A, a maximum over test epochs lies 25.0 points" in found.source
    assert "In one of the runs of ours, protocol A, a maximum over test epochs lies 30.0 points" in found.source
    assert "In one of the runs of ours, protocol B, the best test epoch lies 5.0 points" in found.source
    assert len(build_optimism([modified], include_modified=True).rows) == 1
    tied = record(epochs=3, test_accuracy=(0.9, 0.9, 0.5), accuracy=0.9, best_epoch=2, tau=())
    ((*_, best, _last, _mean, _1, _2, _3),) = build_optimism([tied]).rows
    assert best.published == "90.00 (2)"  # the epoch that the run itself names


@pytest.mark.real
def test_tables_from_the_published_logs_are_the_printed_ones(shared: Path, tmp_path: Path) -> None:
    registry = load_registry()
    folder = shared / "data/published-logs"
    for log in find_logs(folder):
        save_imported(import_log(log, folder, tags={}, experiments=registry.experiments()), tmp_path)
    records = load_records(tmp_path, registry.folders)
    cells = {"2": 6, "4": 16, "5": 8, "S2": 8, "early": 10}
    for name, wanted in cells.items():
        filled = [e for e in build_table(name, records, registry, source="published").entries if e.numbers]
        assert len(filled) == wanted
        for entry in filled:
            assert [number.text for number in entry.numbers] == [f"{float(entry.published):.2f}"]
    source = build_optimism([r for r in records if r.origin == "imported"]).source
    assert "In 30 published logs, protocol A, a maximum over test epochs lies 0.1 to 26.7 points" in source
    assert "In 2 published logs, protocol B, the best test epoch lies 0.7 to 1.8 points" in source


def test_recipes_stand_side_by_side() -> None:
    found = table("4", record(), record(recipe="authors", accuracy=0.91, run="p"))
    assert ours(found)[("PLIF (τ₀ = 2)", "Fashion-MNIST")] == ["90.46", "91.00"]
    assert len(found.notes) == 2


def test_which_run_counts() -> None:
    long = record(epochs=10, accuracy=0.5, run="long")
    subset = record(epochs=100, accuracy=0.99, run="subset", data={"complete": False})
    assert ours(table("5", record(), long, subset)) == {("max", "Fashion-MNIST"): ["50.00"]}
    later = record(accuracy=0.8, run="later", finished="2026-02-01T00:00:00Z")
    assert ours(table("5", later, record())) == {("max", "Fashion-MNIST"): ["80.00"]}


def test_several_seeds_give_mean_and_deviation() -> None:
    runs = [record(seed=seed, accuracy=accuracy, run=str(seed)) for seed, accuracy in ((1, 0.90), (2, 0.92), (3, 0.94))]
    found = table("5", *runs)
    assert ours(found) == {("max", "Fashion-MNIST"): ["92.00 ± 2.00"]}
    assert "seeds 1, 2, 3" in found.notes[0][1]


def test_modified_runs_stay_out_unless_asked() -> None:
    modified = record(overrides=("train.lr=0.1", "train.epochs=2"))
    assert ours(table("4", modified)) == {}
    assert "MODIFIED: train.lr=0.1" in table("4", modified, include_modified=True).notes[0][1]
    assert ours(table("4", record(overrides=("train.epochs=2", "train.seed=1")))) != {}


def test_runs_of_an_experiment_that_was_defined_otherwise_stay_out_unless_asked() -> None:
    other = record(digest="0" * 64)
    assert ours(table("4", other)) == {}
    found = table("4", other, include_modified=True)
    assert ours(found) != {}
    assert "MODIFIED: the experiment was defined otherwise" in found.notes[0][1]


def test_unknown_table() -> None:
    with pytest.raises(UsageError, match="unknown table '6'"):
        table("6")


def test_an_invalid_table_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables/table-4.yaml"
    for text in (
        "caption: [",
        "caption: x\n",
        "caption: x\nsource: y\nours: columns\ncolumns: {a:, b:}\nrows: {c: {cells: []}}\n",
    ):
        path.write_text(text)
        with pytest.raises(RegistryError, match=r"table-4.yaml"):
            build_table("4", [], Registry([*registry_dirs(), tmp_path]))


HOSTILE = record(run="a|b_\\[red]\x1b[31m$%&#{}~^=1\n")


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_run_is_called_does_no_harm(form: str) -> None:
    text = render([table("4", HOSTILE)], form)  # type: ignore[arg-type]
    assert "\x1b" not in text
    assert "90.46" in text
    if form == "markdown":
        assert "a\\|b" in text
    if form == "latex":
        assert r"\_\textbackslash{}" in text
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_terminal() -> None:
    text = render([table("S2", record())], "table", width=100)
    assert "90.46 −3.92 (a)" in text
    assert max(map(len, text.splitlines())) <= 118


def test_markdown_rows_have_as_many_cells() -> None:
    for name in TABLES:
        text = render([table(name, record())], "markdown")
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_csv_and_json_hold_every_number() -> None:
    tables = [table(name, record()) for name in TABLES]
    rows = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    tree = json.loads(render(tables, "json"))
    assert len(rows) == sum(len(t["entries"]) for t in tree)
    (row,) = [r for r in rows if r["table"] == "4" and r["ours"]]
    assert (row["published"], row["ours"], row["T"], row["epochs"], row["runs"]) == (
        "94.38",
        "90.46",
        "8",
        "2",
        "run-fashion-mnist-plif",
    )
    (entry,) = [e for e in tree[3]["entries"] if e["ours"]]
    assert entry["ours"] == 90.46
    assert entry["protocol"] == "A"


def has_latex() -> bool:
    """Whether LaTeX is here, with the packages that the tables need."""
    if shutil.which("pdflatex") is None:
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty", "graphicx.sty"], capture_output=True, text=True, check=False)
    return len(found.stdout.split()) == 2


@pytest.mark.skipif(not has_latex(), reason="no LaTeX with booktabs and graphicx here")
def test_latex_compiles(tmp_path: Path) -> None:
    tables = [table(name, record(), HOSTILE) for name in (*TABLES, "context")]
    body = render([*tables, build_optimism([record()])], "latex")
    text = (
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs,graphicx}\\begin{document}"
        + body
        + "\\end{document}"
    )
    (tmp_path / "x.tex").write_text(text, encoding="utf-8")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("width", [60, 80, 118])
def test_a_table_is_no_wider_than_the_terminal(width: int) -> None:
    runs = [record(name) for name in ("fashion-mnist-plif", "gesture-plif", "gesture-plif-avgpool")]
    drawn = [table(name, *runs) for name in ("2", "4", "5", "S2")]
    drawn.append(build_optimism([one.model_copy(update={"test_accuracy": (0.5, one.accuracy)}) for one in runs]))
    for found in drawn:
        text = render([found], "table", width=width)
        assert max(map(len, text.splitlines())) <= width
        assert all(text.count(head.split()[0]) for head in found.columns)


def test_a_table_without_ours_has_its_cells_in_every_form() -> None:
    found = table("context")
    lines = list(csv.DictReader(io.StringIO(render([found], "csv"))))
    assert ("PSN", "CIFAR-10", "95.32 (4)") in {(line["row"], line["column"], line["published"]) for line in lines}


@pytest.mark.parametrize("width", [20, 60, 80, 118])
def test_a_narrow_terminal_cuts_no_number_off(width: int) -> None:
    for name in ("2", "4", "5", "S2"):
        found = table(name, *map(record, ("fashion-mnist-plif", "gesture-plif", "gesture-plif-avgpool")))
        words = render([found], "table", width=width).split()
        numbers = [cell.published for row in found.rows for cell in row if re.fullmatch(r"\d+\.\d+", cell.published)]
        ours = [
            number for row in found.rows for cell in row for number in cell.numbers if number.difference is not None
        ]
        assert ours
        numbers += [f"{number.difference:+.2f}".replace("-", "−") for number in ours]
        assert all(words.count(number) >= numbers.count(number) for number in numbers)
