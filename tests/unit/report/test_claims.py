"""The claims of the paper: evidence of made and of the authors' runs, and verdicts by rule."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import made_control, made_record

from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.report import Table, TableOptions, fill_table, pairs
from plifctl.report.claims import CLAIMS, verdict
from plifctl.report.evidence import Evidence, Finding, Outcome
from plifctl.report.results import Results
from plifctl.runs import Predictions, ResultRecord, RunData, load_records
from plifctl.runs.documents import add_checksum
from plifctl.runs.records import record_text
from plifctl.runs.sessions import Session
from plifctl.training.progress import TRAINING_VERSION

ABOVE, BREAKDOWN, POOLING, FASTER, GATHER, TIME = (claim.text for claim in CLAIMS)


@cache
def registry() -> Registry:
    return load_registry()


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> list[ResultRecord]:
    """The records that come with plifctl, those of the authors' logs among them."""
    return load_records(tmp_path_factory.mktemp("no-runs"), registry().folders)


def run(variant: str, tests: tuple[float, ...], seed: int = 1, **changes: Any) -> ResultRecord:
    """Returns a record of an experiment on N-MNIST with its test accuracies by epoch."""
    found: ResultRecord = made_record(f"nmnist-{variant}", tests, seed, **changes)
    return found


def findings(claim: str, *records: ResultRecord, source: Any = "mine") -> dict[str, tuple[Any, str]]:
    """Returns outcome and evidence of each comparison with runs, by its label."""
    find = next(one.findings for one in CLAIMS if one.text == claim)
    found = find(Evidence(Results(records, registry(), source)))
    return {one.label: (one.outcome, one.number.text) for one in found if one.number is not None}


def table(*records: ResultRecord, **options: Any) -> Table:
    return fill_table("claims", records, registry(), TableOptions(**options))


def seeds(variant: str, *accuracies: float) -> list[ResultRecord]:
    return [run(variant, (accuracy,), seed) for seed, accuracy in enumerate(accuracies, start=1)]


class TestAuthors:
    def test_plif_is_above_lif_at_tau_16_only(self, authors: list[ResultRecord]) -> None:
        found = findings(ABOVE, *authors, source="authors")
        yes = {label for label, (outcome, _) in found.items() if outcome == "yes"}
        assert yes == {f"{data}, τ = 16" for data in ("CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture", "N-MNIST")}
        assert "no" not in {outcome for outcome, _ in found.values()}
        assert found["MNIST, τ = 16"] == ("open", "+0.24, p = 0.091")
        assert len(found) == 12

    def test_lif_breaks_down_on_three_data_sets(self, authors: list[ResultRecord]) -> None:
        assert findings(BREAKDOWN, *authors, source="authors") == {
            "CIFAR-10": ("yes", "LIF −45.53, PLIF −0.27"),
            "CIFAR10-DVS": ("yes", "LIF −11.20, PLIF −4.30"),
            "DVS128 Gesture": ("yes", "LIF −20.14, PLIF −5.56"),
            "Fashion-MNIST": ("no", "LIF +0.30, PLIF +0.27"),
            "MNIST": ("no", "LIF −0.20, PLIF +0.01"),
            "N-MNIST": ("no", "LIF −0.49, PLIF −0.08"),
        }

    def test_small_test_sets_leave_pooling_open(self, authors: list[ResultRecord]) -> None:
        found = findings(POOLING, *authors, source="authors")
        assert {label for label, (outcome, _) in found.items() if outcome == "open"} == {
            "CIFAR10-DVS",
            "DVS128 Gesture",
        }
        assert found["Fashion-MNIST"] == ("yes", "−0.36 [−0.99, +0.27]")
        assert len(found) == 6

    def test_plif_learns_faster_at_tau_16(self, authors: list[ResultRecord]) -> None:
        found = findings(FASTER, *authors, source="authors")
        datasets = ("Fashion-MNIST", "CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture")
        epochs = ((13, 21), (9, 119), (21, 135), (25, 139))
        for data, (plif, lif) in zip(datasets, epochs, strict=True):
            assert found[f"{data}, τ = 16"] == ("yes", f"{plif} against {lif} epochs")
        assert found["CIFAR10-DVS, τ = 2"] == ("no", "76 against 46 epochs")
        assert found["DVS128 Gesture, τ = 2"] == ("open", "57 against 56 epochs")

    def test_time_constants_gather_where_they_were_logged(self, authors: list[ResultRecord]) -> None:
        assert findings(GATHER, *authors, source="authors") == {
            "CIFAR-10": ("yes", "ratio 8.00 to 1.12, at most 1.32"),
            "CIFAR10-DVS": ("yes", "ratio 8.00 to 1.30, at most 2.50"),
        }

    def test_verdicts_name_data_sets_and_that_there_is_one_seed(self, authors: list[ResultRecord]) -> None:
        rows = table(*authors, source="authors").rows
        verdicts = [row[3] for row in rows]
        assert verdicts[4] == "holds only for CIFAR-10, CIFAR10-DVS (one seed each)"
        assert verdicts[1] == (
            "holds only for CIFAR-10, CIFAR10-DVS, DVS128 Gesture; against: Fashion-MNIST, MNIST, N-MNIST "
            "(one seed each)"
        )
        assert rows[5][2:] == ("the authors' logs have none", "no stored evidence")


