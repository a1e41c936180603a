"""Mutated files of every format: decoders raise errors of plifctl, or return valid events."""

import struct
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from factories import AEDAT4_PACKINGS, encode_aedat4, random_events
from raw_files import (
    AEDAT2_HEADER,
    AEDAT3_HEADER,
    aedat3_packet,
    aedat3_word,
    encode_cifar_batch,
    encode_dat,
    encode_evt,
    encode_npy,
    encode_npz,
)

from plifctl.data.events import Decoded
from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.data.formats.aedat3 import decode_aedat3
from plifctl.data.formats.aedat4 import decode_aedat4
from plifctl.data.formats.arrays import decode_npy, decode_npz
from plifctl.data.formats.atis import decode_atis
from plifctl.data.formats.cifar import decode_cifar_batch
from plifctl.data.formats.dat import decode_dat
from plifctl.data.formats.evt import decode_evt
from plifctl.data.formats.idx import decode_idx
from plifctl.errors import PlifctlError

EVENTS = random_events(np.random.default_rng(1), 40)
COLUMNS = {name: EVENTS[name] for name in "txyp"}
MATRIX = np.array(((3, 4, 1, 20), (1, 2, 0, 10), (5, 6, 1, 20)))


def check_events(largest: int, data: bytes, found: Decoded) -> None:
    t, x, y, p = (found.events[name] for name in "txyp")
    assert (np.diff(t) >= 0).all()
    assert (t >= 0).all()
    for coordinate in (x, y):
        assert ((coordinate >= 0) & (coordinate <= largest)).all()
    assert ((p == 0) | (p == 1)).all()


def check_idx(data: bytes, found: np.ndarray) -> None:
    assert found.dtype == np.uint8
    assert found.size > 0
    assert data == struct.pack(f">HBB{found.ndim}I", 0, 8, found.ndim, *found.shape) + found.tobytes()


def check_cifar(data: bytes, found: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = found
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert images.shape == (*labels.shape, 3, 32, 32)
    assert labels.ndim == 1
    assert np.isin(labels, range(10)).all()


FILES: dict[str, tuple[bytes, Callable[[bytes], Any], Callable[[bytes, Any], None]]] = {
    "aedat3": (
        AEDAT3_HEADER + aedat3_packet((aedat3_word(1, 2, 1), 3), (aedat3_word(4, 5, 0), 6)),
        partial(decode_aedat3, where="f"),
        partial(check_events, 2**15 - 1),
    ),
    "aedat2": (
        AEDAT2_HEADER + struct.pack(">IIII", 2, 1, 4, 2),
        partial(decode_aedat2, where="f", axes="authors"),
        partial(check_events, 127),
    ),
    "atis": (bytes(range(50)), partial(decode_atis, where="f"), partial(check_events, 255)),
    "idx": (struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(6), partial(decode_idx, where="f"), check_idx),
    "cifar": (encode_cifar_batch(), partial(decode_cifar_batch, where="f"), check_cifar),
}


@pytest.mark.parametrize(("content", "decode", "check"), FILES.values(), ids=FILES)
def test_decode_mutated_file_raises_plifctl_error_or_is_valid(
    content: bytes, decode: Callable[[bytes], Any], check: Callable[[bytes, Any], None]
) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(content)
        first, end = [(0, len(data)), (0, min(200, len(data))), (max(0, len(data) - 20), len(data))][rng.integers(3)]
        for offset in rng.integers(first, end, rng.integers(1, 4)):
            data[offset] = int(rng.integers(256)) if rng.random() < 0.5 else data[offset] ^ 1 << int(rng.integers(8))
        mutated = bytes(data if rng.random() < 0.7 else data[: rng.integers(len(data))])
        try:
            found = decode(mutated)
        except PlifctlError:
            refused += 1
            continue
        check(mutated, found)
    assert 100 < refused < 290


@pytest.mark.parametrize(
    ("content", "decode"),
    [
        *((encode_aedat4((0, "EVTS", EVENTS), (1, "TRIG", EVENTS), packing=p), decode_aedat4) for p in AEDAT4_PACKINGS),
        (encode_aedat4((0, "EVTS", EVENTS), (0, "EVTS", EVENTS), packing="lz4", table=False), decode_aedat4),
        (encode_dat(*EVENTS.tolist()), decode_dat),
        *((encode_evt(EVENTS, version), decode_evt) for version in ("2.0", "2.1", "3.0")),
        (encode_npy(MATRIX), decode_npy),
        (encode_npy(MATRIX.astype("f8")), decode_npy),
        (encode_npz(**COLUMNS), decode_npz),
        (encode_npz(packed=True, **COLUMNS), decode_npz),
    ],
    ids=[*AEDAT4_PACKINGS, "no-table", "dat", "evt-2.0", "evt-2.1", "evt-3.0", "npy", "npy-float", "npz", "npz-packed"],
)
@pytest.mark.long
def test_decode_mutated_container_raises_plifctl_error_or_is_valid(
    content: bytes, decode: Callable[..., Decoded]
) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        data = bytearray(content)
        for offset in rng.integers(0, len(data) if rng.random() < 0.5 else min(100, len(data)), rng.integers(1, 4)):
            data[offset] = int(rng.integers(256)) if rng.random() < 0.5 else data[offset] ^ 1 << int(rng.integers(8))
        end = len(data) if rng.random() < 0.7 else int(rng.integers(len(data)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zipfile of duplicate names, numpy of old headers
                found = decode(bytes(data[:end]), where="f")
        except PlifctlError:
            refused += 1
            continue
        assert (np.diff(found.events["t"]) >= 0).all()
        assert ((found.events["p"] == 0) | (found.events["p"] == 1)).all()
    assert refused > 100
