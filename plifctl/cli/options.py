"""Options that several subcommands share, and the completion of names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl import paths
from plifctl.config.choices import RECIPES, CheckpointName, DataPlacement, Kernel, NetworkFormat, Recipe
from plifctl.data.source import DEFAULT_WORKERS, RawSource
from plifctl.errors import UsageError

if TYPE_CHECKING:
    from plifctl.config.registry import Registry


STDOUT = Path("-")
"""As a file, stdout."""


def path(text: str) -> Path:
    """Returns the path that a user means; shells leave the ``~`` of ``--cache-dir=~/caches`` as it is.

    Raises:
        UsageError: It is empty: as a path it would be the current folder.
    """
    if not text:
        raise UsageError("an empty path", hint="is a variable of your shell empty?")
    return paths.expand(text)


def registry() -> Registry:
    """Returns the registry; its modules are not imported at start."""
    from plifctl.config.lookup import load_registry

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


Dataset = Annotated[
    str,
    typer.Argument(
        help="Data set: a name (plifctl ls datasets), or a YAML file of one or of an experiment.",
        autocompletion=_datasets,
    ),
]
Name = Annotated[
    str,
    typer.Argument(help="Name of an experiment, data set or network, or an experiment file.", autocompletion=_names),
]
RunName = Annotated[
    str,
    typer.Argument(
        help="Run (id, part of an id, path, or last), exported file or folder, or zoo:NAME.", autocompletion=runs
    ),
]
RunId = Annotated[str, typer.Argument(help="Run: id, part of an id, path, or last.", autocompletion=runs)]
RunIds = Annotated[list[str], typer.Argument(help="Runs: ids, parts of ids, paths, or last.", autocompletion=runs)]
OptionalRunIds = Annotated[
    list[str] | None, typer.Argument(help="Runs: ids, parts of ids, paths, or last.", autocompletion=runs)
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
OptionalExperiment = Annotated[
    str | None,
    typer.Argument(help="Experiment: a name (plifctl ls lists them), or a YAML file.", autocompletion=experiments),
]


def _recipe(text: str) -> Recipe:
    from plifctl.config.identity import current_word, warn_old_words

    recipe: Recipe = current_word(text)
    if recipe != text:
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
        help="The paper's text (paper, the default), what the authors' code ran (authors), or a short training (fast).",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value; plifctl show NAME lists the keys."),
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training set.")]
SubsetOption = Annotated[
    float | None,
    typer.Option("--subset", help="Fraction of each class to train and test on; marks the run as modified."),
]
CheckpointEveryOption = Annotated[
    int, typer.Option("--checkpoint-every", min=0, help="Checkpoint every N steps as well, not only after epochs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
CacheDirOption = Annotated[
    Path | None,
    typer.Option("--cache-dir", parser=path, help="Cache directory.", envvar="PLIFCTL_CACHE_DIR", show_default=False),
]
CopyCacheOption = Annotated[
    Path | None,
    typer.Option(
        "--copy-cache",
        metavar="DIR",
        parser=path,
        help="Copy the cache to this folder, on the machine's own disk, first.",
    ),
]
RunsDirOption = Annotated[
    Path | None,
    typer.Option("--runs-dir", parser=path, help="Runs directory.", envvar="PLIFCTL_RUNS_DIR", show_default=False),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", help="Torch device: cpu, cuda, cuda:1 … (default: a GPU if there is one).", envvar="PLIFCTL_DEVICE"
    ),
]
DataInOption = Annotated[
    DataPlacement | None,
    typer.Option(
        "--data-in",
        help="Where samples are held: memory of the device, of the machine, or on disk (default: wherever they fit).",
    ),
]
KernelOption = Annotated[
    Kernel,
    typer.Option(
        "--kernel",
        help="Kernel of spiking layers: eager is the definition, compiled is torch.compile of it, fused (CPU) and "
        "triton (GPU) are ours. auto is fused on the CPU; on a GPU, short trials choose when a training starts.",
    ),
]
CheckpointOption = Annotated[CheckpointName, typer.Option("--checkpoint", help="Checkpoint to use.")]
NetworkFormatOption = Annotated[
    NetworkFormat | None, typer.Option("--to", help="Format (default: that of the ending).", show_default=False)
]
FoldOption = Annotated[
    bool, typer.Option("--fold-bn", help="Fold batch norms into the convolutions before them (Sec. 4.1).")
]
RawOption = Annotated[
    Path | None,
    typer.Option(
        "--raw",
        parser=path,
        help="Folder of raw files, packed or extracted; missing ones are downloaded to it (default: PLIFCTL_RAW_DIR).",
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers", min=1, max=256, show_default="as many as cores, at most 8", help="Threads that decode and frame."
    ),
]
ChecksumOption = Annotated[
    bool,
    typer.Option("--no-checksum", help="Accept files whose checksum differs from the published one, e.g. a subset."),
]
NoDownloadOption = Annotated[bool, typer.Option("--no-download", help="Do not download missing raw files.")]


def replaced_option(option: str, by: str) -> Any:
    """Returns a hidden option that is no longer used: it ends the command and names its replacement.

    Args:
        option: The old spelling, e.g. ``--context``.
        by: What to type instead.
    """

    def refuse(given: bool) -> None:
        if given:
            raise UsageError(f"{option} was replaced", hint=f"use {by}")

    return typer.Option(option, hidden=True, callback=refuse)


def is_stdout(csv: Path | None, *, as_json: bool) -> bool:
    """Returns whether ``--csv -`` writes to stdout; raises UsageError with ``--json``, which writes there, too."""
    to_stdout = csv == STDOUT
    if to_stdout and as_json:
        raise UsageError("--csv - and --json exclude each other: stdout has one document", hint="--csv FILE --json")
    return to_stdout


def raw_source(raw: Path | None, *, no_checksum: bool, no_download: bool, workers: int = DEFAULT_WORKERS) -> RawSource:
    """Returns the source of raw data that the options describe."""
    return RawSource(raw, verify=not no_checksum, download=not no_download, workers=workers)


def existing_cache_dir(given: Path | None) -> Path:
    """Returns the cache directory; one given as an option must exist, the default one is created with the first cache.

    Raises:
        UsageError: The given one does not exist.
    """
    return _existing_dir(given, paths.cache_dir(), "cache")


def existing_runs_dir(given: Path | None) -> Path:
    """Returns the runs directory; one given as an option must exist, the default one is created with the first run.

    Raises:
        UsageError: The given one does not exist.
    """
    return _existing_dir(given, paths.runs_dir(), "runs")


def _existing_dir(given: Path | None, default: Path, kind: str) -> Path:
    if given not in (None, default) and not given.is_dir():
        raise UsageError(f"{given}: no such {kind} directory", hint=f"--{kind}-dir takes an existing {kind} directory")
    return given or default
