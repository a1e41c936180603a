"""What the runs of a sweep will take: time and disk, measured where a run like it was trained, else computed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plifctl.cache import raw_independent_key
from plifctl.config.base import digest_of
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import PlifctlError, RunError
from plifctl.evaluation.summary import summarize_experiment
from plifctl.pipeline.missing import estimate_seconds, registry_samples
from plifctl.runs import Run, list_runs
from plifctl.sweep.expansion import Member
from plifctl.training.splits import Samples, make_split
from plifctl.training.step_times import products_per_second

_FLOAT = 4  # bytes
_COPIES = 4
"""Weights in a run's checkpoints: in the best one, and in the last one with Adam's two moments."""
_RECENT = 20
"""Runs of a sweep's experiments that are searched for one like a run of it; it is rarely further back."""


@dataclass(frozen=True)
class Estimate:
    """What a run takes from its beginning.

    Attributes:
        seconds: Time, on the machine and device where a run like it was trained, or on this machine's CPU; None: no run
            like it was trained, it has no cache, and its data set states no number of samples.
        measured: Name of that run; empty if the time is computed from the products of dense layers.
        nbytes: Disk for its checkpoints.
    """

    seconds: float | None
    measured: str
    nbytes: int


def estimate_runs(members: Sequence[Member], runs_dir: Path, caches: Mapping[str, Samples]) -> dict[str, Estimate]:
    """Returns an estimate of each training of a sweep, by name of its run.

    Args:
        members: The trainings.
        runs_dir: Runs directory, whose runs are the measurements.
        caches: The caches that are there, by name of the run that is trained on it.
    """
    measured = _measure({member.spec.name for member in members}, runs_dir)
    speed = 0.0
    found: dict[str, Estimate] = {}
    for member in members:
        spec = member.spec
        if (known := measured.get(_kind(spec))) is not None:
            estimate = Estimate(known[0] * spec.train.epochs, known[1], _checkpoint_bytes(spec))
        else:
            speed = speed or products_per_second()
            samples = _train_samples(member, caches.get(member.name))
            seconds = None if samples is None else estimate_seconds(spec, samples, speed)
            estimate = Estimate(seconds, "", _checkpoint_bytes(spec))
        found[member.name] = estimate
    return found


def _train_samples(member: Member, cache: Samples | None) -> int | None:
    """Returns the number of training samples: those of the cache, which may be a part; without one, the registry's."""
    if cache is not None:
        with suppress(PlifctlError):  # samples that cannot be divided are an error of the training
            return len(make_split(member.protocol, member.spec, cache).train)
    return registry_samples(member.spec, member.protocol)


def _measure(experiments: set[str], runs_dir: Path) -> dict[Any, tuple[float, str]]:
    """Returns the mean time of an epoch, and the run it was measured in, of each kind of training; the latest run."""
    found: dict[Any, tuple[float, str]] = {}
    for run in _recent(list_runs(runs_dir), experiments):
        with suppress(RunError):
            if (kind := _kind(run.config().spec)) not in found and (rows := run.metrics()):
                found[kind] = statistics.fmean(row["seconds"] for row in rows), run.name
    return found


def _recent(runs: Sequence[Run], experiments: set[str]) -> Iterable[Run]:
    """Returns the latest runs whose names have that of an experiment."""
    named = [run for run in reversed(runs) if any(name in run.name for name in experiments)]
    return named[:_RECENT]


def _kind(spec: ExperimentSpec) -> tuple[Any, ...]:
    """Returns what the time of an epoch depends on, apart from the machine."""
    train = spec.train
    return (
        *(digest_of(raw_independent_key(spec.framing)), spec.T, spec.network.structure, spec.neuron.kind),
        *(train.batch_size, train.subset, train.memory, train.precision),
    )


def _checkpoint_bytes(spec: ExperimentSpec) -> int:
    return _COPIES * _FLOAT * sum(layer.parameters for layer in summarize_experiment(spec))
