"""Figures drawn into files without the command line."""

from pathlib import Path

import pytest
from factories import make_run

from plifctl.pipeline.figures import draw_figures

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
