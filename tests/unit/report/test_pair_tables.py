"""Tables that compare experiments in pairs: significance, speed, convergence."""

import csv
import io
import json
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import made_record

from plifctl.config.choices import CONVERGENCE_TABLE, SIGNIFICANCE_TABLE, SPEED_TABLE
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.report import Table, TableOptions, fill_table
from plifctl.report.evidence import Evidence
from plifctl.report.pairs import find_pairs
from plifctl.report.results import Results, cut_record
from plifctl.report.significance import format_p
from plifctl.report.statistics import mcnemar, paired_t
from plifctl.runs import Predictions, ResultRecord, RunData, authors_records, find_logs, import_log, load_records
from plifctl.runs.documents import add_checksum
from plifctl.runs.folders import EXTERNAL_PREFIX
from plifctl.runs.records import record_text, with_origin
from plifctl.runs.sessions import Session


@cache
def registry() -> Registry:
    return load_registry()


def run(neuron: str, tests: tuple[float, ...], seed: int = 1, **changes: Any) -> ResultRecord:
    """Returns a record of an experiment on DVS128 Gesture with its test accuracies by epoch."""
    found: ResultRecord = made_record(f"gesture-{neuron}", tests, seed, **changes)
    return found


def numbers(table: Table) -> dict[str, dict[str, Any]]:
    """Returns the numbers of the long form by row and column; those without a value as text."""
    found: dict[str, dict[str, Any]] = {}
    for entry in table.entries:
        for number in entry.numbers:
            found.setdefault(entry.row, {})[entry.column] = number.text if number.value is None else number.value
    return found


def build(name: str, *records: ResultRecord, runs_dir: Path | None = None, **options: Any) -> Table:
    return fill_table(name, records, registry(), TableOptions(**options), runs_dir)


GESTURE = "DVS128 Gesture: PLIF − LIF, τ = 2"


def test_find_pairs_compares_experiments_that_differ_in_one_thing() -> None:
    found = {kind: {(p.first, p.second) for p in find_pairs(registry(), kind)} for kind in ("neuron", "pooling")}
    datasets = ("cifar10", "cifar10dvs", "fashion-mnist", "gesture", "mnist", "nmnist")
    taus = ("", "-tau16")
    assert found["neuron"] == {(f"{data}-plif{tau}", f"{data}-lif{tau}") for data in datasets for tau in taus}
    assert found["pooling"] == {(f"{data}-plif", f"{data}-plif-avgpool") for data in datasets}
    starts = {(p.first, p.second, p.taus) for p in find_pairs(registry(), "start")}
    assert starts == {(f"{data}-plif", f"{data}-plif-tau16", (2.0, 16.0)) for data in datasets}


@pytest.fixture(scope="module")
def authors(shared: Path) -> list[ResultRecord]:
    """The records of the authors' logs."""
    folder = shared / "data/published-logs"
    names = registry().experiments()
    records = [import_log(log, folder, tags={}, experiments=names).record() for log in find_logs(folder)]
    known = authors_records(registry().folders)
    return [with_origin(record, known) for record in records if record is not None]


@pytest.mark.long
@pytest.mark.real
def test_significance_of_the_authors_logs_is_in_tau_16_only(authors: list[ResultRecord]) -> None:
    found = numbers(build("significance", *authors, source="authors"))
    assert len(found) == 18
    p = {row: values["p"] for row, values in found.items()}
    at_2, at_16, pooling = ([p[row] for row in p if text in row] for text in ("τ = 2", "τ = 16", "pooling"))
    assert (round(min(at_2), 3), round(max(at_2), 2)) == (0.185, 0.73)
    assert min(pooling) > 0.25
    assert sum(value < 0.05 for value in at_16) == 5
    assert p["Fashion-MNIST: PLIF − LIF, τ = 16"] == pytest.approx(0.575, abs=1e-3)
    # 18 p: that of MNIST, 0.0065, is the fifth smallest, and is multiplied by 14
    significant = {row for row, values in found.items() if values["p, Holm"] < 0.05}
    assert significant == {
        f"{data}: PLIF − LIF, τ = 16" for data in ("CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture", "N-MNIST")
    }
    assert found["MNIST: PLIF − LIF, τ = 16"]["p, Holm"] == pytest.approx(14 * p["MNIST: PLIF − LIF, τ = 16"])
    gesture = found["DVS128 Gesture: PLIF − LIF, τ = 16"]
    assert gesture["difference of maxima"] == pytest.approx(100 * (265 - 221) / 288, abs=1e-4)
    assert gesture["difference of means"] == pytest.approx(52.03, abs=0.01)
    assert {values["test"].partition(",")[0] for values in found.values()} == {"z"}


