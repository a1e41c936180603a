"""Exported caches, read back by other tools."""

import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from factories import build_cache, random_events, write_gestures

from plifctl.cache import Cache
from plifctl.cache import export as module
from plifctl.cache.export import ExportResult, export_cache
from plifctl.config.choices import ExportTarget
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.source import RawSource
from plifctl.errors import CorruptCacheError, UsageError

pytestmark = pytest.mark.usefixtures("places")


def cache_of(root: Path, T: int | None, out: Path, *overrides: str, dataset: str = "synthetic-gesture") -> Cache:
    found = load_registry().dataset(dataset, "paper", overrides)
    return build_cache(open_raw(found, RawSource(root, verify=False)), T, out)


@pytest.fixture
def cache(gestures: Path, tmp_path: Path) -> Cache:
    return cache_of(gestures, 4, tmp_path / "c")


def samples_of(exported: ExportResult) -> list[dict[str, str]]:
    with (exported.folder / "samples.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestNpz:
    def test_npz_files_have_frames_label_and_id(self, cache: Cache, tmp_path: Path) -> None:
        reported: list[tuple[int, int]] = []
        exported = export_cache(cache, "npz", tmp_path / "out", progress=lambda n, of: reported.append((n, of)))
        rows = samples_of(exported)
        assert [row["id"] for row in rows] == cache.sample_ids
        assert [row["split"] == "test" for row in rows] == cache.is_test.tolist()
        frames = cache.read(np.arange(33))
        for row, place in enumerate(rows):
            with np.load(tmp_path / "out" / place["file"]) as sample:
                np.testing.assert_array_equal(sample["frames"], frames[row], strict=True)
                assert int(sample["label"]) == int(place["label"]) == cache.labels[row]
                assert str(sample["id"]) == cache.sample_ids[row]
        assert rows[0]["file"] == f"train/{rows[0]['class']}/user01_lab_00.npz"
        assert reported[-1] == (33, 33)
        assert exported.nbytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.npz"))

    def test_npz_loading_code_works(self, cache: Cache, tmp_path: Path) -> None:
        exported = export_cache(cache, "npz", tmp_path / "out")
        code = "\n".join(line[4:] for line in exported.loading.splitlines() if line.startswith("    "))
        names: dict[str, Any] = {}
        exec(code, names)
        assert names["frames"].shape == (4, 2, 128, 128)
        text = (tmp_path / "out/EXPORTED.txt").read_text()
        assert exported.loading in text
        assert cache.content_digest in text
        assert cache.notes
        assert all(note in text for note in cache.notes)
        made_of = json.loads((tmp_path / "out/exported.json").read_text())
        assert made_of["key"] == dict(cache.key.fields)
        assert made_of["content_digest"] == cache.content_digest

    def test_npz_files_do_not_depend_on_workers_and_blocks(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export_cache(cache, "npz", tmp_path / "one/out")
        monkeypatch.setattr(module, "_BLOCK_BYTES", 300_000)  # two samples
        monkeypatch.chdir(tmp_path)
        export_cache(cache, "npz", tmp_path / "four/out", workers=4)
        one, four = written(tmp_path / "one/out"), written(tmp_path / "four/out")
        assert one.pop("EXPORTED.txt") != four.pop("EXPORTED.txt")  # it names the folder
        assert one == four

    def test_npz_files_of_images_have_the_pixels(self, tmp_path: Path) -> None:
        raw, cache = images(tmp_path)
        exported = export_cache(cache, "npz", tmp_path / "out")
        for row, place in enumerate(samples_of(exported)):
            with np.load(tmp_path / "out" / place["file"]) as sample:
                np.testing.assert_array_equal(sample["image"][0], raw[row], strict=True)

    def test_export_fixed_duration_has_no_padding(self, gestures: Path, tmp_path: Path) -> None:
        from plifctl.data.formats.aedat3 import encode_aedat3

        events = random_events(np.random.default_rng(0), 300)
        events["t"] //= 3  # shorter than those of the others
        (gestures / "user02_lab.aedat").write_bytes(encode_aedat3(events))
        short = "class,startTime_usec,endTime_usec\n1,0,60000\n"
        (gestures / "user02_lab_labels.csv").write_text(short)
        changes = ("frames.slicing=duration", "frames.duration_us=10000")
        cache = cache_of(gestures, None, tmp_path / "c", *changes)
        assert cache.shape[1] == 5
        for target in ("npz", "tonic"):
            exported = export_cache(cache, target, tmp_path / target)
            place = next(row["file"] for row in samples_of(exported) if row["id"] == "user02_lab/00")
            frames = read(target, tmp_path / target / place)
            assert len(frames) == 2
            assert frames.sum() == 300

    def test_export_of_uint16_stays_uint16(self, tmp_path: Path) -> None:
        from plifctl.data.formats.aedat3 import encode_aedat3

        write_gestures(tmp_path / "raw")
        events = random_events(np.random.default_rng(0), 700)
        events["x"], events["y"], events["p"] = 3, 4, 1
        (tmp_path / "raw/user02_lab.aedat").write_bytes(encode_aedat3(events))
        cache = cache_of(tmp_path / "raw", 1, tmp_path / "c")
        for target in get_args(ExportTarget):
            exported = export_cache(cache, target, tmp_path / target)
            found = [read(target, tmp_path / target / row["file"]) for row in samples_of(exported)]
            assert {frames.dtype for frames in found} == {np.dtype(np.uint16)}
            assert max(frames.max() for frames in found) == 700


def read(target: ExportTarget, path: Path) -> np.ndarray:
    if target == "tonic":
        from tonic.cached_dataset import load_from_disk_cache

        frames: np.ndarray = load_from_disk_cache(path)[0]
        return frames
    with np.load(path) as sample:
        return np.asarray(sample["frames"])


def images(tmp_path: Path) -> tuple[np.ndarray, Cache]:
    """Twelve random images in MNIST's files, and the cache of them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 28, 28)).astype(np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 10
    (tmp_path / "raw").mkdir()
    for name, chosen in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        for kind, array in (("images-idx3", pixels[chosen]), ("labels-idx1", labels[chosen])):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (tmp_path / "raw" / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return pixels, cache_of(tmp_path / "raw", None, tmp_path / "c", dataset="mnist")


class TestTonic:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_tonic_files_are_read_by_tonic(self, cache: Cache, tmp_path: Path, workers: int) -> None:
        from tonic import DiskCachedDataset

        export_cache(cache, "tonic", tmp_path / "out", workers=workers)
        for split, rows in (("train", ~cache.is_test), ("test", cache.is_test)):
            data = DiskCachedDataset(None, cache_path=str(tmp_path / "out" / split))
            assert len(data) == rows.sum()
            for (frames, label), row in zip((data[n] for n in range(len(data))), np.flatnonzero(rows), strict=True):
                np.testing.assert_array_equal(frames, cache.read(np.array([row]))[0], strict=True)
                assert label == cache.labels[row]

    def test_tonic_loading_code_works(self, cache: Cache, tmp_path: Path) -> None:
        exported = export_cache(cache, "tonic", tmp_path / "a folder's")
        code = "\n".join(line[4:] for line in exported.loading.splitlines() if line.startswith("    "))
        names: dict[str, Any] = {}
        exec(code, names)
        assert (len(names["train"]), len(names["test"])) == (22, 11)
        assert names["frames"].shape == (4, 2, 128, 128)

    def test_tonic_files_of_images_have_the_pixels(self, tmp_path: Path) -> None:
        from tonic import DiskCachedDataset

        raw, cache = images(tmp_path)
        export_cache(cache, "tonic", tmp_path / "out")
        test = DiskCachedDataset(None, cache_path=str(tmp_path / "out/test"))
        np.testing.assert_array_equal(np.stack([test[n][0][0] for n in range(4)]), raw[8:], strict=True)


def as_spikingjelly_reads(folder: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Class, name and frames of each file, read like torchvision's DatasetFolder and SpikingJelly."""
    for name in sorted(entry.name for entry in folder.iterdir() if entry.is_dir()):
        for path in sorted((folder / name).glob("*.npz")):
            with np.load(path) as file:
                yield name, path.stem, file["frames"].astype(np.float32)


class TestSpikingJelly:
    def test_spikingjelly_equal_frames_are_in_its_own_folder(self, gestures: Path, tmp_path: Path) -> None:
        cache = cache_of(gestures, 4, tmp_path / "c", "frames.slicing=number-remainder")
        exported = export_cache(cache, "spikingjelly", tmp_path / "out")
        assert list((tmp_path / "out/events_np").iterdir()) == []
        rows = {sample: row for row, sample in enumerate(cache.sample_ids)}
        for split, users in (("train", (1, 2)), ("test", (3,))):
            found = list(as_spikingjelly_reads(tmp_path / "out/frames_number_4_split_by_number" / split))
            assert len(found) == 11 * len(users)
            for name, stem, frames in found:
                recording, _, k = stem.rpartition("_")
                assert k == "0"
                row = rows[f"{recording}/{int(name):02}"]
                assert cache.labels[row] == int(name)
                np.testing.assert_array_equal(frames, cache.read(np.array([row]))[0])
        assert 'frames_number=4, split_by="number"' in exported.loading

    def test_spikingjelly_class_twice_in_a_recording_is_numbered(self, gestures: Path, tmp_path: Path) -> None:
        rows = (gestures / "user01_lab_labels.csv").read_text().splitlines()
        (gestures / "user01_lab_labels.csv").write_text("\n".join([*rows, rows[1]]) + "\n")
        cache = cache_of(gestures, 4, tmp_path / "c", "frames.slicing=number-remainder")
        export_cache(cache, "spikingjelly", tmp_path / "out")
        folder = tmp_path / "out/frames_number_4_split_by_number/train/0"
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["user01_lab_0.npz", "user01_lab_1.npz", "user02_lab_0.npz"]

    @pytest.mark.parametrize(
        ("changes", "T", "folder", "why"),
        [
            (("frames.slicing=number",), 4, "plifctl_T4-number", "number-remainder"),
            (("frames.slicing=time",), 4, "plifctl_T4-time", "whole µs"),
            (
                (
                    'frames.transforms=[{"name": "merge-polarities"}]',
                    "frames.slicing=number-remainder",
                ),
                4,
                "plifctl_T4-number-remainder",
                "transformed",
            ),
        ],
    )
    def test_spikingjelly_other_frames_are_in_another_folder(
        self, gestures: Path, tmp_path: Path, changes: tuple[str, ...], T: int, folder: str, why: str
    ) -> None:
        cache = cache_of(gestures, T, tmp_path / "c", *changes)
        exported = export_cache(cache, "spikingjelly", tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"events_np", folder}
        assert why in exported.loading
        assert f'custom_integrated_frames_dir_name="{folder}"' in exported.loading

    def test_spikingjelly_left_out_events_are_in_another_folder(self, gestures: Path, tmp_path: Path) -> None:
        cache = cache_of(gestures, 4, tmp_path / "c", "frames.slicing=number-remainder")
        cache.counts["n_raw"][3] += 1
        exported = export_cache(cache, "spikingjelly", tmp_path / "out")
        assert "events of 1 samples were left out" in exported.loading
        assert (tmp_path / "out/plifctl_T4-number-remainder").is_dir()

    def test_spikingjelly_images_are_refused(self, tmp_path: Path) -> None:
        _, cache = images(tmp_path)
        with pytest.raises(UsageError, match="images") as error:
            export_cache(cache, "spikingjelly", tmp_path / "out")
        assert "--to tonic" in error.value.hint
        assert not (tmp_path / "out").exists()


class TestTargets:
    @pytest.mark.parametrize("target", get_args(ExportTarget))
    def test_export_to_existing_files_is_refused(self, cache: Cache, tmp_path: Path, target: ExportTarget) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").write_text("x")
        with pytest.raises(UsageError, match="not empty") as error:
            export_cache(cache, target, tmp_path / "out")
        assert error.value.hint == f"export to another folder: --out {tmp_path / 'out-2'}"
        with pytest.raises(UsageError, match="a file"):
            export_cache(cache, target, tmp_path / "out/mine")
        assert written(tmp_path / "out") == {"mine": b"x"}

    def test_export_to_files_that_appear_meanwhile_is_refused(self, cache: Cache, tmp_path: Path) -> None:
        def progress(done: int, total: int) -> None:
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out/mine").write_text("x")

        with pytest.raises(UsageError, match="not empty"):
            export_cache(cache, "npz", tmp_path / "out", progress=progress)
        assert written(tmp_path / "out") == {"mine": b"x"}

    def test_export_into_the_current_folder_fills_it(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        inode = here.stat().st_ino
        exported = export_cache(cache, "npz", Path())
        assert (exported.samples, here.stat().st_ino, Path("samples.csv").is_file()) == (33, inode, True)
        assert not list(tmp_path.glob(".here.*"))
        with pytest.raises(UsageError, match="a folder that is not empty"):
            export_cache(cache, "npz", Path())

    def test_export_into_a_mount_point_writes_nothing_beside_it(self, cache: Cache, tmp_path: Path) -> None:
        place = tmp_path / "mounted/place"
        place.mkdir(parents=True)
        seen: list[str] = []
        export_cache(cache, "tonic", place, progress=lambda n, of: seen.extend(map(str, place.parent.iterdir())))
        assert set(seen) == {str(place)}
        assert len(list(place.glob("train/*.hdf5"))) == 22

    @pytest.mark.parametrize(
        ("out", "other"), [(".", "frames-2"), ("..", "../frames-3"), ("/", "/frames-2"), ("used", "used-3")]
    )
    def test_export_to_a_used_folder_suggests_a_new_one_and_never_to_remove_it(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, other: str
    ) -> None:
        for name in ("here/used/mine", "here/used-2/mine", "frames-2/mine"):
            (tmp_path / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "here")
        with pytest.raises(UsageError, match="not empty") as error:
            export_cache(cache, "npz", Path(out))
        assert error.value.hint == f"export to another folder: --out {other}"

    def test_export_of_ids_that_are_not_utf8_lists_them_escaped(self, gestures: Path, tmp_path: Path) -> None:
        cache = cache_of(gestures, 4, tmp_path / "c")
        cache.sample_ids[0] = "user\udcff/00"
        exported = export_cache(cache, "npz", tmp_path / "out")
        assert samples_of(exported)[0]["id"] == r"user\udcff/00"
        assert (tmp_path / "out" / samples_of(exported)[0]["file"]).is_file()

    def test_export_to_an_empty_folder_succeeds(self, cache: Cache, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        assert export_cache(cache, "npz", tmp_path / "out").samples == 33

    @pytest.mark.parametrize("target", get_args(ExportTarget))
    @pytest.mark.parametrize("workers", [1, 3])
    def test_interrupted_export_leaves_nothing(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: ExportTarget, workers: int
    ) -> None:
        def stop(done: int, total: int) -> None:
            assert done < total, "nothing was left to interrupt"
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "_BLOCK_BYTES", 2**20)
        (tmp_path / "here").mkdir()
        with pytest.raises(KeyboardInterrupt):
            export_cache(cache, target, tmp_path / "here/out", progress=stop, workers=workers)
        assert list((tmp_path / "here").iterdir()) == []

    def test_export_of_a_damaged_sample_leaves_nothing(self, cache: Cache, tmp_path: Path) -> None:
        content = cache.path.read_bytes()
        _, where, size = chunk_of(cache.path)
        cache.close()
        cache.path.write_bytes(
            content[: where + 9] + bytes(b ^ 255 for b in content[where + 9 : where + size]) + content[where + size :]
        )
        (tmp_path / "here").mkdir()
        with pytest.raises(CorruptCacheError):
            export_cache(Cache(cache.path), "npz", tmp_path / "here/out")
        assert list((tmp_path / "here").iterdir()) == []


def chunk_of(path: Path) -> tuple[Any, int, int]:
    """Row, offset and size of the tenth chunk of a cache file."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        info = file["frames"].id.get_chunk_info(10)
        return info.chunk_offset, info.byte_offset, info.size


class TestNames:
    def test_file_names_are_safe_and_unique(self) -> None:
        names = ["a/b", "a_b", "A_B", "..", ".", "", "a\0b", "C:\\x", "é" * 300, "é" * 301, " x ", "e\u0301", "\u00e9"]
        found = module._unique_paths(names, ["d"] * len(names), ".npz")
        assert len({name.casefold() for name in found}) == len(names)
        for name in found:
            folder, _, file = name.partition("/")
            assert folder == "d"
            assert not set(file) & set('/\\\0:*?"<>|')
            assert file.strip(" .") == file
            assert 4 < len(file.encode()) <= 255

    def test_file_names_may_repeat_in_different_folders(self) -> None:
        assert module._unique_paths(["a", "a"], ["x", "y"]) == ["x/a", "y/a"]


def test_npz_files_are_ordinary_zip_archives(cache: Cache, tmp_path: Path) -> None:
    exported = export_cache(cache, "npz", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / samples_of(exported)[0]["file"]) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["frames.npy", "label.npy", "id.npy"]
