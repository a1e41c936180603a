"""Sweeps of the registry: each file ``sweeps/NAME.yaml`` of its folders is trained by ``plifctl sweep run NAME``.

A name has one meaning: it is not in two folders, and no experiment has it.
"""

from __future__ import annotations

from pathlib import Path

from plifctl.config.lookup import file_of
from plifctl.config.problems import CHECK_HINT
from plifctl.config.registry import Registry, name_problem
from plifctl.config.sweep import SweepSpec, read_sweep
from plifctl.errors import PlifctlError, RegistryError, join_problems
from plifctl.sweep.expansion import expand


def load_sweeps(registry: Registry) -> dict[str, SweepSpec]:
    """Returns the sweeps of a registry by name.

    Raises:
        RegistryError: A file is invalid, or a name has two meanings; the message lists every problem.
    """
    found, problems = _collect(registry)
    if problems:
        raise RegistryError(join_problems(problems), hint=CHECK_HINT)
    return found


def named_sweep(name: str, registry: Registry) -> SweepSpec | None:
    """Returns the sweep of a name in the registry; None if it has none.

    Raises:
        UsageError: The working directory has a file of that name, too.
        RegistryError: As of :func:`load_sweeps`.
    """
    files = _files(registry)
    if name not in files:
        return None
    sweeps = load_sweeps(registry)
    file_of(name, list(files))
    return sweeps[name]


def check_sweeps(registry: Registry) -> list[str]:
    """Returns every problem of the sweeps of a registry; their experiments and values are looked up."""
    found, problems = _collect(registry)
    files = _files(registry)
    for name, sweep in found.items():
        try:
            expand(sweep)
        except RegistryError as error:  # of a file of the registry, with its own place
            problems += error.problems
        except PlifctlError as error:
            problems.append(f"{files[name][0]}: {error}")
    return problems


def _files(registry: Registry) -> dict[str, list[Path]]:
    """Returns the files of each name, in the order of the folders."""
    found: dict[str, list[Path]] = {}
    for folder in registry.folders:
        for path in sorted((folder / "sweeps").glob("*.yaml")):
            found.setdefault(path.stem, []).append(path)
    return found


def _collect(registry: Registry) -> tuple[dict[str, SweepSpec], list[str]]:
    """Returns the valid sweeps by name, and the problems of the others."""
    found: dict[str, SweepSpec] = {}
    problems: list[str] = []
    for name, paths in _files(registry).items():
        if problem := _name_problem(name, paths, registry):
            problems.append(problem)
            continue
        try:
            sweep = read_sweep(paths[0])
        except RegistryError as error:
            problems += error.problems
            continue
        if sweep.sweep == name:
            found[name] = sweep
        else:
            problems.append(f"{paths[0]}: sweep: {sweep.sweep}; in a registry the file's name is that of the sweep")
    return found, problems


def _name_problem(name: str, paths: list[Path], registry: Registry) -> str:
    """Returns why a name cannot be that of a sweep; empty if it can."""
    if problem := name_problem(name):
        return f"{paths[0]}: {problem}"
    if len(paths) > 1:
        return f"{paths[1]}: the sweep {name} is defined already, {paths[0]}"
    if name in registry.experiments():
        return f"{paths[0]}: {name} is an experiment of the registry, and would mean two things"
    return ""
