"""plifctl check: validates files of one's own, or every file of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plifctl.cli import console, options
from plifctl.config.choices import RECIPES
from plifctl.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from plifctl.config.registry import Registry


def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(parser=options.path, help="Files of experiments, data sets or sweeps (default: the registry)."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Validate files of your own, or every file of the registry.

    Without files, also those of the folder that PLIFCTL_REGISTRY names. Lists all problems at once, each with file,
    line and column.

    Example: plifctl check mine.yaml
    """
    problems, summary = _check_files(files) if files else _check_registry()
    if as_json:
        console.emit_json({"problems": problems})
    else:
        for line in problems or [summary]:
            console.emit(line)
    if problems:
        count = len(problems)
        where = "these files" if files else "the registry"
        raise RegistryError(f"{count} problem{'s' if count > 1 else ''} in {where}")


def _check_registry() -> tuple[list[str], str]:
    """Returns the problems of the registry, and what it contains."""
    from plifctl.config.sources import check_choices
    from plifctl.report.tables import check_tables
    from plifctl.runs import check_records
    from plifctl.sweep.registered import check_sweeps, load_sweeps

    registry = options.registry()
    folders = registry.folders
    problems = registry.check()
    if not problems:  # names of experiments are known
        problems += [*check_sweeps(registry), *check_tables(registry)]
    problems += [*check_choices(folders), *check_records(folders)]
    if problems:
        return problems, ""
    experiments, datasets, networks = map(len, (registry.experiments(), registry.datasets(), registry.networks()))
    return [], (
        f"{experiments} experiments in {len(RECIPES)} recipes, {datasets} data sets, {networks} networks, "
        f"{len(load_sweeps(registry))} sweeps: all valid"
    )


def _describe_file(file: Path, registry: Registry) -> str:
    """Returns what a file describes, after all of it was checked: a sweep, an experiment, or a data set."""
    from plifctl.config.lookup import refuse_folder
    from plifctl.config.sweep import is_sweep_file, read_sweep
    from plifctl.sweep.expansion import expand

    refuse_folder(file)
    if not is_sweep_file(file):
        return registry.describe_file(file)
    sweep = read_sweep(file)
    try:
        runs = expand(sweep)
    except UsageError as error:  # of a value, which names no file
        raise RegistryError(f"{file}: {error}", hint=error.hint) from error
    return f"{file}: sweep {sweep.sweep}, {len(runs)} run{'s' if len(runs) > 1 else ''}"


def _check_files(files: list[Path]) -> tuple[list[str], str]:
    """Returns the problems of some files, and what they describe."""
    from plifctl.config.problems import CHECK_HINT

    registry = options.registry()
    problems: list[str] = []
    found: list[str] = []
    for file in files:
        try:
            found.append(_describe_file(file, registry))
        except RegistryError as error:
            problems += error.problems
            if error.hint and error.hint != CHECK_HINT:
                problems[-1] += "; " + error.hint.replace("\n", "; ")
    return problems, "\n".join(f"{line}: valid" for line in found)
