"""Numbers as a line of small blocks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence

_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", ".:-=+*%#"


def sparkline(values: Iterable[float | None], width: int) -> str:
    """Draws numbers as a line of at most ``width`` blocks, scaled from their minimum to their maximum.

    Where there are more numbers than blocks, each block shows the last of its numbers; None and NaN are blanks.

    Example:
        >>> sparkline([1.0, 2.0, None, 3.0], 8), sparkline(range(100), 4), sparkline([2.0, 2.0], 8)
        ('▁▅ █', '▁▃▆█', '▁▁')
    """
    known = [math.nan if value is None else value for value in values]
    if len(known) > width:
        known = [known[-(-len(known) * (block + 1) // width) - 1] for block in range(width)]
    finite = [value for value in known if math.isfinite(value)]
    if not finite:
        return " " * len(known)
    least, span = min(finite), max(finite) - min(finite)
    heights = ((value - least) / span * (len(_BLOCKS) - 1) if span > 0 else 0 for value in known)
    return _draw(int(height + 0.5) if math.isfinite(height) else None for height in heights)


def histogram(counts: Sequence[int]) -> str:
    """Draws counts as a line of blocks from zero; a count that is not zero is visible, however small.

    Example:
        >>> histogram([0, 1, 500, 1000])
        ' ▁▄█'
    """
    highest = max(1, *counts)
    return _draw(-(-len(_BLOCKS) * count // highest) - 1 if count else None for count in counts)


def _draw(heights: Iterable[int | None]) -> str:
    """Returns blocks of heights from 0 to 7, blanks for None."""
    blocks = encodable(_BLOCKS, _ASCII)
    return "".join(" " if height is None else blocks[height] for height in heights)


def encodable(text: str, plain: str) -> str:
    """Returns ``text``, or ``plain`` if stdout's encoding lacks its characters."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return plain
    return text
