"""Verifies and removes the files of runs; implements ``plifctl runs verify`` and ``plifctl runs rm``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from plifctl import paths
from plifctl.errors import RunError, UsageError
from plifctl.pipeline.progress import Progress, silent
from plifctl.runs import (
    AddedRun,
    Run,
    check_removable,
    external_folders,
    find_run_folder,
    is_added,
    is_imported,
    is_trained,
    list_runs,
    load_external,
    remove_external,
    remove_run,
    verify_run,
)


def file_sizes(folder: Path) -> dict[str, int]:
    """Returns the size in bytes of each file of a run, by its path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def verify_runs(
    names: Sequence[str] = (), runs_dir: Path | None = None, progress: Progress = silent
) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and the problems of each finished or external run, after all its files were read.

    Args:
        names: Runs; empty: all.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        progress: Opens a task for each run.

    Raises:
        UsageError: No such run, or one that was named is not finished.
    """
    folder = runs_dir or paths.runs_dir()
    external, runs = _find_named(names, folder) if names else (external_folders(folder), list_runs(folder))
    for path in external:
        try:
            other = load_external(path)
            yield path.name, other.problems() if isinstance(other, AddedRun) else []
        except RunError as error:
            yield path.name, [str(error)]
    for run in runs:
        try:
            status = run.status()
        except RunError as error:
            yield run.name, [str(error)]
            continue
        if status == "finished":
            with progress(f"verifying {run.name}", "files") as task:
                problems = verify_run(run, task.update)
            yield run.name, problems
        elif names:
            raise UsageError(f"{run.name}: {status}; only finished runs have a manifest")


def _find_named(names: Sequence[str], runs_dir: Path) -> tuple[list[Path], list[Run]]:
    """Returns the folders of the external ones of named runs, and those trained here, each once.

    Raises:
        UsageError: No run matches a name, or several do.
    """
    listed = list_runs(runs_dir) if len(names) > 1 else None
    found = list(dict.fromkeys(find_run_folder(name, runs_dir, listed) for name in names))
    trained = [path for path in found if is_trained(path)]
    return [path for path in found if path not in trained], [Run(path) for path in trained]


def find_removable(names: Sequence[str], runs_dir: Path | None = None) -> dict[Path, int]:
    """Returns the folders of runs, and how many bytes removing each of them frees.

    Only children of the runs directory are removed, which are no links and which plifctl wrote.

    Raises:
        UsageError: No such run, it may not be removed, or it is being trained.
    """
    folder = runs_dir or paths.runs_dir()
    external, runs = _find_named(names, folder)
    folders = list(dict.fromkeys([*external, *(run.path for run in runs)]))
    for path in folders:
        check_removable(path, folder)
    if live := sorted({run.name for run in runs if _is_running(run)}):
        raise UsageError(
            f"being trained: {', '.join(live)}; nothing was removed", hint="stop the training first (Ctrl-C)"
        )
    return {path: sum(file_sizes(path).values()) for path in folders}


def _is_running(run: Run) -> bool:
    try:
        return run.status() == "running" or run.beating_host() is not None
    except RunError:  # damaged; the lock is tried again before it is removed
        return False


def remove_folders(folders: Iterable[Path], *, dry_run: bool = False) -> Iterator[Path]:
    """Removes runs by their folders, as :func:`find_removable` returned them; yields each one that was removed.

    Raises:
        UsageError: A run is being trained.
    """
    for path in folders:
        if not dry_run:
            if is_imported(path) or is_added(path):
                remove_external(path)
            else:
                remove_run(Run(path))
        yield path
