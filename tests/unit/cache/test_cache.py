"""The cache contract: key, hit and miss, atomic build, checksums."""

import errno
import hashlib
import json
import pickle
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from factories import build_cache, random_events, write_gestures

from plifctl.cache import Cache, CacheBuilder, CacheKey, expected_bytes, find_cache, key_of, raw_independent_key
from plifctl.cache.catalogue import list_caches, removable_entries, verify_cache
from plifctl.config.base import digest_of
from plifctl.config.dataset import FramesSpec, ReadingSpec
from plifctl.config.lookup import load_registry
from plifctl.config.transforms import DropEvents
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.formats.variants import VARIANTS
from plifctl.data.frames import integrate_frames
from plifctl.data.source import RawSource
from plifctl.errors import CacheError, CorruptCacheError, DamagedFileError, MachineError, RawDataError
from plifctl.pipeline.caches import verify_caches

pytestmark = pytest.mark.usefixtures("places")


def raw_of(root: Path, *overrides: str, T: int | None = None) -> EventDataset:
    framing = load_registry().dataset("synthetic-gesture", "paper", overrides).with_T(T)
    raw = open_raw(framing, RawSource(root))
    assert isinstance(raw, EventDataset)
    return raw


@pytest.mark.long
def test_cache_has_frames_labels_and_counts_of_the_recordings(gestures: Path, tmp_path: Path) -> None:
    raw = raw_of(gestures)
    cache = build_cache(raw, 4, tmp_path / "c")
    assert cache.shape == (33, 4, 2, 128, 128)
    assert cache.labels.tolist() == list(range(11)) * 3
    assert cache.is_test.tolist() == [False] * 22 + [True] * 11
    assert cache.sample_ids[-1] == "user03_lab/10"
    assert cache.counts["n_events"].tolist() == cache.counts["n_raw"].tolist() == [400] * 33
    for member in raw.recordings():
        for row, events, *_ in raw.decode(member.name, member.load()):
            expected = integrate_frames(events, 4, "number", 128, 128)
            np.testing.assert_array_equal(cache.read(np.array([row]))[0], expected)


def test_cache_read_returns_rows_in_the_requested_order(gestures: Path, tmp_path: Path) -> None:
    cache = build_cache(raw_of(gestures), 2, tmp_path / "c")
    rows = np.array([30, 2, 2, 17])
    np.testing.assert_array_equal(cache.read(rows), cache.read(np.arange(33))[rows])
    assert cache.read(np.array([], np.int64)).shape == (0, 2, 2, 128, 128)


def test_key_has_its_literal_digest() -> None:
    # another digest makes every cache of every user a miss; only a raised version may change it
    found = load_registry().dataset("gesture")
    key = CacheKey({**raw_independent_key(found.with_T(20)), "raw": "0" * 64})
    assert key.path(Path("c")).as_posix() == "c/gesture/T20-number-" + key.digest[:12] + ".h5"
    assert json.loads(json.dumps(dict(key.fields))) == {
        "dataset": "gesture",
        "layout": "gesture",
        "shape": [2, 128, 128],
        "classes": list(found.dataset.classes),
        "decoder_version": 1,
        "integrator_version": 1,
        "transforms_version": None,
        "T": 20,
        "frames": {"slicing": "number", "outside_events": "refuse", "invalid_events": "drop", "training_set": "all"},
        "raw": "0" * 64,
    }
    assert key.digest == "3a70ee2368e099d9b3032ab1bfe02a408cb9b023d7abf2c90ba4e306c8b48f61"


def test_key_depends_on_every_choice(gestures: Path) -> None:
    changed = ((), ("frames.slicing=time",))
    keys = {key_of(raw_of(gestures, *changes, T=T)).digest for T in (4, 5) for changes in changed}
    keys.add(key_of(raw_of(gestures, "frames.invalid_events=keep", T=4)).digest)
    assert len(keys) == 5


