"""plifctl check: validates every file of the registry."""

from __future__ import annotations

import typer

from plifctl.cli import console, options
from plifctl.config.choices import RECIPES
from plifctl.errors import RegistryError


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("check")(check)


def check(as_json: options.JsonOption = False) -> None:
    """Validate every file of the registry.

    Also those of the folder that PLIFCTL_REGISTRY names. Lists all problems at once, each with file, line and column.
    """
    from plifctl.report.tables import check_tables
    from plifctl.runs import check_records

    registry = options.registry()
    problems = [*registry.check(), *check_tables(registry.folders), *check_records(registry.folders)]
    if as_json:
        console.emit_json({"problems": problems})
    elif problems:
        for problem in problems:
            console.emit(problem)
    else:
        experiments, datasets, networks = map(len, (registry.experiments(), registry.datasets(), registry.networks()))
        console.emit(
            f"{experiments} experiments in {len(RECIPES)} recipes, {datasets} data sets, {networks} networks: all valid"
        )
    if problems:
        count = len(problems)
        raise RegistryError(f"{count} problem{'s' if count > 1 else ''} in the registry")
