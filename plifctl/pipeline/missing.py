"""The runs that tables lack: the empty cells, the command that fills each, and how long it takes on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plifctl import paths
from plifctl.config.choices import TRAINING_VERBS, Protocol
from plifctl.config.lookup import load_registry
from plifctl.errors import UsageError, list_names
from plifctl.evaluation.step_cost import estimate_seconds, registry_samples
from plifctl.pipeline.commands import folder_option
from plifctl.pipeline.report import build_tables
from plifctl.report import TableOptions


@dataclass(frozen=True)
class MissingRun:
    """A run that fills cells of tables.

    Attributes:
        experiment: Name of the experiment.
        protocol: A, B or C.
        cells: The cells, ``Table 4: PLIF (τ₀ = 2), CIFAR-10``.
        command: What to type.
        epochs: Number of epochs that the experiment plans.
        seconds: Estimate of its time on this machine's CPU, from its products alone; None: its samples are not known.
    """

    experiment: str
    protocol: Protocol
    cells: tuple[str, ...]
    command: str
    epochs: int
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "cells": list(self.cells), "seconds": self.seconds and round(self.seconds)}


def find_missing(
    names: Sequence[str], runs_dir: Path | None = None, options: TableOptions | None = None
) -> list[MissingRun]:
    """Returns the runs that the empty cells of tables need, in the order of the cells.

    Args:
        names: Names of tables; ``all`` stands for those of the paper.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        options: Whose runs count.

    Raises:
        UsageError: There is no such table, or it states no runs that it needs.
    """
    cells: dict[tuple[str, Protocol], list[str]] = {}
    tables = build_tables(names, runs_dir, options)
    if all(entry.experiment is None for table in tables for entry in table.entries):
        shown = list_names([f"table {table.name}" for table in tables])
        hint = "plifctl report --missing --table 4; claims, significance, speed and others have some"
        raise UsageError(f"--missing: no cell of {shown} waits for a certain run", hint=hint)
    for table in tables:
        for entry in table.entries:
            if entry.experiment is not None and entry.protocol is not None and not entry.numbers:
                place = f"Table {table.name}: {entry.row}, {entry.column}"
                cells.setdefault((entry.experiment, entry.protocol), []).append(place)
    if not cells:
        return []
    from plifctl.training.step_times import products_per_second  # imports torch

    speed = products_per_second()
    folder = folder_option("--runs-dir", runs_dir, paths.runs_dir())
    return [_missing_run(name, protocol, tuple(places), speed, folder) for (name, protocol), places in cells.items()]


def _missing_run(
    name: str, protocol: Protocol, cells: tuple[str, ...], speed: float, folder: Sequence[str]
) -> MissingRun:
    spec = load_registry().experiment(name).spec.for_protocol(protocol)
    command = " ".join(["plifctl", TRAINING_VERBS[protocol], name, *folder])
    samples = registry_samples(spec, protocol)
    seconds = None if samples is None else estimate_seconds(spec, samples[0], speed)
    return MissingRun(name, protocol, cells, command, spec.train.epochs, seconds)
