"""Pictures, pixel by pixel: what is drawn is looked for in the finished file, wherever the layout has put it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plifctl.cache.statistics import Channel, Distribution, EventStatistics, Statistics
from plifctl.errors import UsageError
from plifctl.report.pictures import (
    MERGED,
    OFF,
    ON,
    Sample,
    animate,
    colour_frames,
    draw_events,
    draw_histograms,
    draw_images,
    saturation_of,
    save,
)

FEW = Distribution(10, 0, 0, 2.0, 3, 4, 2.0, (0, 1, 2, 3, 4, 5), (3, 0, 4, 1, 2))
WHITE = (255, 255, 255)


def sample(content: np.ndarray, name: str = "user01/00") -> Sample:
    return Sample(name, "a class", "", content)


def places(picture: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Every (y, x) at which ``picture`` shows exactly ``part``, RGB."""
    H, W = part.shape[:2]
    y, x = np.mgrid[: picture.shape[0] - H + 1, : picture.shape[1] - W + 1].reshape(2, -1)
    inked = np.argwhere((part != 255).any(-1))
    for dy, dx in [*inked[:: max(1, len(inked) // 20)], (0, 0), (H - 1, W - 1)]:
        fits = (picture[y + dy, x + dx] == part[dy, dx]).all(-1)
        y, x = y[fits], x[fits]
    found = zip(y.tolist(), x.tolist(), strict=True)
    return [(top, left) for top, left in found if np.array_equal(picture[top : top + H, left : left + W], part)]


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels.repeat(scale, 0).repeat(scale, 1)


def read_back(path: Path) -> list[np.ndarray]:
    """Every picture of a file, RGB, as Pillow's reader composes it."""
    with Image.open(path) as file:
        found = []
        for t in range(getattr(file, "n_frames", 1)):
            file.seek(t)
            found.append(np.asarray(file.convert("RGB")))
    return found


def distinct_frames(T: int, P: int, H: int, W: int, dtype: type = np.uint8) -> np.ndarray:
    """Counts at random, no two frames alike."""
    return np.random.default_rng(T * H).poisson(0.4, (T, P, H, W)).astype(dtype)


class TestColours:
    @pytest.mark.parametrize(("polarity", "ink"), [(1, ON), (0, OFF)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_one_event_colours_its_pixel_and_no_other(self, polarity: int, ink: Sequence[int], dtype: type) -> None:
        frames = np.zeros((3, 2, 7, 5), dtype)
        frames[1, polarity, 4, 3] = 1
        colours = colour_frames(frames, 1)
        assert colours.shape == (3, 7, 5, 3)
        assert tuple(colours[1, 4, 3]) == ink
        colours[1, 4, 3] = 255
        assert (colours == 255).all()

    def test_merged_polarities_have_one_colour(self) -> None:
        frames = np.zeros((1, 1, 2, 2), np.uint8)
        frames[0, 0, 0, 1] = 9
        assert tuple(colour_frames(frames, 1)[0, 0, 1]) == MERGED

    def test_more_events_are_darker_up_to_full_ink(self) -> None:
        counts = np.array([0, 1, 2, 5, 9, 10, 11, 60_000], np.uint16)
        frames = np.zeros((1, 2, 1, 8), np.uint16)
        frames[0, 1, 0] = counts
        shades = colour_frames(frames, 10)[0, 0].astype(int)
        assert tuple(shades[0]) == WHITE
        assert (np.diff(shades.sum(1)[:6]) < 0).all()
        assert (shades[5:] == ON).all()
        assert 255 - shades[1].mean() > 50, "a single event must be seen"

    def test_both_polarities_are_darker_than_each_and_neither_colour(self) -> None:
        frames = np.zeros((1, 2, 1, 3), np.uint8)
        frames[0, 1, 0] = [1, 0, 1]
        frames[0, 0, 0] = [0, 1, 1]
        on, off, both = colour_frames(frames, 1)[0, 0].astype(int)
        assert both.sum() < min(on.sum(), off.sum())
        assert (both <= np.minimum(on, off)).all()

    def test_on_and_off_differ_for_colour_blind_eyes(self) -> None:
        # red-green blindness leaves the axis from blue to yellow
        yellow_to_blue = [ink[2] - (ink[0] + ink[1]) / 2 for ink in (ON, OFF)]
        assert yellow_to_blue[1] - yellow_to_blue[0] > 128

    def test_saturation_is_the_99th_percentile_of_what_is_not_zero(self) -> None:
        counts = np.concatenate([np.zeros(10_000), np.ones(500), np.full(496, 3), np.full(4, 200)]).astype(np.uint8)
        assert saturation_of([counts]) == 3
        assert saturation_of([np.zeros(4, np.uint8)]) == 1
        assert saturation_of([counts[:100], counts[10_000:10_500], counts[10_500:10_996]]) == 3

    def test_a_saturation_above_the_type_is_no_error(self) -> None:
        frames = np.full((1, 2, 1, 1), 255, np.uint8)
        assert colour_frames(frames, 1000).shape == (1, 1, 1, 3)


class TestEvents:
    @pytest.mark.parametrize(
        ("T", "P", "H", "W", "dtype", "scale"),
        [
            (5, 2, 34, 34, np.uint8, 7),
            (20, 2, 32, 48, np.uint8, 5),
            (3, 2, 40, 20, np.uint16, 6),
            (1, 2, 16, 16, np.uint8, 16),
            (4, 1, 30, 30, np.uint8, 8),
            (31, 2, 16, 16, np.uint8, 8),
        ],
    )
    def test_every_frame_is_there_once_in_the_order_of_reading(
        self, tmp_path: Path, T: int, P: int, H: int, W: int, dtype: type, scale: int
    ) -> None:
        frames = distinct_frames(T, P, H, W, dtype)
        save(draw_events("a set", "", [sample(frames)]), tmp_path / "a.png")
        (picture,) = read_back(tmp_path / "a.png")
        found = [places(picture, enlarged(one, scale)) for one in colour_frames(frames, saturation_of([frames]))]
        assert all(len(where) == 1 for where in found)
        assert found == sorted(found)
        tops, lefts = ({place[0][axis] for place in found} for axis in (0, 1))
        assert len(lefts) <= T
        assert len(tops) == -(-T // len(lefts))

    def test_an_empty_recording_is_white(self) -> None:
        picture = np.asarray(draw_events("a set", "", [sample(np.zeros((2, 2, 8, 8), np.uint8))]))
        assert len(places(picture, np.full((256, 256, 3), 255, np.uint8))) >= 2

    def test_several_samples_share_one_scale_of_shades(self) -> None:
        faint, strong = (np.zeros((2, 2, 16, 16), np.uint8) for _ in range(2))
        faint[0, 1, 3, 3] = 1
        faint[1, 0, 2, 3] = 1
        strong[0, 1, 5, 5] = 100
        picture = np.asarray(draw_events("a set", "", [sample(faint, "one"), sample(strong, "two")]))
        (first,) = places(picture, enlarged(colour_frames(faint, 100)[0], 8))
        (second,) = places(picture, enlarged(colour_frames(strong, 100)[0], 8))
        assert first[1] == second[1]
        assert first[0] < second[0]

    def test_recordings_of_unequal_length(self) -> None:
        long, short = distinct_frames(5, 2, 16, 16), distinct_frames(2, 2, 16, 16)
        picture = np.asarray(draw_events("a set", "", [sample(short), sample(long)]))
        saturation = saturation_of([long, short])
        for one in (*colour_frames(long, saturation), *colour_frames(short, saturation)):
            assert len(places(picture, enlarged(one, 8))) == 1

    def test_labels_are_written(self) -> None:
        frames = distinct_frames(1, 2, 16, 16)
        pictures = [
            np.asarray(draw_events(title, "details", [sample(frames, name)]))
            for title, name in (("a set", "user01/00"), ("b set", "user01/00"), ("a set", "user01/01"))
        ]
        assert not np.array_equal(pictures[0], pictures[1])
        assert not np.array_equal(pictures[0], pictures[2])

    def test_a_picture_that_no_viewer_opens_is_refused(self) -> None:
        frames = np.zeros((4096, 1, 128, 256), np.uint8)
        with pytest.raises(UsageError, match=r"at most 100,000,000 are drawn"):
            draw_events("a set", "", [sample(frames)])


class TestImages:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_the_pixels_are_those_of_the_image(self, tmp_path: Path, channels: int) -> None:
        image = np.random.default_rng(1).integers(0, 256, (channels, 28, 20), np.uint8)
        save(draw_images("a set", "", [sample(image)]), tmp_path / "a.png")
        (picture,) = read_back(tmp_path / "a.png")
        shown = np.stack([image[0], image[channels // 2], image[channels - 1]], -1)
        assert len(places(picture, enlarged(shown, 9))) == 1

    def test_a_sheet(self) -> None:
        images = np.random.default_rng(1).integers(0, 256, (6, 3, 32, 32), np.uint8)
        picture = np.asarray(draw_images("a set", "", [sample(image, str(n)) for n, image in enumerate(images)]))
        found = [places(picture, enlarged(np.moveaxis(image, 0, -1), 4)) for image in images]
        assert all(len(where) == 1 for where in found)
        assert found == sorted(found)


class TestAnimation:
    @pytest.mark.parametrize(
        ("T", "P", "H", "W", "high", "scale"),
        [(10, 2, 34, 34, 1, 18), (3, 2, 64, 128, 60, 5), (1, 2, 32, 32, 1, 20), (4, 1, 40, 32, 9, 16)],
    )
    def test_a_gif_has_every_frame_and_every_colour(
        self, tmp_path: Path, T: int, P: int, H: int, W: int, high: int, scale: int
    ) -> None:
        frames = distinct_frames(T, P, H, W) * np.uint8(high)
        save(animate("a set", sample(frames)), tmp_path / "a.gif")
        found = read_back(tmp_path / "a.gif")
        assert len(found) == T
        for picture, pixels in zip(found, colour_frames(frames, saturation_of([frames])), strict=True):
            assert len(places(picture, enlarged(pixels, scale))) == 1

    def test_frames_that_are_alike_are_all_shown(self, tmp_path: Path) -> None:
        save(animate("a set", sample(np.zeros((6, 2, 16, 16), np.uint8))), tmp_path / "a.gif")
        assert len(read_back(tmp_path / "a.gif")) == 6
        with Image.open(tmp_path / "a.gif") as file:
            assert file.info["loop"] == 0
            assert file.info["duration"] == 100

    def test_a_file_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "a.gif"
        path.write_text("something older")

        def breaks_off() -> object:
            yield from animate("a set", sample(np.zeros((2, 2, 16, 16), np.uint8)))
            raise RuntimeError

        with pytest.raises(RuntimeError):
            save(breaks_off(), path)  # type: ignore[arg-type]
        assert path.read_text() == "something older"
        assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


class TestHistograms:
    def test_bars_of_classes_are_as_long_as_there_are_samples(self) -> None:
        stats = Statistics(
            {"train": 60, "test": 8}, {"train": (40, 20, 0), "test": (0, 4, 4)}, None, {"train": (Channel(0, 0, 0, 0),)}
        )
        picture = np.asarray(draw_histograms("a set", "a cache", stats, ["a", "b", "c", "never seen"]))[100:]
        for ink, counts in ((OFF, [40, 20, 0]), (ON, [0, 4, 4])):
            found = (picture == ink).all(-1).sum(1)
            lengths = [int(found[row]) for row in np.flatnonzero(np.diff(found, prepend=0) > 0)]
            full = max(lengths) / max(counts)
            assert [length / full for length in lengths] == pytest.approx([n for n in counts if n], abs=0.2)

    def test_bars_of_a_distribution_are_as_high_as_there_are_values(self) -> None:
        events = EventStatistics(FEW, FEW, FEW, 20, 0, 0.5, 10, 3, 3, 0.1, 4)
        stats = Statistics({"train": 10, "test": 0}, {"train": (10,), "test": (0,)}, events, None)
        picture = np.asarray(draw_histograms("a set", "a cache", stats))
        heights = (picture[120:300] == MERGED).all(-1).sum(0)
        starts = np.flatnonzero(np.diff((heights > 0).astype(int)) == 1)
        bars = [int(heights[start + 5]) for start in starts]
        bars = [bar for bar in bars if bar > 20]
        assert len(bars) == 3 * 4
        assert [round(4 * bar / max(bars)) for bar in bars] == 3 * [3, 4, 1, 2]

    def test_of_nothing(self) -> None:
        none = Distribution(0, 0, 0.0, 0.0, 0.0, 0, 0.0, (0, 1), (0,))
        events = EventStatistics(none, none, none, 0, 0, None, 0, 0, 0, 0.0, 0)
        stats = Statistics({"train": 0, "test": 0}, {"train": (0,), "test": (0,)}, events, None)
        assert draw_histograms("a set", "a cache", stats).height > 150
