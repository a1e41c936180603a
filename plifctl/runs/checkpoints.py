"""Checkpoints: the state of a training in a file of tensors and plain values, loaded without executing code."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import CheckpointError, PlifctlError
from plifctl.runs.foreign import HINT, describe_foreign


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
    import torch

    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", hint="plifctl runs lists all runs")
    with files.machine_errors(path):
        content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            if damaged := archive.testzip():  # torch writes checksums and does not verify them
                raise ValueError(f"checksum mismatch in {damaged}")
        content.seek(0)
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        ExperimentSpec.model_validate_json(state["spec"])
        str(state["cache"]), dict(state["model"])
    except PlifctlError:
        raise
    except Exception as error:  # torch raises many types on a damaged file
        if (foreign := describe_foreign(content.getvalue())) is not None:
            raise CheckpointError(f"{path}: {foreign}", hint=HINT) from error
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of plifctl: {_reason(error)}") from error
    return state


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's own message advises to load the file unchecked
        return "it contains more than tensors and plain values"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
