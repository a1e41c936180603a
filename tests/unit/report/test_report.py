"""Report tables: the reported numbers, the cells that runs fill, and every format."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from plifctl.cli.tables import table_text
from plifctl.config.choices import OTHER_TABLES, PROTOCOLS, TABLES
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import RegistryError, UsageError
from plifctl.paths import registry_dirs
from plifctl.report import Table, TableOptions, fill_table
from plifctl.report.render import csv_text
from plifctl.report.selection import build_selection_table
from plifctl.report.table import Cell
from plifctl.runs import (
    RegisteredExperiments,
    ResultRecord,
    RunData,
    find_logs,
    import_log,
    load_records,
    save_imported,
)
from plifctl.runs.sessions import Session
from plifctl.training.progress import TRAINING_VERSION


@cache
def registry() -> Registry:
    return load_registry()


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
    resolved = registry().experiment(experiment, recipe=values["recipe"], overrides=values["overrides"])
    spec = resolved.for_protocol(values["protocol"]).spec
    return ResultRecord(**({"digest": spec.digest} | values), data=RunData(**data))


def table(name: str, *records: ResultRecord, **options: Any) -> Table:
    return fill_table(name, records, registry(), TableOptions(**options))


def selection_table(records: Sequence[ResultRecord], **options: Any) -> Table:
    return build_selection_table(records, RegisteredExperiments(registry()).changes, **options)


def results(found: Table) -> dict[tuple[str, str], list[str]]:
    return {(e.row, e.column): [n.text for n in e.numbers] for e in found.entries if e.numbers}


def reported(name: str) -> dict[tuple[str, str], str]:
    return {(entry.row, entry.column): entry.reported for entry in table(name).entries}


def test_build_table_has_the_numbers_of_the_paper() -> None:
    assert reported("2")[("paper", "CIFAR10-DVS")] == "74.80"
    assert reported("2")[("[75]", "Fashion-MNIST")] == "90.13"
    assert len({row for row, _ in reported("2")}) == 21
    assert reported("3")[("N-MNIST", "T")] == "10"
    assert reported("4")[("LIF (τ = 16)", "CIFAR-10")] == "47.50"
    assert reported("5")[("average", "Fashion-MNIST")] == "94.74"
    assert reported("S2")[("CIFAR10-DVS", "15 % validation")] == "69.00"


def test_build_table_reports_the_same_numbers_as_the_experiments() -> None:
    records = [record(e, protocol=p, run=f"{e}-{p}") for e in registry().experiments() for p in PROTOCOLS]
    for name, cells in (("4", 16), ("5", 8), ("S2", 12)):
        checked = 0
        for entry in table(name, *records).entries:
            for number in entry.numbers:
                (used,) = number.records
                of = registry().experiment(used.experiment).spec.reported
                assert of is not None
                accuracy = of.accuracy_a if used.protocol == "A" else of.accuracy_b
                assert f"{accuracy:.2f}" == entry.reported
                assert (used.protocol == "B") == (entry.column == "15 % validation")
                checked += 1
        assert checked == cells


def test_build_table_of_networks_has_the_structures_of_the_registry() -> None:
    for entry in (*table("1").entries, *table("S1").entries):
        number, *others = entry.numbers
        assert number.text == entry.reported.replace("PLIF", "SN")
        assert [other.note for other in (number, *others)] == (["recipe paper", "recipe authors"] if others else [""])
    authors = {entry.row: entry.numbers[1].text for entry in table("S1").entries if len(entry.numbers) > 1}
    assert authors == {
        "CIFAR-10": "{{c256k3s1-BN-SN}*3-MPk2s2}*2-DP-FC2048-SN-FC100-SN-APk10s10",
        "CIFAR10-DVS": "{c128k3s1-BN-SN-MPk2s2}*4-DP-FC2048-SN-DP-FC100-SN-APk10s10",
    }
    assert '"note": "recipe authors"' in table("S1").to_json()


def test_build_table_selection_marks_the_experiments_that_are_not_in_the_paper() -> None:
    found = table("selection", *load_records(Path("nowhere"), registry().folders))
    marked = {row[0].text for row in found.cells if row[0].text.endswith(" *")}
    variants = ("plif-tau16", "lif", "lif-tau16", "plif-avgpool")
    assert marked == {f"{dataset}-{variant} *" for dataset in ("mnist", "nmnist") for variant in variants}
    assert "* not in the paper" in found.source
    assert "* not" not in table("selection", record(test_accuracy=(0.5, 0.6))).source


def test_build_table_2_has_the_papers_bold_marks_at_the_highest_earlier_accuracy_on_all_classes() -> None:
    found = table("2")
    earlier = [row for row in found.cells if row[0].text.startswith("[")]
    for index, column in enumerate(found.columns[2:], 2):
        numbers = {row[index].text: row[index].bold for row in earlier if re.fullmatch(r"[\d.]+", row[index].text)}
        (bold,) = (text for text, is_bold in numbers.items() if is_bold)
        assert bold == max(numbers, key=float), column
    ten_classes = {row[0].text: row[-1].text for row in earlier if row[0].text in ("[13]", "[23]")}
    assert ten_classes == {"[13]": "96.09 (10 classes)", "[23]": "93.40"}
    assert "| **95.54** |" in found.to_markdown()
    assert r"& \textbf{95.54} \\" in found.to_latex()
    assert "<strong>95.54</strong>" in found._repr_html_()


@pytest.mark.parametrize("name", ["2", "3", "4", "5", "S2"])
def test_build_table_without_runs_has_empty_result_cells(name: str) -> None:
    assert results(table(name)) == {}
    assert table(name).notes == {}


def test_build_table_with_runs_fills_their_cells_only() -> None:
    runs = [record(), record("gesture-lif-tau16", T=20), record(protocol="B", accuracy=0.9)]
    assert results(table("4", *runs)) == {
        ("PLIF (τ₀ = 2)", "Fashion-MNIST"): ["90.46"],
        ("LIF (τ = 16)", "DVS128 Gesture"): ["90.46"],
    }
    assert results(table("S2", *runs)) == {
        ("Fashion-MNIST", "without validation"): ["90.46"],
        ("Fashion-MNIST", "15 % validation"): ["90.00"],
    }
    assert results(table("3", *runs)) == {("Fashion-MNIST", "T"): ["8"]}
    assert results(table("2", *runs)) == {("paper", "Fashion-MNIST"): ["90.46"]}


def test_note_of_a_number_names_settings_and_run() -> None:
    subset = record(data={"complete": False, "verified": False, "train": 800, "test": 100, "without_events": 7})
    ((mark, note),) = table("4", subset).notes.items()
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
    assert "SUBSET: 800 training and 100 test samples; 7 SAMPLES WITHOUT EVENTS" in note
    assert "not verified" in note


def test_difference_of_a_whole_training_is_result_minus_reported() -> None:
    runs = [record(epochs=1024), record(epochs=1024, protocol="B", accuracy=0.95, run="b")]
    differences = {e.column: n.difference for e in table("S2", *runs).entries for n in e.numbers}
    assert differences == {"without validation": pytest.approx(-3.92), "15 % validation": pytest.approx(1.15)}
    assert [n.difference for e in table("3", *runs).entries for n in e.numbers] == [None]
    (row,) = [r for r in csv.DictReader(io.StringIO(table("4", *runs).to_csv())) if r["result"]]
    assert row["difference"] == "-3.92"


def test_build_table_of_early_epochs_uses_the_numbers_of_that_epoch() -> None:
    run = record(recipe="authors", epochs=2, test_accuracy=(0.88, None), tau=((1.5, 1.9, 2.0, 2.5), ()))
    found = {(e.row, e.column): [(n.text, n.difference) for n in e.numbers] for e in table("early", run).entries}
    first = "PLIF (τ₀ = 2), 1"
    assert found[(first, "accuracy")] == [("88.00", pytest.approx(-0.96))]
    assert found[(first, "τ(0)")] == [("1.500", pytest.approx(-0.26))]
    assert found[(first, "τ(3)")] == [("2.500", pytest.approx(0.231))]
    assert all(not numbers for (row, _), numbers in found.items() if row != first)
    assert "1.500 −0.260 (a)" in table("early", run).to_markdown()


def imported(**changes: Any) -> ResultRecord:
    changes = {"origin": "authors"} | changes
    found = record(recipe="authors", epochs=3, test_accuracy=(0.5, None, 0.25), **changes)
    return found.model_copy(update={"data": None, "digest": None})


def test_build_table_uses_the_authors_runs_for_the_source_authors_only() -> None:
    log = imported(accuracy=0.5, best_epoch=1)
    assert results(table("4", log)) == {}
    assert results(table("4", record(), log, source="authors")) == {("PLIF (τ₀ = 2)", "Fashion-MNIST"): ["50.00"]}
    found = table("4", log, source="authors")
    assert "authors, Δ" in found.columns
    assert "the authors' log, 2 epochs logged, best epoch 1" in found.notes["a"]
    other = imported(accuracy=0.6, best_epoch=1, origin="imported", run="other")
    assert results(table("4", log, other, source="authors")) == {("PLIF (τ₀ = 2)", "Fashion-MNIST"): ["50.00"]}
    found = table("4", log, other, source="imported")
    assert results(found) == {("PLIF (τ₀ = 2)", "Fashion-MNIST"): ["60.00"]}
    assert "a log of other code, 2 epochs logged, best epoch 1" in found.notes["a"]


def test_selection_table_compares_best_last_and_mean() -> None:
    tests = (0.5, 0.9, *(0.8,) * 70, None, 0.6)
    long = record(epochs=74, test_accuracy=tests, accuracy=0.9, tau=())
    chosen = record(protocol="B", accuracy=0.7, test_accuracy=(0.7, 0.75), run="b")
    modified = record(overrides=("train.lr=0.1",), run="m")
    once = record(protocol="B", test_accuracy=(None, 0.9), run="once")
    found = selection_table([long, chosen, modified, once, imported()])
    values = {(e.row, e.column): e.numbers[0].value for e in found.entries}
    assert {row for row, _ in values} == {long.run, "b"} | {imported().run}
    assert found.warnings == (
        "left out: m: modified (train.lr=0.1): --include-modified counts such runs",
        "left out: once: tested after one epoch only",
    )
    last = [0.8] * 62 + [0.6]
    assert values[(long.run, "mean of the last 64 (logged)")] == pytest.approx(100 * sum(last) / len(last))
    assert values[(long.run, "best − last")] == pytest.approx(30)
    assert values[("b", "best − result")] == pytest.approx(5)
    assert "In the authors' one log of protocol A, a maximum over test epochs is 25.0 points" in found.source
    assert "In my one run of protocol A, a maximum over test epochs is 30.0 points" in found.source
    assert "In my one run of protocol B, the best test epoch is 5.0 points" in found.source
    assert len(selection_table([modified], include_modified=True).cells) == 1
    tied = record(epochs=3, test_accuracy=(0.9, 0.9, 0.5), accuracy=0.9, best_epoch=2, tau=())
    ((*_, best, _last, mean, _1, _2, above_mean),) = selection_table([tied]).cells
    assert best.text == "90.00 (2)"  # the epoch that the run itself reports
    assert (mean.text, above_mean.text) == ("", "")  # of 3 epochs: the mean of the beginning
    validated = {"recipe": "authors", "protocol": "B", "epochs": 3, "accuracy": 0.5, "best_epoch": 3, "tau": ()}
    (cells,) = selection_table([record(**validated, test_accuracy=(0.9, 0.9, 0.5))]).cells
    assert cells[4].text == "90.00 (2)"  # of equal ones the latest, as the recipe


@pytest.mark.slow
@pytest.mark.real
def test_build_table_from_the_authors_logs_gives_the_reported_numbers(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/published-logs"
    for log in find_logs(folder):
        save_imported(import_log(log, folder, tags={}, experiments=registry().experiments()), tmp_path)
    records = load_records(tmp_path, registry().folders)
    cells = {"2": 6, "4": 16, "5": 8, "S2": 8, "early": 10}
    for name, wanted in cells.items():
        filled = [e for e in table(name, *records, source="authors").entries if e.numbers]
        assert len(filled) == wanted
        for entry in filled:
            assert [number.text for number in entry.numbers] == [f"{float(entry.reported):.2f}"]
    source = selection_table([r for r in records if r.origin == "authors"]).source
    assert "In the authors' 30 logs of protocol A, a maximum over test epochs is 0.1 to 26.7 points" in source
    assert "In the authors' 2 logs of protocol B, the best test epoch is 0.7 to 1.8 points" in source


def test_build_table_with_both_recipes_has_a_number_of_each() -> None:
    found = table("4", record(), record(recipe="authors", accuracy=0.91, run="p"))
    assert results(found)[("PLIF (τ₀ = 2)", "Fashion-MNIST")] == ["90.46", "91.00"]
    assert len(found.notes) == 2


def test_build_table_prefers_complete_data_then_epochs_then_the_latest() -> None:
    long = record(epochs=10, accuracy=0.5, run="long")
    subset = record(epochs=100, accuracy=0.99, run="subset", data={"complete": False})
    assert results(table("5", record(), long, subset)) == {("max", "Fashion-MNIST"): ["50.00"]}
    later = record(accuracy=0.8, run="later", finished="2026-02-01T00:00:00Z")
    assert results(table("5", later, record())) == {("max", "Fashion-MNIST"): ["80.00"]}


def test_build_table_with_several_seeds_gives_mean_and_deviation() -> None:
    runs = [record(seed=seed, accuracy=accuracy, run=str(seed)) for seed, accuracy in ((1, 0.90), (2, 0.92), (3, 0.94))]
    found = table("5", *runs)
    assert results(found) == {("max", "Fashion-MNIST"): ["92.00 ± 2.00"]}
    assert "seeds 1, 2, 3" in found.notes["a"]


def test_build_table_leaves_modified_runs_out_by_default() -> None:
    modified = record(overrides=("train.lr=0.1", "train.epochs=2"))
    assert results(table("4", modified)) == {}
    assert "MODIFIED: train.lr=0.1" in table("4", modified, include_modified=True).notes["a"]
    assert results(table("4", record(overrides=("train.epochs=2", "train.seed=1")))) != {}


def test_build_table_leaves_runs_of_a_changed_experiment_out_by_default() -> None:
    other = record(digest="0" * 64)
    assert results(table("4", other)) == {}
    found = table("4", other, include_modified=True)
    assert results(found) != {}
    assert "MODIFIED: the experiment has been changed since" in found.notes["a"]


def test_build_table_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown table '6'"):
        table("6")


@pytest.mark.parametrize("folder", ["tables", "published"])
def test_build_table_with_an_invalid_file_names_it(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "table-4.yaml"
    for text in (
        "caption: [",
        "caption: x\n",
        "caption: x\nsource: y\nours: columns\ncolumns: {a:, b:}\nrows: {c: {cells: []}}\n",
    ):
        path.write_text(text)
        with pytest.raises(RegistryError, match=r"table-4.yaml"):
            fill_table("4", [], Registry([*registry_dirs(), tmp_path]))


def test_build_table_reads_the_folder_of_0_1_0_and_prefers_todays(tmp_path: Path) -> None:
    for folder in ("published", "tables"):
        (tmp_path / folder).mkdir()
        text = f"caption: {folder}\nsource: mine\nours: columns\ncolumns: {{a: , b: accuracy A}}\nrows: {{}}\n"
        (tmp_path / folder / "table-mine.yaml").write_text(text)
        caption = fill_table("mine", [], Registry([*registry_dirs(), tmp_path])).caption
        assert caption == f"{folder}; results of protocol A are maxima over test epochs"


HOSTILE = record(run="a|b_<b>\\[red]\x1b[31m$%&#{}~^=1\n")


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "json", "latex", "html"])
def test_table_with_a_hostile_run_name_is_escaped(form: str) -> None:
    found = table("4", HOSTILE)
    text = {
        "terminal": table_text,
        "markdown": Table.to_markdown,
        "csv": Table.to_csv,
        "json": Table.to_json,
        "latex": Table.to_latex,
        "html": Table._repr_html_,
    }[form](found)
    assert "\x1b" not in text
    assert "90.46" in text
    if form == "markdown":
        assert "a\\|b" in text
    if form == "html":
        assert "<b>" not in text
    if form == "latex":
        assert r"b\_\textless{}b\textgreater{}\textbackslash{}" in text
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def session(last: int, torch: str, version: int = 1, first: int = 1) -> Session:
    environment = {"torch": torch, "device": "cpu", "plifctl": "0.2.0"}
    return Session(epochs=(first, last), training_version=version, host="h", environment=environment)


def test_seeds_of_different_training_versions_have_no_common_mean() -> None:
    seeds = [(1, 1, 0.90), (2, 1, 0.92), (3, 7, 0.50)]  # seed, version, accuracy
    records = [
        record(run=f"r{seed}", seed=seed, accuracy=accuracy, sessions=(session(2, "2.6.0", version),))
        for seed, version, accuracy in seeds
    ]
    assert results(table("5", *records[:2]))[("max", "Fashion-MNIST")] == ["91.00 ± 1.41"]
    newest = [*records[:2], records[2].model_copy(update={"finished": "2027-01-01T00:00:00Z"})]
    found = table("5", *newest)
    assert results(found)[("max", "Fashion-MNIST")] == ["50.00"]
    for version, shown in ((7, found), (1, table("5", *records[:2]))):
        assert f"training version {version}: version {TRAINING_VERSION}, that of today, gives" in shown.notes["a"]
    theirs = table("5", imported(), source="authors")
    assert theirs.notes
    assert not any("training version" in note for note in theirs.notes.values())
    assert found.warnings == ("left out: r1, r2: training version 1, which gives other numbers",)
    both = records[0].model_copy(update={"sessions": (session(1, "2.6.0"), session(2, "2.6.0", 7, first=2))})
    assert results(table("5", both, records[1]))[("max", "Fashion-MNIST")] == ["90.00"]


def test_note_names_torch_device_and_code_where_they_differ() -> None:
    same = [record(run=f"r{seed}", seed=seed, sessions=(session(2, "2.6.0"),)) for seed in (1, 2)]
    assert "DIFFERENT" not in table("5", *same).notes["a"]
    other = record(run="r2", seed=2, sessions=(session(1, "2.5.1"), session(2, "2.6.0", first=2)))
    assert "DIFFERENT torch: 2.5.1, 2.6.0" in table("5", same[0], other).notes["a"]
    old = record(run="r2", seed=2, environment={"torch": "2.6.0", "device": "cpu", "plifctl": "0.1.0"})  # no sessions
    note = table("5", same[0], old).notes["a"]
    assert "DIFFERENT plifctl: 0.1.0, 0.2.0" in note
    assert "DIFFERENT torch" not in note


def test_note_says_that_the_source_of_one_of_several_runs_is_not_verified() -> None:
    known = [RunData(verified=v, complete=True, train=8, validation=0, test=2, cache="c") for v in (True, False)]
    runs = [record(run=f"r{seed}", seed=seed, data=data) for seed, data in enumerate(known)]
    assert "source not verified" in table("5", *runs).notes["a"]
    assert "source not verified" not in table("5", runs[0]).notes["a"]


def test_table_text_has_title_numbers_and_notes() -> None:
    text = table_text(table("S2", record()), 100)
    title = "Table S2. Accuracy (%) without and with a validation set; results of protocol A are maxima over"
    assert text.startswith(f"{title} test\nepochs\n\n")
    assert "90.46 @2 (a)" in text
    assert "(a) fashion-mnist-plif: protocol A" in text


def test_rows_are_the_cells_as_text() -> None:
    found = table("S2", record(epochs=1024))
    assert found.columns == ("Data set", "without validation", "result, Δ", "15 % validation", "result, Δ")
    assert found.rows[1] == ("Fashion-MNIST", "94.38", "90.46 −3.92 (a)", "93.85", "")
    caption = "Accuracy (%) without and with a validation set; results of protocol A are maxima over test epochs"
    assert found.title == f"Table S2. {caption}"


def test_notebook_shows_cells_and_notes_as_html_and_markdown() -> None:
    found = table("S2", record(epochs=1024))
    assert "<td>Fashion-MNIST</td>" in found._repr_html_()
    assert ">90.46 −3.92 (a)</td>" in found._repr_html_()
    assert "<p>(a) fashion-mnist-plif: protocol A" in found._repr_html_()
    assert found._repr_markdown_() == found.to_markdown()


def test_to_markdown_rows_have_as_many_cells_as_columns() -> None:
    for name in TABLES:
        text = table(name, record()).to_markdown()
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_csv_and_json_have_every_number() -> None:
    tables = [table(name, record()) for name in TABLES]
    rows = list(csv.DictReader(io.StringIO(csv_text(tables))))
    tree = [json.loads(found.to_json()) for found in tables]
    assert len(rows) == sum(len(t["entries"]) for t in tree)
    (row,) = [r for r in rows if r["table"] == "4" and r["result"]]
    assert (row["reported"], row["result"], row["T"], row["epochs"], row["runs"]) == (
        "94.38",
        "90.46",
        "8",
        "2",
        "run-fashion-mnist-plif",
    )
    (entry,) = [e for e in tree[3]["entries"] if e["result"]]
    assert entry["result"] == 90.46
    assert entry["protocol"] == "A"


def test_to_latex_keeps_every_character_or_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    def text_of(cell: str) -> str:
        found = Table("x", "caption", "source", ("a",), ((Cell(cell),),), ()).to_latex()
        return found.partition("\\midrule\n")[2].partition(r" \\")[0]

    dashes = {"--run a---b": "-{}-run a-{}-{}-b", "5–9": "5--9", "–-–": "--{}-{}--"}
    letters = {"αλμΩ": r"$\alpha$$\lambda$$\mu$$\Omega$", "≤|≥": r"$\leq$\textbar{}$\geq$"}
    assert {cell: text_of(cell) for cell in dashes | letters} == dashes | letters
    assert caplog.messages == []
    assert text_of("手 été 手, 口") == "? été ?, ?"
    assert caplog.messages == ["table x in LaTeX: its fonts lack 口 手: written as ?"]


def has_latex() -> bool:
    """Whether LaTeX is here, with the packages that the tables need."""
    if shutil.which("pdflatex") is None:
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty", "graphicx.sty"], capture_output=True, text=True, check=False)
    return len(found.stdout.split()) == 2


@pytest.mark.subprocess
@pytest.mark.skipif(not has_latex(), reason="no LaTeX with booktabs and graphicx here")
def test_to_latex_compiles_and_no_table_exceeds_its_page(tmp_path: Path) -> None:
    """Every table: bold cells, means ± deviations, τ₀, underscores and worse in names, more notes than fit a page."""
    ours = [record(), record(seed=2, run="run_with_underscores", accuracy=0.9), HOSTILE]
    authors = load_records(tmp_path, registry().folders)
    tables = [fill_table(name, ours, registry()) for name in (*TABLES, *OTHER_TABLES)]
    tables += [fill_table(name, authors, registry(), TableOptions("authors")) for name in (*TABLES, *OTHER_TABLES)]
    body = "\n\\clearpage\n".join(found.to_latex() for found in tables)
    packages = "\\usepackage[utf8]{inputenc}\\usepackage{booktabs,graphicx}"
    text = f"\\documentclass{{article}}{packages}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "x.tex").write_text(text, encoding="utf-8")
    for _ in range(2):  # the second time, references are known
        subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"], cwd=tmp_path, check=True)
    log = (tmp_path / "x.log").read_text(encoding="latin-1")
    assert "Float too large" not in log
    assert "undefined" not in log
    assert all(part in body for part in ("\\textbf{", "$\\pm$", "$\\tau$$_0$", "run\\_with", "Notes to Table"))


@pytest.mark.parametrize("width", [60, 80, 118])
@pytest.mark.long
def test_table_text_is_no_wider_than_the_terminal(width: int) -> None:
    runs = [record(name) for name in ("fashion-mnist-plif", "gesture-plif", "gesture-plif-avgpool")]
    drawn = [table(name, *runs) for name in ("2", "4", "5", "S2")]
    drawn.append(selection_table([one.model_copy(update={"test_accuracy": (0.5, one.accuracy)}) for one in runs]))
    for found in drawn:
        text = table_text(found, width)
        assert max(map(len, text.splitlines())) <= width
        assert all(text.count(head.split()[0]) for head in found.columns)


def test_to_csv_of_a_table_without_results_has_its_cells() -> None:
    found = table("context")
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert ("PSN", "CIFAR-10", "95.32 (4)") in {(line["row"], line["column"], line["reported"]) for line in lines}


@pytest.mark.parametrize("width", [20, 60, 80, 118])
@pytest.mark.long
def test_table_text_in_a_narrow_terminal_has_every_number(width: int) -> None:
    for name in ("2", "4", "5", "S2"):
        names = ("fashion-mnist-plif", "gesture-plif", "gesture-plif-avgpool")
        found = table(name, *(record(of, epochs=1024) for of in names))
        words = table_text(found, width).split()
        numbers = [cell.text for row in found.cells for cell in row if re.fullmatch(r"\d+\.\d+", cell.text)]
        ours = [
            number for row in found.cells for cell in row for number in cell.numbers if number.difference is not None
        ]
        assert ours
        numbers += [f"{number.difference:+.2f}".replace("-", "−") for number in ours]
        assert all(words.count(number) >= numbers.count(number) for number in numbers)
