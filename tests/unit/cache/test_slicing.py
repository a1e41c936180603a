"""Caches of slices of a fixed duration: the first T of each sample, overlapping ones, and their verified sums."""

from pathlib import Path

import numpy as np
import pytest
from factories import build_cache
from raw_files import open_events

from plifctl.cache import Cache
from plifctl.cache.catalogue import _sample_problems, verify_cache
from plifctl.cache.statistics import compute_statistics
from plifctl.data.events import Events
from plifctl.data.framer import count_frames, select_events
from plifctl.errors import UsageError
from plifctl.pipeline.prepare import PrepareOptions, prepare

pytestmark = pytest.mark.usefixtures("places")

TIMES = {
    "Train/0/00001": [3, 12, 13, 22, 23, 60],
    "Train/1/00002": [5],
    "Test/0/00003": [9, 9, 18, 40, 41, 42],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """N-MNIST of few events, all of them in one pixel."""
    for name, times in TIMES.items():
        path = tmp_path / f"raw/{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(bytes((3, 4, 0x80, 0, t)) for t in times))
    return tmp_path / "raw"


def built(folder: Path, T: int | None, slicing: str, duration: int, overlap: int = 0, *more: str) -> Cache:
    changes = (f"frames.slicing={slicing}", f"frames.duration_us={duration}", f"frames.overlap_us={overlap}", *more)
    return build_cache(open_events("nmnist", folder, *changes), T, folder.parent / "caches")


def frames_by_definition(times: list[int], T: int, duration: int, overlap: int) -> list[int]:
    begins = [times[0] + j * (duration - overlap) for j in range(T)]
    return [sum(begin <= t < begin + duration for t in times) for begin in begins]


@pytest.mark.parametrize(("T", "duration", "overlap"), [(3, 10, 0), (1, 10, 0), (1, 10, 9), (4, 10, 3), (9, 7, 5)])
def test_cache_of_the_first_slices_equals_the_definition(folder: Path, T: int, duration: int, overlap: int) -> None:
    cache = built(folder, T, "duration-first", duration, overlap)
    reach = (T - 1) * (duration - overlap) + duration
    frames = cache.read(np.arange(3)).sum((2, 3, 4))
    for row, name in enumerate(cache.sample_ids):
        times = TIMES[name]
        inside = [t for t in times if t < times[0] + reach]
        expected = frames_by_definition(times, T, duration, overlap)
        assert frames[row].tolist() == expected
        assert cache.counts["n_raw"][row] == len(times)
        assert cache.counts["n_events"][row] == len(inside)
        assert cache.counts["duration_us"][row] == inside[-1] - inside[0]
        assert cache.counts["n_frames"][row] == min(T, (inside[-1] - inside[0]) // (duration - overlap) + 1)
        assert not any(expected[cache.counts["n_frames"][row] :])
        assert cache.frame_sums is not None
        assert cache.frame_sums[row] == sum(expected)
    assert cache.path.name.startswith(f"T{T}-{duration}us")
    assert verify_cache(cache.path) == []


@pytest.mark.parametrize("overlap", [0, 3, 9])
def test_cache_of_overlapping_slices_pads_to_the_longest_sample(folder: Path, overlap: int) -> None:
    cache = built(folder, None, "duration", 10, overlap)
    step = 10 - overlap
    assert cache.shape[1] == 57 // step + 1  # the longest sample begins at 3 and ends at 60
    frames = cache.read(np.arange(3)).sum((2, 3, 4))
    for row, name in enumerate(cache.sample_ids):
        n = cache.counts["n_frames"][row]
        assert frames[row, :n].tolist() == frames_by_definition(TIMES[name], n, 10, overlap)
        assert not frames[row, n:].any()
    assert cache.counts["n_events"].tolist() == [len(TIMES[name]) for name in cache.sample_ids]
    assert verify_cache(cache.path) == []


def test_frames_of_overlapping_slices_are_verified_against_their_own_sum(folder: Path) -> None:
    cache = built(folder, 4, "duration-first", 10, 5)
    assert cache.frame_sums is not None
    assert (cache.frame_sums > cache.counts["n_events"]).any()
    assert _sample_problems(cache, 0) == []
    for wrong in (cache.frame_sums[0] - 1, cache.counts["n_events"][0]):
        cache.frame_sums[0] = wrong
        assert "its frames sum to" in _sample_problems(cache, 0)[0]


def test_caches_without_overlap_have_the_columns_that_they_had(folder: Path) -> None:
    import h5py

    with h5py.File(built(folder, 2, "duration-first", 10).path) as file:
        assert "n_counted" not in file
    with h5py.File(built(folder, 2, "duration-first", 10, 1).path) as file:
        assert "n_counted" in file


def test_interrupted_build_of_overlapping_slices_is_resumed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("plifctl.cache.build.write_cache", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            built(folder, 4, "duration-first", 10, 5)
    with monkeypatch.context() as patch:
        patch.setattr("plifctl.cache.framing.count_frames", None)  # nothing is framed again
        cache = built(folder, 4, "duration-first", 10, 5)
    assert verify_cache(cache.path) == []


def test_statistics_of_overlapping_slices_count_an_event_once(folder: Path) -> None:
    cache = built(folder, 4, "duration-first", 10, 5)
    events = compute_statistics(cache).events
    assert events is not None
    assert events.framed == cache.counts["n_events"].sum()
    assert events.left_out == (cache.counts["n_raw"] - cache.counts["n_events"]).sum() > 0
    assert events.per_slice.mean * events.per_slice.n == pytest.approx(cache.frame_sums.sum())  # type: ignore[union-attr]
    assert events.on_share == 1


def test_first_slices_are_cut_after_the_transforms(folder: Path) -> None:
    raw = open_events(
        "nmnist",
        folder,
        "frames.slicing=duration-first",
        "frames.duration_us=10",
        'frames.transforms=[{"name": "refractory", "period_us": 4}]',
    )
    framing = raw.framing.with_T(2)
    t = np.array([100, 101, 102, 109, 115, 125])
    events = Events.from_columns(t, t * 0, t * 0, t * 0)
    selected = select_events(framing, events, "a")
    assert selected["t"].tolist() == [100, 109, 115]
    assert count_frames(framing, selected).sum((1, 2, 3)).tolist() == [2, 1]


def test_prepare_asks_for_T_of_the_first_slices_and_refuses_it_of_all(folder: Path) -> None:
    def options(slicing: str, T: int | None) -> PrepareOptions:
        changes = (f"frames.slicing={slicing}", "frames.duration_us=10")
        return PrepareOptions("nmnist", T, overrides=changes, cache_dir=folder.parent / "c")

    with pytest.raises(UsageError, match="event data sets need --T"):
        prepare(options("duration-first", None))
    with pytest.raises(UsageError, match="the longest sample determines the number of frames") as error:
        prepare(options("duration", 4))
    assert "frames.slicing=duration-first" in error.value.hint
