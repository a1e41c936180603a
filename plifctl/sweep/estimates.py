"""What the runs of a sweep will take: time and disk, measured where a run like it was trained, else computed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from plifctl.cache import raw_independent_key
from plifctl.config.base import digest_of
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import PlifctlError, RunError
from plifctl.evaluation.step_cost import estimate_seconds, registry_samples
from plifctl.evaluation.summary import summarize_experiment
from plifctl.runs import list_runs
from plifctl.sweep.expansion import Member
from plifctl.training.splits import Samples, make_split

_LEAST_SHARE = 0.1
"""Of the training samples, those that a run needs to have to be a measurement: each epoch takes some time by itself."""

_FLOAT = 4  # bytes
_COPIES = 4
"""Weights in a run's checkpoints: in the best one, and in the last one with Adam's two moments."""


@dataclass(frozen=True)
class Estimate:
    """What a run takes from its beginning.

    Attributes:
        seconds: Time, on the machine and device where a run like it was trained, or on this machine's CPU; None: it has
            no cache, and its data set states no number of samples.
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
    measured = _measure({_kind(member.spec) for member in members}, runs_dir)
    speed = 0.0
    found: dict[str, Estimate] = {}
    for member in members:
        spec, seconds, run = member.spec, None, ""
        if (samples := _train_samples(member, caches.get(member.name))) is not None:
            known = measured.get(_kind(spec))
            if known is not None and known.samples >= _LEAST_SHARE * samples:
                seconds, run = known.seconds * samples * spec.train.epochs, known.run
            else:
                from plifctl.training.step_times import products_per_second  # imports torch

                speed = speed or products_per_second()
                seconds = estimate_seconds(spec, samples, speed)
        found[member.name] = Estimate(seconds, run, _checkpoint_bytes(spec))
    return found


def _train_samples(member: Member, cache: Samples | None) -> int | None:
    """Returns the number of training samples: those of the cache, which may be a part; without one, the registry's."""
    if cache is not None:
        with suppress(PlifctlError):  # samples that cannot be divided are an error of the training
            return len(make_split(member.protocol, member.spec, cache).train)
    known = registry_samples(member.spec, member.protocol)
    return None if known is None else known[0]


class _Measured(NamedTuple):
    """What a run has taken: its number of training samples, and seconds of an epoch for each of them."""

    samples: int
    seconds: float
    run: str


def _measure(kinds: set[tuple[Any, ...]], runs_dir: Path) -> dict[tuple[Any, ...], _Measured]:
    """Returns what the run with most training samples took, the latest of equal ones, of each kind that has any."""
    found: dict[tuple[Any, ...], _Measured] = {}
    for run in list_runs(runs_dir):
        with suppress(RunError):
            kind = _kind(run.config().spec)
            if kind not in kinds or not (rows := run.metrics()):
                continue
            samples = len(run.split()["train"])
            if kind not in found or samples >= found[kind].samples:
                # the first epoch contains the compilation of loops
                seconds = statistics.fmean(row["seconds"] for row in rows[1:] or rows)
                found[kind] = _Measured(samples, seconds / samples, run.name)
    return found


def _kind(spec: ExperimentSpec) -> tuple[Any, ...]:
    """Returns what the time of an epoch depends on, apart from the number of samples and the machine."""
    train = spec.train
    return (
        *(digest_of(raw_independent_key(spec.framing)), spec.T, spec.network.structure, spec.neuron.kind),
        *(train.batch_size, train.memory, train.precision),
    )


def _checkpoint_bytes(spec: ExperimentSpec) -> int:
    return _COPIES * _FLOAT * sum(layer.parameters for layer in summarize_experiment(spec))
