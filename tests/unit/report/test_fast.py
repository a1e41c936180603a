"""Table and figure of the recipe ``fast``: accuracy, processor time and operations, beside the authors' training."""

import csv
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_records import B_DATA, CPU, LOG, TIMED, fast, log, made, registry

from plifctl.cli.tables import table_text
from plifctl.errors import UsageError
from plifctl.evaluation.step_cost import training_operations
from plifctl.pipeline.figures import draw_figures
from plifctl.report import Table, TableOptions, fill_table
from plifctl.report.fast import find_fast_results
from plifctl.report.figures import FIGURE_KINDS, Figure, figure_style
from plifctl.report.results import Results
from plifctl.runs import ResultRecord
from plifctl.runs.records import record_text
from plifctl.runs.sessions import Session

MINUTES, PFLOP, TO_LEVEL, AFTER = (
    *("CPU min", "PFLOP"),
    *("Authors: CPU min to the same accuracy (epochs)", "Authors: accuracy after the same CPU min (epochs)"),
)

SESSIONS = tuple(
    Session(epochs=epochs, training_version=3, host="h", environment=CPU | {"processor": processor})
    for epochs, processor in (((1, 2), "Some CPU"), ((3, 3), "Another CPU"))
)


def build(*records: ResultRecord, **options: Any) -> Table:
    return fill_table("fast", records, registry(), TableOptions(**options))


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
        "Protocol": "B",
        "Epochs": "3",
        "Accuracy (%)": "97.00 ± 1.41 @3",
        MINUTES: "8.0",  # the mean of 6 and 10
        TO_LEVEL: "15.0 (5)",  # 97 % in the fifth epoch; 3 minutes each
        AFTER: "95.00 (2)",  # two epochs in 8 minutes
    }
    spec = registry().experiment("mnist-plif", recipe="fast").for_protocol("B").spec
    whole = training_operations(spec, "B", 3, train=54000, validation=6000, test=10000)
    assert float(operations) == pytest.approx(1e-15 * whole, rel=5e-3)
    assert list(table.notes.values())[-1] == (
        "runs fast-B-1, fast-B-2 on Some CPU, beside authors-mnist-plif (best test accuracy so far, protocol A: the "
        "test set selects it; an epoch with 3 CPU min, the mean of run authors-A-1 there, epochs: 2, recipe authors, "
        "protocol A)"
    )
    assert table.warnings == ()


def test_level_is_reached_by_an_equal_accuracy_of_the_logs_in_float32() -> None:
    rounded = float(np.float32(0.9438))
    assert rounded < 0.9438
    (row,) = shown(build(fast(0.9438), TIMED, log(0.90, 0.93, rounded)))
    assert row[TO_LEVEL] == "9.0 (3)"


def test_level_that_the_authors_do_not_reach_is_more_than_all_their_epochs() -> None:
    (row,) = shown(build(fast(0.99), TIMED, LOG))
    assert row[TO_LEVEL] == "> 15.0 (5)"
    (row,) = shown(build(fast(0.99, cpu_seconds=(1.0, 1.0, 1.0)), TIMED, LOG))
    assert row[AFTER] == "less than an epoch (0)"
    (row,) = shown(build(fast(0.99, cpu_seconds=(9000.0,) * 3), TIMED, LOG))
    assert row[AFTER] == "98.00 (5)"


def test_epochs_are_timed_by_recipe_authors_then_paper_on_the_same_processor() -> None:
    paper, validated = made("paper", "A", (0.5,)), made("authors", "B", (0.5,), data=B_DATA)
    other = made("authors", "A", (0.5,), 2, environment=CPU | {"processor": "Another CPU"})
    assert shown(build(fast(0.97), TIMED, paper, other, LOG))[0][TO_LEVEL] == "15.0 (5)"
    assert shown(build(fast(0.97), paper, other, LOG))[0][TO_LEVEL] == "5.0 (5)"
    table = build(fast(0.97), other, validated, made("authors", "A", (0.5,), 3, T=4), LOG)  # other samples, other T
    assert shown(table)[0][TO_LEVEL] == shown(table)[0][AFTER] == ""
    assert table.warnings == (
        "mnist-plif, protocol B: NOT COMPARED with the authors' run: "
        "no run of recipe authors or paper, protocol A, and training version 1 on Some CPU has CPU minutes",
    )


