"""CIFAR10-DVS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from plifctl.data.datasets.base import FilePerSample, Sample
from plifctl.data.events import Decoded
from plifctl.data.framer import decode_recording
from plifctl.errors import RawDataError, list_names

_TEST = {"last-100": range(900, 1000), "first-100": range(100)}


class Cifar10Dvs(FilePerSample):
    """One file for each sample, a zip or folder for each class.

    The originals are AEDAT 2.0. tonic's copy, under the same names, is AEDAT 4; SpikingJelly's arrays have the axes of
    its own reader, x = 127 − bits 8–14 and y = 127 − bits 1–7 of the address.
    """

    folder_names: ClassVar[Sequence[str]] = ("cifar10dvs", "CIFAR10DVS", "CIFAR10-DVS")
    subfolders: ClassVar[Sequence[str]] = (*FilePerSample.subfolders, "events_np")
    page = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
    formats: ClassVar[Sequence[str]] = ("AEDAT 2.0", "AEDAT 4", "zip")
    example = "airplane/cifar10_airplane_0.aedat"
    pattern = re.compile(r"(?:^|/)(([a-z]+)/cifar10_\2_\d{1,4}\.(?:aedat4?|npz))$")
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "airplane": ("0afd5c4bf9ae06af762a77b180354fdd",),
        "automobile": ("8438dfeba3bc970c94962d995b1b9bdd",),
        "bird": ("a9c207c91c55b9dc2002dc21c684d785",),
        "cat": ("52c63c677c2b15fa5146a8daf4d56687",),
        "deer": ("b6bf21f6c04d21ba4e23fc3e36c8a4a3",),
        "dog": ("f379ebdf6703d16e0a690782e62639c3",),
        "frog": ("cad6ed91214b1c7388a5f6ee56d08803",),
        "horse": ("e7cbbf77bec584ffbf913f00e682782a",),
        "ship": ("41c7bd7d6b251be82557c6cce9a7d5c9",),
        "truck": ("89f3922fd147d9aeff89e76a2b0b70a7",),
    }
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {name: (f"{name}.zip", name) for name in md5}
    # figshare's own download URLs check for a browser (HTTP 202 with an empty body); those of its API do not
    urls: ClassVar[Mapping[str, Sequence[str]]] = {
        name: (
            f"https://api.figshare.com/v2/file/download/{file}",
            f"https://ndownloader.figshare.com/files/{file}",
        )
        for name, file in (
            ("airplane", 7712788),
            ("automobile", 7712791),
            ("bird", 7712794),
            ("cat", 7712812),
            ("deer", 7712815),
            ("dog", 7712818),
            ("frog", 7712842),
            ("horse", 7712851),
            ("ship", 7712836),
            ("truck", 7712839),
        )
    }
    format_notes: ClassVar[Mapping[str, str]] = {
        "zip": "converted: read from SpikingJelly's events_np; its events include words that are not DVS events",
        "AEDAT 4": "converted: AEDAT 4, as in tonic's copy; x and y are those of the files and may be mirrored against "
        "the original: frames.axes could not be applied",
    }

    def _samples(self) -> list[Sample]:
        axes = self.framing.event_frames.axes
        if axes != "authors" and self._has_format("AEDAT 4"):
            raise RawDataError(
                f"{self.root}: recordings in AEDAT 4, whose axes cannot be converted to frames.axes={axes}",
                hint="use the original files\nor keep x and y as they are: add --set frames.axes=authors",
            )
        return super()._samples()

    def _is_published(self, part: str, verify: bool) -> bool:
        # the archives in tonic's archive have no published checksums
        return super()._is_published(part, verify and "AEDAT 4" not in self.surveys[part].formats)

    def _why_unverified(self) -> str:
        if self._has_format("AEDAT 4"):
            return "the files of tonic's copy have no published checksum"
        return super()._why_unverified()

    def _sample(self, part: str, member: str) -> Sample | None:
        test_set = self.framing.event_frames.test_set
        assert test_set is not None
        folder, file = member.split("/")
        if folder != part:
            return None
        number = int(file.rpartition(".")[0].rpartition("_")[2])
        tests = number in _TEST[test_set]
        return Sample(f"{folder}/{number:04d}", self._label_of(part), "test" if tests else "train")

    def _label_of(self, part: str) -> int:
        classes = self.dataset.classes
        if part not in classes:
            raise RawDataError(
                f"{self.storages[part].path}: {part} is no class of {self.dataset.title}: {list_names(classes)}",
                hint=f"name the classes in the data set's YAML as the folders: classes: [{', '.join(self.part_files)}]",
            )
        return classes.index(part)

    def _decode(self, data: bytes, where: str) -> Decoded:
        return decode_recording(self.framing, data, where)
