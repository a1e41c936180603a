"""From a sweep's lists to its runs: every combination is one training with a name of its own.

**A run is named by what it is:** experiment, changed values, protocol B or C, fold, seed, and a digest of all that
decides its numbers. Two sweeps that ask for the same training thus ask for the same run, which is trained once, however
each states it: a value that the experiment has anyway is no change.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plifctl.config.base import digest_of, flatten
from plifctl.config.choices import Protocol
from plifctl.config.experiment import Experiment, ExperimentSpec, needed_overrides
from plifctl.config.lookup import file_of, is_file_name, load_experiment, load_registry
from plifctl.config.overrides import fold_overrides, is_modification, override_key, override_texts
from plifctl.config.registry import Registry
from plifctl.config.sweep import MAX_RUNS, SweepSpec
from plifctl.errors import UsageError
from plifctl.report import fill_table

_MAX_NAME = 150  # of the 255 bytes of a file name
_MAX_VALUE = 12
_BESIDE_FOLD = ("split.method", "split.test", "split.folds")  # stated with the number of a fold
_MAX_SWEEP_NAME = 60  # of one that is made here


@dataclass(frozen=True)
class Member:
    """A training that a sweep asks for.

    Attributes:
        name: Name of its run.
        file: Its YAML file, absolute; None: a name in the registry.
        protocol: A, B or C.
        overrides: Values that differ from the experiment's, texts ``key=value``; seed and epochs, if stated, and fold.
        values: Values of the grid, and the fold, by key.
        experiment: The experiment with them.
    """

    name: str
    file: Path | None
    protocol: Protocol
    overrides: tuple[str, ...]
    values: Mapping[str, Any]
    experiment: Experiment

    @property
    def spec(self) -> ExperimentSpec:
        """The values that decide its numbers."""
        return self.experiment.spec


def expand(spec: SweepSpec) -> list[Member]:
    """Returns the trainings of a sweep, seed by seed, so that a sweep cut short has every experiment once.

    Args:
        spec: The sweep.

    Raises:
        UsageError: There is no such table, experiment or key, a value is wrong, or nothing is left to train.
        RegistryError: A file of an experiment is invalid.
    """
    registry = load_registry()
    pairs = list(_pairs(spec, registry))
    axes = [[(key, value) for value in values] for key, values in spec.grid.items()]
    folds = [None] if spec.folds is None else [*range(1, spec.folds + 1)]
    seeds = spec.seeds or (None,)
    count = len(pairs) * len(seeds) * len(folds)
    for axis in axes:
        count *= len(axis)
    if count > MAX_RUNS:
        raise UsageError(f"{count:,} runs are more than a sweep may have, {MAX_RUNS:,}", hint="make several sweeps")
    found: dict[str, Member] = {}
    for seed, (name, protocol), point, fold in itertools.product(seeds, pairs, itertools.product(*axes), folds):
        member = _member(spec, name, protocol, dict(point), seed, fold, registry)
        first = found.setdefault(member.name, member)  # two tables may share a run, and two texts mean one value
        _check_same(first, member)
    return list(found.values())


def _check_same(first: Member, second: Member) -> None:
    """Raises UsageError if two trainings of one name have other data: the digest in the name does not cover all."""
    one, two = ({**m.spec.kept_settings(), "dataset.raw": m.spec.dataset.raw} for m in (first, second))
    if different := [key for key in one if one[key] != two.get(key)]:
        places = " and ".join(str(member.file or member.spec.name) for member in (first, second))
        raise UsageError(
            f"{places}: two experiments called {first.spec.name}, with other values of {', '.join(different)}",
            hint="change name: in one of the files",
        )


def _pairs(spec: SweepSpec, registry: Registry) -> Iterator[tuple[str, Protocol]]:
    """Yields each experiment with each of its protocols."""
    found: dict[tuple[str, Protocol], None] = {}
    for name in spec.tables:
        table = fill_table(name, (), registry)  # without results: only what it asks for
        asked = [(e.experiment, e.protocol) for e in table.entries if e.experiment is not None and e.protocol]
        if not asked:
            raise UsageError(f"table {table.name}: no experiment fills it", hint="e.g. --table 4")
        found |= dict.fromkeys(asked)
    asked_for = sorted({protocol for _, protocol in found})
    absent = [protocol for protocol in spec.protocols if protocol not in asked_for]
    if found and absent and (not spec.experiments or len(absent) == len(spec.protocols)):
        raise UsageError(
            f"protocol {' and '.join(absent)}: the cells of table {', '.join(spec.tables)} are of protocol "
            f"{' and '.join(asked_for)}",
            hint=f"--protocol {','.join(asked_for)}; or name experiments instead of the table: plifctl sweep run "
            f"EXPERIMENT … --protocol {','.join(absent)}",
        )
    for experiment, protocol in found:
        if not spec.protocols or protocol in spec.protocols:
            yield experiment, protocol
    for name in spec.experiments:
        for protocol in spec.protocols or ("A",):
            if (name, protocol) not in found:
                yield name, protocol


def _member(
    spec: SweepSpec,
    name: str,
    protocol: Protocol,
    point: dict[str, Any],
    seed: int | None,
    fold: int | None,
    registry: Registry,
) -> Member:
    overrides = (*override_texts(spec.set), *override_texts(point))
    if seed is not None:
        overrides += (f"train.seed={seed}",)
    if fold is not None:
        overrides += tuple(fold_overrides(fold, spec.folds))

    def load(texts: tuple[str, ...]) -> Experiment:
        return load_experiment(name, texts, recipe=spec.recipe, registry=registry).for_protocol(protocol)

    experiment = load(overrides)
    needed = needed_overrides(overrides, load(()).spec, experiment.spec)
    if needed != overrides and (shorter := load(needed)).spec.kept_settings() == experiment.spec.kept_settings():
        overrides, experiment = needed, shorter
    experiment.check_protocol(protocol)
    file = file_of(name, registry.experiments())
    values = {**point, "fold": fold} if fold is not None else point
    path = None if file is None else file.absolute()
    return Member(_run_name(experiment.spec, overrides, protocol), path, protocol, overrides, values, experiment)


def _run_name(spec: ExperimentSpec, overrides: tuple[str, ...], protocol: Protocol) -> str:
    identity = [spec.digest, protocol, spec.train.seed, spec.train.epochs, spec.name]
    known = flatten(spec.model_dump(mode="json"))
    stated = {override_key(text): text.partition("=")[2] for text in overrides if is_modification(text)}
    shown = sorted(key for key in stated if key not in _BESIDE_FOLD)
    values = [f"{key.rpartition('.')[2]}={_plain(known.get(key, stated[key]))[:_MAX_VALUE]}" for key in shown]
    parts = [spec.name, *values, *([protocol] if protocol != "A" else [])]
    return f"{'-'.join(parts)[:_MAX_NAME]}-s{spec.train.seed}-{digest_of(identity)[:8]}"


def _plain(value: Any) -> str:
    """Returns a value as a part of a file name; the digest tells apart what looks the same."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).strip("_")


def sweep_name(spec: SweepSpec) -> str:
    """Returns the name of a sweep: its own, or one made from what it trains, the same for the same lists."""
    if spec.sweep is not None:
        return spec.sweep
    tables = f"table-{'-'.join(spec.tables)}" if spec.tables else ""
    stems = (Path(name).stem if is_file_name(name) else name for name in spec.experiments)
    about = "+".join(filter(None, [tables, *map(_plain, stems)])).strip("-.")  # other letters are left out
    return f"{about[:_MAX_SWEEP_NAME] or 'sweep'}-{digest_of(spec.model_dump(mode='json', exclude={'title'}))[:6]}"
