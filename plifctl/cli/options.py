"""Options that several subcommands share, and the completion of names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plifctl import paths
from plifctl.errors import UsageError

if TYPE_CHECKING:
    from plifctl.registry import Registry, Resolved


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


def _runs(incomplete: str) -> list[str]:
    return [path.parent.name for path in sorted(paths.runs_dir().glob(f"{incomplete}*/config.yaml"))]


def _recipe(value: str) -> str:
    if value not in ("paper", "published"):
        raise UsageError(f"unknown recipe {value!r}", hint="one of: paper, published")
    return value


Dataset = Annotated[str, typer.Argument(help="Name of a data set; plifctl ls lists them.", autocompletion=_datasets)]
Name = Annotated[str, typer.Argument(help="Name of an experiment, data set or network.", autocompletion=_names)]
RunName = Annotated[
    str, typer.Argument(help="A run (id, part of it, path, or last), or a checkpoint file.", autocompletion=_runs)
]
OptionalExperiment = Annotated[
    str | None, typer.Argument(help="Name of an experiment; plifctl ls lists them.", autocompletion=_experiments)
]
RecipeOption = Annotated[
    str,
    typer.Option("--recipe", help="Choices of the text (paper) or of the authors' code (published).", callback=_recipe),
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


def recipe(value: str) -> Literal["paper", "published"]:
    """Returns a checked recipe name as its type."""
    return "published" if value == "published" else "paper"


def prepare_command(resolved: Resolved) -> str:
    """Returns what to type to build the cache that an experiment needs."""
    spec = resolved.spec
    parts = ["plifctl prepare", spec.dataset.name]
    if spec.dataset.kind == "events":
        parts.append(f"--T {spec.T}")
        if spec.recipe != "paper":
            parts.append(f"--recipe {spec.recipe}")
        parts += [f"--set {text}" for text in resolved.overrides if text.startswith("frames.")]
    return " ".join(parts)
