"""Images in files: colours, depth, orientation, and what cannot be read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plifctl.data.formats.images import read_image
from plifctl.errors import DamagedFileError, UsageError

GREY, COLOUR = (1, 6, 5), (3, 6, 5)


def draw(*channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 5, *channels), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "ppm"])
def test_read_lossless_format_gives_its_pixels(tmp_path: Path, ending: str) -> None:
    pixels = draw(3)
    options = {"lossless": True} if ending == "webp" else {}
    path = save(tmp_path / f"a.{ending}", Image.fromarray(pixels), **options)
    found = read_image(path, COLOUR)
    assert (found.size, found.pixels.dtype) == ((5, 6), np.uint8)
    np.testing.assert_array_equal(found.pixels, pixels.transpose(2, 0, 1))


def test_read_colours_as_grey_takes_their_luma(tmp_path: Path) -> None:
    pixels = draw(3)
    (grey,) = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)), GREY).pixels
    np.testing.assert_allclose(grey, pixels @ (0.299, 0.587, 0.114), atol=1)


def test_read_grey_as_colours_repeats_it(tmp_path: Path) -> None:
    pixels = draw()
    found = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)), COLOUR).pixels
    np.testing.assert_array_equal(found, np.broadcast_to(pixels, COLOUR))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK"])
def test_read_other_modes_as_pillow_converts_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(draw(3)).convert(mode)
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image)
    for shape, wanted in ((GREY, "L"), (COLOUR, "RGB")):
        expected = np.asarray(image.convert(wanted)).reshape(6, 5, -1).transpose(2, 0, 1)
        np.testing.assert_array_equal(read_image(path, shape).pixels, expected)


def test_read_sixteen_bits_keeps_the_upper_eight(tmp_path: Path) -> None:
    pixels = draw().astype(np.uint16) * 257
    found = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)), GREY).pixels
    np.testing.assert_array_equal(found[0], draw())


def test_read_thirty_two_bits_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(draw().astype(np.float32)))
    with pytest.raises(DamagedFileError, match="brightness of 32 bits"):
        read_image(path, GREY)


def test_read_photograph_is_upright(tmp_path: Path) -> None:
    pixels = draw(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a viewer
    turned = Image.fromarray(np.rot90(pixels).copy())
    found = read_image(save(tmp_path / "a.png", turned, exif=exif), COLOUR)
    assert found.size == (5, 6)
    np.testing.assert_array_equal(found.pixels, pixels.transpose(2, 0, 1))


def test_read_another_size_is_refused_or_scaled(tmp_path: Path) -> None:
    image = Image.fromarray(draw(3))
    path = save(tmp_path / "a.png", image)
    with pytest.raises(UsageError, match="5×6 pixels, the network takes 4×3"):
        read_image(path, (3, 3, 4))
    found = read_image(path, (3, 3, 4), resize=True)
    expected = np.asarray(image.resize((4, 3), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert found.size == (5, 6)
    np.testing.assert_array_equal(found.pixels, expected)


def test_read_for_a_network_of_other_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 or 3 channels, the network takes 4"):
        read_image(save(tmp_path / "a.png", Image.fromarray(draw(3))), (4, 6, 5))


def test_read_what_is_no_image_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello\n")
    with pytest.raises(DamagedFileError, match=r"a\.png: a text file that begins with 'hello', expected an image"):
        read_image(tmp_path / "a.png", GREY)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"a\.png: an empty file, expected an image"):
        read_image(tmp_path / "a.png", GREY)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp", "gif", "tif"])
def test_read_cut_file_is_refused(tmp_path: Path, ending: str) -> None:
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{ending}", Image.fromarray(large))
    content = path.read_bytes()
    for size in (len(content) // 2, 40):
        path.write_bytes(content[:size])
        with pytest.raises(DamagedFileError, match=rf"a\.{ending}: "):
            read_image(path, (3, 64, 64))


def test_read_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(draw(3)))
    for most in (20, 10):  # a warning of Pillow's, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(DamagedFileError, match=r"exceeds limit"):
            read_image(path, COLOUR)
