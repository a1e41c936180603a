"""Figures: drawn values are those of the definitions and the data; every format is written."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from plifctl.config.lookup import load_registry
from plifctl.errors import UsageError
from plifctl.report.figures import FIGURE_KINDS, FORMATS, Line, figure_style, line_of, save_figure
from plifctl.report.figures.neuron import (
    SPIKES,
    constant_input,
    encoder_spikes,
    latency_spikes,
    poisson_spikes,
    simulate_neuron,
    spike_count,
    spike_response,
)
from plifctl.report.figures.training import moving_average
from plifctl.runs import Curve, SpikeRecording
from plifctl.training.layer_metrics import QUANTILES


def curve(experiment: str | None, epochs: Sequence[int], *, origin: Any = "imported", **changes: Any) -> Curve:
    generator = np.random.default_rng(len(epochs))
    values: dict[str, Any] = {
        "name": f"{origin}-{experiment}",
        "origin": origin,
        "experiment": experiment,
        "recipe": "authors",
        "protocol": "A",
        "T": 8,
        "seed": 2020,
        "epochs": tuple(epochs),
        "series": {"test_accuracy": tuple(generator.random(len(epochs)).tolist())},
        "layers": ("sn0", "sn1"),
        "tau": tuple(tuple((2 + generator.random(len(epochs))).tolist()) for _ in range(2)),
    }
    return Curve(**values | changes)


def line(found: Curve) -> Line:
    registry = load_registry()
    return line_of(found, lambda name: registry.experiment(name).spec if name in registry.experiments() else None)


def recording(samples: int = 3, T: int = 4, channels: int = 6, size: int = 5, planes: int = 2) -> SpikeRecording:
    generator = np.random.default_rng(1)
    return SpikeRecording(
        tuple(map(str, range(samples))),
        np.arange(samples) % 2,
        ("drum", "wave"),
        generator.integers(0, 9, (samples, T if planes == 2 else 1, planes, size, size)).astype(np.uint8),
        generator.random((samples, T, 2)),
        {"sn0": generator.random((samples, T, channels, size, size)) < 0.3},
    )


class TestNeuron:
    def test_simulated_with_smaller_steps_converges_to_the_closed_form(self) -> None:
        errors = []
        for dt in (1.0, 0.1):
            t = dt * np.arange(1, round(100 / dt) + 1)
            errors.append(np.abs(simulate_neuron(np.full(len(t), 1.5), 20.0, dt) - constant_input(t, 20.0, 1.5)).max())
        assert errors[0] < 0.05
        assert errors[1] == pytest.approx(errors[0] / 10, rel=0.2)

    def test_spike_response_is_the_sum_of_decaying_spikes(self) -> None:
        t, dt = 0.01 * np.arange(12_000), 0.01
        x = np.zeros(len(t))
        x[np.rint(np.array(SPIKES) / dt).astype(int)] = 1 / dt
        assert np.abs(simulate_neuron(x, 10.0, dt) - spike_response(t, 10.0, 1.0)).max() < 1e-3
        brute = [sum(0.1 * math.exp(-(s - spike) / 10) for spike in SPIKES if s >= spike) for s in t[::1000]]
        np.testing.assert_allclose(spike_response(t, 10.0, 1.0)[::1000], brute, atol=1e-12)

    @pytest.mark.parametrize("T", [1, 7, 20])
    @pytest.mark.parametrize("weight", [0.5, 1.0, 2.0])
    def test_encoder_spikes_are_those_of_supplement_j(self, T: int, weight: float) -> None:
        pixels = np.arange(256)
        spikes = encoder_spikes(pixels, T, weight)
        assert spikes.sum(0).tolist() == [spike_count(p, T, weight) for p in range(256)]
        for p in range(1, 256):
            first = math.ceil(255 / (weight * p)) - 1
            assert spikes[:, p].any() == (first < T)
            if first < T:
                assert spikes[:, p].argmax() == first

    def test_latency_and_poisson_spikes_follow_their_definitions(self) -> None:
        pixels = np.array([0, 1, 128, 255])
        latency = latency_spikes(pixels, 20)
        assert latency.sum(0).tolist() == [0, 1, 1, 1]
        assert latency.argmax(0)[1:].tolist() == [math.floor(19 * (1 - p / 255)) for p in (1, 128, 255)]
        rates = poisson_spikes(np.full(10_000, 64), 20).mean()
        assert rates == pytest.approx(64 / 255, abs=0.005)


def test_moving_average_with_missing_epochs_counts_epochs() -> None:
    generator = np.random.default_rng(0)
    epochs = np.flatnonzero(generator.random(300) < 0.7) + 1
    values = generator.random(len(epochs))
    brute = [values[(epochs <= e) & (epochs > e - 64)].mean() for e in epochs]
    np.testing.assert_allclose(moving_average(epochs.tolist(), values.tolist()), brute, atol=1e-12)


class TestAccuracy:
    def test_draw_accuracy_has_values_and_moving_average(self) -> None:
        authors = curve("fashion-mnist-plif", range(1, 201))
        with figure_style():
            figure = FIGURE_KINDS["6"].draw([line(authors)], None)
        raw, mean = figure.axes[0].lines
        np.testing.assert_allclose(raw.get_ydata(), 100 * np.array(authors.series["test_accuracy"]))
        np.testing.assert_allclose(mean.get_ydata(), moving_average(authors.epochs, raw.get_ydata().tolist()))
        assert figure.axes[0].get_title(loc="left") == "(a) Fashion-MNIST"

    def test_draw_accuracy_with_our_run_ends_the_authors_curve_at_our_last_epoch(self) -> None:
        lines = [line(curve("cifar10-plif", range(1, 201))), line(curve("cifar10-plif", [1, 2, 3], origin="trained"))]
        with figure_style():
            figure = FIGURE_KINDS["6"].draw(lines, None)
        authors, ours = figure.axes[0].lines
        assert authors.get_xdata().tolist() == ours.get_xdata().tolist() == [1, 2, 3]
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            "PLIF, $\\tau_0$ = 2, authors",
            "PLIF, $\\tau_0$ = 2",
        ]

    def test_draw_accuracy_has_the_panels_of_the_paper_first(self) -> None:
        names = ["gesture-lif-tau16", "cifar10dvs-plif", "cifar10-lif", "fashion-mnist-plif-tau16", None]
        with figure_style():
            figure = FIGURE_KINDS["6"].draw([line(curve(name, range(1, 9))) for name in names], None)
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles[:4] == ["(a) Fashion-MNIST", "(b) CIFAR-10", "(c) CIFAR10-DVS", "(d) DVS128 Gesture"]
        assert titles[4] == "(e) imported-None"

    def test_draw_accuracy_with_missing_values_leaves_them_out(self) -> None:
        gaps = curve("cifar10-plif", [1, 2, 3], series={"test_accuracy": (0.5, None, 0.7)})
        with figure_style():
            (drawn,) = FIGURE_KINDS["6"].draw([line(gaps)], None).axes[0].lines
        assert drawn.get_xdata().tolist() == [1, 3]

    def test_draw_accuracy_without_curves_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no run has a test accuracy") as error:
            FIGURE_KINDS["6"].draw([], None)
        assert "runs import" in error.value.hint


def test_draw_tau_has_a_line_for_each_layer_and_start() -> None:
    lines = [line(curve(name, range(1, 101))) for name in ("cifar10-plif", "cifar10-plif-tau16", "cifar10-lif")]
    with figure_style():
        figure = FIGURE_KINDS["7"].draw(lines, 50)
    axes = figure.axes[0]
    assert len(axes.lines) == 4  # two layers, two starts; LIF learns none
    assert [drawn.get_linestyle() for drawn in axes.lines] == ["-", "-", "--", "--"]
    assert all(drawn.get_xdata().max() == 50 for drawn in axes.lines)
    np.testing.assert_allclose(axes.lines[1].get_ydata(), lines[0].curve.tau[1][:50])
    assert axes.get_yscale() == "linear"
    far = curve("cifar10-plif", range(1, 101), tau=((1.5,) * 100, (50.0,) * 100))
    with figure_style():
        assert FIGURE_KINDS["7"].draw([line(far)], None).axes[0].get_yscale() == "log"
    with pytest.raises(UsageError, match="time constants"):
        FIGURE_KINDS["7"].draw(lines[2:], None)


def test_draw_distribution_has_the_recorded_quantiles() -> None:
    rows = tuple(
        {"mean": 0.1 * n, "std": 1.0, "quantiles": [n + share for share in QUANTILES], "counts": []} for n in range(3)
    )
    found = curve("cifar10-plif", [1, 2, 3], origin="trained", w_over_tau={"fc0": rows, "fc1": (None, *rows[1:])})
    with figure_style():
        figure = FIGURE_KINDS["S1"].draw([line(found)], None)
    first, second = figure.axes
    median = next(drawn for drawn in first.lines if drawn.get_label() == "median")
    assert median.get_ydata().tolist() == [0.5, 1.5, 2.5]
    assert next(d for d in second.lines if d.get_label() == "median").get_xdata().tolist() == [2, 3]
    with pytest.raises(UsageError, match="no run has a distribution"):
        FIGURE_KINDS["S1"].draw([line(curve("cifar10-plif", [1]))], None)


class TestSpikes:
    def test_draw_static_and_samples_show_the_recorded_pictures(self) -> None:
        found = recording()
        with figure_style():
            static, samples = FIGURE_KINDS["S2"].draw(found, [4, 1]), FIGURE_KINDS["S5"].draw(found, [2])
        shown = [np.asarray(axes.images[0].get_array()) for axes in static.axes]
        np.testing.assert_allclose(shown[0], found.inputs[0].mean(0).sum(0))
        np.testing.assert_allclose(shown[3], found.spikes["sn0"][0, :, 4].mean(0))
        np.testing.assert_allclose(shown[3 + 3 + 1], found.spikes["sn0"][1, :, 1].mean(0))
        shown = [np.asarray(axes.images[0].get_array()) for part in samples.subfigs for axes in part.axes]
        np.testing.assert_allclose(shown[8 + 1], found.inputs[1, 1].sum(0))
        np.testing.assert_allclose(shown[8 + 4 + 3], found.spikes["sn0"][1, 3, 2])

    def test_draw_channels_without_such_a_channel_is_refused(self) -> None:
        found = recording(channels=6)
        with figure_style():
            rates = FIGURE_KINDS["S3"].draw(found, []).axes[1]
        grid = np.asarray(rates.images[0].get_array())
        steps = found.spikes["sn0"].shape[1]
        assert f"$T_s = {steps}$" in rates.get_title(loc="left")  # the rates are means over all of them
        np.testing.assert_allclose(grid[:5, 6:11], found.spikes["sn0"][0, :, 1].mean(0))
        with pytest.raises(UsageError, match="no channel 6: the layer has 6"):
            FIGURE_KINDS["S2"].draw(found, [6])
        dull = SpikeRecording(found.sample_ids, found.labels, found.classes, found.inputs, found.votes, {})
        with pytest.raises(UsageError, match="no spikes of a convolutional layer"):
            FIGURE_KINDS["S2"].draw(dull, [])

    def test_draw_over_time_shows_means_up_to_each_step(self) -> None:
        found = recording()
        with figure_style():
            below = FIGURE_KINDS["S4"].draw(found, [3]).subfigs[1]
        shown = [np.asarray(axes.images[0].get_array()) for axes in below.axes]
        np.testing.assert_allclose(shown[2], found.inputs[0, :3].sum(1).mean(0))
        np.testing.assert_allclose(shown[4 + 2], found.spikes["sn0"][0, :3, 3].mean(0))


def everything(name: str) -> Any:
    kind = FIGURE_KINDS[name]
    if kind.needs == "nothing":
        return kind.draw()
    if kind.needs == "spikes":
        return kind.draw(recording(planes=1 if name == "S2" else 2), [])
    row = {"mean": 0.0, "std": 1.0, "quantiles": list(QUANTILES), "counts": []}
    return kind.draw([line(curve("cifar10-plif", range(1, 4), w_over_tau={"fc0": (row,) * 3}))], None)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FIGURE_KINDS))
def test_save_figure_twice_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    for form in FORMATS if name == "1b" else ("png",):
        for copy in ("a", "b"):
            with figure_style():
                mpl.rcParams["savefig.dpi"] = 60  # drawn faster
                save_figure(everything(name), tmp_path / f"{copy}.{form}", "caption")
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()
    assert dict(mpl.rcParams) == before


def test_save_figure_with_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown format of figures"):
        save_figure(everything("1b"), tmp_path / "a.bmp", "")
    assert not list(tmp_path.iterdir())


def test_draw_accuracy_with_a_dollar_in_a_title_shows_it_verbatim() -> None:
    found = line(curve(None, range(1, 4), name=r"$\nonsense{$ b_c"))  # as a formula it would be an error
    with figure_style():
        figure = FIGURE_KINDS["6"].draw([found], None)
        figure.canvas.draw()
    assert figure.axes[0].get_title(loc="left") == r"(a) \$\nonsense{\$ b_c"
