"""Writes a data set and an experiment for a folder of recordings as one YAML file; implements ``plifctl data init``."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.config.lookup import check_new_name, load_registry
from plifctl.config.yaml_tree import format_yaml
from plifctl.errors import RawDataError, UsageError
from plifctl.pipeline.inspect import InspectOptions, prepare_published, read_folder, read_overrides
from plifctl.pipeline.progress import Progress, silent
from plifctl.pipeline.suggestion import LIKE, suggest_experiment
from plifctl.training.sample_store import free_memory
from plifctl.units import plain


@dataclass(frozen=True)
class WrittenExperiment:
    """A YAML file that was written.

    Attributes:
        path: The file.
        values: Its values by dotted path.
        comments: What was assumed, or where a value comes from, by dotted path.
        notes: What the user should know or do first.
    """

    path: Path
    values: Mapping[str, Any]
    comments: Mapping[str, str]
    notes: tuple[str, ...]


def init_data(options: InspectOptions, name: str | None = None, progress: Progress = silent) -> WrittenExperiment:
    """Writes ``NAME.yaml`` in the working directory: a data set of a folder of recordings, and an experiment on it.

    Args:
        options: The folder or archive, and what its recordings do not say about themselves.
        name: Name of both; None: that of the folder.
        progress: Opens the tasks of reading.

    Raises:
        UsageError: The file exists, the name cannot be one or is in the registry, an override is wrong, or the folder
            contains a published data set.
        RawDataError: No such folder, its recordings have no classes, or a name in it is not UTF-8.
        MachineError: The file cannot be written.
    """
    folder = options.path
    name = name if name is not None else folder.resolve().name.split(".")[0]
    path = Path(f"{name}.yaml")
    check_new_name(name, path, hint="--name with another name")
    if not folder.exists():
        raise RawDataError(f"{folder}: no such folder", hint="name a folder or an archive of recordings")
    if command := prepare_published(folder):
        hint = command + _how_to_take_as_own(folder)
        raise UsageError(f"{folder}: the files of a data set of the registry", hint=hint)
    reading = read_overrides(options.overrides)
    facts = read_folder(options, reading, progress)
    neuron = load_registry().experiment(LIKE).spec.neuron
    suggestion = suggest_experiment(facts, name, _relative(folder), neuron, free_memory(), reading)
    values = {value.key: value.value for value in suggestion.values}
    _check_names(folder, values)
    comments = {value.key: value.comment for value in suggestion.values if value.comment}
    text = _heading(folder, name) + format_yaml(values, comments)
    _check(text, name)
    with files.machine_errors(path):
        files.write_text(path, text)
    return WrittenExperiment(path, values, comments, suggestion.notes)


def _how_to_take_as_own(folder: Path) -> str:
    """Returns the end of a hint, where the folders are those of N-MNIST, whose names are usual ones; else empty."""
    if not ((folder / "Train").is_dir() and (folder / "Test").is_dir()):
        return ""
    return "\nif they are your own: rename Train and Test, e.g. to train and test"


_NAMES = {
    "dataset.raw": ("the path of the recordings", "rename the folder"),
    "dataset.labels.file": ("the path of the table of labels", "rename the file or its folder"),
    "dataset.classes": ("the name of a class folder", "rename the folder"),
}
"""The values that are names of files or folders: what they are, and a hint to change them."""


def _check_names(folder: Path, values: Mapping[str, Any]) -> None:
    """Raises RawDataError if the name of a file or folder cannot be written into a YAML file: the file is UTF-8."""
    for key, (what, hint) in _NAMES.items():
        value = values.get(key, "")
        for name in [value] if isinstance(value, str) else value:
            if any("\ud800" <= character <= "\udfff" for character in name):
                shown = os.fsencode(name).decode("utf-8", "backslashreplace")
                where = "" if key == "dataset.raw" else f"{folder}: "
                raise RawDataError(f"{where}{shown}: {what} is not UTF-8", hint=hint)


def _relative(folder: Path) -> str:
    """Returns the path of a folder relative to the working directory, where the file is; of one elsewhere, in full."""
    whole = folder.resolve()
    return os.path.relpath(whole) if whole.is_relative_to(Path.cwd().resolve()) else str(whole)


def _heading(folder: Path, name: str) -> str:
    return (
        f"# Data set and experiment {name}, as plifctl data init found the recordings in {plain(str(folder))}.\n"
        "# A comment says where a value comes from; check those that are ASSUMED.\n"
        f"#\n#   plifctl show {shlex.quote(name)}\n#   plifctl prepare {shlex.quote(name)}\n"
        f"#   plifctl train {shlex.quote(name)}\n#\n"
    )


def _check(text: str, name: str) -> None:
    """Reads the file as ``plifctl train`` does, before it gets its name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.yaml")
        path.write_text(text, encoding="utf-8")
        load_registry().read_experiment(path)
