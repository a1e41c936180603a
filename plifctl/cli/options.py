"""Options that several subcommands share, and the completion of names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plifctl import console, paths
from plifctl.errors import PlifctlError, UsageError

if TYPE_CHECKING:
    from plifctl.events.rawset import EventSet, ImageSet
    from plifctl.registry import Registry
    from plifctl.specs import DatasetSpec, ExperimentSpec, FramesSpec, Recipe


def registry() -> Registry:
    """Returns the registry; its modules are not imported at start."""
    from plifctl.registry import load_registry

    return load_registry()


def _experiments(incomplete: str) -> list[str]:
    return [name for name in registry().experiments() if name.startswith(incomplete)]


def _datasets(incomplete: str) -> list[str]:
    return [name for name in registry().datasets() if name.startswith(incomplete)]


def _names(incomplete: str) -> list[str]:
    return [*_datasets(incomplete), *_experiments(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Completes the name of a run."""
    names = [path.parent.name for path in sorted(paths.runs_dir().glob("*/config.yaml"))]
    return [name for name in (*names, "last") if name.startswith(incomplete)]


Dataset = Annotated[str, typer.Argument(help="Name of a data set; plifctl ls lists them.", autocompletion=_datasets)]
Name = Annotated[str, typer.Argument(help="Name of an experiment, data set or network.", autocompletion=_names)]
RunName = Annotated[
    str, typer.Argument(help="A run (id, part of it, path, or last), or a checkpoint file.", autocompletion=runs)
]
OptionalExperiment = Annotated[
    str | None, typer.Argument(help="Name of an experiment; plifctl ls lists them.", autocompletion=_experiments)
]
RecipeOption = Annotated[
    Literal["paper", "published"] | None,
    typer.Option("--recipe", help="Choices of the text (paper, the default) or of the authors' code (published)."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value; plifctl show lists the keys.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
CacheDirOption = Annotated[
    Path | None, typer.Option("--cache-dir", help="Where caches lie.", envvar="PLIFCTL_CACHE_DIR", show_default=False)
]
RunsDirOption = Annotated[
    Path | None, typer.Option("--runs-dir", help="Where runs lie.", envvar="PLIFCTL_RUNS_DIR", show_default=False)
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1 …; by default a GPU where there is one.", envvar="PLIFCTL_DEVICE"),
]
RawOption = Annotated[
    Path | None,
    typer.Option("--raw", help="Folder of the raw files, archives or extracted (default: PLIFCTL_RAW_DIR)."),
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, max=256, help="Threads that decode and frame.")]
ChecksumOption = Annotated[
    bool, typer.Option("--no-checksum", help="Accept files that differ from the published ones, such as a subset.")
]
DEFAULT_WORKERS = min(8, os.cpu_count() or 1)


def prepare_command(
    dataset: str,
    *,
    T: int | None,
    recipe: Recipe,
    changes: Sequence[str],
    raw: Path | None,
    cache_dir: Path | None,
    no_checksum: bool,
) -> str:
    """Returns the command that prepares a data set in one way; can be pasted into a shell."""
    parts = ["plifctl prepare", dataset]
    parts += [f"--T {T}"] if T is not None else []
    parts += [f"--recipe {recipe}"] if recipe != "paper" else []
    parts += [f"--set {shlex.quote(text)}" for text in changes]
    parts += [f"--raw {shlex.quote(str(raw))}"] if raw is not None else []
    parts += [f"--cache-dir {shlex.quote(str(cache_dir))}"] if cache_dir is not None else []
    parts += ["--no-checksum"] if no_checksum else []
    return " ".join(parts)


def prepare_command_of(
    spec: ExperimentSpec, *, raw: Path | None = None, cache_dir: Path | None = None, no_checksum: bool = False
) -> str:
    """Returns the command that builds the cache which an experiment needs."""
    changes: list[str] = []
    if spec.frames is not None:
        try:
            usual = registry().dataset(spec.dataset.name, spec.recipe).frames
        except PlifctlError:  # a checkpoint may be of a data set that is in no registry here
            usual = None
        chosen = spec.frames.model_dump(exclude_none=True)
        changes = [f"frames.{key}={value}" for key, value in chosen.items() if getattr(usual, key, None) != value]
    return prepare_command(
        spec.dataset.name,
        T=spec.T if spec.frames is not None else None,
        recipe=spec.recipe if spec.frames is not None else "paper",
        changes=changes,
        raw=raw,
        cache_dir=cache_dir,
        no_checksum=no_checksum,
    )


def existing_runs_dir(given: Path | None) -> Path:
    """Returns the folder of runs; one that was typed must be there, one of the environment may come with the first run.

    Raises:
        UsageError: It is not.
    """
    if given is not None and given != Path(os.environ.get("PLIFCTL_RUNS_DIR", "")) and not given.is_dir():
        raise UsageError(f"{given}: no such folder of runs", hint="--runs-dir names the folder that holds them")
    return given or paths.runs_dir()


def read_raw(
    dataset: DatasetSpec, frames: FramesSpec | None, raw: Path | None, *, verify: bool, cache_dir: Path | None
) -> EventSet | ImageSet:
    """Finds and surveys raw data, with a bar.

    Args:
        dataset: Which.
        frames: How its events will be framed; None for images.
        raw: The folder named by the user, or None.
        verify: Refuse files that are not the published ones.
        cache_dir: Where to remember what was found; None: write nothing.
    """
    from plifctl.events.sources import open_raw

    console.note(f"reading {dataset.title} …")
    notes = paths.survey_dir(cache_dir) if cache_dir is not None else None
    with console.bar(f"reading {dataset.title}", "MB") as bar:
        return open_raw(
            dataset,
            raw,
            frames=frames,
            verify=verify,
            notes=notes,
            progress=lambda done, total: bar.update(done // 10**6, max(1, total // 10**6)),
        )