@pytest.mark.long
@pytest.mark.real
def test_speed_of_the_authors_logs(authors: list[ResultRecord]) -> None:
    found = numbers(build("speed", *authors, source="authors"))
    epochs = {row: (values["PLIF, epochs"], values["LIF, epochs"]) for row, values in found.items()}
    datasets = ("Fashion-MNIST", "CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture")
    assert [epochs[f"{data}: PLIF − LIF, τ = 16"] for data in datasets] == [(13, 21), (9, 119), (21, 135), (25, 139)]
    assert [epochs[f"{data}: PLIF − LIF, τ = 2"] for data in datasets] == [(8, 8), (56, 159), (76, 46), (57, 56)]


def test_seeds_that_only_one_side_has_are_named() -> None:
    plif = [run("plif", (0.9,), seed) for seed in (1, 2, 3)]
    found = build("speed", *plif, run("lif", (0.8,), 1), run("lif", (0.8,), 2))
    assert found.warnings == ("left out: run-plif-3: the other experiment has no run of seed 3",)


def test_run_that_another_claim_counts_is_not_left_out_for_its_seed() -> None:
    older = run("plif", (0.9,), run="older", finished="2025-01-01T00:00:00Z")
    results = Results([older, run("plif", (0.9,))], registry())
    results.groups(results.candidates("gesture-plif", "A"))
    assert results.left_out == {"older": "the same seed as a later run (1)"}
    results.groups(results.candidates("gesture-plif", "A", fits=lambda record: record.run == "older"))
    assert results.left_out == {}


def test_pairs_of_starts_are_all_with_different_starts(tmp_path: Path) -> None:
    variants = {"tau4": "plif, tau_0: 4.0", "again": "plif, tau_0: 2.0"}
    lines = (f"  gesture-plif-{name}: {{title: t, neuron: {{kind: {neuron}}}}}\n" for name, neuron in variants.items())
    pairs = find_pairs(own_registry(tmp_path, "".join(lines)), "start")
    found = {(p.first, p.second) for p in pairs if p.dataset == "DVS128 Gesture"}
    names = ("gesture-plif", "gesture-plif-again", "gesture-plif-tau4", "gesture-plif-tau16")
    assert found == {*combinations(names, 2)} - {names[:2]}


@pytest.mark.long
@pytest.mark.real
def test_convergence_of_the_authors_logs(authors: list[ResultRecord]) -> None:
    table = build("convergence", *authors, source="authors")
    found = numbers(table)
    means = found["CIFAR-10: τ₀ = 2 and τ₀ = 16"]
    assert means["epoch 0: mean ratio"] == pytest.approx(8)
    assert means["epoch 1024: mean ratio"] == pytest.approx(1.12, abs=0.005)
    first = found["CIFAR10-DVS: sn0"]
    assert first["epoch 1024: τ₀ = 16"] == pytest.approx(3.54, abs=0.005)
    assert first["epoch 1024: τ₀ = 2"] == pytest.approx(1.42, abs=0.005)
    assert len(table.cells) == (8 + 1) + (6 + 1)  # of the four runs that logged τ


