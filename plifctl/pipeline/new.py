"""An experiment of the user's own, written as a file; implements ``plifctl new``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plifctl import paths
from plifctl.config.base import flatten
from plifctl.config.choices import Recipe
from plifctl.config.experiment import Experiment
from plifctl.config.lookup import check_new_name, file_of, load_experiment, load_registry
from plifctl.config.yaml_tree import Origin
from plifctl.errors import UsageError
from plifctl.exchange.lookup import find_model, is_exported, is_model_folder, names_file
from plifctl.runs import find_run, find_run_folder, is_added, is_run


def write_experiment(
    file: Path,
    like: str,
    overrides: tuple[str, ...] = (),
    *,
    recipe: Recipe | None = None,
    runs_dir: Path | None = None,
) -> Experiment:
    """Writes an experiment to a file that states every value, and returns it; it has the name of the file.

    Args:
        file: The file.
        like: Experiment to begin with: a name, a YAML file, a run, an exported file or folder, or ``zoo:NAME``.
        overrides: Changes to it, texts ``key=value``.
        recipe: Recipe of a named experiment; None: ``paper``, or that of the file or run.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: The file exists, its name cannot be that of an experiment, or there is no such experiment.
    """
    registry = load_registry()
    check_new_name(file.stem, file, hint="choose another name")
    source = _find_source(like, registry.experiments(), runs_dir or paths.runs_dir())
    experiment = load_experiment(source, overrides, recipe=recipe, registry=registry).renamed(file.stem)
    experiment.save(file, based_on=like)
    return experiment


def _find_source(like: str, known: Sequence[str], runs_dir: Path) -> str | Experiment:
    """Returns the experiment of a run or an exported network; a name or YAML file as it is."""
    is_network = names_file(like) or is_model_folder(Path(like)) or is_run(Path(like))
    if like in known or (not is_network and file_of(like, known) is not None):
        return like
    return _of_model(like, runs_dir) if is_exported(like) else _of_run(like, runs_dir)


def _of_model(name: str, runs_dir: Path) -> Experiment:
    """Returns the experiment by which an exported network was trained."""
    from plifctl.exchange.model import load_trained  # imports torch

    spec = load_trained(find_model(name, "best", runs_dir)).spec
    origin = Origin(name)
    return Experiment(spec, dict.fromkeys(flatten(spec.model_dump(mode="json")), origin))


def _of_run(name: str, runs_dir: Path) -> Experiment:
    try:
        if is_added(folder := find_run_folder(name, runs_dir)):
            return _of_model(str(folder), runs_dir)
        run = find_run(name, runs_dir)
    except UsageError:
        raise UsageError(
            f"unknown experiment {name!r}, which is no file and no run either",
            hint="plifctl ls lists the experiments, plifctl runs the runs",
        ) from None
    config = run.config()
    return Experiment(config.spec, {key: Origin(text) for key, text in config.origins.items()}, config.overrides)