def test_plif_above_lif_over_seeds_is_significant_after_holm_or_open() -> None:
    lif = seeds("lif", 0.90, 0.91, 0.92)
    above, same = seeds("plif", 0.95, 0.961, 0.97), seeds("plif", 0.95, 0.90, 0.93)
    assert findings(ABOVE, *above, *lif)["N-MNIST, τ = 2"][0] == "yes"
    assert findings(ABOVE, *same, *lif)["N-MNIST, τ = 2"][0] == "open"
    below = [r.model_copy(update={"accuracy": r.accuracy - 0.1, "test_accuracy": (r.accuracy - 0.1,)}) for r in above]
    assert findings(ABOVE, *below, *lif)["N-MNIST, τ = 2"][0] == "no"


def test_plif_above_lif_by_the_same_with_every_seed_is_open() -> None:
    found = findings(ABOVE, *seeds("plif", 0.92, 0.93), *seeds("lif", 0.91, 0.92))
    assert found["N-MNIST, τ = 2"] == ("open", "+1.00, the same with every seed")


def test_plif_above_lif_on_an_unknown_number_of_samples_keeps_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_samples(*what: Any) -> list[pairs.Pair]:
        return [replace(pair, test_samples=None) for pair in find_pairs(*what)]

    find_pairs = pairs.find_pairs  # the data sets with pairs state their samples; those that users bring may not
    monkeypatch.setattr(pairs, "find_pairs", without_samples)
    found = findings(ABOVE, run("plif", (0.92,), data=None), run("lif", (0.91,), data=None))
    assert found["N-MNIST, τ = 2"] == ("open", "+1.00, number of test samples unknown")


def test_a_loss_of_exactly_ten_points_is_a_breakdown() -> None:
    data = RunData(verified=True, complete=True, train=60000, validation=0, test=100, cache="c")
    accuracies = {"lif": 0.97, "lif-tau16": 0.87, "plif": 0.97, "plif-tau16": 0.97}
    found = findings(BREAKDOWN, *(run(variant, (value,), data=data) for variant, value in accuracies.items()))
    assert found["N-MNIST"] == ("yes", "LIF −10.00, PLIF +0.00")


@pytest.mark.parametrize(
    ("lif", "plif", "outcome"),
    [
        (0.70, 0.95, "yes"),
        (0.90, 0.96, "no"),  # LIF loses 7 points
        (0.70, 0.80, "no"),  # PLIF breaks down, too
        (0.80, 0.90, "open"),  # on 100 samples, the 7 points that PLIF loses may be more than 10
    ],
)
def test_lif_breaks_down_is_a_loss_of_ten_points_that_plif_does_not_have(
    lif: float, plif: float, outcome: Outcome
) -> None:
    samples = 100 if outcome == "open" else 10000
    data = RunData(verified=True, complete=True, train=60000, validation=0, test=samples, cache="c")
    runs = [
        run(v, (a,), data=data) for v, a in (("lif", 0.97), ("lif-tau16", lif), ("plif", 0.97), ("plif-tau16", plif))
    ]
    assert findings(BREAKDOWN, *runs)["N-MNIST"][0] == outcome