READINGS = {
    "time_unit": "ms",
    "columns": ("t", "x", "y", "p"),
    "fields": {"t": "timestamp"},
    "source": 1,
    "transpose": True,
    "flip_x": True,
    "flip_y": True,
}
FRAMES = {
    "slicing": "time",
    "duration_us": 50_000,
    "overlap_us": 10_000,
    "outside_events": "drop",
    "invalid_events": "keep",
    "axes": "spikingjelly",
    "training_set": "first-78",
    "test_set": "first-100",
    "transforms": (DropEvents(name="drop-events", p=0.5),),
    "transform_seed": 3,
}


def test_key_depends_on_every_field_of_reading_and_framing() -> None:
    assert READINGS.keys() == ReadingSpec.model_fields.keys()
    assert FRAMES.keys() == FramesSpec.model_fields.keys()
    framing = load_registry().dataset("gesture").with_T(20)
    changed = [
        framing.model_copy(update={"dataset": framing.dataset.model_copy(update={k: v})}) for k, v in READINGS.items()
    ]
    for name, value in FRAMES.items():  # one at a time, though some need others
        changed.append(framing.model_copy(update={"frames": framing.frames.model_copy(update={name: value})}))
    digests = {digest_of(raw_independent_key(one)) for one in [framing, *changed]}
    assert len(digests) == 1 + len(READINGS) + len(FRAMES)


def test_build_with_several_workers_gives_the_same_content(gestures: Path, tmp_path: Path) -> None:
    one = build_cache(raw_of(gestures), 4, tmp_path / "one", workers=1)
    four = build_cache(raw_of(gestures), 4, tmp_path / "four", workers=4)
    assert one.content_digest == four.content_digest
    assert one.path.name == four.path.name


def test_build_of_existing_cache_builds_only_by_force(gestures: Path, tmp_path: Path) -> None:
    raw, reported = raw_of(gestures), []
    first = build_cache(raw, 2, tmp_path / "c")
    before = first.path.stat().st_mtime_ns
    build_cache(raw, 2, tmp_path / "c", progress=lambda n, of: reported.append((n, of)))
    assert reported == []
    build_cache(raw, 2, tmp_path / "c", force=True, progress=lambda n, of: reported.append((n, of)))
    assert reported[-1] == (33, 33)
    assert first.path.stat().st_mtime_ns > before


def test_build_count_over_255_gives_uint16(tmp_path: Path) -> None:
    from plifctl.data.formats.aedat3 import encode_aedat3

    write_gestures(tmp_path / "raw")
    events = random_events(np.random.default_rng(0), 700)
    events["x"], events["y"], events["p"] = 3, 4, 1
    (tmp_path / "raw/user02_lab.aedat").write_bytes(encode_aedat3(events))
    cache = build_cache(raw_of(tmp_path / "raw"), 1, tmp_path / "c")
    assert cache.dtype == np.uint16
    assert cache.read(np.array([11]))[0, 0, 1, 4, 3] == 700


