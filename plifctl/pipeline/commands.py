"""Commands for messages and hints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from plifctl import paths
from plifctl.config.choices import Protocol, Recipe
from plifctl.config.dataset import FramesSpec, Framing
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.identity import current_word
from plifctl.config.registry import Registry
from plifctl.data.source import RawSource
from plifctl.errors import PlifctlError, RegistryError


def training_verb(protocol: Protocol) -> str:
    """Returns the subcommand that makes and resumes runs of a protocol."""
    return "train" if protocol == "A" else "validate"


def prepare_command(
    framing: Framing,
    *,
    recipe: Recipe = "paper",
    overrides: Sequence[str] = (),
    source: RawSource | None = None,
    cache_dir: Path | None = None,
) -> str:
    """Returns the command that builds a cache, quoted for a shell.

    Args:
        framing: The data set and its T.
        recipe: The recipe that the framing comes from.
        overrides: Differences from the recipe, texts ``key=value``.
        source: Source of the raw files, if the user named a folder.
        cache_dir: Cache directory, if the user named one.
    """
    recipe = current_word(recipe)
    parts = ["plifctl prepare", framing.dataset.name]
    parts += [f"--T {framing.T}"] if framing.T is not None else []
    parts += [f"--recipe {recipe}"] if recipe != "paper" else []
    parts += [f"--set {shlex.quote(text)}" for text in overrides]
    if source is not None and source.root is not None:
        parts += [f"--raw {shlex.quote(str(source.root))}"]
    if cache_dir is not None and cache_dir != paths.cache_dir():
        parts += [f"--cache-dir {shlex.quote(str(cache_dir))}"]
    parts += ["--no-checksum"] if source is not None and not source.verify else []
    return " ".join(parts)


def prepare_command_of(
    spec: ExperimentSpec, registry: Registry, *, source: RawSource | None = None, cache_dir: Path | None = None
) -> str:
    """Returns the command that builds the cache which an experiment needs.

    Args:
        spec: The experiment; its framing may differ from its recipe's.
        registry: Registry in which the recipe's own framing is looked up.
        source: As :func:`prepare_command`.
        cache_dir: As :func:`prepare_command`.
    """
    if spec.frames is None:
        return prepare_command(spec.framing, source=source, cache_dir=cache_dir)
    try:
        usual = registry.dataset(spec.dataset.name, spec.recipe).frames
    except PlifctlError:  # the data set of a checkpoint may be missing in this registry
        usual = None
    changes: list[str] = []
    for key, field in FramesSpec.model_fields.items():
        value, before = (getattr(frames, key, field.default) for frames in (spec.frames, usual))
        if value != before:
            changes.append(f"frames.{key}={_as_typed(value)}")
    return prepare_command(spec.framing, recipe=spec.recipe, overrides=changes, source=source, cache_dir=cache_dir)


def _as_typed(value: str | int | tuple[BaseModel, ...] | None) -> str:
    """Returns a value of framing as ``--set`` takes it."""
    if isinstance(value, str):
        return value
    return json.dumps([part.model_dump() for part in value] if isinstance(value, tuple) else value)


def usual_time_steps(dataset: str, registry: Registry) -> int:
    """Returns the smallest T that experiments on an event data set use; 10 if there are none."""
    used = []
    for name in registry.experiments():
        with suppress(RegistryError):  # an invalid experiment is reported when it is used
            spec = registry.experiment(name).spec
            used += [spec.T] if spec.dataset.name == dataset else []
    return min(used, default=10)