def test_lif_breaks_down_counts_the_same_epochs_of_all_four_runs() -> None:
    longer = [run("plif", (0.90, 0.97)), run("plif-tau16", (0.89, 0.97))]
    found = findings(BREAKDOWN, run("lif", (0.9,)), run("lif-tau16", (0.5,)), *longer)
    assert found["N-MNIST"] == ("yes", "LIF −40.00, PLIF −1.00")


def test_lif_breaks_down_of_other_samples_than_plif_is_not_compared() -> None:
    other = {"data": RunData(verified=True, complete=True, train=60000, validation=0, test=10000, cache="d")}
    plif = [run("plif", (0.9,), **other), run("plif-tau16", (0.9,), **other)]
    found = table(run("lif", (0.9,)), run("lif-tau16", (0.5,)), *plif)
    assert found.rows[1][4:] == ("", "no runs")
    assert any("with PLIF: runs of different samples" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("maximum", "average", "outcome"), [(0.99, 0.99, "yes"), (0.95, 0.955, "open"), (0.95, 0.98, "no")]
)
def test_max_pooling_is_as_good_if_the_interval_is_above_minus_one_point(
    maximum: float, average: float, outcome: Outcome
) -> None:
    found = findings(POOLING, run("plif", (maximum,)), run("plif-avgpool", (average,)))
    assert found["N-MNIST"][0] == outcome


def save_run(runs_dir: Path, variant: str, wrong: Sequence[int]) -> ResultRecord:
    """Saves a run with predictions for 1000 samples of class 0, some of which are wrong; returns its record."""
    data = RunData(verified=True, complete=True, train=60000, validation=0, test=1000, cache="c")
    record = run(variant, (1 - len(wrong) / 1000,), data=data)
    folder, ids = runs_dir / record.run, tuple(map(str, range(1000)))
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(add_checksum({"cache": {}})))
    (folder / "result.json").write_text(record_text(record))
    predicted = np.isin(np.arange(1000), wrong).astype(np.uint8)
    Predictions(ids, np.zeros(1000, np.uint8), predicted, record.best_epoch).save(folder / "predictions.npz")
    return record


def test_a_margin_is_compared_with_an_interval_for_the_size_of_the_difference(tmp_path: Path) -> None:
    wrong = {"plif": range(8), "plif-tau16": range(98), "lif": range(8), "lif-tau16": range(308), "plif-avgpool": ()}
    runs = [save_run(tmp_path, variant, rows) for variant, rows in wrong.items()]
    evidence = Evidence(Results(runs, registry(), "mine"), tmp_path)
    (pooling,) = (one for one in evidence.max_as_good_as_average() if one.number is not None)
    (breakdown,) = (one for one in evidence.lif_breaks_down() if one.number is not None)
    # McNemar's interval takes it as given that 8 samples differ, or 90: no loss could be greater than that
    assert (pooling.outcome, pooling.text) == ("open", "N-MNIST: −0.80 [−1.38, −0.21] @1")
    assert (breakdown.outcome, breakdown.text) == ("open", "N-MNIST: LIF −30.00, PLIF −9.00 @1")


@pytest.mark.parametrize(
    ("plif", "lif", "outcome"),
    [
        ([2], [4], "yes"),
        ([3], [1], "no"),
        ([1], [2], "open"),  # one seed: a difference of one epoch is the least there can be
        ([2], [1], "open"),
        ([5], [7], "open"),  # less than half as many again
        ([1, 2, 1], [3, 4, 3], "yes"),  # all differ by two: no interval, and more than half as many again
        ([3, 3], [4, 4], "open"),  # as with one seed
        ([1, 1], [2, 2], "open"),
        ([1, 2, 3], [2, 2, 2], "open"),
        ([3, 4, 4], [1, 1, 2], "no"),
    ],
)
def test_plif_learns_faster_by_a_factor_with_one_seed_else_by_the_interval(
    plif: list[int], lif: list[int], outcome: Outcome
) -> None:
    def reaching(variant: str, epochs: list[int]) -> list[ResultRecord]:
        return [
            run(variant, (0.5,) * (epoch - 1) + (0.9,) * (8 - epoch), seed)
            for seed, epoch in enumerate(epochs, start=1)
        ]

    assert findings(FASTER, *reaching("plif", plif), *reaching("lif", lif))["N-MNIST, τ = 2"][0] == outcome


