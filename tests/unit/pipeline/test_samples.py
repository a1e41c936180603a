"""Selection of samples, and what looking at a cache returns; nothing is printed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from factories import build_cache, write_gestures
from PIL import Image

from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.source import RawSource
from plifctl.errors import CacheError, UsageError
from plifctl.pipeline.samples import (
    SampleSelection,
    ShowSampleOptions,
    describe_cache,
    select_rows,
    show_samples,
)

DATASET: Any = SimpleNamespace(title="A set", classes=("left", "right", "up"))
CACHE: Any = SimpleNamespace(
    path=Path("a.h5"),
    labels=np.array([0, 1, 2, 0, 1, 0]),
    splits=["train", "train", "train", "train", "test", "test"],
    sample_ids=["a", "b", "c", "d", "e", "7"],
)


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        (SampleSelection(), [0]),
        (SampleSelection(count=9), [0, 1, 2, 3, 4, 5]),
        (SampleSelection("d"), [3]),
        (SampleSelection("2"), [2]),
        (SampleSelection("7"), [5]),
        (SampleSelection(label="left", count=9), [0, 3, 5]),
        (SampleSelection(label="1", split="test"), [4]),
        (SampleSelection(each_class=True), [0, 1, 2]),
        (SampleSelection(each_class=True, count=2), [0, 3, 1, 4, 2]),
        (SampleSelection(each_class=True, split="test"), [5, 4]),
    ],
)
def test_select_rows_by_each_option_returns_first_rows(selection: SampleSelection, rows: list[int]) -> None:
    assert select_rows(CACHE, DATASET, selection) == rows


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (SampleSelection("z"), "no sample 'z'"),
        (SampleSelection("8"), "6 samples, rows 0 to 5"),
        (SampleSelection("a", count=2), "names one sample"),
        (SampleSelection(label="lft"), "unknown class 'lft'; A set has 3 classes"),
        (SampleSelection(label="3"), "unknown class '3'"),
        (SampleSelection(label="up", split="test"), "no sample of split test and class up"),
    ],
)
def test_select_rows_without_match_raises_usage_error(selection: SampleSelection, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select_rows(CACHE, DATASET, selection)


def test_select_rows_of_too_many_samples_raises_usage_error() -> None:
    large: Any = SimpleNamespace(labels=np.zeros(200, int), is_test=np.zeros(200, bool))
    with pytest.raises(UsageError, match="150 samples; at most 100"):
        select_rows(large, DATASET, SampleSelection(count=150))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A cache of the tiny gestures, T = 4."""
    write_gestures(tmp_path / "raw")
    framing = load_registry().dataset("synthetic-gesture").with_T(4)
    build_cache(open_raw(framing, RawSource(tmp_path / "raw", verify=False)), 4, tmp_path / "caches")
    return tmp_path / "caches"


def test_show_samples_of_cache_writes_picture_and_prints_nothing(
    cache_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    selection = SampleSelection(label="3", count=2)
    options = ShowSampleOptions(
        "synthetic-gesture", T=4, selection=selection, out=tmp_path / "a.png", cache_dir=cache_dir
    )
    shown = show_samples(options)
    assert [entry["id"] for entry in shown.samples] == ["user01_lab/03", "user02_lab/03"]
    assert shown.headings[0].startswith("user01_lab/03 · ")
    with Image.open(shown.out) as picture:
        assert picture.format == "PNG"
    assert capfd.readouterr() == ("", "")


def test_show_samples_without_cache_hints_the_command(cache_dir: Path) -> None:
    with pytest.raises(CacheError) as error:
        show_samples(ShowSampleOptions("synthetic-gesture", T=5, cache_dir=cache_dir))
    assert error.value.hint == f"plifctl prepare synthetic-gesture --T 5 --cache-dir {cache_dir}"


@pytest.mark.parametrize(
    ("T", "overrides", "message"),
    [
        (20, ("frames.slicing=duration", "frames.duration_us=10000"), "the longest sample determines the number"),
        (20_000, (), "--T 20000: expected a whole number from 1 to 10000"),
        (0, (), "--T 0: expected a whole number"),
    ],
)
def test_show_samples_refuses_a_number_of_frames_that_prepare_refuses(
    cache_dir: Path, T: int, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        show_samples(ShowSampleOptions("synthetic-gesture", T=T, overrides=overrides, cache_dir=cache_dir))


def test_describe_cache_with_histograms_returns_statistics_and_draws(cache_dir: Path, tmp_path: Path) -> None:
    from plifctl.cache import Cache

    (path,) = cache_dir.glob("*/*.h5")
    found = describe_cache(Cache(path), tmp_path / "a.png")
    assert found.facts["path"] == str(path)
    assert found.facts["shape"] == [33, 4, 2, 128, 128]
    assert found.statistics.events is not None
    assert found.statistics.events.framed == 33 * 400
    assert len(found.classes) == 11
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"


def test_describe_cache_with_histograms_of_other_ending_raises_usage_error(cache_dir: Path, tmp_path: Path) -> None:
    from plifctl.cache import Cache

    (path,) = cache_dir.glob("*/*.h5")
    with pytest.raises(UsageError, match=r"drawn as \.png"):
        describe_cache(Cache(path), tmp_path / "a.svg")
