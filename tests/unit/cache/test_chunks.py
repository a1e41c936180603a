"""Chunks of a cache: encoding, checksums, reading into a given array."""

import pickle
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
from factories import build_cache, write_gestures

from plifctl.cache import Cache
from plifctl.cache.chunks import decode, encode
from plifctl.cache.fletcher32 import fletcher32
from plifctl.config.choices import Compression
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.source import RawSource


def gesture_cache(folder: Path, compression: Compression) -> Cache:
    write_gestures(folder / "raw")
    raw = open_raw(load_registry().dataset("synthetic-gesture"), RawSource(folder / "raw"))
    assert isinstance(raw, EventDataset)
    command = "plifctl prepare synthetic-gesture --T 3"
    return build_cache(raw, 3, folder / "cache", made_by=command, compression=compression)


@pytest.mark.parametrize("compression", get_args(Compression))
def test_cache_read_into_given_array_fills_it(
    tmp_path: Path, compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, rows = gesture_cache(tmp_path, compression), np.array([30, 2, 2, 17])
    out = np.full((4, *cache.shape[1:]), 99, cache.dtype)
    with h5py.File(cache.path, "r", locking=False) as file:
        expected = file["frames"][:][rows]
    if compression == "zstd":  # chunks are decoded without HDF5's filters, which allocate memory for each
        monkeypatch.setattr(h5py.Dataset, "read_direct", None)
    assert cache.read(rows, out=out) is out
    monkeypatch.undo()
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).read(rows), out)


class TestChunks:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("most", [1, 3, 200])
    def test_decode_of_encoded_gives_the_sample(self, dtype: type, most: int) -> None:
        for seed in range(20):
            rng = np.random.default_rng(seed)
            sample = (rng.integers(0, most + 1, (5, 2, 17, 13)) * (rng.random((5, 2, 17, 13)) < 0.1)).astype(dtype)
            out = np.full_like(sample, 9)
            assert decode(encode(sample, "zstd"), out)
            np.testing.assert_array_equal(out, sample)

    def test_decode_one_changed_bit_is_refused(self) -> None:
        sample = np.random.default_rng(1).integers(0, 3, (2, 16, 16)).astype(np.uint8)
        chunk = encode(sample, "zstd")
        for bit in range(8 * len(chunk)):
            damaged = bytearray(chunk)
            damaged[bit // 8] ^= 1 << bit % 8
            assert not decode(bytes(damaged), np.empty_like(sample))
        for end in range(len(chunk)):
            assert not decode(chunk[:end], np.empty_like(sample))

    def test_decode_into_another_size_is_refused(self) -> None:
        chunk = encode(np.zeros((2, 8, 8), np.uint8), "zstd")
        assert not decode(chunk, np.empty((2, 8, 9), np.uint8))

    def test_fletcher32_equals_its_definition(self) -> None:
        rng = np.random.default_rng(0)
        for length in (*range(1, 40), 719, 720, 721, 65_537):
            for data in (rng.integers(0, 256, length, np.uint8), np.full(length, 255, np.uint8)):
                whole = int(fletcher32(data))
                words = np.append(data, np.zeros(length % 2, np.uint8)).view(">u2").astype(object)
                first, second = (
                    sum(words),
                    sum(word * n for word, n in zip(words, range(len(words), 0, -1), strict=True)),
                )
                assert ((whole & 0xFFFF) % 0xFFFF, (whole >> 16) % 0xFFFF) == (first % 0xFFFF, second % 0xFFFF)
