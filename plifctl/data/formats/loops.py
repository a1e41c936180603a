"""Compiled loops of decoders whose events have one size. Imported only when a recording of theirs is decoded."""

from __future__ import annotations

import numpy as np

from plifctl.jit import compiled


@compiled()
def decode_words(words, packets, t, x, y, p):  # type: ignore[no-untyped-def]
    """AEDAT 3.1: decodes the words, uint32, of packets ``[n, 3]``: index of the first word, events, overflow count.

    The loop has no branches, so that it is vectorised.

    Returns:
        Whether every event is marked valid, whether the times ascend, and whether no time is negative.
    """
    valid, signs, n = np.uint32(1), np.uint32(0), 0
    for k in range(len(packets)):
        first, count, high = packets[k, 0], packets[k, 1], packets[k, 2] << 31
        packet = words[first : first + 2 * count]  # indexing without an offset, which might be negative, is vectorised
        times, columns, rows, polarities = t[n : n + count], x[n : n + count], y[n : n + count], p[n : n + count]
        for i in range(count):
            word = packet[2 * i]
            valid &= word
            time = packet[2 * i + 1]
            signs |= time
            times[i] = high | np.int64(time & np.uint32(0x7FFFFFFF))
            columns[i] = word >> np.uint32(17)
            rows[i] = (word >> np.uint32(2)) & np.uint32(0x7FFF)
            polarities[i] = (word >> np.uint32(1)) & np.uint32(1)
        n += count
    return valid != 0, is_ascending(t), signs < np.uint32(0x80000000)


@compiled()
def decode_pairs(words, transposed, t, x, y, p):  # type: ignore[no-untyped-def]
    """AEDAT 2.0: decodes addresses and times, big-endian, uint32 ``[2n]``, as those of a DVS128.

    Returns:
        All bits that are set in any address, and whether the times ascend.
    """
    bits = np.uint32(0)
    for i in range(len(t)):
        address = _byteswap(words[2 * i])
        bits |= address
        low, high = (address >> np.uint32(1)) & np.uint32(0x7F), (address >> np.uint32(8)) & np.uint32(0x7F)
        t[i] = _byteswap(words[2 * i + 1])
        x[i] = np.uint32(127) - (high if transposed else low)
        y[i] = np.uint32(127) - low if transposed else high
        p[i] = np.uint32(1) - (address & np.uint32(1))
    return bits, is_ascending(t)


@compiled()
def decode_davis_pairs(words, t, x, y, p):  # type: ignore[no-untyped-def]
    """AEDAT 2.0: decodes addresses and times, big-endian, uint32 ``[2n]``, as those of a DAVIS.

    Every word is written as an event, and overwritten if it is none.

    Returns:
        Number of events, number of words with bit 31, and whether the times of the events ascend.
    """
    n, images = np.int64(0), np.int64(0)
    for i in range(len(t)):
        address = _byteswap(words[2 * i])
        t[n] = _byteswap(words[2 * i + 1])
        x[n], y[n] = (address >> np.uint32(12)) & np.uint32(0x3FF), (address >> np.uint32(22)) & np.uint32(0x1FF)
        p[n] = (address >> np.uint32(11)) & np.uint32(1)
        n += np.int64((address & np.uint32(0x80000400)) == 0)
        images += np.int64(address >> np.uint32(31))
    return n, images, is_ascending(t[:n])


@compiled()
def decode_dat_events(words, x_bits, y_bits, t, x, y, p):  # type: ignore[no-untyped-def]
    """Prophesee's ``.dat``: decodes times and words, uint32 ``[2n]``: from bit 0 on x, y and the polarity.

    Returns:
        All bits that are set in any word, and whether the times ascend.
    """
    bits = np.uint32(0)
    x_mask, y_mask = np.uint32((1 << x_bits) - 1), np.uint32((1 << y_bits) - 1)
    y_shift, p_shift = np.uint32(x_bits), np.uint32(x_bits + y_bits)
    for i in range(len(t)):
        t[i], word = words[2 * i], words[2 * i + 1]
        bits |= word
        x[i], y[i], p[i] = word & x_mask, (word >> y_shift) & y_mask, word >> p_shift
    return bits, is_ascending(t)


@compiled()
def decode_atis_events(data, t, x, y, p):  # type: ignore[no-untyped-def]
    """ATIS: decodes events of 5 bytes.

    Returns:
        Number of events written, without overflow marks, and whether their times ascend.
    """
    n, elapsed = 0, np.int64(0)
    for at in range(0, len(data), 5):
        if data[at + 1] == 240:  # an overflow mark
            elapsed += 1 << 13
            continue
        high = data[at + 2]
        t[n] = elapsed + ((np.int64(high & 0x7F) << 16) | (np.int64(data[at + 3]) << 8) | np.int64(data[at + 4]))
        x[n], y[n], p[n] = data[at], data[at + 1], high >> 7
        n += 1
    return n, is_ascending(t[:n])


@compiled()
def is_ascending(t):  # type: ignore[no-untyped-def]
    """Returns whether no time is earlier than the one before."""
    ascending = True
    for i in range(1, len(t)):
        ascending &= t[i] >= t[i - 1]
    return ascending


@compiled()
def _byteswap(word):  # type: ignore[no-untyped-def]
    low = (word >> np.uint32(24)) | ((word >> np.uint32(8)) & np.uint32(0xFF00))
    return np.uint32(low | ((word << np.uint32(8)) & np.uint32(0xFF0000)) | (word << np.uint32(24)))
