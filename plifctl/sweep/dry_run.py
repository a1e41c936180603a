"""What a sweep would do: which runs are there, which are missing, and what time, disk and caches they need."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plifctl import paths
from plifctl.cache import Cache
from plifctl.errors import CacheError
from plifctl.pipeline.commands import prepare_command_of
from plifctl.sweep.caches import cache_of, group_by_cache, warn_of_other_versions
from plifctl.sweep.engines import check_resources
from plifctl.sweep.estimates import Estimate, estimate_runs
from plifctl.sweep.expansion import Member, expand
from plifctl.sweep.local import LocalEngine
from plifctl.sweep.planning import SweepOptions, plan_sweep
from plifctl.sweep.status import SweepStatus, read_plan


@dataclass(frozen=True)
class NeededCache:
    """A cache that runs of a sweep are trained on.

    Attributes:
        dataset: Name of its data set.
        T: Number of frames of a sample; None of images.
        path: Where it is; None: it is missing.
        nbytes: Size on disk; None: it is missing.
        command: The command that builds it alone.
        runs: Number of runs that need it.
    """

    dataset: str
    T: int | None
    path: str | None
    nbytes: int | None
    command: str
    runs: int


@dataclass(frozen=True)
class DryRun:
    """What a sweep would do.

    Attributes:
        status: Its status now.
        estimates: Of each run from its beginning, by name.
        caches: The caches that it needs.
        at_once: Runs at the same time; on a cluster as many as were asked for, or 1.
    """

    status: SweepStatus
    estimates: dict[str, Estimate]
    caches: tuple[NeededCache, ...]
    at_once: int

    @property
    def seconds(self) -> float:
        """Time of all epochs that are not trained, one run after the other, of the runs with an estimate."""
        known = [(entry, self.estimates[entry.run.name].seconds) for entry in self.status.unfinished]
        return sum(seconds * (1 - entry.epoch / entry.run.epochs) for entry, seconds in known if seconds is not None)

    @property
    def unknown(self) -> int:
        """Number of runs to train without an estimate of their time."""
        return sum(self.estimates[entry.run.name].seconds is None for entry in self.status.unfinished)

    @property
    def nbytes(self) -> int:
        """Disk for the checkpoints of the runs that are not finished."""
        return sum(self.estimates[entry.run.name].nbytes for entry in self.status.unfinished)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        tree = self.status.to_json()
        for entry in tree["runs"]:
            entry["estimate"] = asdict(self.estimates[entry["name"]])
        caches = [asdict(cache) for cache in self.caches]
        return {**tree, "seconds": self.seconds, "bytes": self.nbytes, "caches": caches, "at_once": self.at_once}


def dry_run(options: SweepOptions) -> DryRun:
    """Returns what :func:`~plifctl.sweep.run.run_sweep` would do; writes nothing, and asks no cluster.

    Raises:
        UsageError, RegistryError: As :func:`~plifctl.sweep.expansion.expand`, and of the engine of this machine.
        RunError: The plan is damaged.
    """
    runs_dir = options.runs_dir or paths.runs_dir()
    members = expand(options.spec)
    plan, members = plan_sweep(options, members)
    status = read_plan(plan, runs_dir)
    warn_of_other_versions({entry.run.name: entry.state for entry in status.runs}, runs_dir)
    if status.unfinished:
        check_resources(options.engine, options.resources)
    cache_dir = options.cache_dir or paths.cache_dir()
    groups = [(group, _find(group[0], cache_dir)) for group in group_by_cache(members)]
    caches = {member.name: cache for group, cache in groups if cache is not None for member in group}
    at_once = LocalEngine(options.resources).limit if options.engine == "local" else options.resources.jobs or 1
    return DryRun(
        status,
        estimate_runs(members, runs_dir, caches),
        tuple(_needed(group, cache, cache_dir) for group, cache in groups),
        min(at_once, max(1, len(status.unfinished))),
    )


def _find(member: Member, cache_dir: Path) -> Cache | None:
    with suppress(CacheError):
        return cache_of(member, cache_dir)
    return None


def _needed(group: Sequence[Member], cache: Cache | None, cache_dir: Path) -> NeededCache:
    framing = group[0].spec.framing
    command = prepare_command_of(group[0].spec, file=group[0].file, cache_dir=cache_dir)
    T = None if framing.frames is None else framing.T
    path, nbytes = (None, None) if cache is None else (str(cache.path), cache.path.stat().st_size)
    return NeededCache(framing.dataset.name, T, path, nbytes, command, len(group))
