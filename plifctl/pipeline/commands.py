"""Commands for messages and hints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from plifctl import paths
from plifctl.cache import raw_independent_key
from plifctl.config.choices import Recipe
from plifctl.config.dataset import FramesSpec, Framing
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.identity import current_word
from plifctl.config.lookup import is_file_name, load_framing, load_registry
from plifctl.config.registry import Registry
from plifctl.data.source import RawSource
from plifctl.errors import PlifctlError, RegistryError


def prepare_command(
    framing: Framing,
    *,
    name: str | None = None,
    recipe: Recipe | None = None,
    overrides: Sequence[str] = (),
    source: RawSource | None = None,
    cache_dir: Path | None = None,
) -> str:
    """Returns the command that builds a cache, quoted for a shell.

    Args:
        framing: The data set and its T.
        name: What names the data set on the command line; None: its name in the registry.
        recipe: The recipe that the framing comes from; None: that of a file, or ``paper``.
        overrides: Differences from the recipe, texts ``key=value``.
        source: Source of the raw files, if the user named a folder.
        cache_dir: Cache directory, if the user named one.
    """
    recipe = current_word(recipe)
    parts = ["plifctl prepare", shlex.quote(name or framing.dataset.name)]
    parts += [f"--T {framing.T}"] if framing.T is not None else []
    parts += [f"--recipe {recipe}"] if recipe not in (None, "paper") else []
    parts += [f"--set {shlex.quote(text)}" for text in overrides]
    if source is not None and source.root is not None:
        parts += [f"--raw {shlex.quote(str(source.root))}"]
    parts += folder_option("--cache-dir", cache_dir, paths.cache_dir())
    parts += ["--no-checksum"] if source is not None and not source.verify else []
    return " ".join(parts)


def folder_option(name: str, folder: Path | None, usual: Path) -> list[str]:
    """Returns the option of a command that names a folder, quoted for a shell; nothing for the usual folder, or None.

    Example:
        >>> folder_option("--runs-dir", Path("my runs"), Path("runs")), folder_option("--runs-dir", None, Path("runs"))
        (["--runs-dir 'my runs'"], [])
    """
    if folder is None or folder.resolve() == usual.resolve():
        return []
    return [f"{name} {shlex.quote(str(folder))}"]


def prepare_command_of(
    spec: ExperimentSpec,
    *,
    file: Path | None = None,
    source: RawSource | None = None,
    cache_dir: Path | None = None,
) -> str:
    """Returns the command that builds the cache which an experiment needs.

    Args:
        spec: The experiment; its framing may differ from its recipe's.
        file: The file that the user named; None: a name in the registry, or not known.
        source: As :func:`prepare_command`.
        cache_dir: As :func:`prepare_command`.
    """
    registry = load_registry()
    own = None if _is_of_registry(spec.framing, registry) else _name_of_own_data(spec, registry, file)
    if spec.frames is None:
        return prepare_command(spec.framing, name=own, source=source, cache_dir=cache_dir)
    recipe = None if own is not None and is_file_name(own) else spec.recipe
    try:
        usual = load_framing(own or spec.dataset.name, recipe=recipe, registry=registry).frames
    except PlifctlError:  # the data set of a checkpoint, or the file of a run, may be missing
        usual = spec.frames if own is not None else None
    changes: list[str] = []
    for key, field in FramesSpec.model_fields.items():
        value, before = (getattr(frames, key, field.default) for frames in (spec.frames, usual))
        if value != before:
            changes.append(f"frames.{key}={_as_typed(value)}")
    return prepare_command(spec.framing, name=own, recipe=recipe, overrides=changes, source=source, cache_dir=cache_dir)


def _is_of_registry(framing: Framing, registry: Registry) -> bool:
    """Returns whether the registry's data set of that name gives the same cache, framed in the same way."""
    if framing.dataset.name not in registry.datasets():
        return False
    try:
        known = registry.dataset(framing.dataset.name).dataset
    except RegistryError:  # an invalid file is reported when it is used
        return True
    return raw_independent_key(framing.model_copy(update={"dataset": known})) == raw_independent_key(framing)


def _name_of_own_data(spec: ExperimentSpec, registry: Registry, file: Path | None) -> str:
    """Returns what names a data set that is none of the registry, as far as it can be known: a file, or an experiment.

    Args:
        spec: The experiment.
        registry: It may have the experiment, with a data set of its own.
        file: The file that the user named.
    """
    if file is not None:
        return str(file)
    with suppress(PlifctlError):
        if spec.name not in registry.datasets() and registry.experiment(spec.name).spec.dataset == spec.dataset:
            return spec.name
    files = [f"{name}.yaml" for name in (spec.name, spec.dataset.name)]
    return next((file for file in files if Path(file).is_file()), files[0])


def _as_typed(value: str | int | tuple[BaseModel, ...] | None) -> str:
    """Returns a value of framing as ``--set`` takes it."""
    if isinstance(value, str):
        return value
    return json.dumps([part.model_dump() for part in value] if isinstance(value, tuple) else value)
