"""Fonts for class names in any script: DejaVu Sans, and for characters that it lacks whatever font is installed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font

_FIRST = "DejaVu Sans"  # comes with matplotlib
_BOXES = "Last Resort"  # comes with matplotlib, too: a box for every character
_PREFERRED = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Zen Hei", "IPAGothic"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial"),
)
"""Asked before other installed fonts; they have most of Chinese, Japanese and Korean."""


def fonts_for(text: str) -> list[str]:
    """Returns font families to draw a text with, in order: a character comes from the first that has it.

    Characters that no installed font has are drawn as boxes. Letters stand one after the other as in the text:
    scripts whose letters join or change their order are not shaped.
    """
    return _fonts_with(frozenset(map(ord, text)) - _characters(_FIRST))


@cache
def _fonts_with(missing: frozenset[int]) -> list[str]:
    families = [_FIRST]
    for name in _candidates() if missing else ():
        if found := missing & _characters(name):
            families.append(name)
            missing -= found
        if not missing:
            break
    return families


@cache
def _candidates() -> tuple[str, ...]:
    installed = set(fontManager.get_font_names())
    preferred = [name for name in _PREFERRED if name in installed]
    others = sorted(name for name in installed - {_FIRST, *preferred} if not name.startswith(_BOXES))
    return (*preferred, *others)


@cache
def _characters(family: str) -> frozenset[int]:
    """Returns the characters of the upright file of a family, as numbers."""
    entries = [entry for entry in fontManager.ttflist if entry.name == family]
    entries.sort(key=lambda entry: (entry.style != "normal", str(entry.weight) not in ("400", "normal", "regular")))
    for entry in entries:
        try:
            return frozenset(FT2Font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # a damaged or removed file
            continue
    return frozenset()


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Draws characters that no font has as boxes, without a warning; a class also has its number."""
    log = logging.getLogger("matplotlib.font_manager")  # a fallback font may lack the exact weight
    level = log.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
