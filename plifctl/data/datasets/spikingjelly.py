"""Recordings that SpikingJelly converted: a numpy archive for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from plifctl.data.datasets.base import FilePerSample
from plifctl.data.events import Decoded
from plifctl.data.formats.arrays import decode_npz


class SpikingJellyArrays(FilePerSample):
    """Arrays in the folders ``events_np/train`` and ``events_np/test``, which have a folder for each label."""

    subfolders: ClassVar[Sequence[str]] = ("events_np",)
    formats: ClassVar[Sequence[str]] = ("zip",)
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {"train": ("train",), "test": ("test",)}
    format_notes: ClassVar[Mapping[str, str]] = {
        "zip": "converted: read from SpikingJelly's events_np, not the original files"
    }

    def _decode(self, data: bytes, where: str) -> Decoded:
        return decode_npz(data, where=where)
