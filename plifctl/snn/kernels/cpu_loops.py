"""The compiled loops of the fused kernel: batch norm, scan over time and pooling in one pass over memory.

Arrays are channels-last, ``[T, N, H, W, C]``; a fully connected layer has H = 1 and its features divided over W and C.
Work is divided into items, each a few pooling windows of one row, for all samples and steps: the potentials of a window
stay in the core's cache from the first step to the last, and the innermost loop runs over channels, which are
contiguous and vectorised. Each item sums into its own memory, and these sums are added in order, so results do not
depend on the number of threads.

``x`` and the arrays of the affine map may have one step for all T: an image shown T times, statistics over time.
"""

from __future__ import annotations

import numba
import numpy as np

from plifctl.config.choices import Surrogate
from plifctl.jit import compiled, inlined

MAX_CACHED = 2**17
"""Maximum number of potentials that backward keeps at once, so that they stay in a core's own cache."""


@inlined
def _step(x, scale, shift, k, v_threshold, v_reset, soft, v, h):  # type: ignore[no-untyped-def]
    """Writes the potentials of neurons before firing to ``h``, those after it to ``v``."""
    for c in range(len(h)):
        y = x[c] * scale[c] + shift[c]
        h[c] = v[c] + k[c] * (y - (v[c] - v_reset))
        v[c] = ((h[c] - v_threshold[c]) if soft else v_reset) if h[c] >= v_threshold[c] else h[c]


@inlined
def fire(  # type: ignore[no-untyped-def]
    x, x_at, scale, shift, k, v_threshold, v_reset, soft, average, v, v_at, total, pooled, pooled_at
):
    """Runs one step of neurons, adds their spikes to ``total``, and to a pooling window or takes their maximum.

    ``x``, ``v`` and ``pooled`` are flat, with the place of the first neuron: views of them would take as long to make
    as the loop. Potentials before firing and spikes stay in registers.
    """
    zero, one = v.dtype.type(0), v.dtype.type(1)
    # unsigned: a negative index would count from the end, and testing for it would stop the loop from being vectorised
    x_first, v_first, pooled_first = np.uintp(x_at), np.uintp(v_at), np.uintp(pooled_at)
    for i in range(len(total)):
        c = np.uintp(i)
        y, before = x[x_first + c] * scale[c] + shift[c], v[v_first + c]
        h = before + k[c] * (y - (before - v_reset))
        fires = h >= v_threshold[c]
        spike = one if fires else zero
        v[v_first + c] = ((h - v_threshold[c]) if soft else v_reset) if fires else h
        total[c] += spike
        # the maximum of 0 and 1 as a sum: compilers make of max() a store under a mask, which takes ten times as long
        pooled[pooled_first + c] += spike if average else spike * (one - pooled[pooled_first + c])


@inlined
def scale_sums(out, factor):  # type: ignore[no-untyped-def]
    """Multiplies sums in place."""
    for c in range(len(out)):
        out[c] *= factor


