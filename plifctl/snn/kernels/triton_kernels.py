"""What :mod:`plifctl.snn.kernels.triton` runs on a GPU: statistics, forward and backward of norm, scan and pooling.

A tile is ``[P, K, CB]``: P windows, K neurons of a pooling window (a power of two of them, those too many masked), CB
channels, which lie side by side in memory. Windows at the edge may be cut off: their neurons fire, nothing is pooled.
Sums are kept per program, never added atomically, so that they come out the same each time.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def statistics(x, pivot, partial, rows, channels, stride_t, P: tl.constexpr, CB: tl.constexpr, REAL: tl.constexpr):
    """Sums x − pivot and its square of each step and channel into ``partial [programs, T, 2, C]``."""
    program, t = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    known = channel < channels
    middle = tl.load(pivot + t * channels + channel, mask=known, other=0).to(REAL)
    total, square = tl.zeros([P, CB], REAL), tl.zeros([P, CB], REAL)
    for block in range(program, tl.cdiv(rows, P), tl.num_programs(0)):
        row = block * P + tl.arange(0, P)
        inside = (row < rows)[:, None] & known[None, :]
        place = x + t.to(tl.int64) * stride_t + row.to(tl.int64)[:, None] * channels + channel[None, :]
        value = tl.where(inside, tl.load(place, mask=inside, other=0).to(REAL) - middle[None, :], 0)
        total += value
        square += value * value
    sums = partial + (program * tl.num_programs(2) + t) * 2 * channels + channel
    tl.store(sums, tl.sum(total, 0), mask=known)
    tl.store(sums + channels, tl.sum(square, 0), mask=known)


@triton.jit
def _tile(block, size, height, width, channels, window, K: tl.constexpr, P: tl.constexpr, CB: tl.constexpr):
    """Where a tile's neurons lie in a step of the input, its windows in one of the output, and which of them exist."""
    rows, columns = tl.cdiv(height, window), tl.cdiv(width, window)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    one = block * P + tl.arange(0, P)
    sample, rest = one // (rows * columns), one % (rows * columns)
    top, left = rest // columns * window, rest % columns * window
    part = tl.arange(0, K)
    y, x = top[:, None] + (part // window)[None, :], left[:, None] + (part % window)[None, :]
    exists = (part < window * window)[None, :] & (one < size * rows * columns)[:, None] & (y < height) & (x < width)
    neuron = (sample.to(tl.int64)[:, None] * height + y) * width + x
    inside = exists[:, :, None] & (channel < channels)[None, None, :]
    place = neuron[:, :, None] * channels + channel[None, None, :]
    whole = (one < size * rows * columns) & (top + window <= height) & (left + window <= width)
    pooled = (sample.to(tl.int64) * (height // window) + top // window) * (width // window) + left // window
    there = whole[:, None] & (channel < channels)[None, :]
    return channel, place, inside, pooled[:, None] * channels + channel[None, :], there, y * width + x


@triton.jit
def _charged(x, scale, shift, v, k, RESET: tl.constexpr):
    """Input after batch norm, and the potential before firing (Eq. 5)."""
    y = x * scale[None, None, :] + shift[None, None, :]
    return y, v + k * (y - (v - RESET))


@triton.jit
def _reset(h, spike, threshold, RESET: tl.constexpr, SOFT: tl.constexpr):
    return h - threshold * spike if SOFT else h * (1 - spike) + RESET * spike


@triton.jit
def forward(
    x, scale, shift, k, threshold, out, counts,
    steps, size, height, width, channels, window, stride_t, stride_m, stride_k, stride_out,
    RESET: tl.constexpr, SOFT: tl.constexpr, AVERAGE: tl.constexpr,
    K: tl.constexpr, P: tl.constexpr, CB: tl.constexpr, REAL: tl.constexpr,
):  # fmt: skip
    """Reads X once and writes pooled spikes; counts spikes before pooling into ``counts [programs]``."""
    channel, place, inside, pooled, there, position = _tile(
        tl.program_id(0), size, height, width, channels, window, K, P, CB
    )
    known = channel < channels
    rate = tl.load(k + position[:, :, None] * stride_k + channel[None, None, :], mask=inside, other=1).to(REAL)
    limit = tl.load(threshold).to(REAL)
    v = tl.full([P, K, CB], RESET, REAL)
    fired = tl.zeros([P, K, CB], REAL)
    source, target = x + place, out + pooled
    scale += channel
    shift += channel
    for _ in tl.range(steps, num_stages=3):  # two steps' inputs are on their way: little else hides how long they take
        factor = tl.load(scale, mask=known, other=0).to(REAL)
        offset = tl.load(shift, mask=known, other=0).to(REAL)
        _, h = _charged(tl.load(source, mask=inside, other=0).to(REAL), factor, offset, v, rate, RESET)
        spike = tl.where(inside & (h - limit >= 0), 1.0, 0.0).to(REAL)
        v = _reset(h, spike, limit, RESET, SOFT)
        fired += spike
        found = tl.sum(spike, 1) / (window * window) if AVERAGE else tl.max(spike, 1)
        tl.store(target, found, mask=there)
        source += stride_t
        target += stride_out
        scale += stride_m
        shift += stride_m
    tl.store(counts + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(fired))


@triton.jit
def _surrogate(u, SURROGATE: tl.constexpr):
    if SURROGATE == "arctan":
        g = 1 / (1 + 9.869604401089358 * u * u)  # π²
    elif SURROGATE == "sigmoid":
        half = tl.exp(-tl.abs(u))
        g = half / ((1 + half) * (1 + half))
    elif SURROGATE == "rectangular":
        g = tl.where(tl.abs(u) < 0.5, u * 0 + 1, u * 0)
    else:
        g = tl.maximum(1 - tl.abs(u), 0)
    return g


@triton.jit
def backward(
    x, scale, shift, mean, k, threshold, surrogate_width, grad, scratch,
    by_grad, by_x, constant, grad_x, grad_k, partial, sums,
    steps, size, height, width, channels, window, stride_t, stride_m, stride_k, stride_out, last_t, last_m, last_out,
    RESET: tl.constexpr, SOFT: tl.constexpr, DETACH: tl.constexpr, SURROGATE: tl.constexpr, AVERAGE: tl.constexpr,
    STATIC: tl.constexpr, OWN_RATES: tl.constexpr, SHAPE: tl.constexpr, SUMS: tl.constexpr,
    K: tl.constexpr, P: tl.constexpr, CB: tl.constexpr, REAL: tl.constexpr,
):  # fmt: skip
    """Computes the potentials again, keeps them in ``scratch``, which other tiles use again, and walks back.

    With SUMS it only sums the gradient g of batch norm's output, and g · (x − mean), into ``sums [programs, T, 2, C]``
    (with one row where batch norm has one); without, it writes the gradient of X, ``by_grad · g + by_x · x +
    constant``, those of the rates (``[N, H, W, C]`` where each neuron has its own), and sums over a program those of
    rates, threshold and width into ``partial [programs, 3, C]``.

    Source: Eq. 8–16.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(size * tl.cdiv(height, window) * tl.cdiv(width, window), P)
    own = (program * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * steps * P
    slots = scratch + ((own + tl.arange(0, P))[:, None] * K + tl.arange(0, K)[None, :])[:, :, None] * CB
    slots += tl.arange(0, CB)[None, None, :]
    limit, narrow = tl.load(threshold).to(REAL), tl.load(surrogate_width).to(REAL)
    by_rate, by_limit, by_width = tl.zeros([CB], REAL), tl.zeros([CB], REAL), tl.zeros([CB], REAL)
    for block in range(program, blocks, tl.num_programs(0)):
        channel, place, inside, pooled, there, position = _tile(block, size, height, width, channels, window, K, P, CB)
        known = channel < channels
        rate = tl.load(k + position[:, :, None] * stride_k + channel[None, None, :], mask=inside, other=1).to(REAL)
        v = tl.full([P, K, CB], RESET, REAL)
        source, slot, row = x + place, slots, channel
        for _ in range(steps):
            tl.store(slot, v)
            factor = tl.load(scale + row, mask=known, other=0).to(REAL)
            offset = tl.load(shift + row, mask=known, other=0).to(REAL)
            _, h = _charged(tl.load(source, mask=inside, other=0).to(REAL), factor, offset, v, rate, RESET)
            v = _reset(h, tl.where(h - limit >= 0, 1.0, 0.0).to(REAL), limit, RESET, SOFT)
            source += stride_t
            slot += K * P * CB
            row += stride_m
        tl.debug_barrier()
        source, row, arriving = x + place + last_t, channel + last_m, grad + pooled + last_out
        target = grad_x + place + last_t
        by_v, by_k, still = tl.zeros([P, K, CB], REAL), tl.zeros([P, K, CB], REAL), tl.zeros([P, K, CB], REAL)
        to_limit, to_width = tl.zeros([P, K, CB], REAL), tl.zeros([P, K, CB], REAL)
        for _ in range(steps):
            slot -= K * P * CB
            v = tl.load(slot)
            factor = tl.load(scale + row, mask=known, other=0).to(REAL)
            offset = tl.load(shift + row, mask=known, other=0).to(REAL)
            value = tl.load(source, mask=inside, other=0).to(REAL)
            y, h = _charged(value, factor, offset, v, rate, RESET)
            u = (h - limit) / narrow
            spike = tl.where(h - limit >= 0, 1.0, 0.0).to(REAL)
            slope = _surrogate(u, SURROGATE) / narrow
            found = tl.load(arriving, mask=there, other=0).to(REAL)[:, None, :]
            if AVERAGE:
                by_spike = tl.where(inside, found / (window * window), 0)
            else:  # to the first of the largest, as max_pool2d does
                first = tl.argmax(tl.where(inside, spike, -1), 1)
                by_spike = tl.where(inside & (tl.arange(0, K)[None, :, None] == first[:, None, :]), found, 0)
            if not DETACH:
                by_spike += by_v * (-limit if SOFT else RESET - h)
            through = by_spike * slope
            by_h = through + (by_v if SOFT else by_v * (1 - spike))
            if SHAPE:
                to_limit -= through + by_v * spike if SOFT else through
                to_width -= through * u
            by_k += by_h * (y - (v - RESET))
            by_y = by_h * rate
            by_v = by_h * (1 - rate)
            if SUMS:
                middle = tl.load(mean + row, mask=known, other=0).to(REAL)
                place_of_sums = sums + (program * (last_m // channels + 1) * channels + row - channel) * 2 + channel
                one = tl.sum(tl.sum(by_y, 0), 0)
                other = tl.sum(tl.sum(by_y * (value - middle[None, None, :]), 0), 0)
                tl.store(place_of_sums, tl.load(place_of_sums, mask=known, other=0) + one, mask=known)
                place_of_sums += channels
                tl.store(place_of_sums, tl.load(place_of_sums, mask=known, other=0) + other, mask=known)
                tl.debug_barrier()  # whoever reads it next may be another thread
            elif STATIC:
                still += by_y
            else:
                a = tl.load(by_grad + row, mask=known, other=0)[None, None, :]
                b = tl.load(by_x + row, mask=known, other=0)[None, None, :]
                c = tl.load(constant + row, mask=known, other=0)[None, None, :]
                tl.store(target, a * by_y + b * value + c, mask=inside)
                target -= stride_t
            source -= stride_t
            arriving -= stride_out
            row -= stride_m
        if not SUMS:
            if STATIC:
                value = tl.load(x + place, mask=inside, other=0).to(REAL)
                a = tl.load(by_grad + channel, mask=known, other=0)[None, None, :]
                b = tl.load(by_x + channel, mask=known, other=0)[None, None, :]
                c = tl.load(constant + channel, mask=known, other=0)[None, None, :]
                tl.store(grad_x + place, a * still + b * value + c, mask=inside)
            if OWN_RATES:
                tl.store(grad_k + place, by_k, mask=inside)
            else:
                by_rate += tl.sum(tl.sum(by_k, 0), 0)
            by_limit += tl.sum(tl.sum(to_limit, 0), 0)
            by_width += tl.sum(tl.sum(to_width, 0), 0)
        tl.debug_barrier()  # before the potentials of another tile go where these are
    if not SUMS:
        channel = tl.program_id(1) * CB + tl.arange(0, CB)
        target = partial + program * 3 * channels + channel
        tl.store(target, by_rate, mask=channel < channels)
        tl.store(target + channels, by_limit, mask=channel < channels)
        tl.store(target + 2 * channels, by_width, mask=channel < channels)


@triton.jit
def _key(parts):
    """``hash_keys`` of one part, int64."""
    z = parts - 7046029254386353131
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


@triton.jit
def dropout(keys, mask, layer, features, limit, kept, BLOCK: tl.constexpr):
    """Draws ``held_dropout_mask(hash_keys(keys, layer), features, p)``: ``mask [N, features]``, 0 or ``kept``."""
    feature = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sample = tl.program_id(1) + tl.zeros([BLOCK], tl.int64)
    of_layer = _key(_key(tl.load(keys + sample)) + layer)
    word = _key(_key(of_layer) + feature // 4)  # four numbers to a word
    number = (word >> (feature % 4 * 16).to(tl.int64)) & 0xFFFF
    drawn = tl.where((number ^ 0x8000) >= limit, kept, 0.0)
    tl.store(mask + sample * features + feature, drawn, mask=feature < features)
