"""Samples without events: found after framing, named in the notes of a cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plifctl.config.choices import SPLIT_WORDS, SPLITS, Split
from plifctl.errors import list_names

EMPTY = "empty: "
"""Beginning of the note on samples without events."""


def empty_note(
    sample_ids: Sequence[str], splits: Sequence[Split], n_raw: np.ndarray, n_events: np.ndarray
) -> str | None:
    """Returns the note on the samples without events; None if every sample has some.

    Args:
        sample_ids: Id of each sample.
        splits: Official split of each; of a data set without splits they are not counted.
        n_raw: Number of its events in the file, int64 ``[N]``.
        n_events: Number of events framed, int64 ``[N]``.

    Example:
        >>> empty_note(["a/0", "a/1"], ["train", "test"], np.array([7, 0]), np.array([7, 0]))
        'empty: 1 of 2 samples has a label but no events (0 training, 1 test): a/1'
    """
    rows = np.flatnonzero(n_events == 0).tolist()
    if not len(rows):
        return None
    empty, left_out = [splits[row] for row in rows], int((n_raw[rows] > 0).sum())
    counts = [f"{empty.count(split)} {SPLIT_WORDS[split]}" for split in SPLITS if split in splits]
    counted = f" ({', '.join(counts)})" if len(counts) > 1 else ""
    has = "has" if len(rows) == 1 else "have"
    because = f"; of {left_out} every event was left out (invalid, outside, or by transforms)" if left_out else ""
    return (
        f"{EMPTY}{len(rows)} of {len(n_events)} samples {has} a label but no events"
        f"{counted}{because}: {list_names([sample_ids[row] for row in rows])}"
    )
