"""Samples without events: found after framing, named in the notes of a cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plifctl.errors import list_names

EMPTY = "empty: "
"""Beginning of the note on samples without events."""


def empty_note(sample_ids: Sequence[str], is_test: np.ndarray, n_raw: np.ndarray, n_events: np.ndarray) -> str | None:
    """Returns the note on the samples without events; None if every sample has some.

    Args:
        sample_ids: Id of each sample.
        is_test: Whether it belongs to the test set, bool ``[N]``.
        n_raw: Number of its events in the file, int64 ``[N]``.
        n_events: Number of events framed, int64 ``[N]``.

    Example:
        >>> empty_note(["a/0", "a/1"], np.array([False, True]), np.array([7, 0]), np.array([7, 0]))
        'empty: 1 of 2 samples has a label but no events (0 training, 1 test): a/1'
    """
    rows = np.flatnonzero(n_events == 0).tolist()
    if not len(rows):
        return None
    test, left_out = int(is_test[rows].sum()), int((n_raw[rows] > 0).sum())
    has = "has" if len(rows) == 1 else "have"
    because = f"; of {left_out} every event was left out (invalid, outside, or by transforms)" if left_out else ""
    return (
        f"{EMPTY}{len(rows)} of {len(n_events)} samples {has} a label but no events "
        f"({len(rows) - test} training, {test} test){because}: {list_names([sample_ids[row] for row in rows])}"
    )
