"""Cache statistics, compared with numpy over the whole array at once."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plifctl.cache import Cache, statistics
from plifctl.cache.statistics import Distribution, compute_statistics


@dataclass
class FakeCache:
    """The attributes of a cache that statistics read, held in memory."""

    content: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    counts: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.content.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.content.dtype

    @property
    def nbytes(self) -> int:
        return self.content.nbytes

    blocks = Cache.blocks

    @property
    def splits(self) -> list[str]:
        return ["test" if test else "train" for test in self.is_test]

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.content[rows]


def make_frames(
    N: int = 37, T: int = 5, P: int = 2, H: int = 6, W: int = 9, dtype: type = np.uint8, rate: float = 0.2, **more: Any
) -> FakeCache:
    rng = np.random.default_rng(N * T + H)
    frames = rng.poisson(rate * rng.random((N, T, 1, 1, 1)) ** 4, (N, T, P, H, W)).astype(dtype)
    frames[::7] = 0
    n = frames.sum((1, 2, 3, 4), dtype=np.int64)
    counts = {
        "n_raw": n + rng.integers(0, 3, N),
        "n_events": n,
        "n_frames": np.full(N, T),
        "duration_us": rng.integers(0, 10**6, N),
        **more,
    }
    return FakeCache(frames, rng.integers(0, 4, N), rng.random(N) < 0.3, counts)


def assert_distribution(found: Distribution, numbers: np.ndarray) -> None:
    assert found.n == numbers.size
    assert (found.min, found.max) == (numbers.min(), numbers.max())
    assert [found.q1, found.median, found.q3] == pytest.approx(np.quantile(numbers, [0.25, 0.5, 0.75]), rel=1e-12)
    assert found.mean == pytest.approx(numbers.mean(), rel=1e-12)
    assert len(found.edges) == len(found.counts) + 1
    assert len(found.counts) <= 24
    assert found.counts[-1] > 0
    inside = [((low <= numbers) & (numbers < high)).sum() for low, high in pairwise(found.edges)]
    assert list(found.counts) == inside
    assert sum(found.counts) == found.n


class TestEvents:
    @pytest.mark.parametrize(
        "cache",
        [
            make_frames(),
            make_frames(T=1, H=34, W=34),
            make_frames(N=1),
            make_frames(P=1),
            make_frames(dtype=np.uint16, rate=5000.0),
            make_frames(N=8, T=50, H=3, W=2),
        ],
        ids=lambda cache: "×".join(map(str, cache.shape)) + f" {cache.dtype}",
    )
    @pytest.mark.parametrize("block", [1, 2000, 2**24])
    def test_event_statistics_in_blocks_equal_numpy(
        self, cache: FakeCache, block: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(statistics, "_BLOCK_BYTES", block)
        reported: list[tuple[int, int]] = []
        events = compute_statistics(cache, lambda done, total: reported.append((done, total))).events  # type: ignore[arg-type]
        assert events is not None
        frames = cache.content.astype(np.int64)
        assert_distribution(events.per_sample, frames.sum((1, 2, 3, 4)))
        assert_distribution(events.per_slice, frames.sum((2, 3, 4)))
        assert events.framed == frames.sum()
        assert events.left_out == cache.counts["n_raw"].sum() - frames.sum()
        assert events.slices == frames.shape[0] * frames.shape[1]
        assert events.empty_slices == (frames.sum((2, 3, 4)) == 0).sum()
        assert events.empty_samples == (frames.sum((1, 2, 3, 4)) == 0).sum()
        assert events.nonzero_share == pytest.approx((frames != 0).mean(), rel=1e-12)
        assert events.largest_count == frames.max()
        if frames.shape[2] == 1 or frames.sum() == 0:
            assert events.on_share is None
        else:
            assert events.on_share == pytest.approx(frames[:, :, 1].sum() / frames.sum(), rel=1e-12)
        assert_distribution(events.duration_us, cache.counts["duration_us"])
        assert reported[-1] == (len(frames), len(frames))
        assert reported == sorted(reported)

    def test_class_counts_of_each_split_equal_labels(self) -> None:
        cache = make_frames()
        found = compute_statistics(cache)  # type: ignore[arg-type]
        assert found.samples == {"train": int((~cache.is_test).sum()), "test": int(cache.is_test.sum())}
        for name, wanted in (("train", False), ("test", True)):
            assert found.classes[name] == tuple(
                int(((cache.labels == label) & (cache.is_test == wanted)).sum()) for label in range(4)
            )

    def test_duration_distribution_equals_numpy(self) -> None:
        durations = np.random.default_rng(1).integers(0, 10_000_000, 37)
        events = compute_statistics(make_frames(duration_us=durations)).events  # type: ignore[arg-type]
        assert events is not None
        assert_distribution(events.duration_us, durations)

    def test_frames_that_pad_a_recording_are_not_counted(self) -> None:
        n_frames = np.arange(37) % 6
        cache = make_frames(n_frames=n_frames)
        is_real = np.arange(5) < n_frames[:, None]
        cache.content[~is_real] = 0
        events = compute_statistics(cache).events  # type: ignore[arg-type]
        assert events is not None
        assert_distribution(events.per_slice, cache.content.sum((2, 3, 4), dtype=np.int64)[is_real])
        assert events.slices == n_frames.sum()
        assert events.nonzero_share == pytest.approx((cache.content[is_real] != 0).mean(), rel=1e-12)

    def test_cache_of_padding_only_has_empty_distribution(self) -> None:
        cache = make_frames(rate=0.0, n_frames=np.zeros(37, np.int64))
        events = compute_statistics(cache).events  # type: ignore[arg-type]
        assert events is not None
        assert (events.slices, events.per_slice.n, events.nonzero_share, events.on_share) == (0, 0, 0.0, None)
        assert events.empty_samples == 37

    def test_event_sum_beyond_32_bits_is_exact(self) -> None:
        frames = np.full((1, 1, 2, 256, 257), 65535, np.uint16)
        n = np.array([frames.sum(dtype=np.int64)])
        cache = FakeCache(
            frames,
            np.zeros(1, np.int64),
            np.zeros(1, bool),
            {"n_raw": n, "n_events": n, "n_frames": n * 0 + len(frames[0]), "duration_us": n * 0},
        )
        events = compute_statistics(cache).events  # type: ignore[arg-type]
        assert events is not None
        assert events.framed == 2 * 256 * 257 * 65535


class TestImages:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("block", [1, 5000, 2**24])
    def test_channel_statistics_in_blocks_equal_numpy(
        self, channels: int, block: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(statistics, "_BLOCK_BYTES", block)
        rng = np.random.default_rng(channels)
        images = rng.integers(3, 200 + 10 * np.arange(channels)[:, None, None], (50, channels, 7, 5)).astype(np.uint8)
        is_test = rng.random(50) < 0.3
        found = compute_statistics(FakeCache(images, rng.integers(0, 10, 50), is_test, {}))  # type: ignore[arg-type]
        assert found.events is None
        assert found.channels is not None
        for name, wanted in (("train", False), ("test", True)):
            values = images[is_test == wanted].astype(np.float64) / 255
            for what in ("mean", "std", "min", "max"):
                expected = getattr(values, what)((0, 2, 3))
                assert [getattr(channel, what) for channel in found.channels[name]] == pytest.approx(
                    expected, rel=1e-10
                )

    def test_split_without_images_has_no_channels(self) -> None:
        cache = FakeCache(np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3, np.int64), np.zeros(3, bool), {})
        found = compute_statistics(cache)  # type: ignore[arg-type]
        assert found.channels is not None
        assert list(found.channels) == ["train"]
        assert found.channels["train"][0].std == 0


def test_to_json_of_events_is_valid_json() -> None:
    tree = compute_statistics(make_frames()).to_json()  # type: ignore[arg-type]
    assert json.loads(json.dumps(tree, allow_nan=False))["events"]["per_slice"]["n"] == 37 * 5


@pytest.mark.slow
@pytest.mark.real
def test_mnist_training_images_have_known_mean_and_std(shared: Path, tmp_path: Path) -> None:
    from factories import build_cache

    from plifctl.config.lookup import load_registry
    from plifctl.data.datasets import open_raw
    from plifctl.data.source import RawSource

    raw = open_raw(load_registry().dataset("mnist"), RawSource(shared / "data/MNIST"))
    found = compute_statistics(build_cache(raw, None, tmp_path))
    assert found.samples == {"train": 60_000, "test": 10_000}
    assert found.channels is not None
    (channel,) = found.channels["train"]
    assert (round(channel.mean, 4), round(channel.std, 4)) == (0.1307, 0.3081)
    assert found.classes["train"] == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
