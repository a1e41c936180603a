"""The compiled loops of the fused kernel: batch norm, scan over time and pooling in one pass over memory.

Arrays are channels-last, ``[T, N, H, W, C]``; a fully connected layer has H = 1 and its features spread over W and C.
Work is cut into items, each some windows of pooling in one row, for all samples and steps: the potentials of a window
stay in the core's cache from the first step to the last, and the innermost loop runs over channels, which lie together,
several to an instruction. What an item sums up lies in a place of its own, and places are added in order: results do
not depend on the number of threads.

``x`` and the affine's arrays may have one step for all T: an image that is shown T times, statistics over time.
"""

from __future__ import annotations

import numba
import numpy as np

from plifctl.jit import compiled, inlined, prefetch

CACHED = 2**17
"""So many potentials are kept at once while backward walks through time: they are to stay in a core's own cache."""


@inlined
def _step(x, scale, shift, k, v_threshold, v_reset, soft, v, h):  # type: ignore[no-untyped-def]
    for c in range(len(h)):
        y = x[c] * scale[c] + shift[c]
        h[c] = v[c] + k[c] * (y - (v[c] - v_reset))
        v[c] = ((h[c] - v_threshold[c]) if soft else v_reset) if h[c] >= v_threshold[c] else h[c]


@inlined
def _fire(h, v_threshold, spikes):  # type: ignore[no-untyped-def]
    zero, one = h.dtype.type(0), h.dtype.type(1)
    for c in range(len(h)):
        spikes[c] = one if h[c] >= v_threshold[c] else zero


@inlined
def _add(spikes, total):  # type: ignore[no-untyped-def]
    for c in range(len(spikes)):
        total[c] += spikes[c]


@inlined
def _at_least(spikes, out):  # type: ignore[no-untyped-def]
    for c in range(len(spikes)):
        out[c] = max(out[c], spikes[c])


@inlined
def _scaled(out, factor):  # type: ignore[no-untyped-def]
    for c in range(len(out)):
        out[c] *= factor


