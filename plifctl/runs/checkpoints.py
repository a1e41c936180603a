"""Checkpoints: the state of a training in a file of tensors and plain values, loaded without executing code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import CheckpointError, PlifctlError, first_line
from plifctl.runs.foreign import describe_foreign
from plifctl.runs.npz import verified_zip


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replaces a checkpoint atomically."""
    import torch

    with files.atomic_write(path) as temporary:
        content = io.BytesIO()  # torch's own file writing does not report a full disk as such
        torch.save(state, content)
        temporary.write_bytes(content.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint; executes no code from it.

    Raises:
        CheckpointError: The file is missing, damaged, or of another program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", hint="plifctl runs lists all runs")
    with files.machine_errors(path):
        content = path.read_bytes()
    try:
        state: dict[str, Any] = load_tensors(content)
        ExperimentSpec.model_validate_json(state["spec"])
        str(state["cache"]), dict(state["model"])
    except PlifctlError:
        raise
    except Exception as error:  # torch raises many types on a damaged file
        if (foreign := describe_foreign(content)) is not None:
            raise foreign.error(path) from error
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of plifctl: {describe_damage(error)}") from error
    return state


def load_tensors(content: bytes) -> Any:
    """Returns the tensors and plain values that torch saved in a file, on the CPU; executes no code from it.

    Args:
        content: The file.

    Raises:
        Exception: The file is damaged or contains more; :func:`describe_damage` says what.
    """
    import torch

    return torch.load(verified_zip(content), map_location="cpu", weights_only=True)


def describe_damage(error: Exception) -> str:
    """Returns in a line why :func:`load_tensors` failed."""
    if isinstance(error, pickle.UnpicklingError):  # torch's own message advises to load the file unchecked
        return "it contains more than tensors and plain values"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return first_line(error)
