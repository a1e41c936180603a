"""tonic's filters that process one event after the other, compiled: the same result, some hundred times faster."""

from __future__ import annotations

import numpy as np

from plifctl.jit import compiled


@compiled()
def denoise_mask(t, x, y, filter_time_us):  # type: ignore[no-untyped-def]
    """Returns the mask of events that denoising keeps, bool ``[N]``.

    Source: tonic 1.7.0, ``denoise_numpy``. A pixel is treated as if it had an event at time 0.
    """
    kept = np.empty(len(t), np.bool_)
    # a border of one pixel on each side, whose events are in the distant past
    until = np.full((x.max() + 3, y.max() + 3), filter_time_us, np.int64)
    until[0, :] = until[-1, :] = np.iinfo(np.int64).min
    until[:, 0] = until[:, -1] = np.iinfo(np.int64).min
    for i in range(len(t)):
        column, row, now = x[i] + 1, y[i] + 1, t[i]
        until[column, row] = now + filter_time_us
        neighbours = max(until[column - 1, row], until[column + 1, row], until[column, row - 1], until[column, row + 1])
        kept[i] = neighbours > now
    return kept


@compiled()
def refractory_mask(t, x, y, period_us):  # type: ignore[no-untyped-def]
    """Returns the mask of events outside the refractory period of their pixel, bool ``[N]``.

    Source: tonic 1.7.0, ``refractory_period_numpy``. A pixel is treated as if it had an event ``period_us`` before
    time 0.
    """
    kept = np.empty(len(t), np.bool_)
    last = np.full((x.max() + 1, y.max() + 1), -period_us, np.int64)
    for i in range(len(t)):
        kept[i] = t[i] - last[x[i], y[i]] > period_us
        last[x[i], y[i]] = t[i]
    return kept
