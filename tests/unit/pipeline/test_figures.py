"""Figures drawn into files without the command line."""

from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_run

from plifctl.errors import UsageError
from plifctl.pipeline import figures
from plifctl.pipeline.figures import draw_figures
from plifctl.runs import curves

pytestmark = pytest.mark.usefixtures("places")


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
    monkeypatch.setattr(figures._FigureSource, "draw", lambda *_: pytest.fail("was drawn"))
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


def test_draw_figures_names_a_run_that_is_left_out_for_a_longer_one_of_its_seed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short, longer = (make_run(tmp_path / "runs", epochs=epochs) for epochs in (2, 4))
    other = make_run(tmp_path / "runs", "train.seed=7")
    names = [run.name for run in (short, longer, other)]
    (figure,) = draw_figures(["6"], tmp_path / "a.svg", tmp_path / "runs", runs=names)
    assert figure.runs == [other.name, longer.name]
    text = f"figure 6: left out, the same seed and settings as {longer.name}: {short.name}"
    assert caplog.messages == [text]


def test_draw_figures_names_a_run_of_the_authors_without_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["authors-cifar10-plif", "authors-cifar10-lif"]
    (figure,) = draw_figures(["7"], tmp_path / "a.svg", tmp_path / "runs", runs=names)
    assert figure.runs == names[:1]
    assert caplog.messages == ["figure 7: left out, has no such values: authors-cifar10-lif"]


def test_draw_figure_of_one_training_names_the_runs_that_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = figures.FIGURE_KINDS  # runs of the demo have no fully connected layer before a spiking one
    monkeypatch.setitem(kinds, "S1", replace(kinds["S1"], draw=kinds["6"].draw, shows=lambda line: True))
    runs = [make_run(tmp_path / "runs", *changes) for changes in (["train.seed=1"], ["train.seed=2"], ["train.lr=0.1"])]
    first, *others = (run.name for run in runs)
    (figure,) = draw_figures(["S1"], tmp_path / "a.svg", tmp_path / "runs", runs=[run.name for run in runs])
    assert figure.runs == [first]
    assert "2 seeds" not in figure.caption
    assert caplog.messages == [f"figure S1: left out, it shows one training: {name}" for name in others]
