"""What runs say about the claims of the paper: for every data set or pair of experiments, yes, no or open, by a rule.

The numbers are those of the tables ``significance``, ``speed`` and ``convergence``, and of the tests under controls
that runs keep; here are the rules that turn them into an answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from plifctl.config.choices import PROTOCOLS, Protocol, TauControl, TimeControl
from plifctl.report.convergence import mean_ratio, tau_by_epoch
from plifctl.report.pairs import MatchedRuns, PairKind, PairRows, cut_runs, find_problem
from plifctl.report.results import Group, Results, shared_settings
from plifctl.report.significance import Comparison, compare_runs, compare_with_holm, format_p, format_points
from plifctl.report.speed import epochs_text, reach_level
from plifctl.report.statistics import ALPHA, Estimate, paired_difference, paired_t
from plifctl.report.table import Number, name_other_versions, name_runs, name_unverified
from plifctl.runs import ControlResult, ResultRecord

BREAKDOWN = 0.10
"""Loss of accuracy that is a breakdown. Test samples alone give two equally good networks a difference of at most 0.08
(95 %) on the smallest test set, 288 samples."""

MARGIN = 0.01
"""Loss of accuracy up to which one pooling is as good as another, and shuffled frames as ordered ones: the paper calls
differences of 0.2 to 2.1 points in Table 5 similar; a test set of 10,000 samples can decide one point, those of 288 and
1,000 cannot."""

FASTER = 1.5
"""With one seed: how many times the epochs of the other side the slower one needs at least."""

FEWER_EPOCHS = 2
"""With one seed: how many epochs more it needs at least. One is the smallest difference that there can be."""

STARTS = (2.0, 16.0)
"""The two τ from which the paper starts networks. Experiments of one's own may have others."""

_ROUNDING = 1e-9
"""0.97 − 0.87 is a loss of ten points, too."""

Outcome = Literal["yes", "open", "no"]
"""Runs support a claim, decide nothing, or contradict it."""