@pytest.mark.parametrize(("tau", "outcome"), [((2.5, 3.0), "yes"), ((2.5, 8.0), "open"), ((16.0, 20.0), "no")])
def test_time_constants_gather_if_every_layer_covers_half_of_the_way(
    tau: tuple[float, float], outcome: Outcome
) -> None:
    runs = [run("plif", (0.9,), tau=((2.0, 2.0),)), run("plif-tau16", (0.9,), tau=(tau,))]
    assert findings(GATHER, *runs)["N-MNIST"][0] == outcome


@pytest.mark.parametrize(("change", "counted"), [("train.subset=0.1", True), ("neuron.tau_0=4.0", False)])
def test_time_constants_of_modified_runs_count_if_their_start_is_that_of_the_experiments(
    change: str, counted: bool
) -> None:
    runs = [run(variant, (0.9,), tau=((2.0,),), overrides=(change,)) for variant in ("plif", "plif-tau16")]
    found = table(*runs, include_modified=True)
    assert found.rows[4][4].startswith("Yes: N-MNIST") == counted
    text = f"τ before training is not that of the experiment ({change})"
    assert any(text in warning for warning in found.warnings) != counted


def registry_with_tau_4(folder: Path) -> Registry:
    """Returns the registry with PLIF and LIF on N-MNIST at τ = 4."""
    (folder / "experiments").mkdir()
    neurons = {"plif": "kind: plif, tau_0: 4.0", "lif": "kind: lif, tau: 4.0"}
    variants = (f"  nmnist-{name}-tau4: {{title: t, neuron: {{{neuron}}}}}\n" for name, neuron in neurons.items())
    head = "extends: _common\ndataset: nmnist\nnetwork: mnist\nT: 10\ntrain: {normalise: none}\n"
    recipes = "recipes:\n  authors:\n    validation: {T: 20}\n"
    (folder / "experiments/mine.yaml").write_text(f"{head}{recipes}variants:\n{''.join(variants)}")
    return Registry([*registry().folders, folder])


def test_a_third_tau_is_a_comparison_of_its_own_or_none(tmp_path: Path) -> None:
    known, tau = registry_with_tau_4(tmp_path), {2: 0.97, 4: 0.5, 16: 0.4}
    runs = []
    for neuron, value in product(("lif", "plif"), tau):
        name = f"nmnist-{neuron}{'' if value == 2 else f'-tau{value}'}"
        accuracy, learnt = tau[value] if neuron == "lif" else 0.97, ((3.0,),) if neuron == "plif" else ((),)
        values = {"experiment": name, "run": name, "digest": known.experiment(name).spec.digest}
        runs.append(run("plif", (accuracy,), tau=learnt).model_copy(update=values))
    rows = fill_table("claims", runs, known, TableOptions()).rows
    assert rows[1][4].startswith("Yes: N-MNIST: LIF −57.00, PLIF +0.00")  # the rule names τ = 2 and 16
    assert rows[1][5].startswith("holds only for N-MNIST (")  # other data sets have no runs
    ratios = "Yes: N-MNIST{}: ratio 2.00 to 1.00, at most 1.00"
    assert rows[4][4].startswith(ratios.format(", τ = 2 to 4"))
    assert rows[4][5].startswith("holds only for N-MNIST at τ = 2 to 4; N-MNIST; N-MNIST at τ = 4 to 16 (")
    without = [one for one in runs if one.run != "nmnist-plif-tau4"]
    found = [one for one in Evidence(Results(without, known)).time_constants_gather() if one.dataset == "N-MNIST"]
    assert [(one.tau, one.outcome) for one in found] == [("τ = 2 to 4", None), ("", "yes"), ("τ = 4 to 16", None)]
    assert verdict(found).startswith("holds only for N-MNIST (")


def test_lif_breaks_down_without_plif_names_the_experiments_of_plif() -> None:
    found = Evidence(Results([run("lif", (0.9,)), run("lif-tau16", (0.5,))], registry())).lif_breaks_down()
    (missing,) = (one.missing for one in found if one.dataset == "N-MNIST")
    assert missing == ("nmnist-plif", "nmnist-plif-tau16")