def test_significance_of_single_runs_says_what_p_is() -> None:
    table = build("significance", run("plif", (0.5, 0.9)), run("lif", (0.8, 0.7)))
    found = numbers(table)[GESTURE]
    assert found["difference of maxima"] == pytest.approx(10)
    assert found["test"] == "z, n = 288"
    assert found["p"] == found["p, Holm"] < 0.001
    assert "difference of means" not in found  # two epochs
    assert "test samples only" in table.source
    assert "all 1 p of this table" in table.source


def test_significance_of_several_seeds_is_paired_by_seed() -> None:
    plif = [run("plif", (0.5,) * 64 + (0.80 + 0.01 * seed,), seed) for seed in (1, 2, 3, 7)]
    lif = [run("lif", (0.5,) * 64 + (0.79,), seed) for seed in (3, 2, 1, 9)]
    found = numbers(build("significance", *plif, *lif))[GESTURE]
    wanted = paired_t([0.02, 0.03, 0.04])  # seeds 1, 2, 3
    assert wanted.low is not None
    assert found["test"] == "paired t, 3 seeds"
    assert found["p"] == pytest.approx(wanted.p)
    assert found["difference of maxima, 95 % from"] == pytest.approx(100 * wanted.low)
    assert found["difference of means"] == pytest.approx(100 * 0.03 / 64)  # the epochs before are equal
    first = numbers(build("significance", *plif, *lif, epochs=64))[GESTURE]
    assert "difference of means" not in first  # of all epochs, from the first on


def test_runs_without_a_common_seed_or_of_other_samples_are_not_compared() -> None:
    table = build("significance", run("plif", (0.9,), 1), run("lif", (0.8,), 2))
    assert "p" not in numbers(table)[GESTURE]
    assert f"NOT COMPARED: {GESTURE}: runs without a common seed (1; 2)" in table.warnings
    subset = RunData(verified=True, complete=False, train=99, validation=0, test=10, cache="c")
    table = build("speed", run("plif", (0.9,)), run("lif", (0.8,), data=subset))
    assert f"NOT COMPARED: {GESTURE}: runs of different samples" in table.warnings


def test_runs_with_different_changes_are_not_compared() -> None:
    changed = run("plif", (0.9,), overrides=("train.lr=0.01",))
    table = build("significance", changed, run("lif", (0.8,)), include_modified=True)
    assert f"NOT COMPARED: {GESTURE}: runs with different changes (train.lr=0.01; none)" in table.warnings
    same = run("lif", (0.8,), overrides=("train.lr=0.1", "train.lr=1e-2"))
    both = build("significance", changed, same, include_modified=True)
    assert numbers(both)[GESTURE]["difference of maxima"] == pytest.approx(10)


def test_modified_runs_of_both_sides_are_a_row_beside_the_others() -> None:
    part = ("train.subset=0.1",)
    plain = [run("plif", (0.9,)), run("lif", (0.8,))]
    changed = [
        run(neuron, (accuracy,), seed, overrides=part)
        for neuron, accuracy in (("plif", 0.7), ("lif", 0.65))
        for seed in (2, 3)
    ]
    table = build("significance", *plain, *changed, include_modified=True)
    found = numbers(table)
    assert found[GESTURE]["difference of maxima"] == pytest.approx(10)
    assert found[f"{GESTURE}, modified"]["difference of maxima"] == pytest.approx(5)
    assert not [warning for warning in table.warnings if "left out" in warning]
    alone = numbers(build("significance", *plain, changed[0], include_modified=True))
    assert f"{GESTURE}, modified" not in alone
    assert f"{GESTURE}, modified" not in numbers(build("significance", *plain, *changed))


