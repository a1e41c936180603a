"""Caches with official validation samples and groups, and caches without any official split."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import build_cache
from raw_files import open_events

from plifctl.cache import Cache
from plifctl.cache.catalogue import compare_caches, verify_cache
from plifctl.cache.export import export_cache
from plifctl.cache.statistics import compute_statistics
from plifctl.config.choices import SPLITS, ExportTarget
from plifctl.config.lookup import load_registry
from plifctl.data.datasets.base import EventCounts, Sample
from plifctl.errors import RawDataError, UsageError
from plifctl.pipeline.dataset import CachedDataset
from plifctl.pipeline.samples import SampleSelection, select_rows
from plifctl.report.histograms import plot_histograms

pytestmark = pytest.mark.usefixtures("places")


def build(root: Path, out: Path, change: Callable[[int, Sample], Sample]) -> Cache:
    """The cache of 33 gestures, each sample changed."""
    raw = open_events("synthetic-gesture", root)
    raw.samples = tuple(change(row, sample) for row, sample in enumerate(raw.samples))
    return build_cache(raw, 4, out)


def in_thirds(row: int, sample: Sample) -> Sample:
    return sample._replace(split=SPLITS[row // 11], group=f"user {row % 2}")


def unsplit(row: int, sample: Sample) -> Sample:
    return sample._replace(split="train")


@pytest.fixture
def thirds(gestures: Path, tmp_path: Path) -> Cache:
    """A cache of 11 training, 11 validation and 11 test samples, in two groups."""
    return build(gestures, tmp_path / "c", in_thirds)


@pytest.fixture
def whole(gestures: Path, tmp_path: Path) -> Cache:
    """A cache of 33 samples without a split."""
    return build(gestures, tmp_path / "w", unsplit)


def test_cache_reads_back_splits_and_groups(thirds: Cache) -> None:
    found = Cache(thirds.path)
    assert found.splits == ["train"] * 11 + ["validation"] * 11 + ["test"] * 11
    assert found.groups == [f"user {row % 2}" for row in range(33)]
    assert verify_cache(found.path) == []


def test_compare_caches_of_another_split_or_group_names_the_samples(gestures: Path, tmp_path: Path) -> None:
    thirds = build(gestures, tmp_path / "a", in_thirds)
    moved = build(gestures, tmp_path / "b", lambda row, one: in_thirds(0 if row == 12 else row, one))
    grouped = build(gestures, tmp_path / "c", lambda row, one: in_thirds(row, one)._replace(group="a"))
    ids = thirds.sample_ids
    assert compare_caches(thirds, thirds)["different"] == []
    assert compare_caches(thirds, moved)["different"] == [ids[12]]
    assert compare_caches(thirds, grouped)["different"] == sorted(ids)


def test_statistics_count_the_splits_that_there_are(thirds: Cache) -> None:
    found = compute_statistics(thirds)
    assert found.samples == {"train": 11, "validation": 11, "test": 11}
    assert found.by_class()[0] == ("0", (1, 1, 1))
    axes = plot_histograms("a", "b", found, ()).get_axes()[-1]
    assert axes.get_title("left") == "Samples per class: training + validation + test"
    assert [bars[0].get_x() for bars in axes.containers] == [0, 1, 2]
    assert axes.texts[0].get_text() == "1 + 1 + 1"


def test_statistics_without_a_split_have_one_column(whole: Cache) -> None:
    found = compute_statistics(whole)
    assert found.samples == {"train": 33, "test": 0}
    assert found.splits == ("train",)
    assert found.by_class()[0] == ("0", (3,))


@pytest.mark.parametrize("to", ["npz", "tonic", "spikingjelly"])
def test_export_has_a_folder_for_each_split(thirds: Cache, tmp_path: Path, to: ExportTarget) -> None:
    exported = export_cache(thirds, to, tmp_path / "out")
    with (exported.folder / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == thirds.splits
    assert [row["group"] for row in rows] == thirds.groups
    assert all(row["split"] in Path(row["file"]).parts for row in rows)
    assert all((exported.folder / row["file"]).is_file() for row in rows)


@pytest.mark.parametrize("to", ["npz", "tonic", "spikingjelly"])
def test_export_without_a_split_has_one_folder(whole: Cache, tmp_path: Path, to: ExportTarget) -> None:
    exported = export_cache(whole, to, tmp_path / "out")
    assert not [path for path in exported.folder.rglob("test") if path.is_dir()]
    head = (exported.folder / "samples.csv").read_text().splitlines()[0]
    assert head == "file,split,label,class,id"
    assert '"test"' not in exported.loading
    assert '"/test"' not in exported.loading


def test_torch_dataset_of_each_split_has_its_samples(thirds: Cache) -> None:
    assert [len(CachedDataset(thirds, part)) for part in ("train", "validation", "test", "all")] == [11, 11, 11, 33]
    assert CachedDataset(thirds, "validation").sample_ids == thirds.sample_ids[11:22]


def test_torch_dataset_of_a_split_without_samples_is_refused(whole: Cache) -> None:
    with pytest.raises(UsageError, match="no validation samples") as error:
        CachedDataset(whole, "validation")
    assert error.value.hint == 'found split="train"'


def test_select_rows_of_validation_samples(thirds: Cache, whole: Cache) -> None:
    dataset = load_registry().dataset("synthetic-gesture").dataset
    assert select_rows(thirds, dataset, SampleSelection(split="validation", count=99)) == list(range(11, 22))
    with pytest.raises(UsageError, match="no sample of split validation") as error:
        select_rows(whole, dataset, SampleSelection(split="validation"))
    assert error.value.hint == "it has train samples"


def test_split_without_any_events_is_an_error_that_names_it(gestures: Path) -> None:
    raw = open_events("synthetic-gesture", gestures)
    raw.samples = tuple(in_thirds(row, sample) for row, sample in enumerate(raw.samples))
    n_events = np.ones(33, np.int64)
    n_events[11:22] = 0
    with pytest.raises(RawDataError, match="0 events in all 11 samples of the validation set"):
        raw.notes_on_events(EventCounts(n_events, n_events, n_events))
    raw.samples = tuple(unsplit(row, sample) for row, sample in enumerate(raw.samples))
    with pytest.raises(RawDataError, match="0 events in all 33 samples of the data set"):
        raw.notes_on_events(EventCounts(n_events * 0, n_events * 0, n_events))


def test_empty_samples_of_a_cache_without_a_split_are_counted_at_once(gestures: Path) -> None:
    raw = open_events("synthetic-gesture", gestures)
    n_events = np.ones(33, np.int64)
    n_events[0] = 0
    raw.samples = tuple(unsplit(row, sample) for row, sample in enumerate(raw.samples))
    (note, *_) = raw.notes_on_events(EventCounts(n_events, n_events, n_events))
    assert note == "empty: 1 of 33 samples has a label but no events: user01_lab/00"