def under_controls(
    experiment: str, *losses: int, accuracy: float = 0.9, samples: int = 1000, gained: int = 0, **changes: Any
) -> list[ResultRecord]:
    """Returns a record for each seed, with what it loses with shuffled frames, in samples, and two more backwards."""
    data = RunData(verified=True, complete=True, train=8, validation=0, test=samples, cache="c")
    right = round(accuracy * samples)
    tests: dict[str, Any] = {"gained": gained, "samples": samples, "epoch": 1, "cache": "c"}

    def control(time: str, lost: int) -> Any:
        return made_control(time, accuracy=(right - lost + gained) / samples, lost=lost, **tests)

    return [
        made_record(
            experiment,
            (accuracy,),
            seed,
            **{"data": data, "controls": (control("shuffled", lost), control("reversed", lost + 2)), **changes},
        )
        for seed, lost in enumerate(losses, start=1)
    ]


@pytest.mark.parametrize(
    ("losses", "gained", "expected"),
    [
        ([300], 0, ("yes", "shuffled −30.00 [−32.78, −27.10], reversed −30.20")),
        ([40], 25, ("open", "shuffled −1.50 [−3.08, +0.09], reversed −1.70")),
        ([0], 0, ("no", "shuffled +0.00 [−0.20, +0.20], reversed −0.20")),
        ([2], 12, ("no", "shuffled +1.00 [+0.24, +1.75], reversed +0.80")),
        ([180, 200, 220], 0, ("yes", "shuffled −20.00 [−24.97, −15.03], reversed −20.20")),
        ([10, 100, 200], 0, ("open", "shuffled −10.33 [−33.94, +13.28], reversed −10.53")),
        ([5, 6, 7], 0, ("no", "shuffled −0.60 [−0.85, −0.35], reversed −0.80")),
        ([20, 20, 20], 0, ("yes", "shuffled −2.00, reversed −2.20")),  # equal: each by its samples
        ([40, 40], 25, ("open", "shuffled −1.50, reversed −1.70")),
    ],
)
def test_time_is_used_if_the_interval_of_the_loss_is_above_one_point(
    losses: list[int], gained: int, expected: tuple[Outcome, str]
) -> None:
    runs = under_controls("gesture-plif", *losses, gained=gained)
    assert findings(TIME, *runs) == {"DVS128 Gesture": expected}


def test_time_is_used_only_counts_tests_of_the_reported_epoch() -> None:
    stale = under_controls("gesture-plif", 300, best_epoch=2, test_accuracy=(0.5, 0.9), epochs=2)
    found = table(*stale)
    assert found.rows[5][4:] == ("no run has any", "no stored evidence")
    reason = "of epoch 1, and the result is of epoch 2"
    assert f"controls of run-plif-1 not counted: {reason}" in found.warnings
    (longer,) = under_controls("gesture-plif", 300, test_accuracy=(0.9, 0.5), epochs=2)
    assert findings(TIME, longer)["DVS128 Gesture"][0] == "yes"
    assert "yes" in dict(findings(TIME, *stale, longer).values())  # a stale run is no reason to forget the other


def test_time_is_used_names_the_runs_of_the_same_settings_that_were_not_tested() -> None:
    tested, other = under_controls("gesture-plif", 300, 290), under_controls("gesture-plif", 1, 1, 1, 1, 1)
    untested = [one.model_copy(update={"controls": ()}) for one in other[2:]]
    of_other_settings = other[4].model_copy(update={"run": "longer", "controls": (), "epochs": 2})
    found = table(*tested, *untested, of_other_settings)
    assert found.rows[5][4].endswith("@1, 2 seeds")
    names = "run-plif-3, run-plif-4, run-plif-5"
    warnings = [warning for warning in found.warnings if warning.startswith("NOT COUNTED")]
    assert warnings == [f"NOT COUNTED: runs {names}: not tested under controls: plifctl eval RUN --controls"]
    shipped = [one.model_copy(update={"origin": "shipped"}) for one in (*tested, untested[0])]
    assert "NOT COUNTED: run run-plif-3: not tested under controls" in table(*shipped, source="shipped").warnings
    assert not any("NOT COUNTED" in warning for warning in table(*untested).warnings)  # nothing is counted


