"""Pictures of samples: the expected pixels are searched in the finished file, wherever the layout placed them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from plifctl.errors import UsageError
from plifctl.report import pictures
from plifctl.report.pictures import (
    MERGED,
    OFF,
    ON,
    Sample,
    animate_events,
    colour_frames,
    draw_events,
    draw_images,
    find_saturation,
    save_picture,
)

WHITE = (255, 255, 255)


def make_sample(content: np.ndarray, name: str = "user01/00", label: str = "a class") -> Sample:
    return Sample(name, label, "", content)


def find_places(picture: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Every (y, x) at which ``picture`` shows exactly ``part``, RGB."""
    H, W = part.shape[:2]
    y, x = np.mgrid[: picture.shape[0] - H + 1, : picture.shape[1] - W + 1].reshape(2, -1)
    inked = np.argwhere((part != 255).any(-1))
    for dy, dx in [*inked[:: max(1, len(inked) // 20)], (0, 0), (H - 1, W - 1)]:
        fits = (picture[y + dy, x + dx] == part[dy, dx]).all(-1)
        y, x = y[fits], x[fits]
    found = zip(y.tolist(), x.tolist(), strict=True)
    return [(top, left) for top, left in found if np.array_equal(picture[top : top + H, left : left + W], part)]


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels.repeat(scale, 0).repeat(scale, 1)


def read_back(path: Path) -> list[np.ndarray]:
    """Every picture of a file, RGB, as Pillow's reader composes it."""
    with Image.open(path) as file:
        found = []
        for t in range(getattr(file, "n_frames", 1)):
            file.seek(t)
            found.append(np.asarray(file.convert("RGB")))
    return found


def random_frames(T: int, P: int, H: int, W: int, dtype: type = np.uint8) -> np.ndarray:
    """Counts at random, no two frames alike."""
    return np.random.default_rng(T * H).poisson(0.4, (T, P, H, W)).astype(dtype)


class TestColours:
    @pytest.mark.parametrize(("polarity", "ink"), [(1, ON), (0, OFF)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_colour_frames_of_one_event_inks_its_pixel_only(
        self, polarity: int, ink: Sequence[int], dtype: type
    ) -> None:
        frames = np.zeros((3, 2, 7, 5), dtype)
        frames[1, polarity, 4, 3] = 1
        colours = colour_frames(frames, 1)
        assert colours.shape == (3, 7, 5, 3)
        assert tuple(colours[1, 4, 3]) == ink
        colours[1, 4, 3] = 255
        assert (colours == 255).all()

    def test_colour_frames_of_merged_polarities_use_one_ink(self) -> None:
        frames = np.zeros((1, 1, 2, 2), np.uint8)
        frames[0, 0, 0, 1] = 9
        assert tuple(colour_frames(frames, 1)[0, 0, 1]) == MERGED

    def test_colour_frames_with_more_events_are_darker_up_to_saturation(self) -> None:
        counts = np.array([0, 1, 2, 5, 9, 10, 11, 60_000], np.uint16)
        frames = np.zeros((1, 2, 1, 8), np.uint16)
        frames[0, 1, 0] = counts
        shades = colour_frames(frames, 10)[0, 0].astype(int)
        assert tuple(shades[0]) == WHITE
        assert (np.diff(shades.sum(1)[:6]) < 0).all()
        assert (shades[5:] == ON).all()
        assert 255 - shades[1].mean() > 50, "a single event must be seen"

    def test_colour_frames_with_both_polarities_are_darker_than_each(self) -> None:
        frames = np.zeros((1, 2, 1, 3), np.uint8)
        frames[0, 1, 0] = [1, 0, 1]
        frames[0, 0, 0] = [0, 1, 1]
        on, off, both = colour_frames(frames, 1)[0, 0].astype(int)
        assert both.sum() < min(on.sum(), off.sum())
        assert (both <= np.minimum(on, off)).all()

    def test_inks_of_polarities_differ_for_colour_blind_readers(self) -> None:
        # red-green blindness leaves the axis from blue to yellow
        yellow_to_blue = [ink[2] - (ink[0] + ink[1]) / 2 for ink in (ON, OFF)]
        assert yellow_to_blue[1] - yellow_to_blue[0] > 128

    def test_find_saturation_of_counts_is_99th_percentile_of_nonzero(self) -> None:
        counts = np.concatenate([np.zeros(10_000), np.ones(500), np.full(496, 3), np.full(4, 200)]).astype(np.uint8)
        assert find_saturation([counts]) == 3
        assert find_saturation([np.zeros(4, np.uint8)]) == 1
        assert find_saturation([counts[:100], counts[10_000:10_500], counts[10_500:10_996]]) == 3

    def test_colour_frames_with_saturation_above_dtype_keeps_shape(self) -> None:
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
    @pytest.mark.long
    def test_draw_events_of_one_sample_places_each_frame_once_in_reading_order(
        self, tmp_path: Path, T: int, P: int, H: int, W: int, dtype: type, scale: int
    ) -> None:
        frames = random_frames(T, P, H, W, dtype)
        save_picture(draw_events("a set", "", [make_sample(frames)]), tmp_path / "a.png")
        (picture,) = read_back(tmp_path / "a.png")
        found = [find_places(picture, enlarge(one, scale)) for one in colour_frames(frames, find_saturation([frames]))]
        assert all(len(where) == 1 for where in found)
        assert found == sorted(found)
        tops, lefts = ({place[0][axis] for place in found} for axis in (0, 1))
        assert len(lefts) <= T
        assert len(tops) == -(-T // len(lefts))

    @pytest.mark.long
    def test_draw_events_of_empty_recording_is_white(self) -> None:
        picture = np.asarray(draw_events("a set", "", [make_sample(np.zeros((2, 2, 8, 8), np.uint8))]))
        assert len(find_places(picture, np.full((256, 256, 3), 255, np.uint8))) >= 2

    def test_draw_events_of_several_samples_shares_saturation(self) -> None:
        faint, strong = (np.zeros((2, 2, 16, 16), np.uint8) for _ in range(2))
        faint[0, 1, 3, 3] = 1
        faint[1, 0, 2, 3] = 1
        strong[0, 1, 5, 5] = 100
        picture = np.asarray(draw_events("a set", "", [make_sample(faint, "one"), make_sample(strong, "two")]))
        (first,) = find_places(picture, enlarge(colour_frames(faint, 100)[0], 8))
        (second,) = find_places(picture, enlarge(colour_frames(strong, 100)[0], 8))
        assert first[1] == second[1]
        assert first[0] < second[0]

    def test_draw_events_of_unequal_lengths_draws_all_frames(self) -> None:
        long, short = random_frames(5, 2, 16, 16), random_frames(2, 2, 16, 16)
        picture = np.asarray(draw_events("a set", "", [make_sample(short), make_sample(long)]))
        saturation = find_saturation([long, short])
        for one in (*colour_frames(long, saturation), *colour_frames(short, saturation)):
            assert len(find_places(picture, enlarge(one, 8))) == 1

    def test_draw_events_with_other_texts_changes_picture(self) -> None:
        frames = random_frames(1, 2, 16, 16)
        pictures = [
            np.asarray(draw_events(title, "details", [make_sample(frames, name)]))
            for title, name in (("a set", "user01/00"), ("b set", "user01/00"), ("a set", "user01/01"))
        ]
        assert not np.array_equal(pictures[0], pictures[1])
        assert not np.array_equal(pictures[0], pictures[2])

    def test_draw_events_of_too_many_frames_raises_usage_error(self) -> None:
        frames = np.zeros((4096, 1, 128, 256), np.uint8)
        with pytest.raises(UsageError, match=r"at most 100,000,000 pixels are drawn"):
            draw_events("a set", "", [make_sample(frames)])


class TestImages:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_draw_images_of_one_image_keeps_its_pixels(self, tmp_path: Path, channels: int) -> None:
        image = np.random.default_rng(1).integers(0, 256, (channels, 28, 20), np.uint8)
        save_picture(draw_images("a set", "", [make_sample(image)]), tmp_path / "a.png")
        (picture,) = read_back(tmp_path / "a.png")
        shown = np.stack([image[0], image[channels // 2], image[channels - 1]], -1)
        assert len(find_places(picture, enlarge(shown, 9))) == 1

    def test_draw_images_of_several_places_each_once_in_reading_order(self) -> None:
        images = np.random.default_rng(1).integers(0, 256, (6, 3, 32, 32), np.uint8)
        picture = np.asarray(draw_images("a set", "", [make_sample(image, str(n)) for n, image in enumerate(images)]))
        found = [find_places(picture, enlarge(np.moveaxis(image, 0, -1), 4)) for image in images]
        assert all(len(where) == 1 for where in found)
        assert found == sorted(found)


class TestAnimation:
    @pytest.mark.parametrize(
        ("T", "P", "H", "W", "high", "scale"),
        [(10, 2, 34, 34, 1, 18), (3, 2, 64, 128, 60, 5), (1, 2, 32, 32, 1, 20), (4, 1, 40, 32, 9, 16)],
    )
    @pytest.mark.long
    def test_gif_of_sample_has_every_frame_and_every_colour(
        self, tmp_path: Path, T: int, P: int, H: int, W: int, high: int, scale: int
    ) -> None:
        frames = random_frames(T, P, H, W) * np.uint8(high)
        save_picture(animate_events("a set", make_sample(frames)), tmp_path / "a.gif")
        found = read_back(tmp_path / "a.gif")
        assert len(found) == T
        for picture, pixels in zip(found, colour_frames(frames, find_saturation([frames])), strict=True):
            assert len(find_places(picture, enlarge(pixels, scale))) == 1

    def test_gif_of_identical_frames_keeps_all_and_loops(self, tmp_path: Path) -> None:
        save_picture(animate_events("a set", make_sample(np.zeros((6, 2, 16, 16), np.uint8))), tmp_path / "a.gif")
        assert len(read_back(tmp_path / "a.gif")) == 6
        with Image.open(tmp_path / "a.gif") as file:
            assert file.info["loop"] == 0
            assert file.info["duration"] == 100

    def test_save_picture_that_fails_keeps_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.gif"
        path.write_text("something older")

        def fail_after_frames() -> object:
            yield from animate_events("a set", make_sample(np.zeros((2, 2, 16, 16), np.uint8)))
            raise RuntimeError

        with pytest.raises(RuntimeError):
            save_picture(fail_after_frames(), path)  # type: ignore[arg-type]
        assert path.read_text() == "something older"
        assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


class TestText:
    @pytest.mark.parametrize("names", [("ψάρι", "δάσος"), ("Жест", "Рука"), ("naïve", "Łódź"), ("$x$", "$y$")])
    def test_class_names_in_any_alphabet_have_glyphs(
        self, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pictures, "quiet_fonts", contextlib.nullcontext)  # a missing glyph would be an error
        frames = random_frames(1, 2, 16, 16)
        drawn = [np.asarray(draw_events("a set", "", [make_sample(frames, label=name)])) for name in names]
        assert not np.array_equal(*drawn)

    def test_draw_images_with_captions_of_unequal_height_aligns_images(self) -> None:
        images = np.random.default_rng(1).integers(0, 256, (3, 3, 32, 32), np.uint8)
        samples = [make_sample(image, label=label) for image, label in zip(images, ("aa", "Ǻg", "ﷺ"), strict=True)]
        picture = np.asarray(draw_images("a set", "", samples))
        tops = {find_places(picture, enlarge(np.moveaxis(image, 0, -1), 4))[0][0] for image in images}
        assert len(tops) == 1

    def test_class_name_in_chinese_without_font_raises_no_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pictures, "fonts_for", lambda text: ["DejaVu Sans"])
        image = np.zeros((1, 8, 8), np.uint8)
        assert draw_images("手势", "左", [make_sample(image, label="挥手")]).width > 256

    def test_draw_events_with_own_matplotlib_settings_ignores_them(self) -> None:
        frames = random_frames(1, 2, 16, 16)
        expected = np.asarray(draw_events("a set", "$1", [make_sample(frames)]))
        with mpl.rc_context({"text.usetex": True, "font.size": 30, "figure.facecolor": "red", "savefig.dpi": 10}):
            assert np.array_equal(np.asarray(draw_events("a set", "$1", [make_sample(frames)])), expected)
