"""The caches of a sweep: each is built once, before the runs; finished runs of other data are named."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from plifctl import paths
from plifctl.cache import Cache, raw_independent_key
from plifctl.config.base import digest_of
from plifctl.errors import PlifctlError, UsageError
from plifctl.pipeline.commands import prepare_command_of
from plifctl.pipeline.current_cache import find_current_cache
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.pipeline.progress import Progress
from plifctl.runs import Run
from plifctl.sweep.expansion import Member
from plifctl.sweep.plan import State
from plifctl.sweep.planning import SweepOptions
from plifctl.training.progress import TRAINING_VERSION

_log = logging.getLogger(__name__)


def group_by_cache(members: Sequence[Member]) -> list[list[Member]]:
    """Returns the trainings of a sweep, those of one cache together: of one framing, and of recordings in one place."""
    groups: dict[tuple[str, str | None], list[Member]] = {}
    for member in members:
        key = digest_of(raw_independent_key(member.spec.framing)), member.spec.dataset.raw
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def prepare_caches(
    members: Sequence[Member], states: Mapping[str, State], options: SweepOptions, progress: Progress
) -> dict[str, str]:
    """Builds the caches of runs that are not trained; returns the runs without one, and why.

    Warns of finished runs that were trained on other data than their cache has now: their results still count.

    Args:
        members: The trainings.
        states: State of each run, by name.
        options: Where caches are, and what they are built from.
        progress: Opens the tasks of building.
    """
    missing: dict[str, str] = {}
    for group in group_by_cache(members):
        waiting = [member for member in group if states[member.name] not in ("finished", "running")]
        try:
            cache = _build(waiting[0], options, progress) if waiting else cache_of(group[0], options.cache_dir)
        except (PlifctlError, OSError) as error:
            if waiting:
                remedy = error.hint.splitlines() if isinstance(error, PlifctlError) else []
                _log.warning("%s: %s", group[0].spec.dataset.name, "; ".join([str(error), *remedy]))
            missing |= {member.name: str(error) for member in waiting}
        else:
            _warn_of_other_data([m.name for m in group if states[m.name] == "finished"], cache, options)
    return missing


def _build(member: Member, options: SweepOptions, progress: Progress) -> Cache:
    dataset, root = member.spec.dataset, options.source.root
    stated = None if dataset.raw is None else Path(dataset.raw)
    if root is not None and stated is not None and stated.exists() and stated.resolve() != root.resolve():
        raise UsageError(
            f"--raw {root}: {dataset.name} states raw: {stated}, which its runs are trained on",
            hint="omit --raw, or change raw: in the YAML of the data set; "
            "PLIFCTL_RAW_DIR names the place of data sets that state none",
        )
    return experiment_cache(
        member.spec, options.cache_dir, file=member.file, build_from=options.source, progress=progress
    )


def cache_of(member: Member, cache_dir: Path | None) -> Cache:
    """Returns the cache that a training of a sweep has; nothing is built.

    Raises:
        CacheError: There is none.
    """
    cache_dir = cache_dir or paths.cache_dir()
    prepare = prepare_command_of(member.spec, file=member.file, cache_dir=cache_dir)
    return find_current_cache(member.spec.framing, cache_dir, prepare=prepare)


def warn_of_other_versions(states: Mapping[str, State], runs_dir: Path) -> None:
    """Warns of finished runs of other training versions than the rest of a sweep: they have no common mean with it.

    Args:
        states: State of each run, by name.
        runs_dir: Runs directory.
    """
    versions: dict[str, tuple[int, ...]] = {}
    for name in states:
        versions[name] = (TRAINING_VERSION,)  # of a run that is trained from now on
        if states[name] == "finished":
            with suppress(PlifctlError):  # a damaged run is named by its state
                versions[name] = Run(runs_dir / name).record().training_versions
    others = [name for name, found in versions.items() if found != (TRAINING_VERSION,)]
    if others and len({*versions.values()}) > 1:
        known = sorted({str(version) for name in others for version in versions[name]})
        _log.warning(
            "%d finished run%s of training version %s, which has no common mean with today's %d, e.g. %s: "
            "removed runs are trained again",
            len(others),
            " is" if len(others) == 1 else "s are",
            ", ".join(known) or "unknown",
            TRAINING_VERSION,
            others[0],
        )


def _warn_of_other_data(finished: Sequence[str], cache: Cache, options: SweepOptions) -> None:
    runs_dir, others = options.runs_dir or paths.runs_dir(), []
    for name in finished:
        with suppress(PlifctlError):  # a damaged run is named by its state
            if Run(runs_dir / name).content_digest != cache.content_digest:
                others.append(name)
    if others:
        _log.warning(
            "%d finished run%s trained on other data than %s has now, e.g. %s: removed runs are trained again",
            len(others),
            " was" if len(others) == 1 else "s were",
            cache.path.name,
            others[0],
        )