def test_modified_runs_of_an_experiment_that_was_changed_since_are_not_compared() -> None:
    part = ("train.subset=0.1",)
    before = run("plif", (0.9,), overrides=part, digest="0" * 64)
    table = build("significance", before, run("lif", (0.8,), overrides=part), include_modified=True)
    since = "train.subset=0.1, the experiment has been changed since"
    assert f"NOT COMPARED: {GESTURE}: runs with different changes ({since}; train.subset=0.1)" in table.warnings
    both = build("significance", before, run("lif", (0.8,), overrides=part, digest="1" * 64), include_modified=True)
    reason = "of experiments that have both been changed since: what else they differ in is unknown"
    assert f"NOT COMPARED: {GESTURE}: runs {reason}" in both.warnings
    assert "difference of maxima" not in numbers(both).get(GESTURE, {})


def test_runs_are_compared_by_the_training_versions_of_the_epochs_that_count() -> None:
    first, second = (
        Session(epochs=epochs, training_version=version, host="h", environment={"torch": f"{version}"})
        for epochs, version in (((1, 2), 2), ((2, 4), 3))
    )
    longer = run("plif", (0.5, 0.9, 0.95, 0.9), sessions=(first, second.model_copy(update={"epochs": (3, 4)})))
    shared = run("plif", (0.5, 0.9, 0.95, 0.9), sessions=(first, second))  # the second epoch is of both
    lif = run("lif", (0.5, 0.8), sessions=(first,))
    assert numbers(build("significance", longer, lif))[GESTURE]["difference of maxima"] == pytest.approx(10)
    table = build("significance", shared, lif)
    assert f"NOT COMPARED: {GESTURE}: runs of different training versions of plifctl" in table.warnings
    cut = cut_record(longer, 2)
    assert (cut.training_versions, cut.environments, cut.environment) == ((2,), [{"torch": "2"}], {"torch": "2"})


def own_registry(folder: Path, variants: str) -> Registry:
    """Returns the registry with experiments on DVS128 Gesture, and a small network for it."""
    for name in ("experiments", "networks"):
        (folder / name).mkdir()
    network = '{structure: "{c8k3s1-BN-SN-MPk2s2}*5-FC110-SN-APk10s10", dropout: 0.5, batch_norm: per-step}'
    (folder / "networks/small.yaml").write_text(f"small: {network}\n")
    head = "extends: _common\ndataset: gesture\nnetwork: gesture\nT: 20\ntrain: {normalise: none}\nvariants:\n"
    (folder / "experiments/mine.yaml").write_text(head + variants)
    return Registry([*registry().folders, folder])


def own_run(known: Registry, name: str, tests: tuple[float, ...], **changes: Any) -> ResultRecord:
    """Returns a run of an experiment of a registry of one's own."""
    digest = known.experiment(name, recipe=changes.get("recipe", "paper")).spec.digest
    own = {"experiment": name, "run": f"run-{name}", "digest": digest}
    return run("plif", tests, **changes).model_copy(update=own)


def test_pairs_of_two_networks_are_told_apart(tmp_path: Path) -> None:
    starts = {"small-plif": "2.0", "small-plif-tau16": "16.0"}
    neurons = (
        f"  {name}: {{title: t, network: small, neuron: {{kind: plif, tau_0: {tau}}}}}\n"
        for name, tau in starts.items()
    )
    known = own_registry(tmp_path, "".join(neurons))
    tau = ((3.0,),)
    runs = [run("plif", (0.9,), tau=tau), run("plif-tau16", (0.9,), tau=tau)]
    runs += [own_run(known, name, (accuracy,), tau=tau) for name, accuracy in zip(starts, (0.9, 0.2), strict=True)]
    heads = {row[0].partition(",")[0] for row in fill_table("convergence", runs, known).rows if row[0]}
    assert heads == {f"DVS128 Gesture (network {name}): τ₀ = 2 and τ₀ = 16" for name in ("gesture", "small")}
    lif = [run("lif", (0.9,)), run("lif-tau16", (0.4,))]
    claim = Evidence(Results([*lif, *runs], known)).lif_breaks_down()
    (found,) = [finding for finding in claim if finding.number is not None]
    assert found.text.startswith("DVS128 Gesture: LIF −50.00, PLIF +0.00")  # that of the same network


