"""The mark of a folder of simulated recordings, which have the files of a published data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import get_args

from plifctl.config.choices import EmbeddedDataset
from plifctl.config.dataset import DatasetSpec
from plifctl.errors import RawDataError

MARKER_FILE = "SIMULATED.txt"
"""File that marks a folder that may be replaced, and is no published data set."""


def marker_line(dataset: EmbeddedDataset) -> str:
    """Returns the content of the file."""
    return f"Simulated by plifctl synthesize --dataset {dataset}; it may write this folder again."


def simulated_datasets(folder: Path) -> tuple[EmbeddedDataset, ...]:
    """Returns the embedded data set whose recordings a folder contains; both if an early plifctl wrote it.

    Empty for a folder without the mark.
    """
    marker = folder / MARKER_FILE
    if not marker.is_file():
        return ()
    text, known = marker.read_text(encoding="utf-8", errors="replace"), get_args(EmbeddedDataset)
    return tuple(name for name in known if name in text) or known


def check_simulated(folder: Path, dataset: DatasetSpec) -> None:
    """Raises RawDataError if a folder contains simulated recordings of another data set than is wanted.

    A data set of the user's own with the layout of the embedded ones may be made of them.
    """
    found = simulated_datasets(folder)
    is_own = dataset.layout == "synthetic-gesture" and dataset.name not in get_args(EmbeddedDataset)
    if found and dataset.name not in found and not is_own:
        commands = [f"plifctl prepare {name} --T T --raw {shlex.quote(str(folder))}" for name in found]
        raise RawDataError(
            f"{folder}: simulated recordings of {' or '.join(found)} ({MARKER_FILE}), not {dataset.name}",
            hint="\n".join([*commands, f"or name the folder of {dataset.name}: --raw DIR"]),
        )
