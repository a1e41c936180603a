"""Which run a training resumes, and with which experiment: only its number of epochs may differ, and only grow."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import replace
from pathlib import Path

from plifctl.config.experiment import Experiment
from plifctl.config.lookup import load_experiment
from plifctl.config.overrides import is_modification, merge_overrides, override_texts
from plifctl.config.yaml_tree import Origin
from plifctl.errors import PlifctlError, ResumeError, UsageError, join_problems
from plifctl.pipeline.run_name import check_run_name
from plifctl.pipeline.start_weights import find_start_weights
from plifctl.pipeline.train_options import TrainOptions
from plifctl.runs import Run, find_run, is_added, is_imported, is_trained

_log = logging.getLogger(__name__)

AUTO = "auto"
"""The value of ``resume`` that continues the named run if it exists, and begins it otherwise."""


def find_resumed(options: TrainOptions, runs_dir: Path) -> Run | None:
    """Returns the run to resume, or None if a new one is trained.

    Raises:
        UsageError: There is no such run, or the name of a new one is taken, by a run or by something else, or cannot be
            one.
    """
    name = options.name
    if name is None:
        if options.resume == AUTO:
            raise UsageError("--resume auto needs the name of the run", hint="--name NAME --resume auto")
        return find_run(options.resume, runs_dir) if options.resume is not None else None
    if options.resume not in (None, AUTO):
        raise UsageError(f"--name {name} is for a new run", hint=f"--name {shlex.quote(name)} --resume auto")
    check_run_name(name)
    if not os.path.lexists(runs_dir / name):
        return None
    if options.resume is None:
        raise UsageError(
            f"{runs_dir / name}: exists already",
            hint="to continue it: --resume auto; for a run beside it: another --name",
        )
    if is_imported(runs_dir / name) or is_added(runs_dir / name):
        raise UsageError(
            f"{runs_dir / name}: a run that was added or imported, and cannot be continued",
            hint="rename its folder, or choose another --name",
        )
    if not is_trained(runs_dir / name):
        raise UsageError(
            f"{runs_dir / name}: not a run of plifctl; move it away, or remove it", hint="or choose another --name"
        )
    return Run(runs_dir / name)


def resumed_experiment(options: TrainOptions, run: Run) -> Experiment:
    """Returns the experiment of a run to resume; only its number of epochs may differ, and only grow."""
    config = run.config()
    if options.weights is not None and options.resume != AUTO:
        raise UsageError(f"--weights {options.weights}: {run.name} has begun", hint="omit --weights, or --resume")
    if config.protocol != options.protocol:
        raise ResumeError(
            f"{run.name} follows protocol {config.protocol}",
            hint=run.resume_command(),
        )
    resolved = _named_again(options, run) if options.experiment is not None else _recorded_experiment(options, run)
    was, now = config.spec, resolved.spec
    before, after = was.kept_settings(), now.kept_settings()
    different = [
        f"{key}: was {before.get(key)}, now {after.get(key)}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
    if now.train.epochs < was.train.epochs:
        different.append(f"train.epochs: was {was.train.epochs}, now {now.train.epochs}; they may only grow")
    if now.train.epochs > was.train.epochs and config.tests_once and (epoch := _tested_epoch(run)) is not None:
        different.append(
            f"train.epochs: was {was.train.epochs}, now {now.train.epochs}; epoch {epoch} has been tested, "
            f"and protocol {config.protocol} tests once: a longer training is a new run"
        )
    if different:
        raise ResumeError(
            join_problems([f"{run.name} was made with other settings:", *different]),
            hint=run.resume_command(),
        )
    # all that makes another experiment is as it was, so that stating it again changes nothing
    kept = tuple(filter(is_modification, config.overrides))
    return replace(resolved, overrides=(*kept, *(text for text in resolved.overrides if not is_modification(text))))


def _tested_epoch(run: Run) -> int | None:
    """Returns the epoch that a run which tests once has tested; None: its training has not ended."""
    if (run.path / "result.json").is_file():
        return run.record().best_epoch
    # of protocol C, the row of the last epoch has the test accuracy before there is a result
    return next((row["epoch"] for row in run.metrics() if row["test_accuracy"] is not None), None)


def _recorded_experiment(options: TrainOptions, run: Run) -> Experiment:
    """Returns the experiment that a run recorded, independent of the registry, with the new overrides."""
    config = run.config()
    origins = {key: Origin(text) for key, text in config.origins.items()}
    recorded = Experiment(config.spec, origins, config.overrides)
    if options.recipe not in (None, config.recipe):
        problems = [f"{run.name} was made with other settings:", f"recipe: was {config.recipe}, now {options.recipe}"]
        raise ResumeError(join_problems(problems), hint=run.resume_command())
    return load_experiment(recorded, options.overrides)


def _named_again(options: TrainOptions, run: Run) -> Experiment:
    """Returns the experiment that the user names for a run to resume, with the run's overrides and the new ones."""
    config, named = run.config(), options.experiment
    assert named is not None
    weights = config.spec.train.weights  # kept in the run
    if options.resume == AUTO:
        weights = _named_weights(options, run)
    begun = override_texts({"train.weights": weights}) if weights is not None else ()
    if isinstance(named, Experiment):
        found = load_experiment(named, merge_overrides(begun, options.overrides))
    elif options.resume == AUTO:  # the line that begins a run states all of it
        found = load_experiment(named, merge_overrides(begun, options.overrides), recipe=options.recipe)
    else:
        overrides = merge_overrides(merge_overrides(begun, config.overrides), options.overrides)
        found = load_experiment(named, overrides, recipe=options.recipe or config.recipe)
    return found.for_protocol(options.protocol)


def _named_weights(options: TrainOptions, run: Run) -> str | None:
    """Returns the digest of the weights named on a line with ``--resume auto``; of those it kept, if they are gone."""
    kept = run.config().spec.train.weights
    if options.weights is None:
        return None
    if options.weights == "last" and kept is not None:
        return kept  # the last run was another one when this one began
    try:
        return find_start_weights(options.weights, run.config().spec, run.path.parent).source.digest
    except PlifctlError as error:
        if kept is None:
            raise
        _log.warning("--weights %s: %s; the run continues with the weights that it kept", options.weights, error)
        return kept
