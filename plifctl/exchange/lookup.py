"""Which file or folder of a network a name means: a run, an exported file or folder, or the zoo. No torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import get_args

from plifctl import paths
from plifctl.config.choices import CheckpointName
from plifctl.errors import CheckpointError, UsageError, check_choice, did_you_mean
from plifctl.runs import find_run, find_run_folder, is_added, is_run, list_runs, run_argument

ZOO = "zoo:"
"""How the name of a network in the zoo begins."""

WRITTEN_ONLY = (".nir", ".onnx")
"""Endings of exported files that are not read."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""The files by which an exported folder is recognised."""


def refuse_written_only(path: Path, hint: str) -> None:
    """Raises CheckpointError, with a hint, for a file of a format that plifctl writes and does not read."""
    if path.suffix in WRITTEN_ONLY and path.is_file():
        raise CheckpointError(
            f"{path}: plifctl writes {path.suffix} files for other programs, and does not read them", hint=hint
        )


def is_model_folder(path: Path) -> bool:
    """Returns whether a folder has the files of an exported one."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def is_exported(name: str) -> bool:
    """Returns whether a name is that of an exported file or folder, or of the zoo, and not of a run."""
    path = Path(name)
    return names_file(name) or path.is_file() or is_model_folder(path)


def names_file(name: str) -> bool:
    """Returns whether a name is that of a file or of the zoo, and never that of a run."""
    return name.startswith(ZOO) or name.endswith((".pt", ".npz"))


def find_model(name: str, which: CheckpointName, runs_dir: Path) -> Path:
    """Returns the checkpoint of a run, or the file or folder that was named.

    Args:
        name: A run (path, id, part of an id, ``last``), an exported folder, a ``.pt`` or ``.npz`` file, any other file
            that there is, or ``zoo:NAME``.
        which: Which of a run's checkpoints.
        runs_dir: Runs directory.

    Raises:
        UsageError: There is no such run; a name is that of a run and of a file or folder in the working directory;
            ``which`` is of what is not a run of this machine.
        CheckpointError: The run has no such checkpoint yet.
    """
    check_choice("checkpoint", which, get_args(CheckpointName))
    if (other := _find_single(name, runs_dir)) is not None:
        if which != "best":
            hint = f"omit --checkpoint; of a run, name it: plifctl runs, then RUN --checkpoint {which}"
            raise UsageError(f"--checkpoint {which}: {name} is one network", hint=hint)
        return other
    run = find_run(name, runs_dir)
    path = run.checkpoint(which)
    if path.exists() or (status := run.status()) == "finished":
        return path  # a finished run always has its checkpoints; if one was deleted, loading says so
    when = "first epoch"
    if which == "best" and run.config().protocol == "C":
        latest = run.checkpoint("last")
        when = f"last epoch: that of the latest is {latest}" if latest.exists() else "last epoch"
    raise CheckpointError(
        f"{run.name} ({status}) has no {which} checkpoint yet; the first one is written after the {when}",
        hint=f"plifctl watch {run_argument(run.path)}" if status == "running" else run.resume_command(),
    )


def _find_single(name: str, runs_dir: Path) -> Path | None:
    """Returns the file or folder of one network; None for a run, which has several checkpoints."""
    if name.startswith(ZOO):
        return _find_in_zoo(name.removeprefix(ZOO))
    if is_exported(name):
        _refuse_two_meanings(name, runs_dir)
        return Path(name)
    folder = find_run_folder(name, runs_dir)
    return folder if is_added(folder) else None


def _refuse_two_meanings(name: str, runs_dir: Path) -> None:
    """Raises UsageError if the name of a file or folder is also that of a run, or ``last``; a path has one meaning."""
    if name != Path(name).name or names_file(name):
        return
    if name == "last":
        run = next((run.path for run in reversed(list_runs(runs_dir))), None)
    else:
        run = runs_dir / name if is_run(runs_dir / name) else None
    if run is not None and run.resolve() != Path(name).resolve():
        kind = "folder" if Path(name).is_dir() else "file"
        raise UsageError(
            f"{name} is the run {run} and a {kind} in the working directory",
            hint=f"to use the {kind}: {shlex.quote(f'./{name}')}; to use the run: {shlex.quote(str(run))}",
        )


def zoo_folders() -> dict[str, Path]:
    """Returns the folders of the networks in the zoo by name; the user's registry folder may have some, too."""
    found = [path for folder in paths.registry_dirs() for path in (folder / "zoo").glob("*/")]
    return {path.name: path for path in sorted(found) if is_model_folder(path)}


def _find_in_zoo(name: str) -> Path:
    known = zoo_folders()
    if name not in known:
        raise UsageError(f"no network {name!r} in the zoo", hint=did_you_mean(name, known))
    return known[name]
