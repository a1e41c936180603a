"""Lines of the figures of trainings: the runs of one setting, and how it is labelled.

Labels come from the run's own settings, never from the name of its experiment: a run with ``neuron.tau_0=4`` is
labelled τ₀ = 4. What forbids to compare it (a subset, other changes, protocol B) is in the label; the rest is in the
caption.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from plifctl.config.choices import ResultSource
from plifctl.config.network import NeuronSpec
from plifctl.config.overrides import override_key
from plifctl.config.structure import Pool, parse_structure
from plifctl.report.labels import origin_facts, tell_apart, versions_text
from plifctl.report.results import SOURCE_WORDS, SOURCES
from plifctl.runs import Curve, RegisteredExperiments

PAPER_PANELS = ("Fashion-MNIST", "CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture")
"""The panels of the paper's figures of trainings, in its order: titles of data sets."""

_IN_LABEL = ("neuron.kind", "neuron.tau_0", "neuron.tau")


@dataclass(frozen=True, eq=False)
class Line:
    """The runs of one setting: they differ in nothing but the seed.

    Attributes:
        curves: Their curves, one for each seed.
        panel: Title of the data set; the name of the run where it is unknown.
        changes: How the experiment differs from that of its name, sorted.
        neuron: The neuron; None where it is unknown.
        average_pooling: Whether the network has average pooling.
    """

    curves: tuple[Curve, ...]
    panel: str
    changes: tuple[str, ...] = ()
    neuron: NeuronSpec | None = None
    average_pooling: bool = False

    @property
    def first(self) -> Curve:
        """The curve of the first seed; all but seed and epochs is that of the others."""
        return self.curves[0]

    @property
    def kind(self) -> str | None:
        """The kind of the neuron, ``plif`` or ``lif``; None where it is unknown."""
        return None if self.neuron is None else self.neuron.kind

    @property
    def tau(self) -> float | None:
        """The time constant before training, in time steps; None where it is unknown."""
        return None if self.neuron is None else self.neuron.start_tau

    @property
    def of_authors(self) -> bool:
        """Whether the curves are the authors', from their logs."""
        return self.source == "authors"

    @property
    def source(self) -> ResultSource:
        """Whose runs the curves are of."""
        return SOURCES[self.first.origin]

    @property
    def base(self) -> str:
        """The neuron, its time constant, and average pooling."""
        if self.neuron is None:
            return self.first.name
        known = self.neuron.describe()
        return f"{known}, average pooling" if self.average_pooling else known

    @property
    def label(self) -> str:
        """The label in a legend: :attr:`base`, and what forbids to compare the runs with others."""
        others = [text for text in self.changes if override_key(text) not in (*_IN_LABEL, "train.subset")]
        flags = [
            *([f"fold {self.first.fold.number}"] if self.first.fold is not None else []),
            *(["subset"] if self.first.subset else []),
            *(["modified"] if others else []),
            *(["fast"] if self.first.recipe == "fast" else []),
            *([f"protocol {self.first.protocol}"] if self.first.protocol not in ("A", None) else []),
        ]
        return ", ".join([self.base, *flags])

    def describe(self) -> str:
        """Returns the settings that the label leaves out, for the caption."""
        first, words = self.first, SOURCE_WORDS[self.source]
        seeds = sorted({curve.seed for curve in self.curves if curve.seed is not None})
        last = sorted({curve.epochs[-1] for curve in self.curves if curve.epochs})
        parts = [
            first.experiment or f"run {first.name}",
            *(["from imported logs"] if self.source == "imported" else []),
            *([words.note] if words.note else []),
            *([f"recipe {first.recipe}"] if first.recipe else []),
            *([f"protocol {first.protocol}"] if first.protocol else []),
            *([f"T = {first.T}"] if first.T else []),
            *([f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"] if seeds else []),
            *([f"{' to '.join(map(str, last[:1] + last[1:][-1:]))} epoch{'s' * (last != [1])}"] if last else []),
            *([versions_text(first.training_versions)] if first.training_versions else []),
            *([first.fold.text] if first.fold is not None else []),
            *(["subset"] if first.subset else []),
            *([f"modified: {', '.join(self.changes)}"] if self.changes else []),
        ]
        return ", ".join(parts)


def lines_of(curves: Iterable[Curve], experiments: RegisteredExperiments) -> list[Line]:
    """Returns curves as lines: those that differ in nothing but seed and number of epochs are one.

    Of several runs with one seed, the longest counts, and of these the last.

    Args:
        curves: The curves.
        experiments: The experiments of the registry.
    """
    groups: dict[Hashable, dict[int | None, Curve]] = {}
    for curve in curves:
        of_seed = groups.setdefault(curve.setting, {})
        if curve.seed not in of_seed or len(curve.epochs) >= len(of_seed[curve.seed].epochs):
            of_seed[curve.seed] = curve
    return [
        _line(tuple(group[seed] for seed in sorted(group, key=lambda seed: seed or 0)), experiments)
        for group in groups.values()
    ]


def _line(curves: tuple[Curve, ...], experiments: RegisteredExperiments) -> Line:
    # an option may state what a run has anyway, by its file
    changes = min((tuple(sorted(experiments.changes(curve))) for curve in curves), key=len)
    spec = curves[0].spec or experiments.find(curves[0])
    if spec is None:
        return Line(curves, curves[0].name, changes)
    pools = [layer for layer in parse_structure(spec.network.structure)[:-1] if isinstance(layer, Pool)]
    return Line(
        curves,
        spec.dataset.title,
        changes,
        spec.neuron,
        bool(pools) and all(pool.mode == "average" for pool in pools),
    )


def labels_of(lines: Sequence[Line]) -> dict[Line, str]:
    """Returns the label of each line of a figure: where labels would be the same, with what the lines differ in.

    In a figure of several sources, lines of other runs than one's own say whose they are.
    """
    mixed = len({line.source for line in lines}) > 1
    facts = [
        (
            f"recipe {line.first.recipe}",
            f"T = {line.first.T}",
            ", ".join(line.changes),
            line.first.experiment or "",
            versions_text(line.first.training_versions),
            *origin_facts(line.first.digest, line.first.cache),
        )
        for line in lines
    ]
    added = tell_apart([(line.source, line.panel, line.label) for line in lines], facts)
    labels = {}
    for line, more in zip(lines, added, strict=True):
        whose = [SOURCE_WORDS[line.source].verdict] if mixed and line.source != "mine" else []
        seeds = [f"{len(line.curves)} seeds"] if len(line.curves) > 1 else []
        labels[line] = ", ".join([line.label, *more, *whose, *seeds])
    return labels


def describe_lines(lines: Sequence[Line]) -> str:
    """Returns the sentences of a caption that say which runs were drawn."""
    labels = labels_of(lines)
    sentences = [f"{labels[line]}: {line.describe()}." for line in lines if not line.of_authors]
    if protocols := sorted({str(line.first.protocol) for line in lines if line.of_authors}):
        sentences.append(f"The authors' runs: from their logs, protocol {' and '.join(protocols)}, seed 2020.")
    if any(len(line.curves) > 1 for line in lines):
        sentences.append("Bands: mean ± standard deviation over seeds.")
        if any(len({curve.epochs[-1:] for curve in line.curves}) > 1 for line in lines):
            sentences.append("After the last epoch of a run, they are over the others.")
    return " ".join(sentences)


def values_of(
    line: Line, series: Callable[[Curve], Sequence[float | None]], last: int | None
) -> tuple[list[int], np.ndarray]:
    """Returns epochs and the values of the runs of a line, ``[runs, epochs]``, NaN after the last value of a run.

    An epoch that a run lacks before its last value is left out: a mean without that run would jump.

    Args:
        line: The line.
        series: Returns the series of a curve; empty where it has none.
        last: Last epoch; None: all.
    """
    found = [
        {
            epoch: value
            for epoch, value in zip(curve.epochs, series(curve), strict=False)
            if value is not None and (last is None or epoch <= last)
        }
        for curve in line.curves
    ]
    ends = [max(values, default=0) for values in found]
    epochs = [
        epoch
        for epoch in sorted(set().union(*found))
        if all(epoch in values or epoch > end for values, end in zip(found, ends, strict=True))
    ]
    return epochs, np.array([[values.get(epoch, np.nan) for epoch in epochs] for values in found], np.float64)
