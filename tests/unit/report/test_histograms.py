"""Histograms of cache statistics: the figure has one bar for each bin and class, and it is drawn without warnings."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes

from plifctl.cache.statistics import Channel, Distribution, EventStatistics, Statistics
from plifctl.report.histograms import draw_histograms, plot_histograms

FEW = Distribution(10, 0, 0, 2.0, 3, 4, 2.0, (0, 1, 2, 3, 4, 5), (3, 0, 4, 1, 2))
NOTHING = Distribution(0, 0, 0.0, 0.0, 0.0, 0, 0.0, (0, 1), (0,))


def event_statistics(values: Distribution, train: int = 10) -> Statistics:
    events = EventStatistics(values, values, values, 20, 0, 0.5, 10, 3, 3, 0.1, 4)
    return Statistics({"train": train, "test": 0}, {"train": (train,), "test": (0,)}, events, None)


def image_statistics() -> Statistics:
    channels = {"train": (Channel(0, 0, 0, 0),)}
    return Statistics({"train": 60, "test": 8}, {"train": (40, 20, 0), "test": (0, 4, 4)}, None, channels)


def plotted(stats: Statistics, classes: tuple[str, ...] = ()) -> list[Axes]:
    return plot_histograms("a set", "a cache", stats, classes).get_axes()


def test_class_bars_of_image_statistics_are_as_long_as_counts() -> None:
    (axes,) = plotted(image_statistics(), ("a", "b", "c", "no samples"))
    train, test = axes.containers
    assert [bar.get_width() for bar in train] == [40, 20, 0, 0]
    assert [(bar.get_x(), bar.get_width()) for bar in test] == [(40, 0), (20, 4), (0, 4), (0, 0)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0 a", "1 b", "2 c", "3 no samples"]
    assert [text.get_text() for text in axes.texts] == ["40 + 0", "20 + 4", "0 + 4", "0 + 0"]
    assert axes.yaxis_inverted(), "class 0 is the top bar"


def test_distribution_bars_of_event_statistics_are_as_high_as_counts() -> None:
    *charts, _ = plotted(event_statistics(FEW))
    titles = [axes.get_title("left") for axes in charts]
    assert titles == ["Events per sample", "Events per frame", "Duration of a sample"]
    for axes, unit in zip(charts, (1, 1, 1000), strict=True):
        (bars,) = axes.containers
        assert [bar.get_height() for bar in bars] == [3, 0, 4, 1, 2]
        assert [bar.get_x() for bar in bars] == pytest.approx([edge / unit for edge in range(5)])
        (median,) = axes.lines
        assert set(median.get_xdata()) == {2 / unit}


def test_draw_histograms_of_empty_cache_draws_axes() -> None:
    assert draw_histograms("a set", "a cache", event_statistics(NOTHING, train=0)).height > 300


def test_draw_histograms_with_names_in_any_script_differ_and_raise_no_warning() -> None:
    drawn = [
        np.asarray(draw_histograms("a set", "a cache", image_statistics(), (name, "手势", "$a_1$")))
        for name in ("ψάρι", "δάσος", "Жест")
    ]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_draw_histograms_with_own_matplotlib_settings_ignores_and_keeps_them() -> None:
    expected = np.asarray(draw_histograms("a set", "$1", image_statistics()))
    with mpl.rc_context({"text.usetex": True, "font.size": 30, "axes.grid": True, "font.family": ["serif"]}):
        assert np.array_equal(np.asarray(draw_histograms("a set", "$1", image_statistics())), expected)
        assert mpl.rcParams["font.size"] == 30
