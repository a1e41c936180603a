"""Makes the plan of a sweep: a run for each of its trainings, with the command that trains it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from plifctl import paths
from plifctl.config.base import digest_of
from plifctl.config.choices import TRAINING_VERBS
from plifctl.config.choices import Engine as EngineName
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.overrides import override_texts
from plifctl.config.sweep import SweepSpec
from plifctl.data.source import RawSource
from plifctl.errors import RunError
from plifctl.runs import Run, is_trained, load_records
from plifctl.sweep.engine import Resources
from plifctl.sweep.expansion import Member, sweep_name
from plifctl.sweep.plan import Plan, PlanFile, PlannedRun, has_other_recordings


@dataclass(frozen=True)
class SweepOptions:
    """The options of ``plifctl sweep run``.

    Attributes:
        spec: What to train.
        engine: Where.
        resources: What each run gets.
        command: The command that was typed, for the plan.
        source: Raw data to build missing caches from.
        device: Torch device of each run; None: a GPU where there is one.
        checkpoint_every: Save the state every so many steps as well; 0: after epochs and on signals only.
        copy_cache: Folder on the disk of the machine that trains, to which each cache is copied first; None: caches are
            read where they are.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
    """

    spec: SweepSpec
    engine: EngineName = "local"
    resources: Resources = field(default_factory=Resources)
    command: str = ""
    source: RawSource = field(default_factory=RawSource)
    device: str | None = None
    checkpoint_every: int = 0
    copy_cache: Path | None = None
    cache_dir: Path | None = None
    runs_dir: Path | None = None


def plan_sweep(options: SweepOptions, members: Sequence[Member]) -> tuple[Plan, list[Member]]:
    """Returns the plan of a sweep and its trainings, by the names of their runs; writes nothing.

    Jobs that an earlier plan of the name started stay with their runs.

    Args:
        options: What to train.
        members: Its trainings, of :func:`~plifctl.sweep.expansion.expand`.

    Raises:
        UsageError: It cannot have its name.
        RunError: The earlier plan is damaged.
    """
    runs_dir = options.runs_dir or paths.runs_dir()
    file = PlanFile(runs_dir, sweep_name(options.spec))
    before = file.load() if file.path.is_file() else None
    known = {run.name: run for run in before.runs} if before is not None else {}
    members = _adopt_finished(members, runs_dir)
    runs = [_planned(member, options, runs_dir, known.get(member.name)) for member in members]
    now = time.time()
    created = now if before is None else before.created
    plan = Plan(
        name=file.name, command=options.command, definition=options.spec, created=created, updated=now, runs=tuple(runs)
    )
    return plan, members


def _adopt_finished(members: Sequence[Member], runs_dir: Path) -> list[Member]:
    """Returns the members; those that were trained under another name have the name of that run."""
    found: dict[tuple[object, ...], list[Path]] = {}
    for record in load_records(runs_dir, ()):
        if record.origin == "trained":
            key = (record.digest, record.protocol, record.seed, record.experiment)
            found.setdefault(key, []).append(runs_dir / record.run)

    def adopt(member: Member) -> Member:
        spec = member.spec
        if os.path.lexists(runs_dir / member.name):
            return member
        same = found.get((spec.digest, member.protocol, spec.train.seed, spec.name), ())
        finished = [folder.name for folder in same if _has_finished(folder, spec)]
        return replace(member, name=finished[-1]) if finished else member

    return [adopt(member) for member in members]


def _has_finished(folder: Path, spec: ExperimentSpec) -> bool:
    """Returns whether a run has the result of this training."""
    with suppress(RunError):  # damaged
        if is_trained(folder):  # and not only a result that somebody copied
            run = Run(folder)
            trained = run.config().spec
            if has_other_recordings(spec.dataset.raw, trained.dataset.raw):
                return False
            return trained.kept_settings() == spec.kept_settings() and run.result_of(spec.train.epochs) is not None
    return False


def _planned(member: Member, options: SweepOptions, runs_dir: Path, before: PlannedRun | None) -> PlannedRun:
    spec, gpus = member.spec, options.resources.gpus or 1
    words = _training_words(member, options, runs_dir)
    start = [sys.executable, "-m"]
    # the experiment may be edited before its turn comes
    planned = override_texts({"train.epochs": spec.train.epochs, "train.seed": spec.train.seed})
    unstated = [text for text in planned if text not in words]
    check = (*(word for text in unstated for word in ("--set", text)), "--digest", spec.digest)
    if gpus > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"]
    return PlannedRun(
        name=member.name,
        experiment=spec.name,
        protocol=member.protocol,
        seed=spec.train.seed,
        epochs=spec.train.epochs,
        values=dict(member.values),
        digest=spec.digest,
        settings=digest_of(spec.kept_settings()),
        dataset=spec.dataset.name,
        raw=spec.dataset.raw,
        command=shlex.join(["plifctl", *words]),
        argv=(*start, "plifctl", *words, *check),
        engine=before.engine if before is not None else None,
        job=before.job if before is not None else None,
    )


def _training_words(member: Member, options: SweepOptions, runs_dir: Path) -> list[str]:
    """Returns the words after ``plifctl`` that train a run, continue it, or find it finished."""
    words = [TRAINING_VERBS[member.protocol], member.spec.name if member.file is None else str(member.file)]
    words += ["--recipe", options.spec.recipe] if options.spec.recipe is not None else []
    for text in member.overrides:
        words += ["--set", text]
    words += ["--name", member.name, "--resume", "auto", "--runs-dir", str(runs_dir.absolute())]
    words += ["--cache-dir", str((options.cache_dir or paths.cache_dir()).absolute())]
    words += ["--device", options.device] if options.device is not None else []
    words += ["--checkpoint-every", str(options.checkpoint_every)] if options.checkpoint_every else []
    words += ["--copy-cache", str(options.copy_cache.absolute())] if options.copy_cache is not None else []
    return words