def test_experiments_that_differ_in_more_in_a_recipe_are_not_compared_there(tmp_path: Path) -> None:
    more = "recipes: {authors: {train: {lr: 0.5}}}"
    lines = [("one", "{kind: plif, tau_0: 3.0}", ""), ("other", "{kind: lif, tau: 3.0}", f", {more}")]
    known = own_registry(
        tmp_path, "".join(f"  {name}: {{title: t, neuron: {neuron}{rest}}}\n" for name, neuron, rest in lines)
    )
    for recipe, compared in (("paper", True), ("authors", False)):
        runs = [own_run(known, name, (0.9,), recipe=recipe) for name in ("one", "other")]
        table = fill_table("speed", runs, known)
        warning = "runs of recipe authors, in which the experiments differ in more than that"
        assert any(warning in text for text in table.warnings) != compared
        assert ("level" in numbers(table).get("DVS128 Gesture: PLIF − LIF, τ = 3", {})) == compared


def test_a_longer_run_without_a_counterpart_does_not_hide_the_pairs() -> None:
    pairs = [run(neuron, (0.8, 0.9), seed) for neuron in ("plif", "lif") for seed in (1, 2)]
    longer = run("plif", (0.8, 0.9, 0.99), 3)
    table = build("significance", *pairs, longer)
    assert numbers(table)[GESTURE] == numbers(build("significance", *pairs))[GESTURE]
    assert table.warnings == ()  # the row of poolings shows the longer run
    found = build("speed", *pairs, longer)
    reason = "the other experiment has no run that can be compared with it, or fewer seeds"
    assert found.warnings == (f"left out: run-plif-3: {reason}",)
    assert numbers(build("significance", longer, run("lif", (0.7, 0.7, 0.7), 3), *pairs))[GESTURE][
        "difference of maxima"
    ] == pytest.approx(29)


def test_runs_of_different_length_are_compared_at_the_same_epochs() -> None:
    table = build("significance", run("plif", (0.5, 0.6, 0.95)), run("lif", (0.55, 0.5)))
    assert numbers(table)[GESTURE]["difference of maxima"] == pytest.approx(5)
    (row,) = [row for row in table.rows if row[1] == "PLIF − LIF, τ = 2" and row[0] == "DVS128 Gesture"]
    assert row[2].startswith("60.00 @2")
    assert row[3].startswith("55.00 @2")
    first = build("significance", run("plif", (0.5, 0.6)), run("lif", (0.55, 0.7)), epochs=1)
    assert numbers(first)[GESTURE]["difference of maxima"] == pytest.approx(-5)
    assert first.caption.endswith("of the first epoch")


def test_records_without_tests_or_tau_of_every_epoch_have_fewer_numbers() -> None:
    untested = run("plif", (0.5, 0.9), test_accuracy=(), tau=())
    late = run("lif", (0.5, 0.8, 0.7), test_accuracy=(None, None, 0.7), accuracy=0.7, best_epoch=3)
    assert "level" not in numbers(build("speed", untested, run("lif", (0.5, 0.8))))[GESTURE]
    found = numbers(build("significance", untested, run("lif", (0.5, 0.8))))[GESTURE]
    assert found["difference of maxima"] == pytest.approx(10)
    assert "difference of means" not in found
    table = build("significance", untested, late)
    assert f"NOT COMPARED: {GESTURE}: runs not tested within the first 2 epochs of the other" in table.warnings
    other = run("plif-tau16", (0.5, 0.5), tau=((3.0,), (4.0,)))
    assert build("convergence", untested, other).rows == []
    more_layers = run("plif", (0.5, 0.5), tau=((2.0,), (2.0, 3.0)))
    assert [row[1] for row in build("convergence", more_layers, other).rows] == ["sn0", "mean ratio"]