def test_epochs_of_recipe_paper_with_more_training_samples_than_the_authors_are_not_timed() -> None:
    gestures, theirs = {"of": "gesture-plif", "dataset": "gesture"}, log(0.90, 0.95, of="gesture-plif")
    trained, paper = fast(0.91, **gestures), made("paper", "A", (0.5,), **gestures)  # of 1,176 samples, not 936
    table = build(trained, paper, theirs)
    assert shown(table)[0][TO_LEVEL] == shown(table)[0][AFTER] == ""
    assert table.warnings == (
        "gesture-plif, protocol B: NOT COMPARED with the authors' run: "
        "no run of recipe authors, protocol A, and training version 1 on Some CPU has CPU minutes",
    )
    authors = made("authors", "A", (0.5,), 2, **gestures)
    assert shown(build(trained, paper, authors, theirs))[0][TO_LEVEL] == "2.0 (2)"


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_seconds": ()},
        {"cpu_seconds": (None, 60.0)},
        {"overrides": ("train.subset=0.1",)},
        {"data": B_DATA.model_copy(update={"complete": False})},
        {"environment": CPU | {"device": "NVIDIA H200"}},
        {"sessions": (Session(epochs=(1, 2), training_version=7, host="h", environment=CPU),)},
    ],
    ids=["no time", "time of a part", "modified", "subset", "GPU", "another training version"],
)
def test_epochs_of_other_trainings_are_not_timed(changes: dict[str, Any]) -> None:
    table = build(fast(0.97), made("authors", "A", (0.5, 0.6), **changes), LOG, include_modified=True)
    assert shown(table)[0][TO_LEVEL] == ""


def test_runs_on_different_processors_have_minutes_for_each() -> None:
    slower = {"cpu_seconds": (120.0, 240.0, 360.0), "environment": CPU | {"processor": "Another CPU"}}
    table = build(fast(0.96), fast(0.98, 2, **slower), TIMED, LOG)
    (row,) = shown(table)
    assert row["Accuracy (%)"] == "97.00 ± 1.41 @3"
    assert row[MINUTES] == "12.0 6.0"  # by name of the processor
    assert (row[TO_LEVEL], row[AFTER]) == ("15.0 (5)", "95.00 (2)")  # on the one whose epochs are known
    notes = [note.partition(",")[0] for note in table.notes.values()]
    assert notes[-2:] == ["run fast-B-2 on Another CPU", "run fast-B-1 on Some CPU"]
    assert table.warnings == (
        "mnist-plif, protocol B: NOT COMPARED with the authors' run: "
        "no run of recipe authors or paper, protocol A, and training version 1 on Another CPU has CPU minutes",
    )
    timed_there = made("authors", "A", (0.5,), 3, cpu_seconds=(300.0,), environment=slower["environment"])
    (row,) = shown(build(fast(0.96), fast(0.98, 2, **slower), TIMED, timed_there, LOG))
    assert (row[TO_LEVEL], row[AFTER]) == ("25.0 (5) 15.0 (5)", "95.00 (2) 95.00 (2)")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cpu_seconds": (60.0, None, 60.0)}, "not counted in every epoch"),
        ({"cpu_seconds": ()}, "not counted in every epoch"),
        ({"environment": CPU | {"device": "NVIDIA H200"}}, "not trained on CPUs alone"),
        ({"cpu_seconds": (0.0, 0.0, 0.0)}, "too short to be measured"),
        ({"environment": {"device": "cpu"}}, "on an unknown processor"),
        ({"environment": {"device": "cpu", "processor": None}}, "on an unknown processor"),
        (
            {"sessions": SESSIONS},
            "on several processors: Another CPU; Some CPU",
        ),
    ],
)
def test_run_without_processor_time_has_no_minutes(changes: dict[str, Any], problem: str) -> None:
    table = build(fast(0.97, **changes), TIMED, LOG)
    assert shown(table)[0][MINUTES] == shown(table)[0][AFTER] == ""
    assert table.warnings == (f"mnist-plif, protocol B: no CPU minutes of run fast-B-1: {problem}",)


def test_modified_run_is_left_out_or_not_compared() -> None:
    modified = fast(0.97, overrides=("train.lr=0.5",))
    assert build(modified, TIMED, LOG).rows == []
    table = build(modified, TIMED, LOG, include_modified=True)
    assert shown(table)[0]["Accuracy (%)"] == "97.00 @3 modified"
    assert shown(table)[0][TO_LEVEL] == ""
    assert "mnist-plif, protocol B: NOT COMPARED with the authors' run: modified" in table.warnings
    assert {line["modified"] for line in csv.DictReader(io.StringIO(table.to_csv()))} == {"True"}


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
    assert table.warnings == ("no run of recipe fast counts: plifctl validate EXPERIMENT --recipe fast",)
    assert "plifctl validate" in table_text(table, 80)


