"""Every decoder against files made by hand, damaged files, and the real recordings."""

import io
import json
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plifctl.data.events import EVENT, Decoded
from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.data.formats.aedat3 import decode_aedat3, encode_aedat3
from plifctl.data.formats.atis import decode_atis
from plifctl.data.formats.cifar import decode_cifar_batch
from plifctl.data.formats.idx import decode_idx
from plifctl.errors import DamagedFileError, PlifctlError, RawDataError


def events(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(rows), EVENT)


HEAD3 = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
HEAD2 = b"#!AER-DAT2.0\r\n# made by hand\r\n"


def packet(*words: tuple[int, int], kind: int = 1, overflow: int = 0, capacity: int | None = None) -> bytes:
    n = len(words)
    capacity = n if capacity is None else capacity
    head = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, capacity, n, n)
    return head + b"".join(struct.pack("<II", *word) for word in words) + bytes(8 * (capacity - n))


def word(x: int, y: int, p: int, valid: int = 1) -> int:
    return x << 17 | y << 2 | p << 1 | valid


class TestAedat3:
    def test_bits_and_order(self) -> None:
        data = HEAD3 + packet((word(3, 5, 1), 20), (word(127, 0, 0), 10))
        found = decode_aedat3(data, where="f")
        assert found.events.tolist() == [(10, 127, 0, 0), (20, 3, 5, 1)]
        assert found.dropped == 0

    def test_packets_overflow_spare_room_and_other_types(self) -> None:
        data = (
            HEAD3
            + packet((word(1, 1, 0), 7), capacity=4)
            + packet((99, 3), kind=0)
            + packet((word(2, 2, 1), 5), overflow=1)
        )
        assert decode_aedat3(data, where="f").events.tolist() == [(7, 1, 1, 0), (2**31 + 5, 2, 2, 1)]

    def test_invalid_events_are_dropped_and_counted_or_kept(self) -> None:
        data = HEAD3 + packet((word(1, 1, 0, valid=0), 1), (word(2, 2, 1), 2))
        assert decode_aedat3(data, where="f").dropped == 1
        kept = decode_aedat3(data, where="f", invalid="keep")
        assert (len(kept.events), kept.dropped) == (2, 0)

    def test_nothing_but_invalid_events_names_the_option(self) -> None:
        with pytest.raises(RawDataError, match="all 1 events") as error:
            decode_aedat3(HEAD3 + packet((word(1, 1, 0, valid=0), 1)), where="f")
        assert "--set frames.invalid_events=keep" in error.value.hint

    def test_a_recording_without_events(self) -> None:
        assert len(decode_aedat3(HEAD3, where="f").events) == 0

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "f: byte 0: an empty file, expected AEDAT 3.1"),
            (HEAD2, "format AEDAT 2.0, expected AEDAT 3.1"),
            (b"#!AER-DAT3.1\r\n", "header does not end"),
            (HEAD3 + b"\0" * 10, f"byte {len(HEAD3)}: 10 bytes left"),
            (HEAD3 + packet((1, 1), (1, 2))[:-3], "the packet needs 16 bytes, 13 are left"),
            (HEAD3 + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 5, 5), "invalid packet header"),
            (HEAD3 + struct.pack("<hhiiiiii", 1, 1, -8, 4, 0, 1, 1, 1), "invalid packet header"),
            (HEAD3 + struct.pack("<hhiiiiii", 1, 1, 4, 4, 0, 0, 0, 0), "polarity events of 4 bytes"),
        ],
    )
    def test_damage_is_named_with_its_place(self, data: bytes, message: str) -> None:
        with pytest.raises(DamagedFileError, match=message.replace("(", r"\(")):
            decode_aedat3(data, where="f")

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 2**34), max_size=50), st.integers(0, 2**32 - 1))
    def test_what_is_encoded_is_decoded(self, times: list[int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        written = np.empty(len(times), EVENT)
        written["t"] = sorted(times)
        for name, end in (("x", 128), ("y", 128), ("p", 2)):
            written[name] = rng.integers(0, end, len(times))
        assert decode_aedat3(encode_aedat3(written), where="f").events.tolist() == written.tolist()

    @pytest.mark.real
    def test_real_recordings_have_the_counted_events(self, shared: Path) -> None:
        folder = shared / "data/DvsGesture"
        for name, counts in json.loads((folder / "counts.json").read_text()).items():
            found = decode_aedat3((folder / f"{name}.aedat").read_bytes(), where=name)
            assert len(found.events) == counts["events"]


class TestAedat2:
    # bits 1–7 are 5, bits 8–14 are 9, polarity bit 0
    ADDRESS = 9 << 8 | 5 << 1

    def test_axes(self) -> None:
        data = HEAD2 + struct.pack(">IIII", self.ADDRESS, 2**31 + 4, self.ADDRESS | 1, 2**31 + 5)
        t = 2**31 + 4
        assert decode_aedat2(data, where="f", axes="authors").events.tolist() == [(t, 122, 9, 1), (t + 1, 122, 9, 0)]
        assert decode_aedat2(data, where="f", axes="spikingjelly").events[0] == (t, 118, 122, 1)

    def test_other_words_are_dropped_and_counted(self) -> None:
        found = decode_aedat2(HEAD2 + struct.pack(">IIII", 1 << 31 | 7, 1, 0, 2), where="f", axes="authors")
        assert (len(found.events), found.dropped) == (1, 1)

    def test_an_event_is_no_header_line(self) -> None:
        # an address that starts with the byte of "#" is taken for a header line, but no DVS128 address does
        with pytest.raises(DamagedFileError):
            decode_aedat2(HEAD2 + struct.pack(">II", 0x23000000, 1), where="f", axes="authors")

    def test_another_camera_is_refused(self) -> None:
        data = HEAD2 + struct.pack(">IIII", 0, 1, 1 << 20, 2)
        with pytest.raises(DamagedFileError, match=f"byte {len(HEAD2) + 8}: event 1 .*another camera"):
            decode_aedat2(data, where="f", axes="authors")

    @pytest.mark.parametrize("data", [b"", b"\0" * 16, HEAD3, HEAD2 + b"\0" * 9, b"#!AER-DAT2.0"])
    def test_damage(self, data: bytes) -> None:
        with pytest.raises(DamagedFileError):
            decode_aedat2(data, where="f", axes="authors")

    def test_a_recording_without_events(self) -> None:
        assert len(decode_aedat2(HEAD2, where="f", axes="authors").events) == 0


class TestAtis:
    def test_bits_and_overflow(self) -> None:
        rows = [(3, 4, 0x80, 1, 2), (0, 240, 0, 0, 0), (5, 6, 0x01, 0, 0)]
        found = decode_atis(b"".join(map(bytes, rows)), where="f")
        assert found.events.tolist() == [(258, 3, 4, 1), (65536 + 8192, 5, 6, 0)]

    @pytest.mark.parametrize("data", [b"", b"1234", b"PK\x03\x04" + bytes(6), HEAD2])
    def test_damage(self, data: bytes) -> None:
        with pytest.raises(DamagedFileError):
            decode_atis(data, where="f")

    @pytest.mark.real
    def test_a_real_recording_as_tonic_reads_it(self, shared: Path, tmp_path: Path) -> None:
        import zipfile

        from tonic.io import read_mnist_file

        with zipfile.ZipFile(shared / "data/NMNIST/Test.zip") as archive:
            name = archive.namelist()[7]
            path = Path(archive.extract(name, tmp_path))
        theirs = read_mnist_file(str(path), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
        ours = decode_atis(path.read_bytes(), where=name).events
        assert len(ours) > 1000
        for field in ("t", "x", "y", "p"):
            np.testing.assert_array_equal(ours[field], theirs[field])


class TestIdx:
    def test_shape_and_values(self) -> None:
        data = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6))
        assert decode_idx(data, where="f").tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize("extra", [b"", bytes(5), bytes(7)])
    def test_length_must_fit(self, extra: bytes) -> None:
        with pytest.raises(DamagedFileError):
            decode_idx(struct.pack(">HBBII", 0, 8, 2, 2, 3) + extra, where="f")

    @pytest.mark.parametrize("data", [b"", b"\0\0\x0d\1", b"\x1f\x8b\x08\0"])
    def test_foreign_files(self, data: bytes) -> None:
        with pytest.raises(DamagedFileError):
            decode_idx(data, where="f")


def batch(**changes: object) -> bytes:
    tree: dict[bytes, object] = {b"data": np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), b"labels": [3, 9]}
    tree |= {key.encode(): value for key, value in changes.items()}
    return pickle.dumps(tree, protocol=2)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("touched"),)