@compiled(parallel=True)
def forward(x, scale, shift, k, v_threshold, v_reset, soft, T, window, average, span, out, counts):  # type: ignore[no-untyped-def]
    """Writes the pooled spikes ``out [T, N, H', W', C]`` and adds up the spikes before pooling, ``counts [items]``.

    Args:
        x: ``[T or 1, N, H, W, C]``.
        scale: Of the affine that comes first, ``[T or 1, C]``.
        shift: The same.
        k: 1/τ, ``[1 or H·W, C]``.
        v_threshold: ``[C]``.
        v_reset: Of the type of x.
        soft: Which reset.
        T: Time steps.
        window: Of pooling, in both directions; 1: none.
        average: Average pooling, else maximum.
        span: Windows in an item.
        out: Result; windows that are cut by the border have no place in it.
        counts: float64.
    """
    steps, samples, height, width, channels = x.shape
    rows, columns = out.shape[2], out.shape[3]
    across = (width + window - 1) // window
    spans = (across + span - 1) // span
    for item in numba.prange(((height + window - 1) // window) * spans):
        row = item // spans
        v = np.empty((window * window, channels), x.dtype)
        h, spikes, total = np.empty(channels, x.dtype), np.empty(channels, x.dtype), np.zeros(channels, x.dtype)
        share = x.dtype.type(1.0 / (window * window))
        fired = 0.0
        for n in range(samples):
            total[:] = 0
            for column in range(item % spans * span, min(across, (item % spans + 1) * span)):
                whole = row < rows and column < columns
                v[:] = v_reset
                for t in range(T):
                    if whole:
                        out[t, n, row, column] = 0
                    for j in range(window * window):
                        y, z = row * window + j // window, column * window + j % window
                        if y >= height or z >= width:
                            continue
                        tx, ts = t if steps > 1 else 0, t if len(scale) > 1 else 0
                        place = y * width + z if len(k) > 1 else 0
                        if t + 1 < T and steps > 1:
                            prefetch(x[t + 1, n, y, z])
                        _step(x[tx, n, y, z], scale[ts], shift[ts], k[place], v_threshold, v_reset, soft, v[j], h)
                        _fire(h, v_threshold, spikes)
                        _add(spikes, total)
                        if whole and average:
                            _add(spikes, out[t, n, row, column])
                        elif whole:
                            _at_least(spikes, out[t, n, row, column])
                    if whole and average:
                        _scaled(out[t, n, row, column], share)
            fired += total.sum()
        counts[item] = fired


@inlined
def _first_to_fire(h, v_threshold, j, first):  # type: ignore[no-untyped-def]
    for c in range(len(h)):
        first[c] = j if h[c] >= v_threshold[c] else first[c]


@inlined
def _upstream(grad, j, first, average, factor, grad_s):  # type: ignore[no-untyped-def]
    zero = grad.dtype.type(0)
    for c in range(len(grad)):
        grad_s[c] = grad[c] * factor if average or first[c] == j else zero


@inlined
def _through_reset(h, grad_v, v_threshold, v_reset, soft, grad_s):  # type: ignore[no-untyped-def]
    for c in range(len(h)):
        grad_s[c] += grad_v[c] * (-v_threshold[c] if soft else v_reset - h[c])


@inlined
def _slope(h, v_threshold, width, surrogate, slope):  # type: ignore[no-untyped-def]
    """g(x/w)/w by the number of the surrogate; one loop for each, so that each is vectorised."""
    zero, one, pi = h.dtype.type(0), h.dtype.type(1), h.dtype.type(np.pi)
    narrow = one / width
    if surrogate == 0:
        for c in range(len(h)):
            u = (h[c] - v_threshold[c]) * narrow * pi
            slope[c] = narrow / (one + u * u)
    elif surrogate == 1:
        for c in range(len(h)):
            e = np.exp(-abs(h[c] - v_threshold[c]) * narrow)
            slope[c] = narrow * (e / ((one + e) * (one + e)))
    elif surrogate == 2:
        for c in range(len(h)):
            u = (h[c] - v_threshold[c]) * narrow
            slope[c] = narrow if abs(u + u) < one else zero
    else:
        for c in range(len(h)):
            u = (h[c] - v_threshold[c]) * narrow
            slope[c] = narrow * max(one - abs(u), zero)


@inlined
def _by_shape(h, grad_s, slope, grad_v, v_threshold, width, soft, by_threshold, by_width):  # type: ignore[no-untyped-def]
    zero = h.dtype.type(0)
    for c in range(len(h)):
        through = grad_s[c] * slope[c]
        fires = h[c] >= v_threshold[c]
        by_threshold[c] -= through + (grad_v[c] if soft and fires else zero)
        by_width[c] -= through * ((h[c] - v_threshold[c]) / width)


@inlined
def _back(  # type: ignore[no-untyped-def]
    x, scale, shift, k, h, h_before, grad_s, slope, v_threshold, v_reset, soft, begins, fresh, grad_v, by_k, by_y
):
    zero = h.dtype.type(0)
    for c in range(len(h)):
        kept = grad_v[c] if soft or h[c] < v_threshold[c] else zero
        grad_h = grad_s[c] * slope[c] + kept
        fired = h_before[c] >= v_threshold[c]
        v_before = ((h_before[c] - v_threshold[c]) if soft else v_reset) if fired else h_before[c]
        v_before = v_reset if begins else v_before
        y = x[c] * scale[c] + shift[c]
        by_k[c] += grad_h * (y - (v_before - v_reset))
        by_y[c] = grad_h * k[c] if fresh else by_y[c] + grad_h * k[c]
        grad_v[c] = grad_h - grad_h * k[c]


@inlined
def _moments(x, centre, by_y, total, product):  # type: ignore[no-untyped-def]
    for c in range(len(x)):
        total[c] += by_y[c]
        product[c] += by_y[c] * (x[c] - centre[c])


@inlined
def _flush(parts, total):  # type: ignore[no-untyped-def]
    for c in range(len(parts)):
        total[c] += parts[c]
        parts[c] = 0


SURROGATES = {"arctan": 0, "sigmoid": 1, "rectangular": 2, "triangular": 3}
"""The numbers of the surrogates, for :func:`backward`."""


@compiled(parallel=True)
def backward(  # type: ignore[no-untyped-def]
    x, scale, shift, centre, k, v_threshold, v_reset, soft, detach, surrogate, surrogate_width, shape_too, window,
    average, span, grad, grad_y, by_k, by_threshold, by_width, moments,
):  # fmt: skip
    """Gradients of :func:`forward`, whose potentials are computed again (Eq. 8–16).

    Args:
        x: As there.
        scale: As there.
        shift: As there.
        centre: About which the second moment is taken, the mean of batch norm, ``[T or 1, C]``.
        k: As there.
        v_threshold: As there.
        v_reset: As there.
        soft: As there.
        detach: Leave the spike of the reset out.
        surrogate: Its number.
        surrogate_width: w.
        shape_too: Gradients of v_threshold and surrogate_width are wanted.
        window: As there.
        average: As there.
        span: As there.
        grad: Of the result, ``[T, N, H', W', C]``.
        grad_y: Result: gradient of the affine's output, of the shape of x.
        by_k: Result, float64, 0 beforehand: of k, ``[items, C]``, or ``[H·W, C]`` where each neuron has its own.
        by_threshold: Result, float64 ``[items, C]``, 0 beforehand.
        by_width: The same.
        moments: Result, float64 ``[items, T or 1, 2, C]``, 0 beforehand: sums of grad_y, and of it times x − centre;
            left out where T or 1 is 0.
    """
    steps, samples, height, width, channels = x.shape
    T, rows, columns = grad.shape[0], grad.shape[2], grad.shape[3]
    across = (width + window - 1) // window
    spans = (across + span - 1) // span
    own_k, sums = len(k) > 1, moments.shape[1]
    real = x.dtype.type
    factor = real(1.0 / (window * window) if average else 1.0)
    window_size = window * window
    group = max(1, min(span, CACHED // (T * window_size * channels)))
    for item in numba.prange(((height + window - 1) // window) * spans):
        row = item // spans
        h = np.empty((T, group * window_size, channels), x.dtype)
        v = np.empty((group * window_size, channels), x.dtype)
        grad_v = np.empty((group * window_size, channels), x.dtype)
        nothing, first = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
        grad_s, slope = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
        k_sum = np.zeros((group * window_size, channels), x.dtype)
        threshold_sum, width_sum = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
        moment_sums = np.zeros((sums, 2, channels), x.dtype)
        end = min(across, (item % spans + 1) * span)
        for n in range(samples):
            for begin in range(item % spans * span, end, group):
                size = min(group, end - begin)
                v[:] = v_reset
                grad_v[:] = 0
                for t in range(T):
                    tx, ts = t if steps > 1 else 0, t if len(scale) > 1 else 0
                    for j in range(size * window_size):
                        y = row * window + j % window_size // window
                        z = (begin + j // window_size) * window + j % window
                        if y < height and z < width:
                            if t + 1 < T and steps > 1:
                                prefetch(x[t + 1, n, y, z])
                            _step(
                                x[tx, n, y, z], scale[ts], shift[ts], k[y * width + z if own_k else 0], v_threshold,
                                v_reset, soft, v[j], h[t, j],
                            )  # fmt: skip
                for t in range(T - 1, -1, -1):
                    tx, ts = t if steps > 1 else 0, t if len(scale) > 1 else 0
                    for j in range(size * window_size):
                        inside, column = j % window_size, begin + j // window_size
                        y, z = row * window + inside // window, column * window + inside % window
                        whole = row < rows and column < columns
                        if window > 1 and inside == 0 and whole and not average:
                            first[:] = 0
                            for other in range(window_size - 1, -1, -1):
                                _first_to_fire(h[t, j + other], v_threshold, real(other), first)
                        if y >= height or z >= width:
                            continue
                        upstream = grad[t, n, row, column] if whole else nothing
                        if t > 0 and steps > 1:
                            prefetch(grad_y[t - 1, n, y, z])
                            if inside == 0 and whole:
                                prefetch(grad[t - 1, n, row, column])
                        _upstream(upstream, real(inside), first, average, factor, grad_s)
                        if not detach:
                            _through_reset(h[t, j], grad_v[j], v_threshold, v_reset, soft, grad_s)
                        _slope(h[t, j], v_threshold, surrogate_width, surrogate, slope)
                        if shape_too:
                            _by_shape(
                                h[t, j], grad_s, slope, grad_v[j], v_threshold, surrogate_width, soft, threshold_sum,
                                width_sum,
                            )  # fmt: skip
                        _back(
                            x[tx, n, y, z], scale[ts], shift[ts], k[y * width + z if own_k else 0], h[t, j],
                            h[max(t - 1, 0), j], grad_s, slope, v_threshold, v_reset, soft, t == 0,
                            steps > 1 or t == T - 1, grad_v[j], k_sum[j], grad_y[tx, n, y, z],
                        )  # fmt: skip
                        if sums and (steps > 1 or t == 0):
                            now = moment_sums[t if sums > 1 else 0]
                            _moments(x[tx, n, y, z], centre[ts], grad_y[tx, n, y, z], now[0], now[1])
                for j in range(size * window_size):
                    y = row * window + j % window_size // window
                    z = (begin + j // window_size) * window + j % window
                    if own_k and y < height and z < width:
                        _flush(k_sum[j], by_k[y * width + z])
            for t in range(sums):
                _flush(moment_sums[t, 0], moments[item, t, 0])
                _flush(moment_sums[t, 1], moments[item, t, 1])
            if not own_k:
                for j in range(len(k_sum)):
                    _flush(k_sum[j], by_k[item])
            if shape_too:
                _flush(threshold_sum, by_threshold[item])
                _flush(width_sum, by_width[item])


@inlined
def _deviations(x, pivot, total, square):  # type: ignore[no-untyped-def]
    for c in range(len(x)):
        d = x[c] - pivot[c]
        total[c] += d
        square[c] += d * d


@compiled(parallel=True)
def statistics(x, pivot, sums):  # type: ignore[no-untyped-def]
    """Adds up ``sums [H, T or 1, 2, C]``, float64, 0 beforehand: of x − pivot ``[T or 1, C]``, and of its square."""
    steps, samples, height, width, channels = x.shape
    for y in numba.prange(height):
        part = np.zeros((2, channels), x.dtype)
        for t in range(steps):
            for n in range(samples):
                for z in range(width):
                    _deviations(x[t, n, y, z], pivot[t], part[0], part[1])
                _flush(part[0], sums[y, t, 0])
                _flush(part[1], sums[y, t, 1])


@inlined
def _combine(grad, x, by_grad, by_x, constant):  # type: ignore[no-untyped-def]
    for c in range(len(grad)):
        grad[c] = grad[c] * by_grad[c] + x[c] * by_x[c] + constant[c]


@compiled(parallel=True)
def combine(grad, x, by_grad, by_x, constant):  # type: ignore[no-untyped-def]
    """Makes ``grad`` by_grad · grad + by_x · x + constant, each ``[T or 1, C]``: the backward of batch norm."""
    steps, samples, height, width = x.shape[:4]
    for y in numba.prange(height):
        for t in range(steps):
            ts = t if len(by_grad) > 1 else 0
            for n in range(samples):
                for z in range(width):
                    _combine(grad[t, n, y, z], x[t, n, y, z], by_grad[ts], by_x[ts], constant[ts])