def save_run(folder: Path, record: ResultRecord, right: list[int]) -> None:
    """Saves a record, and predictions for eight samples of class 0, some of which are right."""
    predicted = np.array([0 if sample in right else 1 for sample in range(8)], np.uint8)
    (folder / record.run).mkdir()
    (folder / record.run / "run.json").write_text(json.dumps(add_checksum({"cache": {}})))
    (folder / record.run / "result.json").write_text(record_text(record))
    ids = tuple(f"sample-{sample}" for sample in range(8))
    Predictions(ids, np.zeros(8, np.uint8), predicted, record.best_epoch).save(folder / record.run / "predictions.npz")


def test_significance_with_stored_predictions_is_mcnemar(tmp_path: Path) -> None:
    data = RunData(verified=True, complete=True, train=8, validation=0, test=8, cache="c")
    runs = [run("plif", (0.25, 0.75), data=data), run("lif", (0.25, 0.125), data=data)]
    save_run(tmp_path, runs[0], [0, 1, 2, 3, 4, 5])
    save_run(tmp_path, runs[1], [5, 6])
    found = numbers(build("significance", *runs, runs_dir=tmp_path))[GESTURE]
    assert found["test"] == "McNemar, 5 : 1"  # 0 to 4; 6
    assert found["p"] == mcnemar(5, 1, 8).p == 2 * (1 + 6) / 64
    assert found["difference of maxima"] == pytest.approx(50)
    cut = numbers(build("significance", *runs, runs_dir=tmp_path, epochs=1))[GESTURE]
    assert cut["test"] == "z, n = 8"  # the predictions are of epoch 2
    (tmp_path / "run-lif-1/predictions.npz").write_bytes(b"damaged")
    table = build("significance", *runs, runs_dir=tmp_path)
    assert numbers(table)[GESTURE]["test"] == "z, n = 8"
    assert any("no McNemar test" in warning and "damaged" in warning for warning in table.warnings)


def test_significance_of_added_runs_uses_their_predictions(tmp_path: Path) -> None:
    data = RunData(verified=True, complete=True, train=8, validation=0, test=8, cache="c")
    runs = [run("plif", (0.25, 0.75), data=data), run("lif", (0.25, 0.125), data=data)]
    for record, right in zip(runs, ([0, 1, 2, 3, 4, 5], [5, 6]), strict=True):
        save_run(tmp_path, record, right)
        (tmp_path / record.run / "run.json").rename(tmp_path / record.run / "added.json")
        (tmp_path / record.run / "added.json").write_bytes(EXTERNAL_PREFIX)
    added = load_records(tmp_path, ())
    found = numbers(build("significance", *added, runs_dir=tmp_path, source="added"))[GESTURE]
    assert found["test"] == "McNemar, 5 : 1"


def test_speed_is_the_first_epoch_at_98_percent_of_the_lower_maximum() -> None:
    # 98 % of 0.8 is 0.784
    plif = run("plif", (0.5, 0.783, 0.784, 0.9))
    lif = run("lif", (0.1, 0.78, 0.7, 0.8))
    found = numbers(build("speed", plif, lif))[GESTURE]
    assert (found["PLIF, epochs"], found["LIF, epochs"]) == (3, 4)
    assert found["level"] == pytest.approx(78.4)
    more = [run("plif", (0.9, 0.5, 0.5, 0.5), 2), run("lif", (0.1, 0.9, 0.5, 0.5), 2)]
    found = numbers(build("speed", plif, lif, *more))[GESTURE]
    assert (found["PLIF, epochs"], found["LIF, epochs"]) == (2, 3)  # means of 3 and 1, of 4 and 2


def test_speed_is_the_first_epoch_at_98_percent_but_for_rounding() -> None:
    assert 0.98 * 0.92 > 0.9016  # in float64
    found = numbers(build("speed", run("plif", (0.5, 0.9016, 0.92)), run("lif", (0.5, 0.6, 0.93))))[GESTURE]
    assert (found["PLIF, epochs"], found["LIF, epochs"]) == (2, 3)


