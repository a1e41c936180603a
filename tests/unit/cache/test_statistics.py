"""Statistics against plain numpy over everything at once."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plifctl.cache import statistics
from plifctl.cache.statistics import Distribution, statistics_of


@dataclass
class InMemory:
    """As much of a cache as statistics read."""

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

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.content[rows]


def frames_of(
    N: int = 37, T: int = 5, P: int = 2, H: int = 6, W: int = 9, dtype: type = np.uint8, rate: float = 0.2, **more: Any
) -> InMemory:
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
    return InMemory(frames, rng.integers(0, 4, N), rng.random(N) < 0.3, counts)


def assert_describes(found: Distribution, numbers: np.ndarray) -> None:
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
            frames_of(),
            frames_of(T=1, H=34, W=34),
            frames_of(N=1),
            frames_of(P=1),
            frames_of(dtype=np.uint16, rate=5000.0),
            frames_of(N=8, T=50, H=3, W=2),
        ],
        ids=lambda cache: "×".join(map(str, cache.shape)) + f" {cache.dtype}",
    )
    @pytest.mark.parametrize("block", [1, 2000, 2**24])
    def test_equal_plain_numpy(self, cache: InMemory, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statistics, "_BLOCK_BYTES", block)
        told: list[tuple[int, int]] = []
        events = statistics_of(cache, lambda done, total: told.append((done, total))).events  # type: ignore[arg-type]
        assert events is not None
        frames = cache.content.astype(np.int64)
        assert_describes(events.per_sample, frames.sum((1, 2, 3, 4)))
        assert_describes(events.per_slice, frames.sum((2, 3, 4)))
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
        assert_describes(events.duration_us, cache.counts["duration_us"])
        assert told[-1] == (len(frames), len(frames))
        assert told == sorted(told)

    def test_samples_and_classes(self) -> None:
        cache = frames_of()
        found = statistics_of(cache)  # type: ignore[arg-type]
        assert found.samples == {"train": int((~cache.is_test).sum()), "test": int(cache.is_test.sum())}
        for name, wanted in (("train", False), ("test", True)):
            assert found.classes[name] == tuple(
                int(((cache.labels == label) & (cache.is_test == wanted)).sum()) for label in range(4)
            )

    def test_durations(self) -> None:
        durations = np.random.default_rng(1).integers(0, 10_000_000, 37)
        events = statistics_of(frames_of(duration_us=durations)).events  # type: ignore[arg-type]
        assert events is not None
        assert_describes(events.duration_us, durations)

    def test_frames_that_fill_up_are_no_slices(self) -> None:
        n_frames = np.arange(37) % 6
        cache = frames_of(n_frames=n_frames)
        real = np.arange(5) < n_frames[:, None]
        cache.content[~real] = 0
        events = statistics_of(cache).events  # type: ignore[arg-type]
        assert events is not None
        assert_describes(events.per_slice, cache.content.sum((2, 3, 4), dtype=np.int64)[real])
        assert events.slices == n_frames.sum()
        assert events.nonzero_share == pytest.approx((cache.content[real] != 0).mean(), rel=1e-12)

    def test_nothing_but_filling(self) -> None:
        cache = frames_of(rate=0.0, n_frames=np.zeros(37, np.int64))
        events = statistics_of(cache).events  # type: ignore[arg-type]
        assert events is not None
        assert (events.slices, events.per_slice.n, events.nonzero_share, events.on_share) == (0, 0, 0.0, None)
        assert events.empty_samples == 37

    def test_sums_beyond_32_bits(self) -> None:
        frames = np.full((1, 1, 2, 256, 257), 65535, np.uint16)
        n = np.array([frames.sum(dtype=np.int64)])
        cache = InMemory(
            frames,
            np.zeros(1, np.int64),
            np.zeros(1, bool),
            {"n_raw": n, "n_events": n, "n_frames": n * 0 + len(frames[0]), "duration_us": n * 0},
        )
        events = statistics_of(cache).events  # type: ignore[arg-type]
        assert events is not None
        assert events.framed == 2 * 256 * 257 * 65535


class TestImages:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("block", [1, 5000, 2**24])
    def test_equal_plain_numpy(self, channels: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statistics, "_BLOCK_BYTES", block)
        rng = np.random.default_rng(channels)
        images = rng.integers(3, 200 + 10 * np.arange(channels)[:, None, None], (50, channels, 7, 5)).astype(np.uint8)
        is_test = rng.random(50) < 0.3
        found = statistics_of(InMemory(images, rng.integers(0, 10, 50), is_test, {}))  # type: ignore[arg-type]
        assert found.events is None
        assert found.channels is not None
        for name, wanted in (("train", False), ("test", True)):
            values = images[is_test == wanted].astype(np.float64) / 255
            for what in ("mean", "std", "min", "max"):
                expected = getattr(values, what)((0, 2, 3))
                assert [getattr(channel, what) for channel in found.channels[name]] == pytest.approx(
                    expected, rel=1e-10
                )

    def test_a_split_without_images_has_no_channels(self) -> None:
        cache = InMemory(np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3, np.int64), np.zeros(3, bool), {})
        found = statistics_of(cache)  # type: ignore[arg-type]
        assert found.channels is not None
        assert list(found.channels) == ["train"]
        assert found.channels["train"][0].std == 0


def test_json_is_json() -> None:
    tree = statistics_of(frames_of()).to_json()  # type: ignore[arg-type]
    assert json.loads(json.dumps(tree, allow_nan=False))["events"]["per_slice"]["n"] == 37 * 5


@pytest.mark.real
def test_mnist_has_the_published_mean_and_std(shared: Path, tmp_path: Path) -> None:
    from factories import build_cache

    from plifctl.config.registry import load_registry
    from plifctl.data.datasets import open_raw

    dataset = load_registry().dataset("mnist").dataset
    raw = open_raw(dataset, shared / "data/MNIST", frames=None, verify=True)
    found = statistics_of(build_cache(raw, None, tmp_path))
    assert found.samples == {"train": 60_000, "test": 10_000}
    assert found.channels is not None
    (channel,) = found.channels["train"]
    assert (round(channel.mean, 4), round(channel.std, 4)) == (0.1307, 0.3081)
    assert found.classes["train"] == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