def test_time_is_used_says_which_runs_it_speaks_of() -> None:
    found = table(*under_controls("gesture-plif", 300), *under_controls("demo", 20, 20))
    assert found.rows[5][4] == (
        "Yes: synthetic gestures: shuffled −2.00, reversed −2.20 @1, 2 seeds; "
        "DVS128 Gesture: shuffled −30.00 [−32.78, −27.10], reversed −30.20 @1"
    )
    assert found.rows[5][5] == (
        "holds only for synthetic gestures, DVS128 Gesture "
        "(one seed in 1 of 2 comparisons; after the first epoch; training version 1)"
    )
    several = [*under_controls("gesture-plif", 300), *under_controls("gesture-plif", 0, protocol="B", run="other")]
    labels = findings(TIME, *several)
    assert [*labels] == [f"DVS128 Gesture, gesture-plif, recipe paper, protocol {protocol}" for protocol in ("A", "B")]
    assert [outcome for outcome, _ in labels.values()] == ["yes", "no"]
    assert [*findings(TIME, several[1])] == ["DVS128 Gesture, protocol B"]  # the other claims are of protocol A
    changed = under_controls("gesture-plif", 0, overrides=("train.lr=0.01",), run="other")
    modified = Evidence(Results([*under_controls("gesture-plif", 300), *changed], registry(), include_modified=True))
    settings = [one.settings for one in modified.time_is_used() if one.number is not None]
    assert settings == [f"gesture-plif, recipe paper, protocol A{text}" for text in ("", ", modified")]


def test_time_is_used_counts_runs_of_experiments_that_are_files() -> None:
    lossy, equal = (one for lost in (300, 0) for one in under_controls("gesture-plif", lost))
    on_gesture = lossy.model_copy(update={"experiment": "mine"})
    on_own = equal.model_copy(update={"experiment": "wave", "dataset": "hands", "run": "other"})
    found = table(on_gesture, on_own)
    labels = {
        "DVS128 Gesture, mine, recipe paper, protocol A": "yes",
        "hands, wave, recipe paper, protocol A": "no",
    }
    assert {label: outcome for label, (outcome, _) in findings(TIME, on_gesture, on_own).items()} == labels
    assert all(f"{label}: shuffled" in found.rows[5][4] for label in labels)
    assert "against: hands (wave, recipe paper, protocol A)" in found.rows[5][5]


def test_shipped_records_use_the_order_of_frames_where_the_rule_says_so(authors: list[ResultRecord]) -> None:
    found = findings(TIME, *authors, source="shipped")
    assert found["synthetic gestures"] == ("yes", "shuffled −19.70 [−32.13, −7.26], reversed −53.64, no memory −32.73")
    assert found["synthetic orders"] == ("yes", "shuffled −85.56 [−89.86, −81.25], reversed −100.00, no memory −84.17")
    of_nmnist = {label.split(", ")[1]: outcome for label, (outcome, _) in found.items() if label.startswith("N-MNIST")}
    assert of_nmnist == {
        "nmnist-plif": "open",  # shuffled −1.75 [−3.27, −0.23]
        "nmnist-lif": "open",
        "nmnist-plif-tau16": "yes",
        "nmnist-lif-tau16": "yes",
    }


def test_images_have_no_order_that_could_be_used() -> None:
    assert "Fashion-MNIST" not in findings(TIME, *under_controls("fashion-mnist-plif", 300))


def test_verdict_follows_from_the_outcomes() -> None:
    def found(*outcomes: Outcome | None, seed_count: int = 3) -> list[Finding]:
        return [
            Finding(name, outcome=outcome, seeds=seed_count) for name, outcome in zip("ABC", outcomes, strict=False)
        ]

    assert verdict(found(None, None)) == "no runs"
    assert verdict(found("yes", "yes")) == "holds"
    assert verdict(found("yes", None)) == "holds only for A"
    assert verdict([*found("yes"), Finding("A", settings="recipe paper")]) == "holds"
    assert verdict(found("yes", "open", "no")) == "holds only for A; against: C"
    assert verdict(found("open", None)) == "not supported"
    assert verdict(found("no", "no", seed_count=1)) == "not supported; against: A, B (one seed each)"


def test_claims_without_runs_say_so_and_name_the_experiments_that_lack_them() -> None:
    found = table()
    assert [row[4:] for row in found.rows[:5]] == [("", "no runs")] * 5
    assert found.rows[5][4:] == ("no run has any", "no stored evidence")
    missing = {entry.experiment for entry in found.entries if not entry.numbers}
    assert {"nmnist-plif", "nmnist-lif-tau16", "gesture-plif-avgpool"} <= missing