@dataclass(frozen=True)
class Finding:
    """What the runs of one pair of experiments say about a claim.

    Attributes:
        dataset: Title of the data set.
        tau: τ of both sides, ``τ = 2``, or of each, ``τ = 2 to 4``; empty where it is the same for all, or of each
            :data:`STARTS`.
        settings: What tells the runs from others, ``recipe paper``; empty where there are no others.
        outcome: The answer; None: there are no runs that can be compared.
        number: The evidence; None: there is none.
        seeds: Number of seeds behind it.
        missing: Experiments of the pair without runs.
        beside: The runs of the others, if some are missing.
        lacks: What forbids to compare the runs with others, beside seeds and epochs, a text each.
    """

    dataset: str
    tau: str = ""
    settings: str = ""
    outcome: Outcome | None = None
    number: Number | None = None
    seeds: int = 0
    missing: tuple[str, ...] = ()
    beside: tuple[ResultRecord, ...] = ()
    lacks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Data set, τ and settings: ``N-MNIST, τ = 2``."""
        return ", ".join(filter(None, (self.dataset, self.tau, self.settings)))

    @property
    def text(self) -> str:
        """The evidence as printed: ``N-MNIST, τ = 2: +0.10, p = 0.70 @30, 5 seeds``."""
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        return self.label if self.number is None else f"{self.label}: {self.number.shown}{seeds}"


class Evidence:
    """The findings of the runs of one source.

    Args:
        results: Finds the runs.
        runs_dir: Runs directory, whose runs may have stored predictions; None: there are none.
    """

    def __init__(self, results: Results, runs_dir: Path | None = None) -> None:
        self._results, self._runs_dir = results, runs_dir
        self.warnings: list[str] = []
        """Which runs are not compared, and why."""

    def plif_above_lif(self) -> Iterator[Finding]:
        """Yields for each data set and τ whether PLIF is above LIF; p is adjusted as in the table of significance."""
        rows = self._rows("neuron", "pooling")
        for runs, found, p in compare_with_holm(rows, self._runs_dir):
            if runs.pair.kind != "neuron":
                continue
            if found is None:
                yield self._finding(runs)
                continue
            value = found.maxima.value
            if p is None:
                outcome: Outcome = "open"
                why = "the same with every seed" if len(runs.by_seed) > 1 else found.test
                text = f"{format_points(value)}, {why}"
            else:
                outcome = "open" if p >= ALPHA else "yes" if value > 0 else "no"
                text = f"{format_points(value)}, p {format_p(p) if p < 1e-4 else f'= {format_p(p)}'}"
            yield self._finding(runs, outcome, text, 100 * value)

    def lif_breaks_down(self) -> Iterator[Finding]:
        """Yields for each data set whether LIF breaks down with the greater of :data:`STARTS`, and PLIF does not."""
        learnt: dict[tuple[object, ...], MatchedRuns] = {}
        for runs in self._rows("start").matched():
            if not (known := learnt.get(_key(runs))) or not known.comparable:
                learnt[_key(runs)] = runs  # of two names of one experiment, the first with runs
        for fixed in self._rows("tau").matched():
            if fixed.pair.taus != STARTS:
                continue
            beside = learnt.get(_key(fixed))
            both = self._same_epochs(fixed, beside)
            found = [compare_runs(runs, self._runs_dir, self.warnings) for runs in both]
            losses = [comparison for comparison in found if comparison is not None]
            if len(losses) < 2:
                yield self._finding(fixed, beside=beside)
                continue
            texts = [format_points(0.0 - loss.maxima.value) for loss in losses]
            text, value = f"LIF {texts[0]}, PLIF {texts[1]}", -100 * losses[0].maxima.value
            yield self._finding(both[0], _breakdown(*losses), text, value, both[1])

    def _same_epochs(self, lif: MatchedRuns, plif: MatchedRuns | None) -> tuple[MatchedRuns, ...]:
        """Returns the runs of LIF and of PLIF, cut to the same epochs; nothing if they cannot be compared."""
        if plif is None or not (lif.comparable and plif.comparable):
            return ()
        epochs = min(lif.epochs, plif.epochs)
        cut = [cut_runs(runs, epochs) for runs in (lif, plif)]
        problem = find_problem(cut[0].first.first, cut[1].first.first, self._results)
        if problem := problem or cut[0].problem or cut[1].problem:
            self.warnings.append(f"NOT COMPARED: {lif.name}, with PLIF: runs {problem}")
            return ()
        return tuple(cut)

    def max_as_good_as_average(self) -> Iterator[Finding]:
        """Yields for each data set whether max pooling loses less than :data:`MARGIN` to average pooling."""
        for runs in self._rows("pooling").matched():
            found = compare_runs(runs, self._runs_dir, self.warnings)
            if found is None:
                yield self._finding(runs)
                continue
            value, low, high = found.extent.value, found.extent.low, found.extent.high
            outcome: Outcome = "open"
            text = format_points(value)
            if low is not None and high is not None:
                outcome = "yes" if low > -MARGIN else "no" if high < -MARGIN else "open"
                text += f" [{format_points(low)}, {format_points(high)}]"
            yield self._finding(runs, outcome, text, 100 * value)

    def plif_learns_faster(self) -> Iterator[Finding]:
        """Yields for each data set and τ whether PLIF needs fewer epochs than LIF to the same accuracy."""
        for runs in self._rows("neuron").matched():
            reached = reach_level(runs)
            if not reached:
                yield self._finding(runs)
                continue
            plif, lif = (fmean(epochs) for epochs in zip(*((r.first, r.second) for r in reached), strict=True))
            outcome = _faster([(r.first, r.second) for r in reached])
            yield self._finding(runs, outcome, f"{epochs_text(plif)} against {epochs_text(lif)} epochs", plif - lif)

    def time_constants_gather(self) -> Iterator[Finding]:
        """Yields for each data set whether τ of every layer has covered half of the way between the two starts."""
        for runs in self._rows("start").matched():
            found = tau_by_epoch(runs) if runs.comparable else {}
            if 0 not in found:
                if found:
                    reason = f"τ before training is not that of the experiment ({', '.join(runs.changes)})"
                    self.warnings.append(f"NOT COUNTED: {runs.name}: {reason}")
                yield self._finding(runs)
                continue
            start, end = mean_ratio(found[0]), mean_ratio(found[max(found)])
            greatest = max(layer.ratio for layer in found[max(found)])
            outcome: Outcome = "yes" if greatest <= math.sqrt(start) else "no" if end >= start else "open"
            yield self._finding(runs, outcome, f"ratio {start:.2f} to {end:.2f}, at most {greatest:.2f}", end)

    def time_is_used(self) -> Iterator[Finding]:
        """Yields for each data set of events whether shuffled frames lose more than :data:`MARGIN`, by stored tests."""
        registered = self._results.registry.experiments()
        for dataset, names in self._events_experiments().items():
            tested = [
                (group, protocol)
                for name in names
                for protocol in PROTOCOLS
                for group in self._tested_groups(name, protocol)
            ]
            for group, protocol in tested:
                first = group.first
                settings = f"{first.experiment}, recipe {first.recipe}, protocol {protocol}"
                settings += ", modified" if self._results.changes(first) else ""
                alone = "" if protocol == "A" else f"protocol {protocol}"  # the other claims are of protocol A
                is_named = len(tested) > 1 or first.experiment not in registered
                yield self._shuffled(dataset, settings if is_named else alone, group)
            if not tested:
                yield Finding(dataset)

    def _events_experiments(self) -> dict[str, list[str]]:
        """Returns the experiments on events by the title of their data set.

        They are those of the registry, then those of a file of one's own whose runs were tested with shuffled frames.
        """
        registry = self._results.registry
        specs = {name: registry.experiment(name).spec for name in registry.experiments()}
        titles = {spec.dataset.name: spec.dataset.title for spec in specs.values()}
        title_of = {name: spec.dataset.title for name, spec in specs.items() if spec.dataset.kind == "events"}
        for record in self._results.records:
            if record.experiment not in specs and _shuffled_controls(record):
                title_of[record.experiment] = titles.get(record.dataset, record.dataset)
        found: dict[str, list[str]] = {}
        for name, title in title_of.items():
            found.setdefault(title, []).append(name)
        return found

    def _tested_groups(self, name: str, protocol: Protocol) -> list[Group]:
        """Returns the runs that were tested with shuffled frames; warns of those of the same settings that were not."""
        results = self._results
        groups = results.groups(results.candidates(name, protocol, fits=self._has_shuffled))
        counted = {shared_settings(group.first) for group in groups}
        for group in results.candidates(name, protocol, fits=_has_no_shuffled) if groups else ():
            if shared_settings(group.first) in counted:
                command = ": plifctl eval RUN --controls" if group.first.origin == "trained" else ""
                self.warnings.append(f"NOT COUNTED: {name_runs(group.records)}: not tested under controls{command}")
        return groups

    def _has_shuffled(self, record: ResultRecord) -> bool:
        if record.control("shuffled") is not None:
            return True
        for stale in _shuffled_controls(record):
            self.warnings.append(f"controls of {record.run} not counted: {record.control_problem(stale)}")
        return False

    def _shuffled(self, dataset: str, settings: str, group: Group) -> Finding:
        """Returns what runs lose with shuffled frames; beside it, if all have them, backwards and without memory."""
        shuffled = _tests(group, "shuffled")
        found = _mean_difference(shuffled)
        text = f"shuffled {format_points(found.value)}"
        if found.low is not None and found.high is not None:
            text += f" [{format_points(found.low)}, {format_points(found.high)}]"
        # without an interval over seeds, as all lose the same, each has that of its samples
        single = [found] if found.low is not None else [_mean_difference([one]) for one in shuffled]
        outcomes = {_compare_with_margin(estimate) for estimate in single}
        outcome: Outcome = outcomes.pop() if len(outcomes) == 1 else "open"
        for name, tests in (("reversed", _tests(group, "reversed")), ("no memory", _tests(group, None, "no-memory"))):
            text += f", {name} {format_points(fmean(one.difference for one in tests))}" if tests else ""
        number = self._number([group], text, 100 * found.value)
        return Finding(dataset, "", settings, outcome, number, len(group.records), lacks=self._lacks([group]))

    def _rows(self, *kinds: PairKind) -> PairRows:
        return PairRows(self._results, kinds, self.warnings)

    def _finding(
        self,
        runs: MatchedRuns,
        outcome: Outcome | None = None,
        text: str = "",
        value: float | None = None,
        beside: MatchedRuns | None = None,
    ) -> Finding:
        """Returns a finding, whose number has the notes on the runs behind it, and on those of a pair beside it."""
        pair, tau = runs.pair, ""
        if pair.kind == "neuron":
            tau = f"τ = {pair.taus[0]:g}"
        elif pair.kind != "pooling" and pair.taus != STARTS:
            tau = f"τ = {pair.taus[0]:g} to {pair.taus[1]:g}"
        all_runs = [runs] if beside is None else [runs, beside]
        sides = [side for one in all_runs for side in one.sides]
        if outcome is None:
            missing = tuple(name for group, name, _ in sides if not group.records)
            known = tuple(record for one in all_runs for record in one.records)
            return Finding(pair.dataset, tau, runs.settings, missing=missing, beside=known)
        groups = [group for group, _, _ in sides]
        number, seeds = self._number(groups, text, value), min(len(one.by_seed) for one in all_runs)
        return Finding(pair.dataset, tau, runs.settings, outcome, number, seeds, lacks=self._lacks(groups))

    def _number(self, groups: Sequence[Group], text: str, value: float | None) -> Number:
        """Returns a number of several groups, with the flags of all, and the note on each."""
        known = [self._results.accuracy(group) for group in groups]
        flags = dict.fromkeys(flag for number in known for flag in number.flags)
        notes = dict.fromkeys(number.note for number in known)
        note = " | ".join(notes)
        return replace(known[0], text=text, value=value, std=None, records=(), mark="", note=note, flags=tuple(flags))

    def _lacks(self, groups: Sequence[Group]) -> tuple[str, ...]:
        """Returns what forbids to compare runs with others: their flags, changes, training versions and sources."""
        found: list[str] = []
        for group in groups:
            flags = self._results.accuracy(group).flags
            found += [flag for flag in flags if flag != "modified"]
            for record in group.records:
                changes = self._results.changes(record)
                found += [f"modified: {', '.join(changes)}"] if changes else []
                found += [versions] if (versions := name_other_versions(record)) else []
                found += name_unverified([record])
        return tuple(dict.fromkeys(found))


def _shuffled_controls(record: ResultRecord) -> list[ControlResult]:
    """Returns the tests with shuffled frames that a run keeps, also those that are not of its result."""
    return [one for one in record.controls if one.time == "shuffled" and one.tau is None]


def _has_no_shuffled(record: ResultRecord) -> bool:
    return not _shuffled_controls(record)


def _key(runs: MatchedRuns) -> tuple[object, ...]:
    return runs.pair.shared, runs.pair.taus, bool(runs.changes)


def _tests(group: Group, time: TimeControl | None, tau: TauControl | None = None) -> list[ControlResult]:
    """Returns the stored tests of runs under a control; none unless all have one."""
    found = [one for record in group.records if (one := record.control(time, tau)) is not None]
    return found if len(found) == len(group.records) else []


def _mean_difference(tests: Sequence[ControlResult]) -> Estimate:
    """Returns the mean difference of accuracy, with an interval over seeds with several, else over the samples."""
    if len(tests) > 1:
        return paired_t([one.difference for one in tests])
    (one,) = tests
    return paired_difference(one.gained, one.lost, one.samples)


def _compare_with_margin(difference: Estimate) -> Outcome:
    assert difference.low is not None
    assert difference.high is not None
    return "yes" if difference.high < -MARGIN else "no" if difference.low > -MARGIN else "open"


def _breakdown(lif: Comparison, plif: Comparison) -> Outcome:
    """Returns whether LIF loses :data:`BREAKDOWN` or more, and significantly, and PLIF surely less."""
    one, other = lif.extent, plif.extent
    if lif.maxima.low is None or one.high is None or other.low is None or other.high is None:
        return "open"
    if one.value > BREAKDOWN - _ROUNDING and lif.maxima.low > 0 and other.high < BREAKDOWN:
        return "yes"
    return "no" if one.high < BREAKDOWN or other.low >= BREAKDOWN else "open"


def _faster(epochs: Sequence[tuple[int, int]]) -> Outcome:
    """Returns whether the first side needs fewer epochs: by an interval over seeds, or by two limits if there is none.

    There is none with one seed, and with several if all have the same difference.
    """
    found = paired_t([one - other for one, other in epochs]) if len(epochs) > 1 else Estimate(0.0)
    if found.low is None or found.high is None:
        one, other = map(fmean, zip(*epochs, strict=True))
        if abs(other - one) < FEWER_EPOCHS:
            return "open"
        return "yes" if other >= FASTER * one else "no" if one >= FASTER * other else "open"
    return "yes" if found.high < 0 else "no" if found.low > 0 else "open"
