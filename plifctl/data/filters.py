"""tonic's filters that look at one event after the other, compiled: the same events stay, some hundred times faster."""

from __future__ import annotations

import numpy as np

from plifctl.jit import compiled


@compiled()
def kept_by_denoise(t, x, y, filter_time_us):  # type: ignore[no-untyped-def]
    """Returns which events stay, bool ``[N]``.

    Source: tonic 1.7.0, ``denoise_numpy``. Before its first event a pixel counts as one that had an event at time 0.
    """
    kept = np.empty(len(t), np.bool_)
    # one pixel more on each side, whose events are long past
    until = np.full((x.max() + 3, y.max() + 3), filter_time_us, np.int64)
    until[0, :] = until[-1, :] = np.iinfo(np.int64).min
    until[:, 0] = until[:, -1] = np.iinfo(np.int64).min
    for i in range(len(t)):
        column, row, now = x[i] + 1, y[i] + 1, t[i]
        until[column, row] = now + filter_time_us
        beside = max(until[column - 1, row], until[column + 1, row], until[column, row - 1], until[column, row + 1])
        kept[i] = beside > now
    return kept


@compiled()
def kept_by_refractory(t, x, y, period_us):  # type: ignore[no-untyped-def]
    """Returns which events stay, bool ``[N]``.

    Source: tonic 1.7.0, ``refractory_period_numpy``. Before its first event a pixel counts as one that had an event
    ``period_us`` before time 0.
    """
    kept = np.empty(len(t), np.bool_)
    last = np.full((x.max() + 1, y.max() + 1), -period_us, np.int64)
    for i in range(len(t)):
        kept[i] = t[i] - last[x[i], y[i]] > period_us
        last[x[i], y[i]] = t[i]
    return kept
