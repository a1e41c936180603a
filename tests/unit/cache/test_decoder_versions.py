"""A decoder whose output changes: caches of what it read are outdated, all others stay as they are."""

import json
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from factories import build_cache, encode_aedat4, random_events
from raw_files import encode_dat

from plifctl.cache import Cache, find_cache, key_of, raw_independent_key
from plifctl.cache.catalogue import list_caches, verify_cache
from plifctl.config.dataset import DatasetSpec, FramesSpec, Framing, SampleCounts
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import layout_formats, open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.formats.detect import DECODER_VERSIONS, raised_versions
from plifctl.data.formats.variants import VARIANTS
from plifctl.data.source import RawSource
from plifctl.errors import CacheError

pytestmark = pytest.mark.usefixtures("places")


def gestures_raw(root: Path) -> EventDataset:
    raw = open_raw(load_registry().dataset("synthetic-gesture").with_T(2), RawSource(root))
    assert isinstance(raw, EventDataset)
    return raw


def states(folder: Path) -> dict[str, str]:
    return {entry.path.name: entry.state for entry in list_caches(folder)}


@pytest.fixture
def cache(gestures: Path, tmp_path: Path) -> Cache:
    return build_cache(gestures_raw(gestures), 2, tmp_path / "caches")


def test_raised_decoder_changes_the_key_of_what_it_read(gestures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(gestures_raw(gestures))
    assert "decoders" not in before.fields
    monkeypatch.setitem(DECODER_VERSIONS, "AEDAT 3.1", 2)
    after = key_of(gestures_raw(gestures))
    assert after.fields == {**before.fields, "decoders": {"AEDAT 3.1": 2}}
    assert after.digest != before.digest
    assert after.raw_independent == before.raw_independent == raw_independent_key(gestures_raw(gestures).framing)


def test_raised_decoder_leaves_other_keys_and_caches_valid(
    gestures: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_of(gestures_raw(gestures))
    for name in ("AEDAT 4", "numpy", "zip", "Prophesee .dat"):
        monkeypatch.setitem(DECODER_VERSIONS, name, 2)
    assert key_of(gestures_raw(gestures)) == before
    assert states(cache.path.parent.parent) == {cache.path.name: "ok"}


def test_cache_of_an_older_decoder_is_outdated_and_built_anew(
    gestures: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, framing = cache.path.parent.parent, gestures_raw(gestures).framing
    monkeypatch.setitem(DECODER_VERSIONS, "AEDAT 3.1", 2)
    assert states(folder) == {cache.path.name: "outdated"}
    with pytest.raises(CacheError, match="no cache of synthetic-gesture"):
        find_cache(raw_independent_key(framing), folder, prepare="plifctl prepare synthetic-gesture --T 2")
    new = build_cache(gestures_raw(gestures), 2, folder)
    assert new.path != cache.path
    assert verify_cache(new.path) == []
    assert states(folder) == {cache.path.name: "outdated", new.path.name: "ok"}
    assert find_cache(raw_independent_key(framing), folder, prepare="").path == new.path
    monkeypatch.setitem(DECODER_VERSIONS, "AEDAT 3.1", 1)
    assert states(folder) == {cache.path.name: "ok", new.path.name: "outdated"}


def test_cache_of_0_1_0_is_outdated_by_any_format_its_layout_may_have(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache.path.parent.parent
    cache.close()
    with h5py.File(cache.path, "r+") as file:
        assert json.loads(file.attrs["formats"]) == ["AEDAT 3.1"]
        del file.attrs["formats"]  # 0.1.0 did not write it
    assert states(folder) == {cache.path.name: "ok"}
    monkeypatch.setitem(DECODER_VERSIONS, "AEDAT 4", 2)
    assert states(folder) == {cache.path.name: "ok"}
    monkeypatch.setitem(DECODER_VERSIONS, "AEDAT 3.1", 2)
    assert states(folder) == {cache.path.name: "outdated"}


def own_dataset(samples: int) -> DatasetSpec:
    """Returns a data set of one's own, with as many samples in the training as in the test set."""
    return DatasetSpec(
        name="mine",
        title="mine",
        layout="folders",
        kind="events",
        shape=(2, 128, 128),
        classes=("x", "y"),
        samples=SampleCounts(train=samples, test=samples),
    )


def test_formats_read_of_mixed_folders_are_those_found(tmp_path: Path) -> None:
    events = random_events(np.random.default_rng(0), 50)
    recordings = {"a.aedat": encode_aedat3(events), "b.aedat4": encode_aedat4((0, "EVTS", events)), "c.bin": bytes(10)}
    frames = FramesSpec(slicing="number", outside_events="drop", invalid_events="drop")
    dataset = own_dataset(samples=6)
    for split in ("train", "test"):
        for name in dataset.classes:
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            for file, content in recordings.items():
                (tmp_path / "mine" / split / name / file).write_bytes(content)
    framing = Framing(dataset=dataset, frames=frames, T=2)
    assert open_raw(framing, RawSource(tmp_path / "mine")).formats_read() == ["AEDAT 3.1", "AEDAT 4", "ATIS"]
    for path in (tmp_path / "mine").rglob("*.bin"):
        path.unlink()
    shutil.rmtree(tmp_path / "data_cache", ignore_errors=True)
    assert open_raw(framing, RawSource(tmp_path / "mine")).formats_read() == ["AEDAT 3.1", "AEDAT 4"]


def test_every_layout_names_formats_that_have_a_decoder() -> None:
    for name in load_registry().datasets():
        assert set(layout_formats(load_registry().dataset(name).dataset.layout)) <= set(DECODER_VERSIONS)
    assert set(layout_formats("folders")) == set(DECODER_VERSIONS) - {"IDX", "CIFAR"}
    assert raised_versions(DECODER_VERSIONS) == {}


def test_mended_decoder_changes_only_the_keys_of_recordings_that_it_read_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = own_dataset(samples=2)
    frames = FramesSpec(slicing="number", outside_events="refuse", invalid_events="drop")
    framing = Framing(dataset=dataset, frames=frames, T=2)
    folders = ("train/x", "train/y", "test/x", "test/y")
    for folder in folders:
        (tmp_path / "mine" / folder).mkdir(parents=True)
    old = b"% Version 1\n\0\x08" + struct.pack("<II", 7, 1 << 17 | 20 << 9 | 30)
    keys = []
    for content in (encode_dat((7, 30, 20, 1)), old):
        for folder in folders:
            (tmp_path / "mine" / folder / "0.dat").write_bytes(content)
        raw = open_raw(framing, RawSource(tmp_path / "mine"))
        assert isinstance(raw, EventDataset)
        keys.append(key_of(raw).fields)
    assert "decoders" not in keys[0]
    assert keys[1]["decoders"] == {"Prophesee .dat of version 1": 2}
    cache = build_cache(raw, 2, tmp_path / "caches")
    assert cache.read(np.array([0]))[0].sum(axis=0)[1, 20, 30] == 1
    assert states(tmp_path / "caches") == {cache.path.name: "ok"}
    monkeypatch.setitem(VARIANTS, "Prophesee .dat of version 1", 3)
    assert states(tmp_path / "caches") == {cache.path.name: "outdated"}
