"""Recognises weights that another program saved, so that they are not called damaged; executes no code from them."""

from __future__ import annotations

import io
import json
import pickletools
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from plifctl.errors import CheckpointError, list_names

_OURS = ("spec", "digest")
_PLAIN_MODULES = ("collections", "torch._utils", "torch")  # of tensors, storages and dictionaries

_EXTRACT = {
    "pickle": (
        "import torch; o = torch.load(%s, weights_only=False); "
        'torch.save(o.state_dict() if hasattr(o, "state_dict") else '
        '{k: o[k] for k in o if isinstance(o[k], (dict, torch.Tensor))}, "state.pt")'
    ),
    "script": 'import torch; torch.save(torch.jit.load(%s).state_dict(), "state.pt")',
}
"""Python lines that write the weights of a file alone to ``state.pt``, by what the file is."""


class Foreign(NamedTuple):
    """A file that another program saved.

    Attributes:
        description: What it is.
        code: What in it would be executed by reading it; None: it can be read.
    """

    description: str
    code: Literal["pickle", "script"] | None = None

    def error(self, path: Path) -> CheckpointError:
        """Returns the error of this file where one of plifctl is expected; its hint leads to ``plifctl convert``."""
        if self.code is None:
            return CheckpointError(f"{path}: {self.description}", hint=hint_to_convert(path))
        line = _EXTRACT[self.code] % json.dumps(str(path), ensure_ascii=False)
        return CheckpointError(
            f"{path}: {self.description}",
            hint="save its weights alone; if you trust the file, where the program that wrote it is installed:\n"
            f"python -c {shlex.quote(line)}\n{hint_to_convert(Path('state.pt'))}",
        )


def hint_to_convert(path: Path) -> str:
    """Returns the command that makes a network of plifctl of weights that another program saved."""
    return f"plifctl convert {shlex.quote(str(path))} OUT.pt --experiment NAME"


def describe_foreign(content: bytes) -> Foreign | None:
    """Returns what a file of another program is; None if it is damaged, or of plifctl.

    Args:
        content: The file.
    """
    try:
        zipped = zipfile.is_zipfile(io.BytesIO(content))
    except zipfile.BadZipFile:  # an end record of several disks
        return None
    if not zipped:
        return _describe_unzipped(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip() is not None:
                return None
            names = archive.namelist()
            pickled = next((name for name in names if name.endswith("/data.pkl")), None)
            if pickled is None:
                return None
            if any("/code/" in name for name in names):
                return Foreign("a TorchScript archive of another program", "script")
            classes = _pickled_classes(archive.read(pickled))
    except Exception:  # zipfile raises many types on a damaged file
        return None
    if classes:
        text = f"an object pickled by another program ({list_names(classes[:1])}); loading it would execute code"
        return Foreign(text, "pickle")
    description = _describe_state(_load(content))
    return Foreign(description) if description is not None else None


def is_safetensors(content: bytes) -> bool:
    """Returns whether a file is one of safetensors: a length, and a header of JSON."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content)


def _describe_unzipped(content: bytes) -> Foreign | None:
    if content[:1] == b"\x80":
        return Foreign("a pickle of another program, or weights in torch's old format", "pickle")
    return Foreign("weights of another program (safetensors)") if is_safetensors(content) else None


def _pickled_classes(pickled: bytes) -> list[str]:
    """Returns the classes that a pickle names, besides those of tensors and dictionaries."""
    found: list[str] = []
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
        elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
            module, name = strings[-2:]
        else:
            strings += [argument] if isinstance(argument, str) else []
            continue
        if module not in _PLAIN_MODULES:
            found.append(f"{module}.{name}")
    return found


def _load(content: bytes) -> Any:
    import torch

    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch raises many types on a damaged file
        return None


def _describe_state(state: Any) -> str | None:
    import torch

    if isinstance(state, torch.Tensor):
        return "a tensor, not a checkpoint"
    if not isinstance(state, Mapping) or any(key in state for key in _OURS):
        return None
    keys = [str(key) for key in state]
    shown = list_names(keys, 4)
    if keys and all(isinstance(value, torch.Tensor) for value in state.values()):
        return f"weights of another program: a state dict without its experiment ({shown})"
    return f"a checkpoint of another program: it has {shown or 'no entries'}, and no experiment of plifctl"