def test_protocols_are_rows_of_their_own_and_sources_and_sweeps_are_kept_apart() -> None:
    of_a = made("fast", "A", (0.9, 0.91), cpu_seconds=(30.0, 30.0))
    of_c = made("fast", "C", (0.95,), cpu_seconds=(30.0,))
    table = build(of_a, of_c, fast(0.97), fast(0.98, 2), TIMED, LOG)
    assert [row[1:3] for row in table.rows] == [("A", "2"), ("B", "3"), ("C", "1")]
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


def draw(*records: ResultRecord) -> Figure:
    with figure_style():
        figure = FIGURE_KINDS["fast"].draw(find_fast_results(Results(records, registry())))
        figure.draw_without_rendering()
    return figure


def lines(figure: Figure, panel: int = 0) -> dict[str, list[np.ndarray]]:
    """Returns the points ``[points, 2]`` of each line of a panel by the label of the line."""
    found: dict[str, list[np.ndarray]] = {}
    for line in figure.axes[panel].lines:
        found.setdefault(str(line.get_label()), []).append(np.asarray(line.get_xydata()))
    return found


def test_draw_fast_has_results_validation_and_the_authors_curve_over_minutes() -> None:
    figure = draw(fast(0.96), fast(0.98, 2, cpu_seconds=(60.0, 180.0, 360.0)), TIMED, LOG)
    found = lines(figure)
    (authors,) = found["authors, protocol A: best test epoch so far"]
    assert authors == pytest.approx(np.array([[3, 90], [6, 95], [9, 95], [15, 98]]))  # the fourth was not logged
    first, second = found["fast: validation after each epoch"]
    assert first == pytest.approx(np.array([[1, 70], [3, 80], [6, 90]]))
    assert second[:, 0] == pytest.approx([1, 4, 10])
    ((point, _, (minutes_bar, accuracy_bar)),) = figure.axes[0].containers
    assert np.asarray(point.get_xydata()) == pytest.approx(np.array([[8, 97]]))
    assert minutes_bar.get_segments()[0][:, 0] == pytest.approx([8 - 8**0.5, 8 + 8**0.5])
    assert accuracy_bar.get_segments()[0][:, 1] == pytest.approx([97 - 2**0.5, 97 + 2**0.5])
    reported = registry().experiment("mnist-plif").spec.reported
    assert reported is not None
    assert {y for _, y in found["paper, protocol B: test"][0]} == {reported.accuracy_b}
    (legend,) = figure.legends
    assert [text.get_text().replace("\n", " ") for text in legend.get_texts()] == [
        "fast, protocol B: test accuracy of the epoch that validation chose",
        "fast: validation after each epoch",
        "authors, protocol A: best test epoch so far",
        "paper, protocol B: test",
    ]


def test_draw_fast_of_one_run_that_is_compared_with_nothing_has_a_labelled_axis() -> None:
    for seconds in (1.0, 33.0, 200.0, 5e5):
        figure = draw(made("fast", "A", (0.9,), cpu_seconds=(seconds,)))
        axes = figure.axes[0]
        low, high = axes.get_xlim()
        labels = [text for text in axes.get_xticklabels() if text.get_text() and low <= text.get_position()[0] <= high]
        assert labels
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == ["fast, protocol A: maximum over test epochs"]  # the paper's number is of protocol B


def test_draw_fast_names_the_samples_that_protocol_c_is_trained_on() -> None:
    (label,) = [text.get_text().replace("\n", " ") for text in draw(made("fast", "C", (0.9,))).legends[0].get_texts()]
    assert label == "fast, protocol C: test accuracy of the last epoch, trained on all but the test samples"


def test_draw_fast_has_a_panel_for_each_processor() -> None:
    other = CPU | {"processor": "Another CPU"}
    figure = draw(
        fast(0.96), fast(0.98, 2, environment=other), made("fast", "A", (0.9,), environment=other), TIMED, LOG
    )
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["(a) MNIST, PLIF, τ₀ = 2, Another CPU", "(b) MNIST, PLIF, τ₀ = 2, Some CPU"]
    authors = "authors, protocol A: best test epoch so far"
    assert (authors in lines(figure, 0), authors in lines(figure, 1)) == (False, True)
    test = "fast, protocol B: test accuracy of the epoch that validation chose"
    points = [[y for _, y in axes.containers[-1][0].get_xydata()] for axes in figure.axes]
    assert points == [[98], [96]], test
    assert [len(axes.containers) for axes in figure.axes] == [2, 1]


