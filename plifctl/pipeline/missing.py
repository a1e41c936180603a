"""The runs that tables lack: the empty cells, the command that fills each, and how long it takes on this machine.

A cell of a pair of experiments, one of which has runs, needs the recipe, seeds, epochs and changes of these.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plifctl import paths
from plifctl.config.choices import TRAINING_VERBS, Protocol, Recipe
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import RegistryError, UsageError, list_names
from plifctl.evaluation.step_cost import estimate_seconds, registry_samples
from plifctl.pipeline.commands import folder_option
from plifctl.pipeline.report import build_tables
from plifctl.report import TableOptions
from plifctl.report.table import Entry, name_other_versions
from plifctl.runs import RegisteredExperiments
from plifctl.runs.changes import CHANGED_SINCE

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MissingRun:
    """A run that fills cells of tables.

    Attributes:
        experiment: Name of the experiment.
        protocol: A, B or C.
        recipe: Its recipe.
        seed: Its seed.
        cells: The cells, ``Table 4: PLIF (τ₀ = 2), CIFAR-10``.
        command: What to type.
        epochs: Number of epochs: those that the experiment plans, or that the runs have that it is compared with.
        seconds: Estimate of its time on this machine's CPU, from its products alone; None: its samples are not known.
    """

    experiment: str
    protocol: Protocol
    recipe: Recipe
    seed: int
    cells: tuple[str, ...]
    command: str
    epochs: int
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "cells": list(self.cells), "seconds": self.seconds and round(self.seconds)}


@dataclass(frozen=True)
class _Training:
    """The settings of a training that a cell needs."""

    experiment: str
    protocol: Protocol
    recipe: Recipe
    seed: int
    epochs: int
    changes: tuple[str, ...]


def find_missing(
    names: Sequence[str], runs_dir: Path | None = None, options: TableOptions | None = None
) -> list[MissingRun]:
    """Returns the runs that the empty cells of tables need, in the order of the cells.

    Args:
        names: Names of tables; ``all`` stands for those of the paper.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        options: Whose runs count, and how many of their epochs: a run that is missing has no more.

    Raises:
        UsageError: There is no such table, or it states no runs that it needs.
    """
    cells: dict[_Training, list[str]] = {}
    options = options or TableOptions()
    tables, registry = build_tables(names, runs_dir, options), load_registry()
    if all(entry.experiment is None for table in tables for entry in table.entries):
        shown = list_names([f"table {table.name}" for table in tables])
        hint = "plifctl report --missing --table 4; claims, significance, speed and others have some"
        raise UsageError(f"--missing: no cell of {shown} waits for a certain run", hint=hint)
    for table in tables:
        for entry in table.entries:
            if entry.numbers:
                continue
            place = f"Table {table.name}: {entry.row}, {entry.column}"
            try:
                trainings = list(_trainings(entry, registry, options.epochs))
            except (RegistryError, UsageError) as error:
                _log.warning("left out: %s: %s", place, error)
                continue
            for training in trainings:
                cells.setdefault(training, []).append(place)
    if not cells:
        return []
    from plifctl.training.step_times import products_per_second  # imports torch

    speed = products_per_second()
    folder = folder_option("--runs-dir", runs_dir, paths.runs_dir())
    return [_missing_run(training, tuple(places), speed, folder, registry) for training, places in cells.items()]


def _trainings(entry: Entry, registry: Registry, most_epochs: int | None) -> Iterator[_Training]:
    """Yields what an empty cell needs: a training for each seed of the runs beside it.

    If these are of an earlier training version, with which no new run can be compared, they are trained again, too.

    Raises:
        UsageError: The experiment cannot be changed like the runs beside the cell, or they began with other weights.
        RegistryError: The experiment is invalid.
    """
    if entry.experiment is None or entry.protocol is None:
        return
    if began := next((record.started_from for record in entry.beside if record.started_from), None):
        # no command asks for weights by their digest, and another network takes others of them
        raise UsageError(f"the runs beside it began with the weights of {began.name}")
    stale = {record.experiment for record in entry.beside if name_other_versions(record)}
    first = next(iter(entry.beside), None)
    recipe, changes = ("paper", ()) if first is None else (first.recipe, RegisteredExperiments(registry).changes(first))
    if CHANGED_SINCE in changes:
        raise UsageError("the experiment of the runs beside it has been changed since")
    for name in (entry.experiment, *sorted(stale)):
        usual = registry.experiment(name, recipe=recipe, overrides=changes).spec.train
        planned = min(usual.epochs, most_epochs or usual.epochs)  # only runs of protocol A can be cut
        epochs = planned if first is None else first.epochs
        for seed in sorted({record.seed for record in entry.beside} or {usual.seed}):
            yield _Training(name, entry.protocol, recipe, seed, epochs, changes)


def _missing_run(
    training: _Training, cells: tuple[str, ...], speed: float, folder: Sequence[str], registry: Registry
) -> MissingRun:
    name, protocol, recipe = training.experiment, training.protocol, training.recipe
    usual, changes = registry.experiment(name, recipe=recipe).spec.train, training.changes
    if protocol == "C" and usual.early_stop is not None:
        changes += ("train.early_stop=null",)  # protocol C is refused with it
    words = ["plifctl", TRAINING_VERBS[protocol], name]
    words += ["--recipe", recipe] if recipe != "paper" else []
    words += ["--epochs", str(training.epochs)] if training.epochs != usual.epochs else []
    words += ["--seed", str(training.seed)] if training.seed != usual.seed else []
    words += [f"--set {shlex.quote(text)}" for text in changes]
    epochs = f"train.epochs={training.epochs}"
    spec = registry.experiment(name, recipe=recipe, overrides=(*changes, epochs)).spec.for_protocol(protocol)
    samples = registry_samples(spec, protocol)
    seconds = None if samples is None else estimate_seconds(spec, samples[0], speed)
    command = " ".join([*words, *folder])
    return MissingRun(name, protocol, recipe, training.seed, cells, command, training.epochs, seconds)
