"""N-MNIST."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from plifctl.data.datasets.base import FilePerSample, Sample
from plifctl.data.datasets.spikingjelly import SpikingJellyArrays
from plifctl.data.events import Decoded
from plifctl.data.formats.atis import decode_atis


class Nmnist(FilePerSample):
    """One ATIS file for each sample.

    Archives that people packed again are read too: their members may begin with ``train``, or with the digit.
    """

    folder_names: ClassVar[Sequence[str]] = ("nmnist", "NMNIST", "N-MNIST")
    page = "https://www.garrickorchard.com/datasets/n-mnist"
    formats: ClassVar[Sequence[str]] = ("ATIS",)
    example = "Train/3/00041.bin"
    pattern = re.compile(r"(?:^|/)((?:(?:[Tt]rain|[Tt]est)/)?\d/\d+\.bin)$")
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {
        "Train": ("Train.zip", "train.zip", "Train"),
        "Test": ("Test.zip", "test.zip", "Test"),
    }
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "Train": ("20959b8e626244a1b502305a9e6e2031",),
        "Test": ("69ca8762b2fe404d9b9bad1103e97832",),
    }
    # linked from the page of N-MNIST's authors; the URLs do not contain the names Train.zip and Test.zip
    urls: ClassVar[Mapping[str, Sequence[str]]] = {
        part: (f"https://data.mendeley.com/public-files/datasets/468j46mzdv/files/{file}/file_downloaded",)
        for part, file in (
            ("Train", "39c25547-014b-4137-a934-9d29fa53c7a0"),
            ("Test", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494"),
        )
    }

    @classmethod
    def canonical_name(cls, part: str, name: str) -> str:
        *split, digit, file = name.split("/")
        return f"{split[0].capitalize() if split else part}/{digit}/{file}"

    def _sample(self, part: str, member: str) -> Sample | None:
        return _sample_of(part, member)

    def _decode(self, data: bytes, where: str) -> Decoded:
        return decode_atis(data, where=where)


def _sample_of(part: str, member: str) -> Sample | None:
    split, digit, file = member.split("/")
    if split != part:  # a Train.zip may contain Test/
        return None
    name = f"{part.capitalize()}/{digit}/{file.partition('.')[0]}"
    return Sample(name, int(digit), "train" if part.lower() == "train" else "test")


class SpikingJellyNmnist(SpikingJellyArrays):
    """SpikingJelly's arrays: ``events_np/train/<digit>/<n>.npz``."""

    folder_names = Nmnist.folder_names
    page = Nmnist.page
    example = "train/3/41.npz"
    pattern = re.compile(r"(?:^|/)((?:train|test)/\d/\d+\.npz)$")

    def _sample(self, part: str, member: str) -> Sample | None:
        return _sample_of(part, member)