@compiled(parallel=True)
def forward(x, scale, shift, k, v_threshold, v_reset, soft, T, window, average, span, out, counts):  # type: ignore[no-untyped-def]
    """Writes pooled spikes, and counts the spikes before pooling.

    Args:
        x: Input, ``[T or 1, N, H, W, C]``.
        scale: Factor of the affine map of the input, ``[T or 1, C]``.
        shift: Offset of that map, ``[T or 1, C]``.
        k: 1/τ, ``[1 or H·W, C]``.
        v_threshold: Firing threshold, ``[C]``.
        v_reset: Reset potential, of the type of ``x``.
        soft: Soft reset, else hard.
        T: Number of time steps.
        window: Height and width of the pooling window; 1 is no pooling.
        average: Average pooling, else maximum.
        span: Number of windows in an item.
        out: Result, pooled spikes ``[T, N, H', W', C]``; windows that the border cuts off are not part of it.
        counts: Result, spikes before pooling, float64 ``[items]``.
    """
    steps, samples, height, width, channels = x.shape
    rows, columns = out.shape[2], out.shape[3]
    across = (width + window - 1) // window
    spans = (across + span - 1) // span
    flat, pooled = x.reshape(x.size), out.reshape(out.size)
    for item in numba.prange(((height + window - 1) // window) * spans):
        row = item // spans
        v = np.empty(window * window * channels, x.dtype)
        unused, total = np.empty(channels, x.dtype), np.zeros(channels, x.dtype)
        mean_factor = x.dtype.type(1.0 / (window * window))
        fired = 0.0
        for n in range(samples):
            total[:] = 0
            for column in range(item % spans * span, min(across, (item % spans + 1) * span)):
                complete = row < rows and column < columns
                v[:] = v_reset
                for t in range(T):
                    pooled_at = (((t * samples + n) * rows + row) * columns + column) * channels
                    if complete:
                        out[t, n, row, column] = 0
                    for j in range(window * window):
                        y, z = row * window + j // window, column * window + j % window
                        if y >= height or z >= width:
                            continue
                        tx, ts = t if steps > 1 else 0, t if len(scale) > 1 else 0
                        neuron = y * width + z if len(k) > 1 else 0
                        x_at = (((tx * samples + n) * height + y) * width + z) * channels
                        fire(
                            flat, x_at, scale[ts], shift[ts], k[neuron], v_threshold, v_reset, soft, average, v,
                            j * channels, total, pooled if complete else unused, pooled_at if complete else 0,
                        )  # fmt: skip
                    if complete and average:
                        scale_sums(out[t, n, row, column], mean_factor)
            fired += total.sum()
        counts[item] = fired


@inlined
def _first_to_fire(h, v_threshold, j, first):  # type: ignore[no-untyped-def]
    for c in range(len(h)):
        first[c] = j if h[c] >= v_threshold[c] else first[c]


@inlined
def _pooling_gradient(grad, j, first, average, factor, grad_s):  # type: ignore[no-untyped-def]
    zero = grad.dtype.type(0)
    for c in range(len(grad)):
        grad_s[c] = grad[c] * factor if average or first[c] == j else zero


@inlined
def _reset_gradient(h, grad_v, v_threshold, v_reset, soft, grad_s):  # type: ignore[no-untyped-def]
    for c in range(len(h)):
        grad_s[c] += grad_v[c] * (-v_threshold[c] if soft else v_reset - h[c])


@inlined
def _slope(h, v_threshold, width, surrogate, slope):  # type: ignore[no-untyped-def]
    """Writes g(x/w)/w of a surrogate, given by number; one loop for each, so that each is vectorised."""
    zero, one, pi = h.dtype.type(0), h.dtype.type(1), h.dtype.type(np.pi)
    inverse_width = one / width
    if surrogate == 0:
        for c in range(len(h)):
            u = (h[c] - v_threshold[c]) * inverse_width * pi
            slope[c] = inverse_width / (one + u * u)
    elif surrogate == 1:
        for c in range(len(h)):
            e = np.exp(-abs(h[c] - v_threshold[c]) * inverse_width)
            slope[c] = inverse_width * (e / ((one + e) * (one + e)))
    elif surrogate == 2:
        for c in range(len(h)):
            u = (h[c] - v_threshold[c]) * inverse_width
            slope[c] = inverse_width if abs(u + u) < one else zero
    else:
        for c in range(len(h)):
            u = (h[c] - v_threshold[c]) * inverse_width
            slope[c] = inverse_width * max(one - abs(u), zero)


@inlined
def _firing_gradients(h, grad_s, slope, grad_v, v_threshold, width, soft, grad_threshold, grad_width):  # type: ignore[no-untyped-def]
    zero = h.dtype.type(0)
    for c in range(len(h)):
        by_spike = grad_s[c] * slope[c]
        fires = h[c] >= v_threshold[c]
        grad_threshold[c] -= by_spike + (grad_v[c] if soft and fires else zero)
        grad_width[c] -= by_spike * ((h[c] - v_threshold[c]) / width)


@inlined
def _step_backward(  # type: ignore[no-untyped-def]
    x,
    scale,
    shift,
    k,
    h,
    h_before,
    grad_s,
    slope,
    v_threshold,
    v_reset,
    soft,
    first_step,
    overwrite,
    grad_v,
    grad_k,
    grad_y,
):
    zero = h.dtype.type(0)
    for c in range(len(h)):
        through_reset = grad_v[c] if soft or h[c] < v_threshold[c] else zero
        grad_h = grad_s[c] * slope[c] + through_reset
        fired = h_before[c] >= v_threshold[c]
        v_before = ((h_before[c] - v_threshold[c]) if soft else v_reset) if fired else h_before[c]
        v_before = v_reset if first_step else v_before
        y = x[c] * scale[c] + shift[c]
        grad_k[c] += grad_h * (y - (v_before - v_reset))
        grad_y[c] = grad_h * k[c] if overwrite else grad_y[c] + grad_h * k[c]
        grad_v[c] = grad_h - grad_h * k[c]


@inlined
def _potentials(x, n, row, begin, size, window, scale, shift, k, v_threshold, v_reset, soft, v, h):  # type: ignore[no-untyped-def]
    """Writes the potentials before firing of ``size`` windows of a sample, from ``begin`` on, for all steps."""
    steps, _, height, width, _ = x.shape
    window_size = window * window
    for t in range(len(h)):
        tx, ts = t if steps > 1 else 0, t if len(scale) > 1 else 0
        for j in range(size * window_size):
            y = row * window + j % window_size // window
            z = (begin + j // window_size) * window + j % window
            if y < height and z < width:
                neuron = y * width + z if len(k) > 1 else 0
                _step(x[tx, n, y, z], scale[ts], shift[ts], k[neuron], v_threshold, v_reset, soft, v[j], h[t, j])


@inlined
def _sum_products(x, centre, grad_y, total, product):  # type: ignore[no-untyped-def]
    for c in range(len(x)):
        total[c] += grad_y[c]
        product[c] += grad_y[c] * (x[c] - centre[c])


@inlined
def _flush(partial, total):  # type: ignore[no-untyped-def]
    for c in range(len(partial)):
        total[c] += partial[c]
        partial[c] = 0


SURROGATES: dict[Surrogate, int] = {"arctan": 0, "sigmoid": 1, "rectangular": 2, "triangular": 3}
"""Number of each surrogate, for :func:`backward`."""


@compiled(parallel=True)
def backward(  # type: ignore[no-untyped-def]
    x, scale, shift, centre, k, v_threshold, v_reset, soft, detach, surrogate, surrogate_width, firing_grads, window,
    average, span, grad, grad_y, grad_k, grad_threshold, grad_width, moments,
):  # fmt: skip
    """Computes the gradients of :func:`forward`, whose potentials are recomputed (Eq. 8–16).

    Args:
        x: As in forward, like scale, shift, k, v_threshold, v_reset, soft, window, average and span.
        scale: See x.
        shift: See x.
        centre: Mean of batch norm, about which the second moment is taken, ``[T or 1, C]``.
        k: See x.
        v_threshold: See x.
        v_reset: See x.
        soft: See x.
        detach: Ignore the spike of the reset.
        surrogate: Number of the surrogate in :data:`SURROGATES`.
        surrogate_width: w.
        firing_grads: Compute the gradients of v_threshold and surrogate_width.
        window: See x.
        average: See x.
        span: See x.
        grad: Gradient of the pooled spikes, ``[T, N, H', W', C]``.
        grad_y: Result: gradient of the output of the affine map, shape of ``x``.
        grad_k: Result, float64, initialised to zero: ``[items, C]``, or ``[H·W, C]`` where each neuron has its own k.
        grad_threshold: Result, float64 ``[items, C]``, initialised to zero.
        grad_width: Result, float64 ``[items, C]``, initialised to zero.
        moments: Result, float64 ``[items, T or 1, 2, C]``, initialised to zero: sums of grad_y and of
            grad_y · (x − centre); not computed where the second dimension is 0.
    """
    steps, samples, height, width, channels = x.shape
    T, rows, columns = grad.shape[0], grad.shape[2], grad.shape[3]
    across = (width + window - 1) // window
    spans = (across + span - 1) // span
    own_k, sums = len(k) > 1, moments.shape[1]
    real = x.dtype.type
    factor = real(1.0 / (window * window) if average else 1.0)
    window_size = window * window
    group = max(1, min(span, MAX_CACHED // (T * window_size * channels)))
    for item in numba.prange(((height + window - 1) // window) * spans):
        row = item // spans
        h = np.empty((T, group * window_size, channels), x.dtype)
        v = np.empty((group * window_size, channels), x.dtype)
        grad_v = np.empty((group * window_size, channels), x.dtype)
        no_gradient, first = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
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
                _potentials(x, n, row, begin, size, window, scale, shift, k, v_threshold, v_reset, soft, v, h)
                for t in range(T - 1, -1, -1):
                    tx, ts = t if steps > 1 else 0, t if len(scale) > 1 else 0
                    for j in range(size * window_size):
                        inside, column = j % window_size, begin + j // window_size
                        y, z = row * window + inside // window, column * window + inside % window
                        complete = row < rows and column < columns
                        if window > 1 and inside == 0 and complete and not average:
                            first[:] = 0
                            for other in range(window_size - 1, -1, -1):
                                _first_to_fire(h[t, j + other], v_threshold, real(other), first)
                        if y >= height or z >= width:
                            continue
                        upstream = grad[t, n, row, column] if complete else no_gradient
                        _pooling_gradient(upstream, real(inside), first, average, factor, grad_s)
                        if not detach:
                            _reset_gradient(h[t, j], grad_v[j], v_threshold, v_reset, soft, grad_s)
                        _slope(h[t, j], v_threshold, surrogate_width, surrogate, slope)
                        if firing_grads:
                            _firing_gradients(
                                h[t, j], grad_s, slope, grad_v[j], v_threshold, surrogate_width, soft, threshold_sum,
                                width_sum,
                            )  # fmt: skip
                        _step_backward(
                            x[tx, n, y, z], scale[ts], shift[ts], k[y * width + z if own_k else 0], h[t, j],
                            h[max(t - 1, 0), j], grad_s, slope, v_threshold, v_reset, soft, t == 0,
                            steps > 1 or t == T - 1, grad_v[j], k_sum[j], grad_y[tx, n, y, z],
                        )  # fmt: skip
                        if sums and (steps > 1 or t == 0):
                            step_sums = moment_sums[t if sums > 1 else 0]
                            _sum_products(x[tx, n, y, z], centre[ts], grad_y[tx, n, y, z], step_sums[0], step_sums[1])
                for j in range(size * window_size):
                    y = row * window + j % window_size // window
                    z = (begin + j // window_size) * window + j % window
                    if own_k and y < height and z < width:
                        _flush(k_sum[j], grad_k[y * width + z])
            for t in range(sums):
                _flush(moment_sums[t, 0], moments[item, t, 0])
                _flush(moment_sums[t, 1], moments[item, t, 1])
            for j in range(0 if own_k else len(k_sum)):
                _flush(k_sum[j], grad_k[item])
            if firing_grads:
                _flush(threshold_sum, grad_threshold[item])
                _flush(width_sum, grad_width[item])


@inlined
def _deviations(x, pivot, total, square):  # type: ignore[no-untyped-def]
    for c in range(len(x)):
        d = x[c] - pivot[c]
        total[c] += d
        square[c] += d * d


@compiled(parallel=True)
def statistics(x, pivot, sums):  # type: ignore[no-untyped-def]
    """Sums x − pivot ``[T or 1, C]`` and its square into ``sums [H, T or 1, 2, C]``, float64, initialised to zero."""
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
    """Replaces ``grad`` by by_grad · grad + by_x · x + constant, each ``[T or 1, C]``: the backward of batch norm."""
    steps, samples, height, width = x.shape[:4]
    for y in numba.prange(height):
        for t in range(steps):
            ts = t if len(by_grad) > 1 else 0
            for n in range(samples):
                for z in range(width):
                    _combine(grad[t, n, y, z], x[t, n, y, z], by_grad[ts], by_x[ts], constant[ts])