def test_convergence_ratio_is_of_the_runs_of_one_seed_before_the_mean() -> None:
    taus = {1: (2.0, 8.0), 2: (8.0, 2.0)}
    runs = [
        run(neuron, (0.9,), seed, tau=((both[side],),))
        for seed, both in taus.items()
        for side, neuron in enumerate(("plif", "plif-tau16"))
    ]
    (row, _) = build("convergence", *runs).rows
    assert (row[-2], row[-1]) == ("4.00 / 4.00", "4.00")


def test_convergence_ratio_is_the_greater_over_the_smaller_and_its_mean_geometric() -> None:
    small = run("plif", (0.5, 0.5, 0.5), tau=((2.0, 4.0), (), (3.0, 6.0)))
    great = run("plif-tau16", (0.5, 0.5, 0.5), tau=((16.0, 8.0), (9.0, 9.0), (6.0, 3.0)))
    table = build("convergence", small, great)
    found = numbers(table)
    assert found["DVS128 Gesture: sn1"]["epoch 3: ratio"] == pytest.approx(2)
    means = found["DVS128 Gesture: τ₀ = 2 and τ₀ = 16"]
    assert [means[f"epoch {epoch}: mean ratio"] for epoch in (0, 1, 3)] == pytest.approx([8, 4, 2])
    assert "epoch 2: mean ratio" not in means
    assert table.rows[1] == ("", "sn1", "2.00 / 16.00", "4.00 / 8.00", "6.00 / 3.00", "2.00")


def test_pair_tables_name_the_runs_and_experiments_of_their_cells() -> None:
    table = build("significance", run("plif", (0.9,)), run("lif", (0.8,)))
    assert any("run run-lif-1" in note for note in table.notes.values())
    empty = [entry for entry in table.entries if entry.experiment and not entry.numbers]
    assert ("CIFAR-10: PLIF − LIF, τ = 2", "LIF", "cifar10-lif") in [(e.row, e.column, e.experiment) for e in empty]
    starts = [e.experiment for e in build("convergence", run("plif", (0.9,))).entries if not e.numbers]
    assert len(starts) == 11  # of six data sets
    assert "gesture-plif" not in starts


@pytest.mark.parametrize("name", [SIGNIFICANCE_TABLE, SPEED_TABLE, CONVERGENCE_TABLE])
def test_pair_tables_in_every_format_have_limits_and_numbers(name: str) -> None:
    runs = [run(neuron, (0.9,), tau=((3.0,),)) for neuron in ("plif", "lif", "plif-tau16", "lif-tau16")]
    changed = {"run": "x", "overrides": ("train.lr=1.0",), "digest": "d" * 64}
    table = build(name, *runs, runs[0].model_copy(update=changed))
    assert any(warning.startswith("left out: x: modified") for warning in table.warnings)
    limit = table.source[:40]
    assert limit in table.to_markdown()
    assert limit.replace("τ", r"$\tau$").replace("%", r"\%") in table.to_latex()
    assert "?" not in table.to_latex()
    tree = json.loads(table.to_json())
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert tree["source"] == table.source
    assert [line["column"] for line in lines] == [entry["column"] for entry in tree["entries"]]
    assert {line["table"] for line in lines} == {name}
    assert build(name).rows == [row for row in build(name).rows if row[2:4] == ("", "")]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.00009, "< 0.0001"),
        (0.0065, "0.0065"),
        (0.0496, "0.0496"),
        (0.04997, "0.04997"),
        (0.05, "0.0500"),
        (0.0503, "0.0503"),
        (0.051, "0.051"),
        (0.185, "0.18"),
    ],
)
def testformat_p_has_two_digits(p: float, text: str) -> None:
    assert format_p(p) == text


def test_a_tiny_p_keeps_its_digits_in_csv() -> None:
    table = build("significance", run("plif", (0.95,)), run("lif", (0.75,)))
    (p,) = [line for line in csv.DictReader(io.StringIO(table.to_csv())) if line["column"] == "p" and line["result"]]
    assert 0 < float(p["result"]) < 1e-6
