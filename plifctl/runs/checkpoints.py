"""The state of a training as a file: tensors and plain values, read without executing anything."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import CheckpointError, PlifctlError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replaces a checkpoint, whole or not at all."""
    import torch

    with files.atomic_write(path) as temporary:
        whole = io.BytesIO()  # torch's own writing of files has no good word for a full disk
        torch.save(state, whole)
        temporary.write_bytes(whole.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, executing nothing.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    import torch

    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", hint="plifctl runs lists the runs there are")
    try:
        with files.machine_errors(path):
            whole = io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(whole) as archive:
            if damaged := archive.testzip():  # torch has checksums written, and does not look at them
                raise ValueError(f"{damaged} is not what was written")
        whole.seek(0)
        state: dict[str, Any] = torch.load(whole, map_location="cpu", weights_only=True)
        ExperimentSpec.model_validate_json(state["spec"])
        str(state["cache"]), dict(state["model"])
    except PlifctlError:
        raise
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise CheckpointError(f"{path}: damaged, or no checkpoint of plifctl: {_first_line(error)}") from error
    return state


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