class TestCifar:
    def test_images_and_labels(self) -> None:
        images, labels = decode_cifar_batch(batch(), where="f")
        assert images.shape == (2, 3, 32, 32)
        assert images[1, 0, 0, :3].tolist() == [0, 1, 2]
        assert labels.tolist() == [3, 9]

    def test_a_pickle_executes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DamagedFileError, match="refused"):
            decode_cifar_batch(pickle.dumps({b"data": Evil()}, protocol=2), where="f")
        assert not (tmp_path / "touched").exists()

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            # pickle's own machine dies of the first: hashing a tuple recurses without a limit
            (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.", "a key that is not text"),
            # and takes 16 GiB for the second: its memo is an array as long as the largest number
            (b"\x80\x02Nr\xff\xff\xff\x7f.", "NoneType"),
            (b"\x80\x02" + b"N0" * 600_000 + b".", "the instruction POP"),
            (b"\x80\x02" + b"N" * 1_100_000 + b".", "instructions"),
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", r"posix\.system"),
            (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "expected a CIFAR-10 batch"),
        ],
        ids=["nested-key", "large-memo", "unknown-instruction", "long-program", "foreign-name", "declared-size"],
    )
    def test_a_pickle_neither_crashes_nor_bloats(self, data: bytes, why: str) -> None:
        with pytest.raises(DamagedFileError, match=why):
            decode_cifar_batch(data, where="f")

    @pytest.mark.parametrize("protocol", [2, 3, 4])
    def test_protocols_of_published_files_and_copies(self, protocol: int) -> None:
        tree = {b"data": np.arange(3072, dtype=np.uint8).reshape(1, 3072), b"labels": [7]}
        images, labels = decode_cifar_batch(pickle.dumps(tree, protocol=protocol), where="f")
        assert (images.ravel()[:2].tolist(), labels.tolist()) == ([0, 1], [7])

    @pytest.mark.parametrize(
        "data",
        [b"", b"nonsense", batch()[:-20], batch(labels=[1]), batch(labels=[1, 10]), batch(data=[1]), pickle.dumps([1])],
    )
    def test_damage(self, data: bytes) -> None:
        with pytest.raises(DamagedFileError):
            decode_cifar_batch(data, where="f")


WHOLE: list[tuple[bytes, Callable[[bytes], object]]] = [
    (HEAD3 + packet((word(1, 2, 1), 3), (word(4, 5, 0), 6)), partial(decode_aedat3, where="f")),
    (HEAD2 + struct.pack(">IIII", 2, 1, 4, 2), partial(decode_aedat2, where="f", axes="authors")),
    (bytes(range(50)), partial(decode_atis, where="f")),
    (struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(6), partial(decode_idx, where="f")),
    (batch(), partial(decode_cifar_batch, where="f")),
]


@pytest.mark.parametrize(("whole", "decode"), WHOLE)
def test_mutated_files_raise_only_our_errors(whole: bytes, decode: Callable[[bytes], object]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = int(rng.integers(256))
        try:
            found = decode(bytes(data[: rng.integers(0, len(data) + 1)]))
        except PlifctlError:
            continue
        if isinstance(found, Decoded):
            assert (np.diff(found.events["t"]) >= 0).all()


def test_pickles_of_old_numpy_are_read() -> None:
    renamed = batch().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert decode_cifar_batch(renamed, where="f")[1].tolist() == [3, 9]
    assert io.BytesIO(renamed).read().count(b"numpy.core") == 1