def test_verdict_on_short_runs_of_a_part_of_the_samples_says_what_they_lack() -> None:
    part = RunData(verified=True, complete=False, train=800, validation=0, test=100, cache="c")
    found = table(*(run(variant, (0.9, 0.95), data=part) for variant in ("plif", "lif")))
    assert found.rows[0][5] == "not supported (one seed each; after the first 2 epochs; subset; training version 1)"
    assert "@2 subset" in found.rows[0][4]


def test_verdict_on_runs_of_the_short_training_says_so() -> None:
    specs = {v: registry().experiment(f"nmnist-{v}", recipe="fast").spec for v in ("plif", "lif")}
    runs = (run(v, (0.9,) * s.train.epochs, recipe="fast", digest=s.digest) for v, s in specs.items())
    found = table(*runs)
    assert found.rows[0][4:] == (
        "Open: N-MNIST, τ = 2: +0.00, p = 1.00 fast",
        "not supported (one seed each; fast; training version 1)",
    )


def test_verdict_and_evidence_say_what_forbids_to_compare_the_runs() -> None:
    data = RunData(verified=False, complete=True, train=60000, validation=0, test=10000, cache="c")
    today = (Session(epochs=(1, 1), training_version=TRAINING_VERSION, host="h", environment={}),)
    values: dict[str, Any] = {"data": data, "overrides": ("train.lr=0.1",)}
    runs = [run(variant, (0.9,), **values) for variant in ("plif", "lif")]
    found = table(*runs, include_modified=True)
    lacks = "modified: train.lr=0.1; source not verified; training version 1"
    assert found.rows[0][5] == f"not supported (one seed each; after the first epoch; {lacks})"
    evidence = next(entry.numbers[0] for entry in found.entries if entry.column == "My runs: N-MNIST, τ = 2")
    for one, note in zip(runs, evidence.note.split(" | "), strict=True):
        facts = (one.experiment, f"run {one.run}", "training version 1: ", "not verified", "MODIFIED: train.lr=0.1")
        for part in facts:
            assert part in note
    data = data.model_copy(update={"verified": True})
    known = table(*(run(variant, (0.9,), data=data, sessions=today) for variant in ("plif", "lif")))
    assert known.rows[0][5] == "not supported (one seed each; after the first epoch)"
    (controlled,) = under_controls("gesture-plif", 300, data=data.model_copy(update={"verified": False, "test": 1000}))
    assert table(controlled).rows[5][5].endswith("after the first epoch; source not verified; training version 1)")


@pytest.mark.parametrize("source", ["mine", "shipped", "authors", "imported", "added"])
def test_claims_in_every_format_have_rules_and_verdicts(authors: list[ResultRecord], source: Any) -> None:
    found = table(*authors, source=source)
    assert len(found.columns) == (4 if source == "authors" else 6)
    tree = json.loads(found.to_json())
    assert tree["notes"]["1"].startswith("difference of the maxima")
    assert "holds only for CIFAR-10, CIFAR10-DVS (one seed each)" in found.to_markdown()
    assert "?" not in found.to_latex()
    assert r"\begin{tabular}{p{3cm}p{3cm}p{6cm}" in found.to_latex()
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    (line,) = [line for line in lines if (line["row"], line["column"]) == (GATHER, "Authors' runs: CIFAR-10")]
    notes = line["note"].split(" | ")
    assert ["run authors-cifar10-plif;" in notes[0], "run authors-cifar10-plif-tau16;" in notes[1]] == [True, True]
    sources = {line["column"]: line["result"] for line in lines if line["row"] == TIME}
    assert sources["Verdict, authors"] == "no stored evidence"


def test_claims_of_the_first_epochs_cut_the_authors_runs_too(authors: list[ResultRecord]) -> None:
    found = table(*authors, source="authors", epochs=4)
    assert "of the first 4 epochs" in found.caption
    assert "ratio 8.00 to 3.59" in found.rows[4][2]


@pytest.mark.parametrize("source", ["mine", "authors"])
def test_claims_name_the_left_out_runs_of_both_sides(source: Any) -> None:
    theirs = run("plif", (0.9,), run="their-log", origin="authors", overrides=("T=4",))
    ours = run("plif", (0.9,), run="our-run", origin="trained", overrides=("T=4",))
    warnings = "\n".join(table(theirs, ours, source=source).warnings)
    assert "their-log" in warnings
    assert ("our-run" in warnings) == (source == "mine")