def test_build_that_failed_leaves_no_cache_and_is_resumed(
    gestures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plifctl.data.thread_map._TASK_BYTES", 1)  # or one task would frame, and lose, everything
    caplog.set_level("INFO")
    path = gestures / "user03_lab.aedat"
    original = path.read_bytes()
    path.write_bytes(original[:-3])
    with pytest.raises(DamagedFileError, match=r"user03_lab.aedat"):
        build_cache(raw_of(gestures), 2, tmp_path / "c")
    assert not [*(tmp_path / "c").rglob("*.h5"), *(tmp_path / "c").rglob("*.partial")]
    path.write_bytes(original)
    found = build_cache(raw_of(gestures), 2, tmp_path / "c")
    assert "resuming: 22 of 33 samples were framed before" in caplog.text
    assert found.content_digest == build_cache(raw_of(gestures), 2, tmp_path / "fresh").content_digest
    assert not list((tmp_path / "c").rglob("*.journal"))


def test_build_removes_the_temporary_file_of_a_killed_build(gestures: Path, tmp_path: Path) -> None:
    raw = raw_of(gestures, T=2)
    path = key_of(raw).path(tmp_path / "c")
    path.parent.mkdir(parents=True)
    stale = path.with_name(f".{path.name}.xyz_0123.partial")
    stale.write_bytes(b"half")
    with pytest.raises(CacheError, match="found none in"):
        find_cache(raw_independent_key(raw.framing.with_T(2)), tmp_path / "c", prepare="p")
    build_cache(raw, 2, tmp_path / "c")
    assert not stale.exists()


@pytest.mark.parametrize("end", ["", ".sha256"])
def test_existing_cache_removes_the_temporary_files_of_a_killed_build(gestures: Path, tmp_path: Path, end: str) -> None:
    path = build_cache(raw_of(gestures), 2, tmp_path / "c").path
    stale, mine = (path.with_name(f".{path.name}{name}.partial") for name in (f"{end}.xyz_0123", f"{end}.my notes"))
    for file in (stale, mine):
        file.write_bytes(b"half")
    build_cache(raw_of(gestures), 2, tmp_path / "c")
    assert (stale.exists(), mine.exists()) == (False, True)


def test_build_in_several_threads_builds_once(gestures: Path, tmp_path: Path) -> None:
    raw, built = raw_of(gestures), []
    reported: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: built.append(build_cache(raw, 2, tmp_path / "c", progress=lambda n, of: reported.append(n)))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 3
    assert reported.count(33) == 1  # one build only


def test_find_cache_missing_error_names_the_nearest_and_the_command(gestures: Path, tmp_path: Path) -> None:
    raw = raw_of(gestures)
    build_cache(raw, 3, tmp_path / "c")
    with pytest.raises(CacheError, match="T is 3, expected 4") as error:
        find_cache(raw_independent_key(raw.framing.with_T(4)), tmp_path / "c", prepare="plifctl prepare x")
    assert error.value.hint == "plifctl prepare x"
    assert error.value.exit_code == 5
    assert find_cache(raw_independent_key(raw.framing.with_T(3)), tmp_path / "c", prepare="").verified is False


def test_find_cache_of_several_takes_the_newest_and_warns(
    gestures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = raw_of(gestures)
    older = build_cache(raw, 2, tmp_path / "c")
    write_gestures(gestures, users=4)
    newer = build_cache(raw_of(gestures), 2, tmp_path / "c")
    shutil.copy(older.path, tmp_path / "copy")
    shutil.move(tmp_path / "copy", older.path)  # its file is the newer one now
    with caplog.at_level("WARNING", logger="plifctl.cache"):
        found = find_cache(raw_independent_key(raw.framing.with_T(2)), tmp_path / "c", prepare="")
        assert found.path == newer.path
        assert "2 caches" in caplog.text
        caplog.clear()
        wanted = raw_independent_key(raw.framing.with_T(2))
        again = find_cache(wanted, tmp_path / "c", prepare="", content=older.content_digest)
        another = {**wanted, "transforms_version": "tonic 0"}  # as after an update
        kept = find_cache(another, tmp_path / "c", prepare="", content=older.content_digest)
    assert again.path == kept.path == older.path  # that of an earlier run
    assert caplog.text == ""
    with pytest.raises(CacheError, match="transforms_version is not set, expected tonic 0"):
        find_cache(another, tmp_path / "c", prepare="", content="0" * 64)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_cache_that_the_system_does_not_deliver_is_not_called_damaged(
    gestures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    raw = raw_of(gestures)
    cache = build_cache(raw, 2, tmp_path / "c")
    failing = OSError(number, f"Unable to synchronously open file (errno = {number})")

    def fail(*_: object, **__: object) -> None:
        raise failing

    cache.__dict__["_samples"] = SimpleNamespace(id=SimpleNamespace(read_direct_chunk=fail), read_direct=fail)
    with pytest.raises((MachineError, OSError), match=re.escape(str(cache.path))) as error:
        cache.read(np.arange(3))
    assert not isinstance(error.value, CacheError)
    monkeypatch.setattr("plifctl.cache.catalogue.h5py.File", fail)
    (entry,) = list_caches(tmp_path / "c")
    assert entry.state == ("no-permission" if number == errno.EACCES else "io-error")
    assert removable_entries(tmp_path / "c") == []
    ((name, verdict, problems),) = verify_caches([], tmp_path / "c")
    assert (name, verdict, "cannot be read" in problems[0]) == (entry.name, "NOT VERIFIED", True)


def test_cache_that_was_removed_is_not_called_damaged(gestures: Path, tmp_path: Path) -> None:
    cache = build_cache(raw_of(gestures), 2, tmp_path / "c")
    cache.close()
    cache.path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(cache.path))):
        cache.read(np.arange(3))


def test_find_cache_passes_over_a_file_that_is_removed_meanwhile(
    gestures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = raw_of(gestures)
    cache = build_cache(raw, 2, tmp_path / "c")
    wanted = raw_independent_key(raw.framing.with_T(2))
    gone = cache.path.with_name("T2-number-000000000000.h5")
    real = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [gone, *real(self, pattern)])
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    assert find_cache(wanted, tmp_path / "c", prepare="").path == cache.path


def test_sample_that_is_too_large_for_a_cache_is_refused_before_it_is_framed(
    gestures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.cache.build.MAX_SAMPLE_BYTES", 4 * 2 * 128 * 128)
    assert build_cache(raw_of(gestures), 4, tmp_path / "c").shape[1] == 4
    with pytest.raises(RawDataError, match="a sample of 5×2×128×128 uint8 takes") as error:
        build_cache(raw_of(gestures), 5, tmp_path / "c")
    assert "--T" in error.value.hint
    assert not list((tmp_path / "c").rglob("*.journal"))


@pytest.mark.parametrize(("raised", "resumed"), [(False, True), (True, False)])
def test_build_frames_again_what_an_older_decoder_framed(
    gestures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    raised: bool,
    resumed: bool,
) -> None:
    monkeypatch.setattr("plifctl.data.thread_map._TASK_BYTES", 1)
    path = gestures / "user03_lab.aedat"
    original = path.read_bytes()
    path.write_bytes(original[:-3])
    with pytest.raises(DamagedFileError):
        build_cache(raw_of(gestures), 2, tmp_path / "c")
    path.write_bytes(original)
    if raised:
        monkeypatch.setitem(VARIANTS, "AEDAT 3.1 of several sources", 99)
    with caplog.at_level("INFO"):
        build_cache(raw_of(gestures), 2, tmp_path / "c")
    assert ("resuming" in caplog.text) == resumed


def test_cache_flipped_bit_in_the_frames_is_found(gestures: Path, tmp_path: Path) -> None:
    cache = build_cache(raw_of(gestures), 2, tmp_path / "c", made_by="plifctl prepare x --T 2")
    frames = cache.read(np.arange(33))
    cache.close()
    with h5py.File(cache.path) as file:
        places = [
            (file["frames"].id.get_chunk_info(k).byte_offset, file["frames"].id.get_chunk_info(k).size)
            for k in range(33)
        ]
    rng = np.random.default_rng(0)
    original = cache.path.read_bytes()
    for _ in range(40):
        offset, size = places[rng.integers(33)]
        data = bytearray(original)
        data[offset + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
        cache.path.write_bytes(data)
        with pytest.raises(CorruptCacheError, match="checksum") as error:
            Cache(cache.path).read(np.arange(33))
        assert error.value.hint == "build it again: plifctl prepare x --T 2 --force"
    cache.path.write_bytes(original)
    np.testing.assert_array_equal(Cache(cache.path).read(np.arange(33)), frames)


@pytest.mark.slow
def test_cache_flipped_bit_outside_the_frames_never_changes_what_is_read(gestures: Path, tmp_path: Path) -> None:
    cache = build_cache(raw_of(gestures), 2, tmp_path / "c")
    frames, labels, ids = cache.read(np.arange(33)), cache.labels, cache.sample_ids
    kept = (cache.is_test.tolist(), cache.is_validation.tolist(), {k: v.tolist() for k, v in cache.counts.items()})
    cache.close()
    original = cache.path.read_bytes()
    with h5py.File(cache.path) as file:
        chunks = [file["frames"].id.get_chunk_info(k) for k in range(33)]
        columns = [file[name].id.get_offset() for name in ("labels", "split", "sample_id", "n_raw", "n_events")]
    in_frames = np.zeros(len(original), bool)
    for chunk in chunks:
        in_frames[chunk.byte_offset : chunk.byte_offset + chunk.size] = True
    places = np.flatnonzero(~in_frames)
    rng, found = np.random.default_rng(3), 0
    for place in [*columns, *rng.choice(places, 400, replace=False)]:
        data = bytearray(original)
        data[place] ^= 1 << int(rng.integers(8))
        cache.path.write_bytes(data)
        try:
            damaged = Cache(cache.path)
            read = damaged.read(np.arange(33))
        except CorruptCacheError:
            found += 1
            continue
        assert place not in columns
        np.testing.assert_array_equal(read, frames)
        np.testing.assert_array_equal(damaged.labels, labels)
        assert damaged.sample_ids == ids
        counts = {k: v.tolist() for k, v in damaged.counts.items()}
        assert (damaged.is_test.tolist(), damaged.is_validation.tolist(), counts) == kept
        damaged.close()
    assert found > len(columns)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_cache_of_another_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(CorruptCacheError, match="damaged, or not a cache"):
        Cache(path)


@pytest.mark.parametrize("trick", ["external link", "soft link", "external storage", "virtual", "huge", "many"])
def test_cache_samples_in_another_file_or_too_large_are_refused(trick: str, gestures: Path, tmp_path: Path) -> None:
    """The digest of the header is right: a forger can compute it."""
    path = build_cache(raw_of(gestures), 2, tmp_path / "c").path
    elsewhere = path.with_name("elsewhere.h5")
    shutil.copyfile(path, elsewhere)
    with h5py.File(path, "r+") as file:
        shape = file["frames"].shape
        del file["frames"]
        if trick == "external link":
            file["frames"] = h5py.ExternalLink(elsewhere.name, "frames")
        elif trick == "soft link":
            file.create_dataset("other", shape, "u1", chunks=(1, *shape[1:]))
            file["frames"] = h5py.SoftLink("/other")
        elif trick == "external storage":
            file.create_dataset("frames", shape, "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        elif trick == "virtual":
            layout = h5py.VirtualLayout(shape, "u1")
            layout[:] = h5py.VirtualSource(elsewhere.name, "frames", shape)
            file.create_virtual_dataset("frames", layout)
        elif trick == "huge":
            file.create_dataset("frames", (33, 2**20, 2, 128, 128), "u1", chunks=(1, 2**16, 2, 128, 128))
        else:
            file.create_dataset("frames", (2**40, 1, 2, 2, 2), "u1", chunks=(1, 1, 2, 2, 2))
    with pytest.raises(CorruptCacheError, match="damaged, or not a cache"):
        Cache(path)
    assert verify_cache(path)


@pytest.mark.parametrize("trick", ["external link", "external storage", "virtual", "objects", "huge"])
def test_cache_columns_in_another_file_or_too_large_are_refused(trick: str, gestures: Path, tmp_path: Path) -> None:
    path = build_cache(raw_of(gestures), 2, tmp_path / "c").path
    elsewhere = path.with_name("elsewhere.h5")
    shutil.copyfile(path, elsewhere)  # with the right labels, so the digest of the header would be right
    with h5py.File(path, "r+") as file:
        shape = file["labels"].shape
        del file["labels"]
        match trick:
            case "external link":
                file["labels"] = h5py.ExternalLink(elsewhere.name, "labels")
            case "external storage":
                file.create_dataset("labels", shape, "i8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
            case "virtual":
                layout = h5py.VirtualLayout(shape, "i8")
                layout[:] = h5py.VirtualSource(elsewhere.name, "labels", shape)
                file.create_virtual_dataset("labels", layout)
            case "objects":
                file.create_dataset("labels", shape, h5py.string_dtype())
            case _:
                file.create_dataset("labels", (2**40,), "i8", chunks=(2**16,))
    with pytest.raises(CorruptCacheError, match="damaged, or not a cache"):
        Cache(path)
    assert verify_cache(path)


def test_cache_without_the_complete_attribute_is_unfinished(gestures: Path, tmp_path: Path) -> None:
    cache = build_cache(raw_of(gestures), 2, tmp_path / "c")
    cache.close()
    with h5py.File(cache.path, "a") as file:
        del file.attrs["complete"]
    with pytest.raises(CorruptCacheError, match="an unfinished cache"):
        Cache(cache.path)


@pytest.mark.parametrize(
    ("version", "maker", "hint"),
    [
        (None, "an older plifctl (cache format 1, expected 2)", "build it again: plifctl prepare x --T 2 --force"),
        (1, "an older plifctl (cache format 1, expected 2)", "build it again: plifctl prepare x --T 2 --force"),
        (3, "a newer plifctl (cache format 3, expected 2)", "pip install --upgrade plifctl"),
    ],
)
def test_cache_of_another_format_names_its_maker_and_is_outdated(
    version: int | None, maker: str, hint: str, gestures: Path, tmp_path: Path
) -> None:
    raw = raw_of(gestures, T=2)
    path = build_cache(raw, 2, tmp_path / "c", made_by="plifctl prepare x --T 2").path
    with h5py.File(path, "r+") as file:
        del file.attrs["format"], file["labels"]  # other formats may store other columns
        if version is not None:
            file.attrs["format"] = version
    with pytest.raises(CacheError, match=re.escape(f"{path}: made by {maker}")) as error:
        Cache(path)
    assert not isinstance(error.value, CorruptCacheError)
    assert error.value.hint == hint
    assert [entry.state for entry in list_caches(tmp_path / "c")] == ["outdated"]
    assert [reason for _, reason in removable_entries(tmp_path / "c")] == ["outdated"]
    with pytest.raises(CacheError, match="found none in"):
        find_cache(raw_independent_key(raw.framing), tmp_path / "c", prepare="p")


def test_cache_can_be_pickled(gestures: Path, tmp_path: Path) -> None:
    cache = build_cache(raw_of(gestures), 2, tmp_path / "c")
    again = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(again.read(np.array([5])), cache.read(np.array([5])))


def test_expected_bytes_is_the_size_of_all_frames(gestures: Path) -> None:
    assert expected_bytes(raw_of(gestures, T=4)) == 33 * 4 * 2 * 128 * 128


@pytest.mark.real
def test_cache_of_real_nmnist_equals_an_independent_sum(shared: Path, tmp_path: Path) -> None:
    import zipfile

    nmnist = load_registry().dataset("nmnist")
    raw = open_raw(nmnist, RawSource(shared / "data/NMNIST", verify=False))
    cache = build_cache(raw, 10, tmp_path / "c", workers=2)
    assert len(cache.labels) == 900
    found = cache.read(np.arange(900))
    rows = {name: row for row, name in enumerate(cache.sample_ids)}
    for split in ("Train", "Test"):
        with zipfile.ZipFile(shared / f"data/NMNIST/{split}.zip") as archive:
            for name in archive.namelist():
                bytes5 = np.frombuffer(archive.read(name), np.uint8).reshape(-1, 5).astype(int)
                n = len(bytes5)
                expected = np.zeros((10, 2, 34, 34), int)
                edges = [n * j // 10 for j in range(11)]
                for j in range(10):
                    part = bytes5[edges[j] : edges[j + 1]]
                    np.add.at(expected[j], (part[:, 2] >> 7, part[:, 1], part[:, 0]), 1)
                np.testing.assert_array_equal(found[rows[name.removesuffix(".bin")]], expected)


def test_checksum_file_has_the_sha256_of_the_cache(gestures: Path, tmp_path: Path) -> None:
    cache = build_cache(raw_of(gestures), 2, tmp_path / "c")
    digest, name = cache.path.with_name(f"{cache.path.name}.sha256").read_text().split()
    assert name == cache.path.name
    assert digest == hashlib.sha256(cache.path.read_bytes()).hexdigest()


def test_build_of_frames_that_do_not_sum_to_their_events_fails(
    gestures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plifctl.data.loops.count_events", lambda *_: (-1, 399))
    with pytest.raises(AssertionError, match="do not sum"):
        build_cache(raw_of(gestures), 2, tmp_path / "c")
    assert not list((tmp_path / "c").rglob("*.h5"))


class TestInterruptedBuild:
    """A build that was interrupted just before its end, and the next one, of the same or of other raw data."""

    @staticmethod
    def raw(root: Path, recordings: dict[str, list[int]], *changes: str) -> EventDataset:
        """N-MNIST of few recordings: name to the times of events, all in one pixel."""
        shutil.rmtree(root, ignore_errors=True)
        for name, times in recordings.items():
            path = root / f"{name}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(bytes((3, 4, 0x80 | t >> 16, t >> 8 & 255, t & 255)) for t in times))
        found = load_registry().dataset("nmnist", "paper", changes)
        raw = open_raw(found, RawSource(root))
        assert isinstance(raw, EventDataset)
        return raw

    @staticmethod
    def stopped(raw: EventDataset, T: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("plifctl.cache.build.write_cache", stop)
            with pytest.raises(KeyboardInterrupt):
                build_cache(raw, T, folder)
        assert list(folder.rglob(".*.journal"))

    @pytest.mark.parametrize(
        ("T", "changes", "first", "then"),
        [
            (None, ("frames.slicing=duration", "frames.duration_us=10"), [0, 80], [0, 500]),  # fewer frames
            (None, ("frames.slicing=duration", "frames.duration_us=10"), [0, 500], [0, 80]),  # more
            (1, (), [5] * 300, [5] * 20),  # 16 bits, where 8 do
            (1, (), [5] * 20, [5] * 300),  # 8, where 16 are needed
            (2, (), [1, 2, 3], [1, 2, 4]),  # other content under the same name
        ],
    )
    def test_interrupted_build_with_other_raw_data_gives_their_cache(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        T: int | None,
        changes: tuple[str, ...],
        first: list[int],
        then: list[int],
    ) -> None:
        same = {"Train/0/00001": [1, 2, 30], "Test/1/00001": [1, 50]}
        self.stopped(
            self.raw(tmp_path / "raw", {**same, "Train/0/00002": first}, *changes), T, tmp_path / "c", monkeypatch
        )
        raw = self.raw(tmp_path / "raw", {**same, "Train/0/00002": then}, *changes)
        found, expected = (build_cache(raw, T, tmp_path / place) for place in ("c", "fresh"))
        assert found.content_digest == expected.content_digest
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert verify_cache(found.path) == []
        assert not list(tmp_path.rglob(".*.journal"))

    def test_interrupted_build_is_resumed_without_framing_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = self.raw(tmp_path / "raw", {"Train/0/00001": [1, 2, 30], "Test/1/00001": [1, 50]})
        self.stopped(raw, 2, tmp_path / "c", monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr("plifctl.cache.framing.count_frames", None)  # nothing is framed again
            found = build_cache(raw, 2, tmp_path / "c")
        assert found.content_digest == build_cache(raw, 2, tmp_path / "fresh").content_digest

    def test_build_count_over_65535_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = self.raw(tmp_path / "raw", {"Train/0/00001": [1] * 70_000, "Test/1/00001": [1] * 300})
        for _ in range(2):
            with pytest.raises(RawDataError, match="70000 events in one pixel of one frame, expected at most 65535"):
                build_cache(raw, 1, tmp_path / "c")
        assert not list(tmp_path.rglob("*.h5"))

    @pytest.mark.parametrize("changes", [(), ("frames.slicing=duration", "frames.duration_us=10")])
    def test_build_during_the_survey_gives_the_same_content(self, tmp_path: Path, changes: tuple[str, ...]) -> None:
        raw = self.raw(
            tmp_path / "raw",
            {f"{s}/{k}/00001": [5] * (k * 40) for s in ("Train", "Test") for k in range(1, 9)},
            *changes,
        )
        T = None if changes else 1
        framing = raw.framing.with_T(T)
        with CacheBuilder(framing, tmp_path / "c", workers=2) as builder:
            again = open_raw(framing, RawSource(tmp_path / "raw", workers=2), make_handler=builder.make_sample_handler)
            found = builder.finish(again)
        assert found.dtype == np.uint16  # 320 events in a pixel
        assert found.content_digest == build_cache(raw, T, tmp_path / "fresh").content_digest
        assert verify_cache(found.path) == []
