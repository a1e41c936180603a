"""The Triton programs of :mod:`plifctl.snn.kernels.triton`: statistics, forward, backward and dropout.

A tile is ``[P, K, CB]``: P windows, K neurons of a pooling window (rounded up to a power of two, the excess masked), CB
channels, which are contiguous in memory. Windows at the border may be cut off: their neurons fire, but are not pooled.
Each program writes its sums to memory of its own, without atomic additions, so that they are reproducible.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def statistics(x, pivot, partial, rows, channels, stride_t, P: tl.constexpr, CB: tl.constexpr, REAL: tl.constexpr):
    """Sums x − pivot and its square of each step and channel into ``partial [programs, T, 2, C]``."""
    program, t = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    channel_mask = channel < channels
    pivot_c = tl.load(pivot + t * channels + channel, mask=channel_mask, other=0).to(REAL)
    total, square = tl.zeros([P, CB], REAL), tl.zeros([P, CB], REAL)
    for block in range(program, tl.cdiv(rows, P), tl.num_programs(0)):
        row = block * P + tl.arange(0, P)
        mask = (row < rows)[:, None] & channel_mask[None, :]
        source = x + t.to(tl.int64) * stride_t + row.to(tl.int64)[:, None] * channels + channel[None, :]
        value = tl.where(mask, tl.load(source, mask=mask, other=0).to(REAL) - pivot_c[None, :], 0)
        total += value
        square += value * value
    sums = partial + (program * tl.num_programs(2) + t) * 2 * channels + channel
    tl.store(sums, tl.sum(total, 0), mask=channel_mask)
    tl.store(sums + channels, tl.sum(square, 0), mask=channel_mask)


@triton.jit
def _tile(block, size, height, width, channels, window, K: tl.constexpr, P: tl.constexpr, CB: tl.constexpr):
    """Returns the position of a tile in one step of the input and of the output.

    Returns:
        Channels ``[CB]``; offsets of the neurons in the input and their mask, ``[P, K, CB]``; offsets of the windows in
        the output and their mask, ``[P, CB]``; positions of the neurons in the image, ``[P, K]``.
    """
    rows, columns = tl.cdiv(height, window), tl.cdiv(width, window)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    index = block * P + tl.arange(0, P)
    sample, in_sample = index // (rows * columns), index % (rows * columns)
    top, left = in_sample // columns * window, in_sample % columns * window
    j = tl.arange(0, K)
    y, x = top[:, None] + (j // window)[None, :], left[:, None] + (j % window)[None, :]
    exists = (j < window * window)[None, :] & (index < size * rows * columns)[:, None] & (y < height) & (x < width)
    neuron = (sample.to(tl.int64)[:, None] * height + y) * width + x
    mask = exists[:, :, None] & (channel < channels)[None, None, :]
    offset = neuron[:, :, None] * channels + channel[None, None, :]
    complete = (index < size * rows * columns) & (top + window <= height) & (left + window <= width)
    pooled = (sample.to(tl.int64) * (height // window) + top // window) * (width // window) + left // window
    pooled_mask = complete[:, None] & (channel < channels)[None, :]
    return channel, offset, mask, pooled[:, None] * channels + channel[None, :], pooled_mask, y * width + x


@triton.jit
def _charge(x, scale, shift, v, k, RESET: tl.constexpr):
    """Returns the input after batch norm, and the potential before firing (Eq. 5)."""
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
    channel, offset, mask, pooled_offset, pooled_mask, position = _tile(
        tl.program_id(0), size, height, width, channels, window, K, P, CB
    )
    channel_mask = channel < channels
    k_n = tl.load(k + position[:, :, None] * stride_k + channel[None, None, :], mask=mask, other=1).to(REAL)
    v_th = tl.load(threshold).to(REAL)
    v = tl.full([P, K, CB], RESET, REAL)
    count = tl.zeros([P, K, CB], REAL)
    source, target = x + offset, out + pooled_offset
    scale += channel
    shift += channel
    for _ in tl.range(steps, num_stages=3):  # loads two steps ahead: little else hides the latency of memory
        scale_c = tl.load(scale, mask=channel_mask, other=0).to(REAL)
        shift_c = tl.load(shift, mask=channel_mask, other=0).to(REAL)
        _, h = _charge(tl.load(source, mask=mask, other=0).to(REAL), scale_c, shift_c, v, k_n, RESET)
        spike = tl.where(mask & (h - v_th >= 0), 1.0, 0.0).to(REAL)
        v = _reset(h, spike, v_th, RESET, SOFT)
        count += spike
        pooled = tl.sum(spike, 1) / (window * window) if AVERAGE else tl.max(spike, 1)
        tl.store(target, pooled, mask=pooled_mask)
        source += stride_t
        target += stride_out
        scale += stride_m
        shift += stride_m
    tl.store(counts + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(count))


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
    STATIC: tl.constexpr, K_PER_NEURON: tl.constexpr, FIRING_GRADS: tl.constexpr, SUM_ONLY: tl.constexpr,
    K: tl.constexpr, P: tl.constexpr, CB: tl.constexpr, REAL: tl.constexpr,
):  # fmt: skip
    """Recomputes the potentials, keeps them in ``scratch``, which the next tile reuses, and goes back through time.

    With SUM_ONLY it only sums the gradient g of batch norm's output, and g · (x − mean), into
    ``sums [programs, T, 2, C]`` (one row where batch norm has one). Without, it writes the gradient of X,
    ``by_grad · g + by_x · x + constant``, and of k (``[N, H, W, C]`` where each neuron has its own), and sums the
    gradients of k, threshold and width over a program into ``partial [programs, 3, C]``.

    Source: Eq. 8–16.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(size * tl.cdiv(height, window) * tl.cdiv(width, window), P)
    own = (program * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * steps * P
    slots = scratch + ((own + tl.arange(0, P))[:, None] * K + tl.arange(0, K)[None, :])[:, :, None] * CB
    slots += tl.arange(0, CB)[None, None, :]
    v_th, surrogate_w = tl.load(threshold).to(REAL), tl.load(surrogate_width).to(REAL)
    k_sum, threshold_sum, width_sum = tl.zeros([CB], REAL), tl.zeros([CB], REAL), tl.zeros([CB], REAL)
    for block in range(program, blocks, tl.num_programs(0)):
        channel, offset, mask, pooled_offset, pooled_mask, position = _tile(
            block, size, height, width, channels, window, K, P, CB
        )
        channel_mask = channel < channels
        k_n = tl.load(k + position[:, :, None] * stride_k + channel[None, None, :], mask=mask, other=1).to(REAL)
        v = tl.full([P, K, CB], RESET, REAL)
        source, slot, row = x + offset, slots, channel
        for _ in range(steps):
            tl.store(slot, v)
            scale_c = tl.load(scale + row, mask=channel_mask, other=0).to(REAL)
            shift_c = tl.load(shift + row, mask=channel_mask, other=0).to(REAL)
            _, h = _charge(tl.load(source, mask=mask, other=0).to(REAL), scale_c, shift_c, v, k_n, RESET)
            v = _reset(h, tl.where(h - v_th >= 0, 1.0, 0.0).to(REAL), v_th, RESET, SOFT)
            source += stride_t
            slot += K * P * CB
            row += stride_m
        tl.debug_barrier()
        source, row, grad_source = x + offset + last_t, channel + last_m, grad + pooled_offset + last_out
        target = grad_x + offset + last_t
        d_v, d_k, d_y_sum = tl.zeros([P, K, CB], REAL), tl.zeros([P, K, CB], REAL), tl.zeros([P, K, CB], REAL)
        d_threshold, d_width = tl.zeros([P, K, CB], REAL), tl.zeros([P, K, CB], REAL)
        for _ in range(steps):
            slot -= K * P * CB
            v = tl.load(slot)
            scale_c = tl.load(scale + row, mask=channel_mask, other=0).to(REAL)
            shift_c = tl.load(shift + row, mask=channel_mask, other=0).to(REAL)
            value = tl.load(source, mask=mask, other=0).to(REAL)
            y, h = _charge(value, scale_c, shift_c, v, k_n, RESET)
            u = (h - v_th) / surrogate_w
            spike = tl.where(h - v_th >= 0, 1.0, 0.0).to(REAL)
            slope = _surrogate(u, SURROGATE) / surrogate_w
            upstream = tl.load(grad_source, mask=pooled_mask, other=0).to(REAL)[:, None, :]
            if AVERAGE:
                d_spike = tl.where(mask, upstream / (window * window), 0)
            else:  # to the first of the largest, as max_pool2d does
                first = tl.argmax(tl.where(mask, spike, -1), 1)
                d_spike = tl.where(mask & (tl.arange(0, K)[None, :, None] == first[:, None, :]), upstream, 0)
            if not DETACH:
                d_spike += d_v * (-v_th if SOFT else RESET - h)
            through_spike = d_spike * slope
            d_h = through_spike + (d_v if SOFT else d_v * (1 - spike))
            if FIRING_GRADS:
                d_threshold -= through_spike + d_v * spike if SOFT else through_spike
                d_width -= through_spike * u
            d_k += d_h * (y - (v - RESET))
            d_y = d_h * k_n
            d_v = d_h * (1 - k_n)
            if SUM_ONLY:
                mean_c = tl.load(mean + row, mask=channel_mask, other=0).to(REAL)
                step_sums = sums + (program * (last_m // channels + 1) * channels + row - channel) * 2 + channel
                total = tl.sum(tl.sum(d_y, 0), 0)
                product = tl.sum(tl.sum(d_y * (value - mean_c[None, None, :]), 0), 0)
                tl.store(step_sums, tl.load(step_sums, mask=channel_mask, other=0) + total, mask=channel_mask)
                step_sums += channels
                tl.store(step_sums, tl.load(step_sums, mask=channel_mask, other=0) + product, mask=channel_mask)
                tl.debug_barrier()  # the next load may be another thread's
            elif STATIC:
                d_y_sum += d_y
            else:
                a = tl.load(by_grad + row, mask=channel_mask, other=0)[None, None, :]
                b = tl.load(by_x + row, mask=channel_mask, other=0)[None, None, :]
                c = tl.load(constant + row, mask=channel_mask, other=0)[None, None, :]
                tl.store(target, a * d_y + b * value + c, mask=mask)
                target -= stride_t
            source -= stride_t
            grad_source -= stride_out
            row -= stride_m
        if not SUM_ONLY:
            if STATIC:
                value = tl.load(x + offset, mask=mask, other=0).to(REAL)
                a = tl.load(by_grad + channel, mask=channel_mask, other=0)[None, None, :]
                b = tl.load(by_x + channel, mask=channel_mask, other=0)[None, None, :]
                c = tl.load(constant + channel, mask=channel_mask, other=0)[None, None, :]
                tl.store(grad_x + offset, a * d_y_sum + b * value + c, mask=mask)
            if K_PER_NEURON:
                tl.store(grad_k + offset, d_k, mask=mask)
            else:
                k_sum += tl.sum(tl.sum(d_k, 0), 0)
            threshold_sum += tl.sum(tl.sum(d_threshold, 0), 0)
            width_sum += tl.sum(tl.sum(d_width, 0), 0)
        tl.debug_barrier()  # before the next tile overwrites the potentials
    if not SUM_ONLY:
        channel = tl.program_id(1) * CB + tl.arange(0, CB)
        target = partial + program * 3 * channels + channel
        tl.store(target, k_sum, mask=channel < channels)
        tl.store(target + channels, threshold_sum, mask=channel < channels)
        tl.store(target + 2 * channels, width_sum, mask=channel < channels)


@triton.jit
def _hash_key(part):
    """Computes ``hash_keys`` of one part, int64."""
    z = part - 7046029254386353131
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


@triton.jit
def dropout(keys, mask, layer, features, limit, kept, BLOCK: tl.constexpr):
    """Draws ``held_dropout_mask(hash_keys(keys, layer), features, p)``: ``mask [N, features]``, 0 or ``kept``."""
    feature = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sample = tl.program_id(1) + tl.zeros([BLOCK], tl.int64)
    layer_key = _hash_key(_hash_key(tl.load(keys + sample)) + layer)
    word = _hash_key(_hash_key(layer_key) + feature // 4)  # four numbers in a word
    number = (word >> (feature % 4 * 16).to(tl.int64)) & 0xFFFF
    drawn = tl.where((number ^ 0x8000) >= limit, kept, 0.0)
    tl.store(mask + sample * features + feature, drawn, mask=feature < features)
