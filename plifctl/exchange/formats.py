"""The formats that networks are exported in: recognised by the ending, written under a temporary name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from plifctl import files
from plifctl.config.choices import HALF_PRECISIONS, NetworkFormat
from plifctl.errors import UsageError, check_choice, did_you_mean, join_problems
from plifctl.exchange.model import TrainedModel
from plifctl.exchange.model_card import Evidence

ENDINGS: dict[NetworkFormat, tuple[str, ...]] = {
    "pt": (".pt",),
    "npz": (".npz",),
    "nir": (".nir",),
    "onnx": (".onnx",),
    "folder": ("",),
    "spikingjelly": (".pt", ".pth", ".safetensors"),
}
"""Endings of the files of each format, the usual one first; a folder has none."""

FOLDED: tuple[NetworkFormat, ...] = ("nir",)
"""Formats without batch norm, which is folded into the convolutions before it."""

READ_BY_PLIFCTL: tuple[NetworkFormat, ...] = ("pt", "npz", "folder")
"""Formats that plifctl reads, with the precision of the training."""

Writer = Callable[[Path, TrainedModel], Sequence[str]]
"""Writes a network to a path, and returns what a user of the file has to know, a sentence each."""


def choose_format(path: Path, to: NetworkFormat | None = None) -> NetworkFormat:
    """Returns the format of a file to write: the one given, else that of its ending.

    Raises:
        UsageError: The ending is unknown, of a format that has to be given, or not one of the format given.
    """
    if to is not None:
        check_choice("--to", to, get_args(NetworkFormat))
        if path.suffix not in ENDINGS[to] and to != "folder":
            raise UsageError(f"{path}: expected the ending {' or '.join(ENDINGS[to])} of the format {to}")
        return to
    by_ending: dict[str, NetworkFormat] = {}
    for name, endings in ENDINGS.items():
        by_ending.setdefault(endings[0], name)
    if path.suffix in by_ending:
        return by_ending[path.suffix]
    others = {ending: name for name, endings in ENDINGS.items() for ending in endings if ending not in by_ending}
    own = ", ".join(ending or "a folder" for ending, name in by_ending.items() if name in READ_BY_PLIFCTL)
    if path.suffix in others:
        raise UsageError(
            f"{path}: the ending {path.suffix} does not say which program is to read the file",
            hint=f"--to {others[path.suffix]}; for plifctl: {own}",
        )
    raise UsageError(
        f"{path}: unknown ending {path.suffix}; the ending decides the format",
        hint=f"{did_you_mean(path.suffix, filter(None, by_ending))}; "
        f"with --to: {', '.join(f'{ending} ({name})' for ending, name in others.items())}; "
        "a folder whose name has a dot: --to folder",
    )


def check_destination(path: Path) -> None:
    """Raises UsageError if a file exists, or a folder that is not empty: an export replaces nothing."""
    if not (path.is_dir() and not path.is_symlink() and files.is_empty(path)):
        files.check_new_file(path)


def write_network(path: Path, trained: TrainedModel, to: NetworkFormat, evidence: Evidence | None = None) -> list[str]:
    """Writes a network atomically; returns notes for the users of the file.

    Args:
        path: The file or folder; must not exist, or be an empty folder.
        trained: The network.
        to: The format.
        evidence: For a folder: result and predictions of the network.

    Raises:
        UsageError: The format cannot describe the network, a library is missing, or the file exists.
        MachineError: The file cannot be written.
    """
    check_destination(path)
    if to == "folder":
        from plifctl.exchange.folder import write_folder

        with files.atomic_folder(path) as temporary:
            notes = write_folder(temporary, trained, evidence)
            check_destination(path)  # another process may have filled it in the meantime
        return notes
    write = _writer(to)
    if path.is_dir():
        raise UsageError(f"{path}: a folder, expected the name of a file")
    notes = []
    precision = trained.spec.train.precision
    if to not in READ_BY_PLIFCTL and precision in HALF_PRECISIONS:
        notes.append(f"trained and tested in {precision}; this file computes in float32")
    with files.atomic_write(path) as temporary:
        notes += write(temporary, trained)
        check_destination(path)  # another process may have created the file in the meantime
    return notes


def _writer(to: NetworkFormat) -> Writer:
    """Returns the writer of a format of single files; its library is imported on use."""
    match to:
        case "pt":
            from plifctl.exchange.arrays import write_torch

            return write_torch
        case "npz":
            from plifctl.exchange.arrays import write_numpy

            return write_numpy
        case "nir":
            from plifctl.exchange.nir import write_nir

            return write_nir
        case "onnx":
            from plifctl.exchange.onnx import write_onnx

            return write_onnx
        case _:
            from plifctl.exchange.spikingjelly import write_state_dict

            return write_state_dict


def refuse(target: str, problems: Sequence[str]) -> UsageError:
    """Returns the error of a network that a format cannot describe.

    Args:
        target: Name of the format, e.g. ``NIR``.
        problems: What it cannot describe, a sentence each.
    """
    return UsageError(join_problems([f"{target} cannot describe this network:", *problems]))
