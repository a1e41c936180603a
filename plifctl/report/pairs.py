"""Pairs of experiments that differ in one thing, and the runs of both that can be compared.

The pairs are found by the values of the experiments, not by their names: the same settings but for the neuron, the
pooling, the time constant of LIF, or that from which PLIF starts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Literal

from plifctl.config.choices import RECIPES, Recipe
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.overrides import changed_values
from plifctl.config.registry import Registry
from plifctl.config.structure import with_pooling
from plifctl.report.labels import tell_apart
from plifctl.report.results import Group, Results, cut_record
from plifctl.report.table import Cell, Entry
from plifctl.runs import ResultRecord
from plifctl.runs.changes import CHANGED_SINCE

_NO_RUNS = Group(())

PairKind = Literal["neuron", "pooling", "start", "tau"]
"""In what the experiments of a pair differ: PLIF and LIF, max and average pooling, the τ₀ of PLIF, or the τ of LIF."""


@dataclass(frozen=True)
class Pair:
    """Two experiments that differ in one thing.

    Attributes:
        kind: In what they differ.
        first: Name of the experiment with PLIF, max pooling or the smaller τ₀ or τ.
        second: Name of the other one.
        dataset: Title of their data set.
        heads: What each of them is called in a table.
        taus: τ of each before training, in time steps.
        test_samples: Official number of test samples; None: unknown.
        network: Name of the network of the first.
        shared: The settings of both but for the neuron and its time constant, or the pooling, as one text: equal for
            a pair of PLIF and one of LIF with the same settings.
    """

    kind: PairKind
    first: str
    second: str
    dataset: str
    heads: tuple[str, str]
    taus: tuple[float, float]
    test_samples: int | None
    network: str
    shared: str

    @property
    def label(self) -> str:
        """What is compared: ``PLIF − LIF, τ = 2``."""
        if self.kind in ("start", "tau"):
            return " and ".join(self.heads)
        return f"{self.heads[0]} − {self.heads[1]}{f', τ = {self.taus[0]:g}' if self.kind == 'neuron' else ''}"


@functools.lru_cache(maxsize=32)
def find_pairs(registry: Registry, kind: PairKind, recipe: Recipe = "paper") -> tuple[Pair, ...]:
    """Returns the pairs of experiments that differ in one thing in a recipe, in the order of the registry."""
    groups: dict[str, list[ExperimentSpec]] = {}
    for name in registry.experiments():
        spec = registry.experiment(name, recipe=recipe).spec
        groups.setdefault(_shared_settings(spec, kind), []).append(spec)
    return tuple(pair for shared, group in groups.items() for pair in _pairs_of(group, kind, shared))


def _shared_settings(spec: ExperimentSpec, kind: PairKind) -> str:
    """Returns all settings but those that a pair of a kind may differ in, as one text."""
    tree = spec.model_dump(mode="json", exclude={"name", "title", "reported"})
    neuron, network = tree["neuron"], tree["network"]
    if kind == "pooling":
        network |= {"name": None, "pooling": None, "structure": with_pooling(spec.network.structure, "max")}
    else:  # the same text for PLIF and LIF, also where both sides of a pair are one of them
        neuron |= {"kind": None, "tau_0": None, "tau": spec.neuron.start_tau if kind == "neuron" else None}
    return json.dumps(tree, sort_keys=True)


def _pairs_of(group: Sequence[ExperimentSpec], kind: PairKind, shared: str) -> Iterator[Pair]:
    """Yields the pairs of a group with shared settings."""
    if kind in ("start", "tau"):
        neuron = "plif" if kind == "start" else "lif"
        starts = sorted((spec for spec in group if spec.neuron.kind == neuron), key=lambda spec: spec.neuron.start_tau)
        for one, other in combinations(starts, 2):
            heads = (one.neuron.start_text, other.neuron.start_text)
            if heads[0] != heads[1]:
                yield _pair(kind, one, other, heads, shared)
        return
    for one in group:
        for other in group:
            if kind == "neuron" and (one.neuron.kind, other.neuron.kind) == ("plif", "lif"):
                yield _pair(kind, one, other, ("PLIF", "LIF"), shared)
            if kind == "pooling" and _has_max(one) and not _has_max(other):
                yield _pair(kind, one, other, ("max pooling", "average pooling"), shared)


def _has_max(spec: ExperimentSpec) -> bool:
    return spec.network.structure == with_pooling(spec.network.structure, "max")


def _pair(kind: PairKind, one: ExperimentSpec, other: ExperimentSpec, heads: tuple[str, str], shared: str) -> Pair:
    samples = None if one.dataset.samples is None else one.dataset.samples.test
    taus = (one.neuron.start_tau, other.neuron.start_tau)
    return Pair(kind, one.name, other.name, one.dataset.title, heads, taus, samples, one.network.name, shared)


@dataclass(frozen=True)
class MatchedRuns:
    """Runs of both experiments of a pair: of the same recipe, samples and seeds, cut to the same epochs.

    Attributes:
        first: Runs of the first experiment, by seed; empty if it has none that count.
        second: Runs of the second experiment, with the same seeds if both have runs.
        flags: What forbids to compare them with others: ``subset``, ``modified``.
        changes: How they differ from the experiments, if both do.
        problem: Why they are not compared with each other, though both experiments have runs; empty: nothing.
        settings: What tells them from other runs of the pair: their recipe, ``modified``; empty: there are no others.
    """

    pair: Pair
    first: Group
    second: Group
    flags: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    problem: str = ""
    settings: str = ""

    @property
    def label(self) -> str:
        """What is compared: ``PLIF − LIF, τ = 2``."""
        return ", ".join(filter(None, (self.pair.label, self.settings)))

    @property
    def name(self) -> str:
        """Name of its row in the long form: ``CIFAR-10: PLIF − LIF, τ = 2``."""
        return f"{self.pair.dataset}: {self.label}"

    @property
    def comparable(self) -> bool:
        """Whether both experiments have runs that can be compared."""
        return bool(self.first.records and self.second.records and not self.problem)

    @property
    def sides(self) -> list[tuple[Group, str, str]]:
        """The runs, the experiment and the head of each side."""
        pair = self.pair
        return list(zip((self.first, self.second), (pair.first, pair.second), pair.heads, strict=True))

    @property
    def records(self) -> tuple[ResultRecord, ...]:
        """The runs of both sides."""
        return (*self.first.records, *self.second.records)

    @property
    def by_seed(self) -> list[tuple[ResultRecord, ResultRecord]]:
        """The two runs of each seed."""
        return list(zip(self.first.records, self.second.records, strict=True))

    @property
    def epochs(self) -> int:
        """Number of epochs of each run."""
        return self.first.first.epochs


def match_runs(pairs: Mapping[Recipe, Pair], results: Results) -> list[MatchedRuns]:
    """Returns the runs of a pair, an item for each recipe that has any; one without runs if there are none.

    Modified runs that can be compared follow as an item of their own, if others count.

    Args:
        pairs: The pair in each recipe in which its experiments differ in one thing.
        results: Finds the runs.
    """
    usual = next(iter(pairs.values()))
    known = [results.candidates(name, "A") for name in (usual.first, usual.second)]
    present = {group.first.recipe for side in known for group in side}
    matched = []
    for recipe in filter(present.__contains__, RECIPES):
        firsts, seconds = ([group for group in side if group.first.recipe == recipe] for side in known)
        if recipe in pairs:
            pair = pairs[recipe]
            found = [_match_best(pair, firsts, seconds, results)]
            ones, others = ([group for group in side if results.changes(group.first)] for side in (firsts, seconds))
            if not found[0].changes and ones and others:
                more = _match_best(pair, ones, others, results)
                found += [replace(more, settings="modified")] if more.comparable else []
        elif firsts and seconds:
            problem = f"of recipe {recipe}, in which the experiments differ in more than that"
            found = [MatchedRuns(usual, firsts[0], seconds[0], problem=problem)]
        else:
            continue
        of_recipe = f"recipe {recipe}" if len(present) > 1 else ""
        matched += [replace(runs, settings=", ".join(filter(None, (of_recipe, runs.settings)))) for runs in found]
    return matched or [MatchedRuns(usual, _NO_RUNS, _NO_RUNS)]


def _match_best(pair: Pair, firsts: Sequence[Group], seconds: Sequence[Group], results: Results) -> MatchedRuns:
    """Returns the runs of both sides that are compared, and notes why the others are left out."""
    first, second = _of_common_seeds(*_choose(pair, firsts, seconds, results))
    return _match(pair, results.count(first, firsts), results.count(second, seconds), results)


def _choose(pair: Pair, firsts: Sequence[Group], seconds: Sequence[Group], results: Results) -> tuple[Group, Group]:
    """Returns the groups of both sides that are compared: of those that can be, the best; of these, of most seeds.

    Args:
        pair: The pair.
        firsts: Groups of the first experiment, the best first; perhaps none, as of the second.
        seconds: Groups of the second experiment.
        results: Knows how good a group is.
    """
    if not (firsts and seconds):
        return next(iter(firsts), _NO_RUNS), next(iter(seconds), _NO_RUNS)

    def worth(both: tuple[Group, Group]) -> tuple[object, ...]:
        one, other = both
        problem = _match(pair, *_of_common_seeds(*both), results).problem
        return not problem, min(results.rank(one), results.rank(other)), len(one.seeds & other.seeds)

    return max(product(firsts, seconds), key=worth)


def _of_common_seeds(first: Group, second: Group) -> tuple[Group, Group]:
    """Returns the runs with the seeds that both groups have; if there are none, the groups as they are."""
    common = first.seeds & second.seeds
    if not common:
        return first, second
    one, other = (Group(tuple(r for r in group.records if r.seed in common)) for group in (first, second))
    return one, other


def _match(pair: Pair, first: Group, second: Group, results: Results) -> MatchedRuns:
    """Returns the runs of both sides, cut to the epochs of the shortest."""
    if not (first.records and second.records):
        return MatchedRuns(pair, first, second)
    flags = tuple(dict.fromkeys((*results.flags(first.first), *results.flags(second.first))))
    runs = MatchedRuns(pair, first, second, flags, results.changes(first.first))
    cut = cut_runs(runs, min(record.epochs for group in (first, second) for record in group.records))
    by_seed = zip(cut.first.records, cut.second.records, strict=False)  # perhaps without a common seed
    problem = next(filter(None, (find_problem(one, other, results) for one, other in by_seed)), "")
    problem = problem or _seed_problem(first, second) or cut.problem
    return replace(runs, problem=problem) if problem else cut


def cut_runs(runs: MatchedRuns, epochs: int) -> MatchedRuns:
    """Returns runs cut to their first epochs; with a problem if one of them was not tested within these.

    Args:
        runs: The runs; each has as many epochs or more.
        epochs: Number of epochs.
    """
    if not all(record.epochs == epochs or min(record.tests, default=epochs + 1) <= epochs for record in runs.records):
        return replace(runs, problem=f"not tested within the first {epochs} epochs of the other")
    first, second = (
        Group(tuple(r if r.epochs == epochs else cut_record(r, epochs) for r in group.records))
        for group in (runs.first, runs.second)
    )
    return replace(runs, first=first, second=second)


def _seed_problem(one: Group, other: Group) -> str:
    if one.seeds & other.seeds:
        return ""
    return f"without a common seed ({'; '.join(', '.join(map(str, sorted(g.seeds))) for g in (one, other))})"


def find_problem(one: ResultRecord, other: ResultRecord, results: Results) -> str:
    """Returns what forbids to compare a run of an experiment with one of another; empty: nothing."""
    both = one, other
    data = [record.data and (record.data.cache, record.data.train, record.data.test) for record in both]
    if data[0] != data[1]:
        return "of different samples"
    if one.training_versions != other.training_versions:
        return "of different training versions of plifctl"
    changes = [results.changes(record) for record in both]
    if changed_values(changes[0]) != changed_values(changes[1]):
        return f"with different changes ({'; '.join(', '.join(texts) or 'none' for texts in changes)})"
    if CHANGED_SINCE in changes[0]:  # which both have
        return "of experiments that have both been changed since: what else they differ in is unknown"
    return ""


@dataclass
class PairRows:
    """Rows of a table of pairs, which begin with data set, comparison and the accuracy of both sides.

    Attributes:
        results: Finds the runs.
        kinds: Kinds of pairs, in the order of the rows.
        warnings: Which runs are not compared, and why.
    """

    results: Results
    kinds: tuple[PairKind, ...]
    warnings: list[str] = field(default_factory=list)

    def matched(self) -> Iterator[MatchedRuns]:
        """Yields the runs of each pair, data set by data set, and notes those that are not compared."""
        for pairs in self._pairs():
            for runs in match_runs(pairs, self.results):
                if runs.problem:
                    self.warnings.append(f"NOT COMPARED: {runs.name}: runs {runs.problem}")
                yield runs

    def _pairs(self) -> list[dict[Recipe, Pair]]:
        """Returns each pair by recipe; the data sets of those that would be called the same have more in their name."""
        found: dict[tuple[PairKind, str, str], dict[Recipe, Pair]] = {}
        for kind, recipe in product(self.kinds, RECIPES):
            for pair in find_pairs(self.results.registry, kind, recipe):
                found.setdefault((kind, pair.first, pair.second), {})[recipe] = pair
        usual = {key: next(iter(pairs.values())) for key, pairs in found.items()}
        facts = [(f"network {pair.network}", f"{pair.first} and {pair.second}") for pair in usual.values()]
        added = tell_apart([(pair.dataset, pair.label) for pair in usual.values()], facts)
        titles = {
            key: f"{pair.dataset} ({', '.join(more)})" if more else pair.dataset
            for (key, pair), more in zip(usual.items(), added, strict=True)
        }
        datasets = list(dict.fromkeys(pair.dataset for pair in usual.values()))
        return [
            {recipe: replace(pair, dataset=titles[key]) for recipe, pair in found[key].items()}
            for key in sorted(found, key=lambda key: datasets.index(usual[key].dataset))
        ]

    def sides(self, runs: MatchedRuns) -> tuple[list[Cell], list[Entry]]:
        """Returns the cells and entries with the accuracies of the two sides."""
        cells: list[Cell] = []
        entries: list[Entry] = []
        for group, name, head in runs.sides:
            numbers = (self.results.accuracy(group),) if group.records else ()
            cells.append(Cell(numbers=numbers))
            entries.append(Entry(runs.name, head, "", numbers, name, "A", runs.records))
        return cells, entries

    @staticmethod
    def empty_entries(runs: MatchedRuns) -> list[Entry]:
        """Returns the entries of the sides without runs."""
        sides = ((name, head) for group, name, head in runs.sides if not group.records)
        return [Entry(runs.name, head, "", (), name, "A", runs.records) for name, head in sides]
