"""Recognises weights that another program saved, so that they are not called damaged; executes no code from them."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from typing import Any

from plifctl.errors import list_names

_OURS = ("spec", "digest")
_PLAIN_MODULES = ("collections", "torch._utils", "torch")  # of tensors, storages and dictionaries

HINT = (
    "plifctl tests networks that it trained: plifctl train NAME, then plifctl eval last\n"
    "to use the weights of another program, load them there"
)
"""Hint of an error on weights of another program."""


def describe_foreign(content: bytes) -> str | None:
    """Returns what a file of another program is; None if it is damaged, or of plifctl.

    Args:
        content: The file.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
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
                return "a TorchScript archive of another program"
            classes = _pickled_classes(archive.read(pickled))
    except (zipfile.BadZipFile, ValueError, OSError):
        return None
    if classes:
        return f"a whole object pickled by another program ({classes[0]}); loading it would execute code"
    return _describe_state(_load(content))


def _describe_unzipped(content: bytes) -> str | None:
    if content[:1] == b"\x80":
        return "a pickle of another program, or weights in torch's old format"
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return "weights of another program (safetensors)"
    return None


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
