"""Names of splits as people write them: folders, and values in tables."""

from __future__ import annotations

import re
from functools import lru_cache

from plifctl.config.choices import Split

_WORDS: dict[Split, str] = {
    "train": "train(?:ing)?",
    "validation": "val|valid|validation|dev",
    "test": "test(?:ing)?",
}
_PREFIX = r"(?:[^/]+[_-])?"

SPLIT_FOLDER = rf"(?i:{_PREFIX}(?:{'|'.join(_WORDS.values())}))"
"""Pattern of the name of a folder that is a split."""


@lru_cache(1024)
def split_of(name: str) -> Split | None:
    """Returns the split that a folder or a value in a table names; None if it names none.

    Example:
        >>> split_of("Train"), split_of("n-cars_test"), split_of("val"), split_of("trains")
        ('train', 'test', 'validation', None)
    """
    found = (split for split, words in _WORDS.items() if re.fullmatch(rf"{_PREFIX}(?:{words})", name, re.IGNORECASE))
    return next(found, None)
