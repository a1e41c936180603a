"""Images in files of any format that Pillow reads: PNG, JPEG, WebP, BMP and others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from plifctl import files
from plifctl.config.transforms import Shape
from plifctl.data.formats.headers import HEADER_BYTES, Size, describe_content
from plifctl.errors import DamagedFileError, UsageError

_MODES = {1: "L", 3: "RGB"}
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class ReadImage(NamedTuple):
    """An image as a network takes it.

    Attributes:
        pixels: uint8 ``[C, H, W]``.
        size: Width and height of the image in the file.
    """

    pixels: np.ndarray
    size: Size


def read_image(path: Path, shape: Shape, *, resize: bool = False) -> ReadImage:
    """Reads an image, in the orientation in which viewers show it; of several in a file the first.

    Colours become grey by their luma, grey becomes equal red, green and blue, and transparency is ignored, as
    ``Image.convert`` does it.

    Args:
        path: The file.
        shape: ``(C, H, W)`` that is wanted, C is 1 (grey) or 3 (red, green, blue).
        resize: Scale an image of another size, bilinear, its proportions too.

    Raises:
        DamagedFileError: It is no image, or a damaged one.
        UsageError: It has another size, and is not to be scaled; or the network takes images of other channels.
    """
    channels, height, width = shape
    if channels not in _MODES:
        raise UsageError(f"{path}: image files have 1 or 3 channels, the network takes {channels}")
    with warnings.catch_warnings(), files.machine_errors(path):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # of metadata that are not used
        try:
            with Image.open(path) as opened:
                is_png, image = opened.format == "PNG", ImageOps.exif_transpose(opened)
                size = image.size
                if size != (width, height) and not resize:
                    raise UsageError(
                        f"{path}: {size[0]}×{size[1]} pixels, the network takes {width}×{height}",
                        hint="--resize scales images; in Python: predict(…, resize=True)",
                    )
                image = _to_eight_bits(image, path, is_png=is_png).convert(_MODES[channels])
        except UnidentifiedImageError:
            raise DamagedFileError(
                f"{path}: {_describe(path)}, expected an image", hint="PNG, JPEG, WebP, BMP … are read"
            ) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DamagedFileError(f"{path}: {error}", hint="scale it down with another program") from None
        except (SyntaxError, ValueError, EOFError) as error:
            raise DamagedFileError(f"{path}: a damaged image: {error}") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise DamagedFileError(f"{path}: a damaged image: {error}") from None
    if size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return ReadImage(np.array(image, np.uint8).reshape(height, width, channels).transpose(2, 0, 1).copy(), size)


def _to_eight_bits(image: Image.Image, path: Path, *, is_png: bool) -> Image.Image:
    """Returns an image of at most eight bits a channel; Pillow would clip the brightness of others."""
    # old versions of Pillow read a PNG of 16 bits in the mode of 32
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and is_png):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DamagedFileError(f"{path}: brightness of 32 bits, expected 8 or 16", hint="save it with 8 bits a channel")
    return image


def _describe(path: Path) -> str:
    with path.open("rb") as file:
        return describe_content(file.read(HEADER_BYTES))
