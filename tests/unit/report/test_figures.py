"""Figures: drawn values are those of the definitions and the data; every format is written."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from fast_records import LOG, TIMED, fast, made, registry
from matplotlib.text import Text

from plifctl.config.lookup import load_registry
from plifctl.config.overrides import fold_overrides
from plifctl.errors import UsageError
from plifctl.report import fonts
from plifctl.report.fast import find_fast_results
from plifctl.report.figures import FIGURE_KINDS, Line, describe_lines, figure_style, lines_of, save_figure
from plifctl.report.figures.lines import labels_of
from plifctl.report.figures.neuron import (
    SPIKES,
    connected_neurons,
    constant_input,
    encoder_spikes,
    latency_spikes,
    lif_neuron,
    poisson_spikes,
    simulate_neuron,
    spike_count,
    spike_response,
)
from plifctl.report.figures.style import FORMATS
from plifctl.report.figures.training import moving_average
from plifctl.report.results import Results
from plifctl.runs import Curve, RegisteredExperiments, SpikeRecording
from plifctl.runs.changes import CHANGED_SINCE
from plifctl.runs.records import Fold
from plifctl.training.initial_state import InitialState, InitialStates
from plifctl.training.layer_metrics import QUANTILES


def curve(experiment: str | None, epochs: Sequence[int], *, origin: Any = "authors", **changes: Any) -> Curve:
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


def lines(*curves: Curve) -> list[Line]:
    return lines_of(curves, RegisteredExperiments(load_registry()))


def line(found: Curve) -> Line:
    (only,) = lines(found)
    return only


def draw(name: str, *curves: Curve, epochs: int | None = None) -> Any:
    with figure_style():
        return FIGURE_KINDS[name].draw(lines(*curves), epochs)


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
    def test_encoder_spikes_are_those_of_supplement_j(self, T: int) -> None:
        pixels = np.arange(256)
        spikes = encoder_spikes(pixels, T)
        assert spikes.sum(0).tolist() == [spike_count(p, T) for p in range(256)]
        for p in range(1, 256):
            first = math.ceil(255 / p) - 1
            assert spikes[:, p].any() == (first < T)
            if first < T:
                assert spikes[:, p].argmax() == first

    def test_lif_neuron_follows_equations_2_to_5(self) -> None:
        potentials, spikes = lif_neuron(np.full((4, 1), 1.6), 2.0)
        np.testing.assert_allclose(potentials[:, 0], [0.8, 1.2, 0.8, 1.2])
        assert spikes[:, 0].tolist() == [0, 1, 0, 1]

    def test_connected_neurons_are_drawn_among_those_that_fire(self) -> None:
        spikes = np.tile([[1, 0, 1], [0, 1, 0], [0, 0, 0]], (100, 1)).astype(float)
        chosen = connected_neurons(spikes)
        assert set(chosen[0::3].tolist()) == {0, 2}
        assert set(chosen[1::3].tolist()) == {1}
        assert set(chosen[2::3].tolist()) == {-1}

    def test_draw_max_pooling_marks_each_spike_once(self) -> None:
        with figure_style():
            above, below = FIGURE_KINDS["5"].draw().axes
        marks = np.concatenate([np.asarray(found.get_offsets()) for found in above.collections])
        assert len({tuple(mark) for mark in marks.tolist()}) == len(marks)
        connected = [found for found in above.collections if len(found.get_facecolor())]
        steps = np.concatenate([np.asarray(found.get_offsets())[:, 0] for found in connected])
        assert sorted(steps.tolist()) == sorted(set(marks[:, 0].tolist()))  # one neuron at each step with a spike
        assert [drawn.get_label() for drawn in below.lines if "pooling" in str(drawn.get_label())] == [
            "max pooling: 3 spikes",
            "average pooling: 0 spikes",
        ]

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
        figure = draw("6", curve("cifar10-plif", range(1, 201)), curve("cifar10-plif", [1, 2, 3], origin="trained"))
        authors, ours = figure.axes[0].lines
        assert authors.get_xdata().tolist() == ours.get_xdata().tolist() == [1, 2, 3]
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            "PLIF, τ₀ = 2, authors",
            "PLIF, τ₀ = 2",
        ]

    def test_draw_accuracy_has_the_panels_of_the_paper_first(self) -> None:
        names = ["gesture-lif-tau16", "cifar10dvs-plif", "cifar10-lif", "fashion-mnist-plif-tau16", None]
        with figure_style():
            figure = FIGURE_KINDS["6"].draw([line(curve(name, range(1, 9))) for name in names], None)
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles[:4] == ["(a) Fashion-MNIST", "(b) CIFAR-10", "(c) CIFAR10-DVS", "(d) DVS128 Gesture"]
        assert titles[4] == "(e) authors-None"

    def test_draw_accuracy_with_missing_values_leaves_them_out(self) -> None:
        gaps = curve("cifar10-plif", [1, 2, 3], series={"test_accuracy": (0.5, None, 0.7)})
        with figure_style():
            (drawn,) = FIGURE_KINDS["6"].draw([line(gaps)], None).axes[0].lines
        assert drawn.get_xdata().tolist() == [1, 3]

    def test_draw_accuracy_without_curves_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no run has a test accuracy") as error:
            FIGURE_KINDS["6"].draw([], None)
        assert "runs import" in error.value.hint


class TestLabels:
    def test_label_with_overrides_states_the_value_of_the_run(self) -> None:
        changed = curve("cifar10-plif", [1], origin="trained", overrides=("neuron.tau_0=4", "train.lr=0.1"))
        assert line(changed).label == "PLIF, τ₀ = 4, modified"
        assert line(curve("cifar10-plif-tau16", [1], origin="trained", protocol="B", subset=True)).label == (
            "PLIF, τ₀ = 16, subset, protocol B"
        )
        assert line(curve("cifar10-plif", [1], origin="trained", recipe="fast")).label == "PLIF, τ₀ = 2, fast"
        assert line(curve("cifar10-plif-avgpool", [1])).label == "PLIF, τ₀ = 2, average pooling"
        assert line(curve("cifar10-lif-tau16", [1])).label == "LIF, τ = 16"

    def test_label_of_a_fold_names_it_and_calls_only_that_of_a_registered_experiment_modified(self) -> None:
        fold = Fold(number=1, folds=5, series="s")
        spec = load_registry().experiment("cifar10-plif").spec
        texts = tuple(fold_overrides(1, 5))
        own = line(curve("my-own", [1], origin="trained", overrides=texts, fold=fold, spec=spec))
        assert own.label == "PLIF, τ₀ = 2, fold 1"
        assert own.describe().endswith("1 epoch, fold 1 of 5")
        registered = line(curve("cifar10-plif", [1], origin="trained", overrides=texts, fold=fold, spec=spec))
        assert registered.label == "PLIF, τ₀ = 2, fold 1, modified"

    def test_label_of_a_run_whose_experiment_has_changed_since_says_modified(self) -> None:
        found = line(curve("cifar10-plif", [1], origin="shipped", digest="d" * 64))
        assert found.label == "PLIF, τ₀ = 2, modified"
        assert found.describe().endswith(f"modified: {CHANGED_SINCE}")

    def test_labels_with_dollars_are_shown_verbatim_in_legend_and_caption(self) -> None:
        groups = [f"split.groups={pattern}" for pattern in (r"^(user\d+)$", "^(user)$")]
        spec = load_registry().experiment("mnist-plif").spec
        runs = [curve("mnist-plif", [1, 2], origin="trained", overrides=(change,), spec=spec) for change in groups]
        expected = [f"PLIF, τ₀ = 2, modified, {change}" for change in groups]
        found = lines(*runs)
        assert list(labels_of(found).values()) == expected
        assert all(f"{label}: mnist-plif" in describe_lines(found) for label in expected)
        figure = draw("6", *runs)
        figure.draw_without_rendering()
        assert [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()] == [
            label.replace("$", r"\$") for label in expected
        ]

    def test_usual_font_has_the_characters_of_labels(self) -> None:
        assert fonts.fonts_for(line(curve("cifar10-plif", [1])).label) == ["DejaVu Sans"]

    def test_label_of_a_run_with_settings_of_its_own_comes_from_these(self) -> None:
        own = load_registry().experiment("cifar10-plif", overrides=["neuron.tau_0=8"]).spec
        assert line(curve("cifar10-plif-tau16", [1], origin="trained", spec=own)).label == "PLIF, τ₀ = 8"

    def test_labels_of_two_recipes_name_them(self) -> None:
        found = lines(*(curve("cifar10-plif", [1], origin="trained", recipe=recipe) for recipe in ("paper", "authors")))
        assert [label.rpartition(", ")[2] for label in labels_of(found).values()] == ["recipe paper", "recipe authors"]

    def test_describe_lines_states_what_labels_leave_out(self) -> None:
        runs = [
            curve("mnist-lif", [1, 2], origin="trained", seed=seed, name=f"s{seed}", training_versions=(4,))
            for seed in (3, 1)
        ]
        runs += [
            curve("mnist-plif", [1], origin="trained", overrides=("train.subset=0.1",), subset=True, recipe="paper")
        ]
        assert describe_lines(lines(*runs, curve("mnist-lif", [1]))) == (
            "LIF, τ = 2, 2 seeds: mnist-lif, recipe authors, protocol A, T = 8, seeds 1, 3, 2 epochs, "
            "training version 4. "
            "PLIF, τ₀ = 2, subset: mnist-plif, recipe paper, protocol A, T = 8, seed 2020, 1 epoch, subset, "
            "modified: train.subset=0.1. The authors' runs: from their logs, protocol A, seed 2020. "
            "Bands: mean ± standard deviation over seeds."
        )

    @pytest.mark.parametrize(
        ("other", "text"),
        [
            ({"training_versions": (1, 2)}, "training version 1 and 2"),
            ({"digest": "e" * 64}, "experiment eeeeeeee"),
            ({"cache": "f" * 64}, "data ffffffff"),
        ],
    )
    def test_runs_of_other_training_version_experiment_or_data_are_no_seeds_of_one_line(
        self, other: dict[str, Any], text: str
    ) -> None:
        known: dict[str, Any] = {"origin": "shipped", "training_versions": (2,), "digest": "d", "cache": "c"}
        known["spec"] = load_registry().experiment("mnist-lif").spec
        found = lines(*(curve("my-own", [1], **known | changes) for changes in ({"seed": 1}, {"seed": 2, **other})))
        assert [len(one.curves) for one in found] == [1, 1]
        assert list(labels_of(found).values())[1] == f"LIF, τ = 2, {text}"

    def test_only_the_authors_logs_are_called_theirs(self) -> None:
        other = curve(None, [1, 2], origin="imported", name="resnet", recipe=None, protocol=None, T=None, seed=None)
        found = lines(curve("mnist-lif", [1]), curve("mnist-lif", [1, 2], origin="imported"), other)
        sign = "LIF, τ = 2"
        assert list(labels_of(found).values()) == [f"{sign}, authors", f"{sign}, imported", "resnet, imported"]
        assert describe_lines(found) == (
            "LIF, τ = 2, imported: mnist-lif, from imported logs, recipe authors, protocol A, T = 8, seed 2020, 2 "
            "epochs. resnet, imported: run resnet, from imported logs, 2 epochs. "
            "The authors' runs: from their logs, protocol A, seed 2020."
        )

    @pytest.mark.parametrize(
        ("origin", "word", "note"),
        [("shipped", "shipped", "record of a registry folder"), ("added", "others", "trained by somebody else")],
    )
    def test_lines_of_runs_of_somebody_else_say_so(self, origin: str, word: str, note: str) -> None:
        known = {"digest": "d", "cache": "c"}
        others = [curve("mnist-plif", [1, 2], origin=origin, seed=seed, name=f"s{seed}", **known) for seed in (1, 2)]
        found = lines(curve("mnist-plif", [1, 2], origin="trained", **known), *others)
        mine, theirs = labels_of(found).values()
        assert theirs == f"{mine}, {word}, 2 seeds"
        assert f"{theirs}: mnist-plif, {note}, recipe authors" in describe_lines(found)
        assert note in describe_lines(found[1:])  # without others, the label is that of any run
        assert labels_of(found[1:]) == {found[1]: f"{mine}, 2 seeds"}
        axes = draw("6", *(one for line in found for one in line.curves)).axes[0]
        assert len({(drawn.get_color(), drawn.get_linestyle()) for drawn in axes.lines}) == 2

    def test_lines_of_two_experiments_without_digests_are_named_by_them(self) -> None:
        of_two = (curve(name, [1], origin="imported") for name in ("mnist-plif", "mnist-plif-avgpool"))
        same = [Line(found.curves, "MNIST", neuron=found.neuron) for found in lines(*of_two)]
        assert [label.rpartition(", ")[2] for label in labels_of(same).values()] == ["mnist-plif", "mnist-plif-avgpool"]

    def test_lines_of_a_repeated_seed_are_the_longest_run(self) -> None:
        runs = [curve("mnist-lif", range(1, n), origin="trained", name=f"run{n}") for n in (3, 5, 4)]
        (only,) = lines(*runs)
        assert [found.name for found in only.curves] == ["run5"]


class TestSeeds:
    def test_draw_accuracy_of_two_seeds_is_a_line_with_a_band_of_one_colour(self) -> None:
        runs = [
            curve("mnist-lif", [1, 2, 3], origin="trained", seed=seed, series={"test_accuracy": values})
            for seed, values in ((1, (0.2, 0.4, 0.6)), (2, (0.4, 0.4, None)))
        ]
        (axes,) = draw("6", *runs).axes
        (drawn,), (band,) = axes.lines, axes.collections
        np.testing.assert_allclose(drawn.get_xydata(), [[1, 30], [2, 40], [3, 60]])  # the third of one run
        std = 100 * np.std([0.2, 0.4], ddof=1)
        corners = band.get_paths()[0].vertices
        np.testing.assert_allclose([corners[corners[:, 0] == 1, 1].min(), corners[:, 1].max()], [30 - std, 60])
        assert mpl.colors.same_color(band.get_facecolor()[0][:3], drawn.get_color())

    def test_draw_leaves_out_epochs_that_a_run_lacks_before_its_end(self) -> None:
        runs = [
            curve("mnist-lif", [1, 2, 3], origin="trained", seed=seed, series={"test_accuracy": values})
            for seed, values in ((1, (0.2, None, 0.6)), (2, (0.4, 0.4, 0.6)))
        ]
        (axes,) = draw("6", *runs).axes
        np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 30], [3, 60]])

    @pytest.mark.parametrize("name", ["6", "7"])
    def test_draw_with_a_seed_that_ended_early_has_the_epochs_of_the_others(self, name: str) -> None:
        runs = [
            curve(
                "mnist-plif",
                range(1, last + 1),
                origin="trained",
                seed=seed,
                series={"test_accuracy": (0.1 * seed,) * last},
                tau=((float(seed),) * last,) * 2,
            )
            for seed, last in ((1, 300), (2, 300), (6, 5))
        ]
        figure = draw(name, *runs)
        axes = figure.axes[0]
        (drawn,), (band,), scale = axes.lines, axes.collections, 10 if name == "6" else 1
        epochs, values = drawn.get_data()
        assert list(epochs) == list(range(1, 301))
        np.testing.assert_allclose(values, np.r_[np.full(5, 3.0), np.full(295, 1.5)] * scale)
        corners, std = band.get_paths()[0].vertices, scale * np.std([1, 2], ddof=1)
        late = corners[corners[:, 0] > 5, 1]
        np.testing.assert_allclose([late.min(), late.max()], [1.5 * scale - std, 1.5 * scale + std])
        text = describe_lines(lines(*runs))
        assert "3 seeds: mnist-plif, recipe authors, protocol A, T = 8, seeds 1, 2, 6, 5 to 300 epochs" in text
        assert text.endswith("over seeds. After the last epoch of a run, they are over the others.")

    def test_draw_accuracy_of_long_runs_shows_their_whole_band(self) -> None:
        runs = [
            curve("mnist-plif", range(1, 201), origin="trained", seed=seed, series={"test_accuracy": (value,) * 200})
            for seed, value in ((1, 0.8), (2, 0.9))
        ]
        low, high = draw("6", *runs).axes[0].get_ylim()
        std = 100 * np.std([0.8, 0.9], ddof=1)
        assert low < 85 - std
        assert high > 85 + std

    def test_draw_accuracy_of_several_settings_has_a_colour_for_each(self) -> None:
        overrides: list[tuple[str, ...]] = [(), ("neuron.tau_0=4",), ("neuron.tau_0=8",), ("train.lr=0.1",)]
        runs = [
            curve("mnist-plif", [1, 2], origin="trained", seed=seed, overrides=changes, name=f"{seed}-{changes}")
            for changes in overrides
            for seed in (1, 2)
        ]
        (axes,) = draw("6", *runs).axes
        assert len({drawn.get_color() for drawn in axes.lines}) == len(axes.lines) == 4

    @pytest.mark.parametrize("number", [21, 24])
    def test_draw_accuracy_of_many_settings_repeats_no_style_or_warns(
        self, number: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = [(f"neuron.tau_0={tau}",) for tau in range(20, 20 + number)]
        runs = [curve("mnist-plif", [1, 2], origin="trained", overrides=changes) for changes in settings]
        (axes,) = draw("6", *runs, curve("mnist-plif", [1, 2]), curve("mnist-lif", [1, 2])).axes
        styles = {(drawn.get_color(), str(drawn._unscaled_dash_pattern)) for drawn in axes.lines}
        assert len(axes.lines) == number + 2
        assert len(styles) == 23
        warned = ["6 lines share their colour and dashes with another one; name fewer runs"]
        assert caplog.messages == (warned if number == 24 else [])

    @pytest.mark.parametrize("name", ["6", "7"])
    def test_draw_of_a_run_in_the_style_of_the_authors_line_does_not_warn(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        axes = draw(name, curve("mnist-plif", [1, 2], origin="trained"), curve("mnist-plif", [1, 2])).axes[0]
        assert len({(drawn.get_color(), str(drawn._unscaled_dash_pattern)) for drawn in axes.lines}) == 1
        assert len(axes.lines) == 2
        assert caplog.messages == []


@pytest.mark.parametrize("panels", [1, 2, 5])
def test_draw_accuracy_shows_its_whole_legend(panels: int) -> None:
    names = ["mnist-plif", "cifar10-plif", "nmnist-plif", "gesture-plif", "fashion-mnist-plif"][:panels]
    changes = [("neuron.tau_0=4", "train.lr=0.1"), ("neuron.tau_0=3", "train.lr=0.1"), ()]
    runs = [
        curve(name, [1, 2], origin="trained", overrides=changed, subset=True, protocol="B", name=f"{name}{changed}")
        for name in names
        for changed in changes
    ]
    figure = draw("6", *runs)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width
    assert extent.y0 >= 0
    assert all(extent.y1 <= axes.get_tightbbox().y0 for axes in figure.axes)
    assert len(legend.get_texts()) == 3


def test_draw_accuracy_of_a_long_and_a_short_curve_shows_both() -> None:
    runs = [
        curve("mnist-plif", range(1, 301), origin="trained", name="a", series={"test_accuracy": (0.94,) * 300}),
        curve("mnist-lif", range(1, 31), origin="trained", name="b", series={"test_accuracy": (0.4,) * 30}),
    ]
    (axes,) = draw("6", *runs).axes
    low, high = axes.get_ylim()
    assert low < 40
    assert high > 94


def test_draw_accuracy_of_a_long_constant_curve_is_possible() -> None:
    run = curve("mnist-plif", range(1, 201), series={"test_accuracy": (0.1,) * 200})
    low, high = draw("6", run).axes[0].get_ylim()
    assert low < 10 < high


def test_draw_fast_of_runs_without_validation_shows_their_mean_and_deviations() -> None:
    runs = [made("fast", "A", (accuracy, accuracy), seed) for seed, accuracy in enumerate((0.97, 0.96, 0.6))]
    (axes,) = FIGURE_KINDS["fast"].draw(find_fast_results(Results([*runs, TIMED, LOG], registry()))).axes
    low, high = axes.get_ylim()
    mean, std = 100 * np.mean([0.97, 0.96, 0.6]), 100 * np.std([0.97, 0.96, 0.6], ddof=1)
    assert low < mean - std < mean + std < high


def test_draw_accuracy_of_a_long_curve_has_the_range_after_the_first_epochs() -> None:
    values = tuple(np.r_[np.full(16, 0.1), np.linspace(0.90, 0.95, 184)].tolist())
    low, high = draw("6", curve("mnist-plif", range(1, 201), series={"test_accuracy": values})).axes[0].get_ylim()
    assert 60 < low < 90  # the moving average of epoch 65 still contains some of the first epochs
    assert 95 < high < 100


def test_has_accuracy_of_a_run_without_test_epochs_is_false() -> None:
    shows = FIGURE_KINDS["6"].shows
    assert shows(line(curve("mnist-plif", [1, 2])))
    assert not shows(line(curve("mnist-plif", [1, 2], protocol="B", series={"validation_accuracy": (0.1, 0.2)})))


def test_draw_tau_has_a_panel_for_each_layer_with_all_starts() -> None:
    runs = [curve(name, range(1, 101)) for name in ("cifar10-plif", "cifar10-plif-tau16", "cifar10-lif")]
    figure = draw("7", *runs, epochs=50)
    panels = figure.subfigs[0].axes
    assert [axes.get_title() for axes in panels] == [r"$\tau(0)$", r"$\tau(1)$"]
    for layer, axes in enumerate(panels):
        slow, fast = runs[1].tau[layer][:50], runs[0].tau[layer][:50]  # LIF learns none
        for drawn, values in zip(axes.lines, (fast, slow), strict=True):
            np.testing.assert_allclose(drawn.get_ydata(), values)
        assert axes.get_yscale() == "linear"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "PLIF, τ₀ = 2",
        "PLIF, τ₀ = 16",
    ]
    far = curve("cifar10-plif", range(1, 101), tau=((1.5,) * 50 + (50.0,) * 50, (2.0,) * 100))
    assert [axes.get_yscale() for axes in draw("7", far).subfigs[0].axes] == ["log", "linear"]
    with pytest.raises(UsageError, match="time constants"):
        draw("7", runs[2])


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
    handles = figure.legends[0].legend_handles[:3]
    assert [h.get_facecolor() for h in handles] == [tuple(band.get_facecolor()[0]) for band in first.collections]
    assert all(h.get_facecolor()[3] == 1 for h in handles)  # opaque: overlaid bands have the colours of the legend
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
            grid = np.asarray(FIGURE_KINDS["S3"].draw(found, []).axes[1].images[0].get_array())
            title = FIGURE_KINDS["S3"].draw(found, []).axes[1].get_title(loc="left")
        np.testing.assert_allclose(grid[:5, 6:11], found.spikes["sn0"][0, :, 1].mean(0))
        assert "$T_s = 4$" in title  # steps that the mean is over
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
        assert [axes.get_title() for axes in below.axes[:4]] == ["1", "2", "3", "4"]


def initial_states(title: str = "gestures") -> InitialStates:
    by_tau = {
        2.0: InitialState({"sn0": 0.2, "sn1": 0.05}, {"conv0": 1e-3, "fc0": 2e-3}, {"sn0": 1e-6, "sn1": 3e-6}),
        16.0: InitialState({"sn0": 0.01, "sn1": 0.0}, {"conv0": 1e-5, "fc0": 0.0}, {"sn0": 1e-8, "sn1": 0.0}),
    }
    return InitialStates(title, "", by_tau)


class TestStart:
    def test_draw_initial_states_shows_values_and_zeros_apart(self) -> None:
        with figure_style():
            rates = FIGURE_KINDS["start"].draw([initial_states()]).axes[0]
        first, no_zeros, second, zeros = (np.asarray(found.get_ydata(), float) for found in rates.lines)
        np.testing.assert_array_equal(first, [0.2, 0.05])
        np.testing.assert_array_equal(second, [0.01, np.nan])
        assert len(no_zeros) == 0
        assert rates.get_ylim()[0] < zeros[0] < 0.01
        assert rates.lines[3].get_markerfacecolor() == "none"

    def test_draw_initial_states_that_are_silent_everywhere_is_possible(self) -> None:
        silent = InitialStates("", "", {2.0: InitialState({"sn0": 0.0}, {"fc0": 0.0}, {"sn0": 0.0})})
        with figure_style():
            FIGURE_KINDS["start"].draw([silent]).draw_without_rendering()

    def test_draw_initial_states_of_two_networks_has_a_row_for_each_and_one_legend(self) -> None:
        with figure_style():
            one = FIGURE_KINDS["start"].draw([initial_states()])
            two = FIGURE_KINDS["start"].draw([initial_states("A"), initial_states("B $x$")])
        titles = [part.get_suptitle() for part in two.subfigs]
        assert (titles, [part.get_suptitle() for part in one.subfigs]) == (["A", r"B \$x\$"], [""])
        assert [len(figure.axes) for figure in (one, two)] == [3, 6]
        assert [len(figure.legends) for figure in (one, two)] == [1, 1]
        assert [axes.get_title(loc="left")[:3] for axes in two.axes] == ["(a)", "(b)", "(c)"] * 2


def everything(name: str) -> Any:
    kind = FIGURE_KINDS[name]
    if kind.needs == "nothing":
        return kind.draw()
    if kind.needs == "first step":
        return kind.draw([initial_states()])
    if kind.needs == "fast results":
        return kind.draw(find_fast_results(Results([fast(0.96), fast(0.98, 2), TIMED, LOG], registry())))
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


@pytest.mark.parametrize("name", ["6", "7"])
def test_figure_with_characters_that_the_usual_font_lacks_takes_another_and_does_not_warn(
    name: str, tmp_path: Path
) -> None:
    of_stix = min(fonts._characters("STIXGeneral") - fonts._characters("DejaVu Sans"))
    title = f"{chr(of_stix)}\U0010fffd"  # the second is in no font
    with figure_style():
        figure = FIGURE_KINDS[name].draw(lines(curve(None, [1, 2], name=title)), None)
        save_figure(figure, tmp_path / "a.svg", "")
    (drawn,) = [text for text in figure.findobj(Text) if text.get_text() == f"(a) {title}"]
    assert drawn.get_family() == fonts.fonts_for(title)
    assert len(drawn.get_family()) > 1
    assert figure.legends[0].get_texts()[0].get_family() == drawn.get_family()


def test_draw_accuracy_with_a_dollar_in_a_title_shows_it_verbatim() -> None:
    found = line(curve(None, range(1, 4), name=r"$\nonsense{$ b_c"))  # as a formula it would be an error
    with figure_style():
        figure = FIGURE_KINDS["6"].draw([found], None)
        figure.draw_without_rendering()
    assert figure.axes[0].get_title(loc="left") == r"(a) \$\nonsense{\$ b_c"
