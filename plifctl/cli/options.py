"""Options that several subcommands share, and the completion of names."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plifctl import paths
from plifctl.config.choices import RECIPES, Recipe
from plifctl.errors import PlifctlError, RegistryError, UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from plifctl.config.choices import Protocol
    from plifctl.config.experiment import ExperimentSpec
    from plifctl.config.registry import Registry


def registry() -> Registry:
    """Returns the registry; its modules are not imported at start."""
    from plifctl.config.registry import load_registry

    return load_registry()


def experiments(incomplete: str) -> list[str]:
    """Completes the name of an experiment."""
    return [name for name in registry().experiments() if name.startswith(incomplete)]


def _datasets(incomplete: str) -> list[str]:
    return [name for name in registry().datasets() if name.startswith(incomplete)]


def _names(incomplete: str) -> list[str]:
    return [*_datasets(incomplete), *experiments(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Completes the name of a run."""
    there = (path for name in ("config.yaml", "imported.json") for path in paths.runs_dir().glob(f"[!.]*/{name}"))
    names = sorted(path.parent.name for path in there)
    return [name for name in (*names, "last") if name.startswith(incomplete)]


Dataset = Annotated[str, typer.Argument(help="Name of a data set; plifctl ls lists them.", autocompletion=_datasets)]
Name = Annotated[str, typer.Argument(help="Name of an experiment, data set or network.", autocompletion=_names)]
RunName = Annotated[
    str, typer.Argument(help="A run (id, part of it, path, or last), or a checkpoint file.", autocompletion=runs)
]
RunId = Annotated[str, typer.Argument(help="A run: its id, part of it, its path, or last.", autocompletion=runs)]
RunIds = Annotated[
    list[str], typer.Argument(help="Runs: their ids, parts of them, paths, or last.", autocompletion=runs)
]
OptionalRunIds = Annotated[
    list[str] | None, typer.Argument(help="Runs: their ids, parts of them, paths, or last.", autocompletion=runs)
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OptionalExperiment = Annotated[
    str | None, typer.Argument(help="Name of an experiment; plifctl ls lists them.", autocompletion=experiments)
]


def _recipe(text: str) -> Recipe:
    from plifctl.config.identity import current_word, warn_old_words

    if (recipe := current_word(text)) != text:
        warn_old_words()
    if recipe not in RECIPES:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, RECIPES))}.")
    return recipe


RecipeOption = Annotated[
    Recipe | None,
    typer.Option(
        "--recipe",
        parser=_recipe,
        metavar=f"<{'|'.join(RECIPES)}>",
        autocompletion=lambda incomplete: [name for name in RECIPES if name.startswith(incomplete)],
        help="The paper's text (paper, the default), or what the authors' code ran (authors).",
    ),
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
DataInOption = Annotated[
    Literal["device", "memory", "disk"] | None,
    typer.Option(
        "--data-in",
        help="Where samples are held: the GPU's memory, the machine's, or disk, batch by batch; by default what fits.",
    ),
]
KernelOption = Annotated[
    Literal["auto", "eager", "fused", "triton"],
    typer.Option(
        "--kernel",
        help="Of spiking layers: eager is the definition; fused, on the CPU, and triton, on a GPU, do it in one pass.",
    ),
]
RawOption = Annotated[
    Path | None,
    typer.Option(
        "--raw", help="Folder of the raw files, archives or extracted, or to download to (default: PLIFCTL_RAW_DIR)."
    ),
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, max=256, help="Threads that decode and frame.")]
ChecksumOption = Annotated[
    bool, typer.Option("--no-checksum", help="Accept files that differ from the published ones, such as a subset.")
]
NoDownloadOption = Annotated[bool, typer.Option("--no-download", help="Do not download raw files that are missing.")]
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
    from plifctl.config.dataset import FramesSpec

    changes: list[str] = []
    if spec.frames is not None:
        try:
            usual = registry().dataset(spec.dataset.name, spec.recipe).frames
        except PlifctlError:  # a checkpoint may be of a data set that is in no registry here
            usual = None
        for key, field in FramesSpec.model_fields.items():
            value, before = (getattr(frames, key, field.default) for frames in (spec.frames, usual))
            if value != before:
                changes.append(f"frames.{key}={_as_typed(value)}")
    return prepare_command(
        spec.dataset.name,
        T=spec.T if spec.frames is not None and spec.frames.slicing != "duration" else None,
        recipe=spec.recipe if spec.frames is not None else "paper",
        changes=changes,
        raw=raw,
        cache_dir=cache_dir,
        no_checksum=no_checksum,
    )


def _as_typed(value: str | int | tuple[BaseModel, ...] | None) -> str:
    """A value of framing as ``--set`` takes it."""
    if isinstance(value, str):
        return value
    return json.dumps([part.model_dump() for part in value] if isinstance(value, tuple) else value)


def usual_time_steps(dataset: str) -> int:
    """Returns the smallest T that experiments on a data set of events use; 10 where there are none."""
    known = registry()
    used = []
    for name in known.experiments():
        with suppress(RegistryError):  # one that is wrong is another one's business
            spec = known.experiment(name).spec
            used += [spec.T] if spec.dataset.name == dataset else []
    return min(used, default=10)


def verb_of(protocol: Protocol) -> str:
    """Returns the subcommand that makes runs of a protocol, and goes on with them."""
    return "train" if protocol == "A" else "validate"


def existing_cache_dir(given: Path | None) -> Path:
    """Returns the folder of caches; one that was typed must be there, another may come with the first cache.

    Raises:
        UsageError: It is not.
    """
    if given is not None and given != Path(os.environ.get("PLIFCTL_CACHE_DIR", "")) and not given.is_dir():
        raise UsageError(f"{given}: no such folder of caches", hint="--cache-dir names the folder that holds them")
    return given or paths.cache_dir()


def existing_runs_dir(given: Path | None) -> Path:
    """Returns the folder of runs; one that was typed must be there, one of the environment may come with the first run.

    Raises:
        UsageError: It is not.
    """
    if given is not None and given != Path(os.environ.get("PLIFCTL_RUNS_DIR", "")) and not given.is_dir():
        raise UsageError(f"{given}: no such folder of runs", hint="--runs-dir names the folder that holds them")
    return given or paths.runs_dir()
