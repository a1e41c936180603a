"""The picture of predictions: curves, legend, and names in any script."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from plifctl.errors import UsageError
from plifctl.report import vote_curves
from plifctl.report.vote_curves import Panel, draw_vote_curves


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    figures: list[Figure] = []
    monkeypatch.setattr(vote_curves, "save_figure", lambda figure, path, caption: figures.append(figure))
    return figures


def panel(title: str, classes: int, n: int = 4) -> Panel:
    shares = np.random.default_rng(0).dirichlet(np.arange(1, classes + 1), n)
    return Panel(title, np.arange(1.0, n + 1), shares)


def test_few_classes_are_all_in_the_legend(drawn: list[Figure]) -> None:
    names = ["左", "_right", "$up$"]
    draw_vote_curves([panel("a $1$.npy", 3)], names, "time step", Path("a.png"))
    (legend,) = drawn[0].legends
    assert [text.get_text().strip() for text in legend.get_texts()] == names
    (axes,) = drawn[0].axes
    assert axes.get_title("left") == "a $1$.npy"
    assert [line.get_ydata().tolist() for line in axes.lines] == (100 * panel("", 3).shares.T).tolist()


def test_of_many_classes_the_largest_have_colours(drawn: list[Figure]) -> None:
    names = [f"class {label}" for label in range(12)]
    draw_vote_curves([panel("a", 12)], names, "time step", Path("a.png"))
    (legend,) = drawn[0].legends
    shown = [text.get_text() for text in legend.get_texts()]
    peaks = panel("", 12).shares.max(0)
    assert shown[-1] == "other classes"
    assert shown[:-1] == [names[label] for label in sorted(np.argsort(-peaks)[:8])]
    assert len(drawn[0].axes[0].lines) == 12


@pytest.mark.parametrize(("count", "labelled"), [(1, [0]), (2, [0, 1]), (4, [2, 3]), (5, [2, 3, 4]), (6, [3, 4, 5])])
def test_lowest_panel_of_each_column_has_the_label(drawn: list[Figure], count: int, labelled: list[int]) -> None:
    draw_vote_curves([panel(str(place), 3) for place in range(count)], ["a", "b", "c"], "time", Path("a.png"))
    axes = drawn[0].axes
    assert [axis.get_title("left") for axis in axes] == [str(place) for place in range(count)]
    assert [place for place, axis in enumerate(axes) if axis.get_xlabel()] == labelled


def test_windows_without_votes_are_gaps(drawn: list[Figure], tmp_path: Path) -> None:
    shares = np.array([[0.5, 0.5], [np.nan, np.nan], [1.0, 0.0]])
    draw_vote_curves([Panel("a", np.arange(3.0), shares)], ["a", "b"], "time", Path("a.png"))
    line = drawn[0].axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [50, np.nan, 100])


@pytest.mark.slow
def test_picture_is_written_in_each_format(tmp_path: Path) -> None:
    for ending, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        path = tmp_path / f"a.{ending}"
        draw_vote_curves([panel("手.npy", 3)], ["左", "right", "上"], "time step", path)
        assert path.read_bytes().startswith(magic)
    with pytest.raises(UsageError, match="unknown format"):
        draw_vote_curves([panel("a", 2)], ["a", "b"], "time step", tmp_path / "a.jpg")
