"""N-Caltech101, on files of its format: the data set itself was not available."""

from pathlib import Path

import numpy as np
import pytest
from factories import build_cache
from raw_files import encode_atis, events_by_id, open_events, pack_zip

from plifctl.cache.catalogue import verify_cache
from plifctl.config.lookup import load_registry
from plifctl.data.events import EVENT

pytestmark = pytest.mark.usefixtures("places")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording of each class, two of the first, of sensors that are smaller than 240 × 180."""
    for label, name in enumerate(load_registry().dataset("n-caltech101", "paper", []).dataset.classes):
        for number in range(1, 3 if label == 0 else 2):
            path = tmp_path / f"Caltech101/{name}/image_{number:04d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            width = 240 - label
            path.write_bytes(encode_atis(np.array([(10, 0, 0, 1), (40 + number, width - 1, 179, 0)], EVENT)))
    return tmp_path / "Caltech101"


def test_classes_are_those_of_caltech101_without_faces() -> None:
    classes = load_registry().dataset("n-caltech101", "paper", []).dataset.classes
    assert len(set(classes)) == 101
    assert list(classes) == sorted(classes)
    assert {"BACKGROUND_Google", "Faces_easy"} <= set(classes)
    assert "Faces" not in classes


@pytest.mark.parametrize("packed", [False, True])
def test_recordings_of_all_classes_are_read_and_padded_to_the_largest(folder: Path, packed: bool) -> None:
    place = folder
    if packed:
        place = folder.parent / "Caltech101.zip"
        pack_zip(folder, place)
    raw = open_events("n-caltech101", place)
    assert len(raw.samples) == 102
    assert {sample.split for sample in raw.samples} == {"train"}
    assert sorted({sample.label for sample in raw.samples}) == list(range(101))
    assert events_by_id(raw)["BACKGROUND_Google/image_0002"] == [(10, 0, 0, 1), (42, 239, 179, 0)]
    cache = build_cache(raw, 2, folder.parent / "c")
    assert cache.shape == (102, 2, 2, 180, 240)
    assert (cache.counts["n_events"] == 2).all()
    assert verify_cache(cache.path) == []
