"""The decoder of HDF5: layouts of data sets, cameras and simulators, and files that must not be believed."""

import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from plifctl.config.dataset import ReadingSpec
from plifctl.data.formats.detect import decode_any, summarise_any
from plifctl.data.formats.hdf5 import decode_hdf5
from plifctl.errors import DamagedFileError

EVENTS = [(0, 3, 4, 1), (1500, 1, 2, 0), (1500, 5, 6, 1)]
COLUMNS = dict(zip("txyp", np.array(EVENTS).T, strict=True))
RECORD = np.dtype([("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
TYPES = {"t": "u4", "x": "u2", "y": "u2", "p": "u1"}


def reading(**keys: object) -> ReadingSpec:
    return ReadingSpec.model_validate(keys)


def hdf5(write: Callable[[h5py.File], object]) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        write(opened)
    return file.getvalue()


def datasets(folder: str = "events", names: str = "t x y p", **options: object) -> Callable[[h5py.File], None]:
    def write(file: h5py.File) -> None:
        for name, column in zip(names.split(), "txyp", strict=True):
            file.create_dataset(f"{folder}/{name}", data=COLUMNS[column].astype(TYPES[column]), **options)

    return write


def dsec(file: h5py.File) -> None:
    datasets(chunks=(2,), **hdf5plugin.Blosc(cname="zstd"))(file)
    file["t_offset"] = np.int64(0)
    file["ms_to_idx"] = np.arange(3, dtype="u8")


def prophesee(file: h5py.File, **options: object) -> None:
    records = np.zeros(len(EVENTS), RECORD)
    for name, column in COLUMNS.items():
        records[name] = column
    file.create_dataset("CD/events", data=records, **options)
    file["CD/indexes"] = np.zeros(1, [("id", "u8"), ("ts", "i8")])
    file["EXT_TRIGGER/events"] = np.zeros(1, [("p", "i2"), ("t", "i8"), ("id", "i2")])


def v2e(file: h5py.File) -> None:
    file.create_dataset("events", data=np.array(EVENTS, "u4"), maxshape=(None, 4), compression="gzip", shuffle=True)
    file["frame"] = np.zeros((1, 3, 3))


@pytest.mark.parametrize(
    "write",
    [
        dsec,
        prophesee,
        v2e,
        datasets(names="ts xs ys ps"),
        datasets(folder=""),
        lambda file: prophesee(file, chunks=(2,), compression="lzf"),
        lambda file: prophesee(file, chunks=(1,), fletcher32=True, **hdf5plugin.Zstd()),
        lambda file: prophesee(file, chunks=(3,), **hdf5plugin.LZ4()),
        lambda file: prophesee(file, chunks=(3,), compression="gzip", fletcher32=True, shuffle=True),
    ],
)
def test_decode_hdf5_in_the_layouts_of_others(write: Callable[[h5py.File], None]) -> None:
    found = decode_any(hdf5(write), where="f", invalid="drop")
    assert found.events.tolist() == EVENTS
    assert found.dropped == 0


@pytest.mark.parametrize(("write", "n"), [(dsec, 3), (prophesee, 3), (v2e, 3), (datasets(folder="davis"), None)])
def test_summarise_hdf5_counts_the_events_of_known_layouts(write: Callable[[h5py.File], None], n: int | None) -> None:
    assert summarise_any(io.BytesIO(hdf5(write))).n_events == n
    assert summarise_any(io.BytesIO(hdf5(write)[:200])).n_events is None


def test_decode_hdf5_adds_the_offset_of_dsec() -> None:
    def write(file: h5py.File) -> None:
        dsec(file)
        file["t_offset"][...] = 2**40

    assert decode_hdf5(hdf5(write), where="f").events["t"].tolist() == [2**40, 2**40 + 1500, 2**40 + 1500]


def test_decode_hdf5_of_an_offset_with_times_that_are_no_whole_numbers_is_refused() -> None:
    def write(file: h5py.File) -> None:
        dsec(file)
        del file["events/t"]
        file["events/t"] = COLUMNS["t"].astype(float)
        file["t_offset"][...] = 1000

    with pytest.raises(DamagedFileError, match="times of float64 with a t_offset, expected whole numbers"):
        decode_hdf5(hdf5(write), where="f")


def test_decode_hdf5_by_stated_paths_and_unit() -> None:
    def write(file: h5py.File) -> None:
        for name, column in COLUMNS.items():
            file[f"davis/left/{name}_"] = column / 1e6 if name == "t" else column

    keys = reading(fields={name: f"davis/left/{name}_" for name in "txyp"}, time_unit="s")
    assert decode_hdf5(hdf5(write), where="f", reading=keys).events.tolist() == EVENTS


def test_decode_hdf5_matrix_in_a_stated_order() -> None:
    matrix = np.array([(x, y, 9, t, 2 * p - 1) for t, x, y, p in EVENTS], "f8")
    data = hdf5(lambda file: file.create_dataset("events", data=matrix))
    keys = reading(columns=["x", "y", "-", "t", "p"])
    assert decode_hdf5(data, where="f", reading=keys).events.tolist() == EVENTS
    with pytest.raises(DamagedFileError, match=r"f: events: an array of shape \[3, 5\], expected named columns"):
        decode_hdf5(data, where="f")


@pytest.mark.parametrize("folder", ["events", ""])
def test_decode_hdf5_partly_stated_names(folder: str) -> None:
    data = hdf5(datasets(folder, names="when x y sign"))
    assert decode_hdf5(data, where="f", reading=reading(fields={"t": "when", "p": "sign"})).events.tolist() == EVENTS
    with pytest.raises(DamagedFileError, match=r"f: no 'time', expected as t .* found .*when") as error:
        decode_hdf5(data, where="f", reading=reading(fields={"t": "time", "p": "sign"}))
    assert error.value.hint == "correct fields: in the data set's YAML"


def test_decode_hdf5_without_events_gives_none() -> None:
    data = hdf5(lambda file: file.create_dataset("events", data=np.zeros((0, 4)), chunks=(8, 4), maxshape=(None, 4)))
    assert len(decode_hdf5(data, where="f").events) == 0


def test_decode_hdf5_of_another_layout_lists_what_is_there() -> None:
    def write(file: h5py.File) -> None:
        file["davis/left/events"], file["frames"] = np.zeros((3, 4)), np.zeros(3)

    with pytest.raises(DamagedFileError, match="f: contains davis/left, frames, expected the events of DSEC") as error:
        decode_hdf5(hdf5(write), where="f")
    assert "fields: {t: PATH" in error.value.hint


def test_decode_hdf5_compressed_by_ecf_names_the_plugin() -> None:
    data = hdf5(lambda file: prophesee(file, chunks=(3,), **hdf5plugin.Blosc()))
    number = (32001).to_bytes(2, "little")
    assert data.count(number) == 1
    with pytest.raises(
        DamagedFileError, match="f: CD/events: compressed by Prophesee's ECF, needs its plugin"
    ) as error:
        decode_hdf5(data.replace(number, (0x8ECF).to_bytes(2, "little")), where="f")
    assert "HDF5_PLUGIN_PATH" in error.value.hint
    assert "metavision_file_to_csv" in error.value.hint


def test_decode_hdf5_compressed_by_an_uncommon_filter_is_refused() -> None:
    data = hdf5(lambda file: prophesee(file, chunks=(3,), **hdf5plugin.BZip2()))
    with pytest.raises(DamagedFileError, match="compressed by HDF5's filter 307, expected gzip, ") as error:
        decode_hdf5(data, where="f")
    assert "h5repack" in error.value.hint


def external_link(file: h5py.File, folder: str) -> None:
    file["events"] = h5py.ExternalLink(f"{folder}/other.h5", "events")


def soft_link(file: h5py.File, folder: str) -> None:
    v2e(file)
    file.move("events", "others")
    file["events"] = h5py.SoftLink("/others")


def virtual(file: h5py.File, folder: str) -> None:
    layout = h5py.VirtualLayout((3, 4), "u4")
    layout[:] = h5py.VirtualSource(f"{folder}/other.h5", "events", (3, 4))
    file.create_virtual_dataset("events", layout)


def external_storage(file: h5py.File, folder: str) -> None:
    file.create_dataset("events", (3, 4), "u4", external=[(f"{folder}/other.bin", 0, 48)])


def missing_chunks(file: h5py.File, folder: str) -> None:
    file.create_dataset("events", (9, 4), "u4", chunks=(3, 4))[3:] = 1


def nothing_written(file: h5py.File, folder: str) -> None:
    file.create_dataset("events", (10, 4), "u4")


def texts(file: h5py.File, folder: str) -> None:
    file["events"] = ["a", "b"]


def huge(file: h5py.File, folder: str) -> None:
    file.create_dataset("events", (2**40, 4), "u4", chunks=(2**20, 4))


@pytest.mark.parametrize(
    "write",
    [external_link, soft_link, virtual, external_storage, missing_chunks, nothing_written, texts, huge],
)
def test_decode_hdf5_whose_content_is_not_in_the_file_is_refused(
    write: Callable[[h5py.File, str], None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("others")
    with h5py.File(folder / "other.h5", "w") as other:
        v2e(other)
    (folder / "other.bin").write_bytes(bytes(48))
    with pytest.raises(DamagedFileError, match=r"f: (damaged|contains)"):
        decode_hdf5(hdf5(lambda file: write(file, str(folder))), where="f")


@pytest.mark.parametrize("compressor", ["gzip", "zstd", "lz4", "blosc"])
@pytest.mark.long
def test_decode_hdf5_chunk_that_unpacks_to_more_than_it_holds_is_refused_without_memory(compressor: str) -> None:
    import resource
    import zlib

    import zstandard

    zeros = bytes(2**20)
    many = 2**9  # of zeros: 512 MiB
    if compressor == "gzip":
        packer = zlib.compressobj(9)
        packed = b"".join(packer.compress(zeros) for _ in range(many)) + packer.flush()
    elif compressor == "zstd":
        packed = zstandard.ZstdCompressor().compress(zeros * many)
    elif compressor == "lz4":
        packed = (2**29).to_bytes(8, "big") + (2**20).to_bytes(4, "big") + bytes(100)
    else:
        packed = b"\x02\x01\x11\x04" + (2**29).to_bytes(4, "little") + (2**20).to_bytes(4, "little") + bytes(100)
    options = {
        "gzip": {"compression": "gzip"},
        "zstd": hdf5plugin.Zstd(),
        "lz4": hdf5plugin.LZ4(),
        "blosc": hdf5plugin.Blosc(),
    }[compressor]

    def write(file: h5py.File) -> None:
        created = file.create_dataset("events", (3, 4), "u4", chunks=(3, 4), **options)
        created.id.write_direct_chunk((0, 0), packed)

    data = hdf5(write)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFileError, match="a chunk unpacks to more than 48 bytes"):
        decode_hdf5(data, where="f")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # kB


@pytest.mark.parametrize("options", [{"compression": "gzip"}, hdf5plugin.Blosc(), {"compression": "lzf"}])
def test_decode_hdf5_chunk_of_a_size_that_is_not_in_the_file_is_refused_without_memory(options: Any) -> None:
    sizes = []

    def write(file: h5py.File) -> None:
        created = file.create_dataset("events", data=np.arange(300).reshape(75, 4) % 7, chunks=(75, 4), **options)
        sizes.append(created.id.get_chunk_info(0).size)

    data = hdf5(write)
    key = sizes[0].to_bytes(4, "little") + bytes(4 + 3 * 8)  # size, filters left out, offsets, in the tree of chunks
    assert data.count(key) == 1
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match="a chunk ends after the file"):
            decode_hdf5(data.replace(key, (sizes[0] + 2**31).to_bytes(4, "little") + key[4:]), where="f")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_decode_hdf5_blosc_without_its_values_is_refused() -> None:
    def write(file: h5py.File) -> None:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((3, 4))
        created.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((3, 4))
        found = h5py.h5d.create(file.id, b"events", h5py.h5t.NATIVE_UINT32, space, created)
        found.write_direct_chunk((0, 0), bytes(20))

    data = hdf5(write)
    values = data.index(b"blosc") - 4  # the number of values in the filter's message
    data = data[: values + 2] + bytes(2) + data[values + 4 :]
    with pytest.raises(DamagedFileError, match="Blosc with the values"):
        decode_hdf5(data, where="f")


@pytest.mark.parametrize("part", [b"", b"\x89HDF\r\n\x1a\n", hdf5(v2e)[:900], hdf5(v2e)[:-1]])
def test_decode_hdf5_cut_off_is_refused(part: bytes) -> None:
    with pytest.raises(DamagedFileError, match="f: "):
        decode_hdf5(part, where="f")