@pytest.mark.parametrize("panels", [1, 3])
def test_draw_fast_labels_do_not_overlap(panels: int) -> None:
    names = ("mnist-plif", "gesture-plif", "cifar10-plif")[:panels]
    results = [
        result
        for name in names
        for result in find_fast_results(
            Results(
                [
                    record.model_copy(update={"experiment": name, "digest": None})
                    for record in (fast(0.96), fast(0.98, 2), made("fast", "A", (0.9, 0.97)), TIMED, LOG)
                ],
                registry(),
            )
        )
    ]
    with figure_style():
        figure = FIGURE_KINDS["fast"].draw(results)
        figure.draw_without_rendering()
    for axes in figure.axes:
        for axis, size in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            boxes = [tick.label1.get_window_extent() for tick in axis.get_major_ticks() if tick.label1.get_text()]
            ends = sorted((getattr(box, f"{size}0"), getattr(box, f"{size}1")) for box in boxes)
            assert all(before[1] < after[0] for before, after in pairwise(ends))
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width
    assert all(axes.get_tightbbox().y0 >= legend.y1 for axes in figure.axes)


def test_draw_fast_titles_of_panels_side_by_side_do_not_overlap() -> None:
    named = [CPU | {"processor": f"AMD EPYC (family {family}, model 2, stepping 1)"} for family in (25, 26)]
    figure = draw(fast(0.96, environment=named[0]), fast(0.98, 2, environment=named[1]))
    figure.draw_without_rendering()
    boxes = [axes._left_title.get_window_extent() for axes in figure.axes]
    assert boxes[0].x1 < boxes[1].x0
    assert boxes[1].x1 <= figure.bbox.width


def save(folder: Path, *records: ResultRecord) -> None:
    for record in records:
        (folder / record.run).mkdir()
        (folder / record.run / "result.json").write_text(record_text(record))


def test_draw_figures_of_fast_runs_takes_the_authors_log_of_the_registry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, fast(0.96), fast(0.98, 2), TIMED)
    (figure,) = draw_figures(["fast"], tmp_path / "all.svg", tmp_path)
    assert figure.runs == ["fast-B-1", "fast-B-2", "authors-mnist-plif", "authors-A-1"]
    assert (
        "mnist-plif, protocol B: 97.00 ± 1.41 %, epochs: 3. Runs fast-B-1, fast-B-2 on Some CPU, beside "
        "authors-mnist-plif (best test" in figure.caption
    )
    assert "the mean of run authors-A-1 there, epochs: 2, recipe authors, protocol A)." in figure.caption
    assert figure.path.read_text(encoding="utf-8").endswith("</svg>\n")
    (named,) = draw_figures(["fast"], tmp_path / "one.svg", tmp_path, runs=["fast-B-2", "authors-A-1"])
    assert named.runs == ["fast-B-2", "authors-mnist-plif", "authors-A-1"]
    assert "figure fast: left out: authors-A-1 (mine)" in caplog.text


def test_draw_figures_of_a_shipped_run_is_not_about_an_own_run_of_its_name(tmp_path: Path) -> None:
    save(tmp_path, fast(0.96, run="fast-s1"))
    (own,) = draw_figures(["fast"], tmp_path / "own.svg", tmp_path)
    (shipped,) = draw_figures(["fast"], tmp_path / "shipped.svg", tmp_path, runs=["shipped:fast-s1"])
    assert [figure.runs[0] for figure in (own, shipped)] == ["fast-s1", "fast-s1"]
    assert "mnist-plif, protocol B: 96.00 %, epochs: 3" in own.caption
    assert "fashion-mnist-plif-avgpool, protocol B: 93.76 %, epochs: 32" in shipped.caption


def test_draw_figures_without_processor_time_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, fast(0.96, cpu_seconds=()), TIMED)
    with pytest.raises(UsageError, match="no finished run of recipe fast has CPU minutes"):
        draw_figures(["fast"], tmp_path / "a.svg", tmp_path, runs=["fast-B-1"])  # not the shipped ones
    assert (
        "figure fast: mnist-plif, protocol B: no CPU minutes of run fast-B-1: not counted in every epoch" in caplog.text
    )
