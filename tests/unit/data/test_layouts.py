"""The folders of SpikingJelly and tonic, data sets of one's own, and the choice of CIFAR10-DVS's test set."""

import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from factories import encode_aedat4, random_events, write_gestures

from plifctl.config.registry import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.events import EVENT, Events
from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.source import RawSource
from plifctl.errors import ChecksumError, DamagedFileError, RawDataError, UsageError

pytestmark = pytest.mark.usefixtures("places")


def opened(name: str, root: Path | None, *changes: str, verify: bool = False) -> EventDataset:
    found = load_registry().dataset(name, "paper", list(changes))
    raw = open_raw(found, RawSource(root, verify=verify))
    assert isinstance(raw, EventDataset)
    return raw


def events_by_id(raw: EventDataset) -> dict[str, list[tuple[int, ...]]]:
    found = {}
    for member in raw.recordings():
        for row, events, _ in raw.decode(member.name, member.load()):
            found[raw.samples[row].id] = events.tolist()
    assert len(found) == len(raw.samples)
    return found


def save_npz(path: Path, events: np.ndarray | Events, **dtypes: str) -> None:
    """As SpikingJelly's converters do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{name: events[name].astype(dtypes.get(name, EVENT[name])) for name in "txyp"})


def as_zip(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder.parent))


def as_tar(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, folder.name)


def atis(events: np.ndarray) -> bytes:
    return b"".join(bytes((x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255)) for t, x, y, p in events.tolist())


@pytest.fixture
def nmnist(tmp_path: Path) -> Path:
    """A root of SpikingJelly's: extract and events_np, no archives."""
    root, rng = tmp_path / "NMNIST", np.random.default_rng(0)
    for split, count in (("Train", 3), ("Test", 1)):
        for digit in range(2):
            for n in range(count):
                events = random_events(rng, 20, size=34)
                path = root / "extract" / split / str(digit) / f"{n:05d}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(atis(events))
                save_npz(root / "events_np" / split.lower() / str(digit) / f"{n:05d}.npz", events)
    return root


class TestNmnist:
    def test_spikingjelly_s_extract_then_events_np_then_archives(self, nmnist: Path) -> None:
        extracted = opened("nmnist", nmnist)
        assert extracted.root == nmnist / "extract"
        assert not any("converted" in note for note in extracted.notes)
        for part in ("Train", "Test"):
            as_zip(nmnist / "extract" / part, nmnist / f"download/{part}.zip")
        packed = opened("nmnist", nmnist)
        assert packed.root == nmnist / "download"
        assert packed.digest == extracted.digest
        shutil.rmtree(nmnist / "download")
        shutil.rmtree(nmnist / "extract")
        converted = opened("nmnist", nmnist)
        assert converted.root == nmnist / "events_np"
        assert any("converted: read from SpikingJelly's events_np" in note for note in converted.notes)
        assert not converted.verified
        assert converted.samples == extracted.samples
        assert opened("nmnist", nmnist / "events_np").samples == extracted.samples
        assert opened("nmnist", nmnist.parent).samples == extracted.samples

    def test_converted_recordings_hold_the_same_events(self, nmnist: Path) -> None:
        assert events_by_id(opened("nmnist", nmnist / "extract")) == events_by_id(
            opened("nmnist", nmnist / "events_np")
        )

    def test_a_conversion_that_was_not_finished_is_refused(self, nmnist: Path) -> None:
        (nmnist / "events_np.building").touch()
        assert opened("nmnist", nmnist).root == nmnist / "extract"
        with pytest.raises(RawDataError, match="SpikingJelly has not finished converting it"):
            opened("nmnist", nmnist / "events_np")

    def test_tonic_s_folder_beside_its_archives(self, nmnist: Path, tmp_path: Path) -> None:
        extracted = opened("nmnist", nmnist)
        for part in ("Train", "Test"):
            shutil.move(nmnist / "extract" / part, tmp_path / "tonic/NMNIST" / part)
        assert opened("nmnist", tmp_path / "tonic").digest == extracted.digest
        for part in ("Train", "Test"):
            as_zip(tmp_path / "tonic/NMNIST" / part, tmp_path / f"tonic/NMNIST/{part.lower()}.zip")
        assert opened("nmnist", tmp_path / "tonic").digest == extracted.digest
        with pytest.raises(ChecksumError, match=r"train\.zip"):
            opened("nmnist", tmp_path / "tonic", verify=True)

    def test_members_of_the_other_split_are_nobody_s_samples(self, nmnist: Path, tmp_path: Path) -> None:
        as_zip(nmnist / "extract", tmp_path / "both/Train.zip")
        as_zip(nmnist / "extract", tmp_path / "both/Test.zip")
        both = opened("nmnist", tmp_path / "both")
        assert both.samples == opened("nmnist", nmnist).samples
        assert sum(1 for _ in both.recordings()) == len(both.samples) == 8


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NUMBERS = (0, 7, 99, 100, 899, 900, 999)


def addresses(seed: int) -> bytes:
    words = np.empty((50, 2), ">u4")
    rng = np.random.default_rng(seed)
    words[:, 0], words[:, 1] = rng.integers(0, 2**15, 50), np.sort(rng.integers(0, 2**31, 50))
    return b"#!AER-DAT2.0\r\n" + words.tobytes()


@pytest.fixture
def cifar10dvs(tmp_path: Path) -> Path:
    """A root of SpikingJelly's; its arrays are made as its loader reads addresses."""
    root = tmp_path / "CIFAR10DVS"
    for label, name in enumerate(CLASSES):
        for number in NUMBERS:
            data = addresses(1000 * label + number)
            path = root / "extract" / name / f"cifar10_{name}_{number}.aedat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            events = decode_aedat2(data, where="f", axes="spikingjelly").events
            save_npz(root / "events_np" / name / f"cifar10_{name}_{number}.npz", events, t=">u4", p="i8")
    return root


class TestCifar10Dvs:
    @pytest.mark.parametrize("axes", ["authors", "spikingjelly"])
    def test_arrays_of_spikingjelly_give_the_original_s_events_in_either_choice(
        self, cifar10dvs: Path, axes: str
    ) -> None:
        choice = f"frames.axes={axes}"
        original = opened("cifar10dvs", cifar10dvs / "extract", choice)
        converted = opened("cifar10dvs", cifar10dvs / "events_np", choice)
        assert original.samples == converted.samples
        assert events_by_id(original) == events_by_id(converted)
        assert any("converted: read from SpikingJelly's events_np" in note for note in converted.notes)

    def test_links_of_another_split_within_events_np_are_passed_over(self, cifar10dvs: Path) -> None:
        before = opened("cifar10dvs", cifar10dvs / "events_np")
        for name in CLASSES:
            (cifar10dvs / "events_np/test" / name).mkdir(parents=True)
            target = cifar10dvs / f"events_np/{name}/cifar10_{name}_0.npz"
            (cifar10dvs / f"events_np/test/{name}/cifar10_{name}_0.npz").symlink_to(target)
        assert opened("cifar10dvs", cifar10dvs / "events_np").digest == before.digest

    @pytest.mark.parametrize(
        ("choice", "tested"), [("last-100", {"0900", "0999"}), ("first-100", {"0000", "0007", "0099"})]
    )
    def test_which_files_test(self, cifar10dvs: Path, choice: str, tested: set[str]) -> None:
        raw = opened("cifar10dvs", cifar10dvs, f"frames.test_set={choice}")
        for split, numbers in (("test", tested), ("train", {f"{n:04d}" for n in NUMBERS} - tested)):
            assert {s.id.split("/")[1] for s in raw.samples if s.split == split} == numbers
            assert {s.id.split("/")[0] for s in raw.samples if s.split == split} == set(CLASSES)

    def test_the_test_set_must_be_stated(self) -> None:
        with pytest.raises(UsageError, match=r"frames\.test_set.* needs this choice"):
            load_registry().dataset("cifar10dvs", "paper", ["frames.test_set=null"])
        for recipe in ("paper", "authors"):
            frames = load_registry().dataset("cifar10dvs", recipe).frames
            assert frames is not None
            assert frames.test_set == "last-100"

    @pytest.mark.parametrize("ending", ["aedat", "aedat4"])
    def test_tonic_s_aedat_4_under_either_name(self, tmp_path: Path, ending: str) -> None:
        events = random_events(np.random.default_rng(0), 30)
        for name in CLASSES:
            for number in (3, 950):
                path = tmp_path / "CIFAR10DVS" / name / f"cifar10_{name}_{number}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_aedat4((0, "EVTS", events)))
        raw = opened("cifar10dvs", tmp_path)
        assert events_by_id(raw)["cat/0950"] == events.tolist()
        assert any("frames.axes could not be applied" in note for note in raw.notes)
        for name in CLASSES:  # tonic unpacks its archive to ten others, for which there are no checksums
            as_zip(tmp_path / "CIFAR10DVS" / name, tmp_path / f"CIFAR10DVS/{name}.zip")
        packed = opened("cifar10dvs", tmp_path, verify=True)
        assert packed.digest == raw.digest
        assert not packed.verified
        assert "unverified: the files of tonic's copy have no published checksum" in packed.notes
        with pytest.raises(RawDataError, match=r"frames\.axes=spikingjelly") as error:
            opened("cifar10dvs", tmp_path, "frames.axes=spikingjelly")
        assert "--set frames.axes=authors" in error.value.hint


KEEP = "frames.invalid_events=keep"


@pytest.fixture
def gesture(tmp_path: Path) -> Path:
    """A root of SpikingJelly's with three recordings of eleven gestures, the third one twice."""
    root = tmp_path / "DVS128Gesture"
    folder = root / "extract/DvsGesture"
    write_gestures(folder)
    for table in sorted(folder.glob("*_labels.csv")):
        lines = table.read_text().splitlines()
        lines.insert(4, lines[3].replace("200000,260000", "210000,250000"))
        table.write_text("\n".join(lines) + "\n")
    raw = opened("gesture", root, KEEP)
    seen: dict[tuple[str, int], int] = {}
    for member in raw.recordings():
        for row, events, _ in raw.decode(member.name, member.load()):
            sample = raw.samples[row]
            k = seen[member.name, sample.label] = seen.get((member.name, sample.label), -1) + 1
            name = f"{member.name.removesuffix('.aedat')}_{k}.npz"
            save_npz(root / "events_np" / sample.split / str(sample.label) / name, events)
    return root


class TestGesture:
    def test_archives_then_extract_then_events_np(self, gesture: Path) -> None:
        extracted = opened("gesture", gesture, KEEP)
        as_tar(gesture / "extract/DvsGesture", gesture / "download/DvsGesture.tar.gz")
        packed = opened("gesture", gesture, KEEP)
        assert (packed.root, packed.digest) == (gesture / "download", extracted.digest)
        assert opened("gesture", gesture.parent, KEEP).digest == extracted.digest
        shutil.rmtree(gesture / "download")
        shutil.rmtree(gesture / "extract")
        converted = opened("gesture", gesture, KEEP)
        assert converted.root == gesture / "events_np"
        assert any("converted" in note for note in converted.notes)

    def test_events_np_keeps_the_events_and_the_order_within_a_class(self, gesture: Path) -> None:
        original, converted = opened("gesture", gesture, KEEP), opened("gesture", gesture / "events_np", KEEP)
        events, again = events_by_id(original), events_by_id(converted)
        assert len(converted.samples) == 3 * 12
        for split in ("train", "test"):
            for label in range(11):
                ours, theirs = (
                    [found[s.id] for s in raw.samples if (s.split, s.label) == (split, label)]
                    for raw, found in ((original, events), (converted, again))
                )
                assert ours == theirs

    @pytest.mark.parametrize(
        ("changes", "message", "hint"),
        [
            ([], "frames.invalid_events=drop needs the valid bits", "--set frames.invalid_events=keep"),
            ([KEEP, "frames.training_set=first-78"], "needs trials_to_train.txt", "--set frames.training_set=all"),
        ],
    )
    def test_a_choice_that_converted_recordings_cannot_honour(
        self, gesture: Path, changes: list[str], message: str, hint: str
    ) -> None:
        with pytest.raises(RawDataError, match=message) as error:
            opened("gesture", gesture / "events_np", *changes)
        assert hint in error.value.hint

    def test_tonic_s_set_is_counted_by_its_own_numbers(self, tmp_path: Path) -> None:
        for part, users in (("Train", range(98)), ("Test", range(100, 124))):
            for user in users:
                for label in range(11):
                    path = tmp_path / f"DVSGesture/ibmGesture{part}/user{user:02}_led/{label}.npy"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, np.array([(label, user, 1, 5), (label, user, 0, 3)]))
        (tmp_path / "DVSGesture/ibmGestureTrain/user97_led/7.npy").unlink()
        raw = opened("gesture", tmp_path, KEEP)
        assert raw.complete
        assert not raw.verified
        assert len(raw.samples) == 1077 + 264
        assert any("1077 + 264 samples instead of 1176 + 288" in note for note in raw.notes)
        assert raw.samples[3].id == "user00_led/03"
        member = next(member for member in raw.recordings() if member.name.endswith("user04_led/3.npy"))
        assert [(n, e.tolist()) for _, e, n in raw.decode(member.name, member.load())] == [
            (2, [(3000, 3, 4, 0), (5000, 3, 4, 1)])
        ]
        for part in ("Train", "Test"):
            as_tar(tmp_path / f"DVSGesture/ibmGesture{part}", tmp_path / f"DVSGesture/ibmGesture{part}.tar.gz")
        assert opened("gesture", tmp_path, KEEP).digest == raw.digest
        with pytest.raises(ChecksumError, match="3a8f0d4120a166bac7591f77409cb105"):
            opened("gesture", tmp_path, KEEP, verify=True)
        with pytest.raises(RawDataError, match="needs the valid bits"):
            opened("gesture", tmp_path)

    def test_one_sample_in_both_of_tonic_s_splits(self, tmp_path: Path) -> None:
        for part in ("Train", "Test"):
            path = tmp_path / f"ibmGesture{part}/user01_led/3.npy"
            path.parent.mkdir(parents=True)
            np.save(path, np.array([(1, 1, 1, 5)]))
        with pytest.raises(RawDataError, match="user01_led/03 exists twice"):
            opened("gesture", tmp_path, KEEP)


MINE = """\
name: mine
title: my gestures
layout: folders
kind: events
shape: [2, 128, 128]
classes: [cars, background]
samples: {train: 4, test: 2}
recipes:
  paper:
    frames: {slicing: number, outside_events: refuse, invalid_events: drop}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one's own with a recording of every format, in a registry of one's own."""
    registry = tmp_path / "registry/datasets"
    registry.mkdir(parents=True)
    (registry / "mine.yaml").write_text(MINE)
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "registry"))
    one = np.array([(7, 1, 2, 1)], EVENT)
    files = {
        "train/cars/a.aedat": encode_aedat3(one),
        "train/cars/b.dat": b"% Version 2\n\x0c\x08" + struct.pack("<II", 7, 1 << 28 | 2 << 14 | 1),
        "train/background/deep/c.bin": atis(one),
        "train/background/d": encode_aedat4((0, "EVTS", one)),
        "test/cars/a.aedat": b"#!AER-DAT2.0\r\n" + struct.pack(">II", 2 << 8 | 126 << 1, 7),
    }
    for name, data in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    save_npz(tmp_path / "data/test/background/f.npz", one)
    (tmp_path / "data/train/.DS_Store").write_bytes(b"junk")
    return tmp_path / "data"


class TestFolders:
    def test_every_format_by_its_header(self, mine: Path) -> None:
        raw = opened("mine", mine)
        assert raw.complete
        assert not raw.verified
        assert [(s.id, s.label, s.split) for s in raw.samples] == [
            ("train/background/d", 1, "train"),
            ("train/background/deep/c", 1, "train"),
            ("train/cars/a", 0, "train"),
            ("train/cars/b", 0, "train"),
            ("test/background/f", 1, "test"),
            ("test/cars/a", 0, "test"),
        ]
        assert list(events_by_id(raw).values()) == [[(7, 1, 2, 1)]] * 6

    @pytest.mark.parametrize("archive", ["mine.zip", "mine.tar.gz", "else.tgz"])
    def test_an_archive_and_its_folder_have_one_digest(self, mine: Path, tmp_path: Path, archive: str) -> None:
        target = tmp_path / "packed" / archive
        (as_zip if archive.endswith(".zip") else as_tar)(mine, target)
        place = target.parent if archive.startswith("mine") else target
        packed = opened("mine", place)
        assert packed.digest == opened("mine", mine).digest
        assert len(events_by_id(packed)) == 6

    def test_below_its_name_or_in_the_environment(
        self, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine.rename(tmp_path / "mine")
        assert len(opened("mine", tmp_path).samples) == 6
        monkeypatch.setenv("PLIFCTL_RAW_DIR", str(tmp_path))
        assert len(opened("mine", None).samples) == 6

    @pytest.mark.parametrize("form", ["n-cars_{}", "My_{}"])
    def test_names_of_the_splits(self, mine: Path, form: str) -> None:
        for split in ("train", "test"):
            (mine / split).rename(mine / form.format(split))
        assert opened("mine", mine).samples[0].id == f"{form.format('train')}/background/d"

    def test_classes_must_be_those_of_the_yaml(self, mine: Path) -> None:
        (mine / "train/background").rename(mine / "train/backgrund")
        with pytest.raises(
            RawDataError,
            match=r"class folders are backgrund, background, cars, expected the classes .*YAML: background, cars$",
        ):
            opened("mine", mine)

    def test_two_folders_for_one_split(self, mine: Path) -> None:
        shutil.copytree(mine / "train", mine / "old_train")
        with pytest.raises(RawDataError, match="old_train and train, expected one folder for train"):
            opened("mine", mine)

    def test_one_sample_in_two_formats(self, mine: Path) -> None:
        shutil.copy(mine / "train/cars/a.aedat", mine / "train/cars/a.dat")
        with pytest.raises(RawDataError, match="train/cars/a exists twice"):
            opened("mine", mine)

    def test_what_is_no_recording_is_named_when_it_is_read(self, mine: Path) -> None:
        (mine / "train/cars/b.dat").write_text("notes\n!")
        raw = opened("mine", mine)
        with pytest.raises(DamagedFileError, match=r"b.dat: .*expected a recording of a known"):
            events_by_id(raw)

    def test_nothing_there(self, mine: Path, tmp_path: Path) -> None:
        shutil.rmtree(mine / "test")
        with pytest.raises(RawDataError, match=r"looked for train/ and test/") as error:
            opened("mine", mine)
        assert "train/CLASS/FILE" in error.value.hint
        (tmp_path / "x.npz").write_bytes(b"")
        with pytest.raises(RawDataError, match=r"x.npz: not a file of this data set"):
            opened("mine", tmp_path / "x.npz")

    def test_more_files_than_stated(self, mine: Path) -> None:
        shutil.copy(mine / "train/cars/a.aedat", mine / "train/cars/z.aedat")
        with pytest.raises(RawDataError, match="5 training and 2 test samples, but my gestures has 4 and 2"):
            opened("mine", mine)

    @pytest.mark.real
    def test_real_recordings_of_two_formats(self, mine: Path, shared: Path) -> None:
        shutil.rmtree(mine)
        samples = shared / "data/samples"
        for split, name, file in (
            ("n-cars_train", "cars", "sample_ncars.dat"),
            ("n-cars_test", "cars", "sample_ncars.dat"),
            ("n-cars_train", "background", "sample_nmnist.bin"),
            ("n-cars_test", "background", "sample_nmnist.bin"),
        ):
            (mine / split / name).mkdir(parents=True)
            shutil.copy(samples / file, mine / split / name / file)
        raw = opened("mine", mine)
        counts = {name: len(events) for name, events in events_by_id(raw).items()}
        assert counts == {
            f"n-cars_{split}/{name}": n
            for split in ("train", "test")
            for name, n in (("cars/sample_ncars", 2009), ("background/sample_nmnist", 4325))
        }


def test_the_example_of_the_registry_s_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(__file__).parents[3] / "registry/README.md"
    _, _, example = readme.read_text().partition("# mine/datasets/ncars.yaml\n")
    (tmp_path / "mine/datasets").mkdir(parents=True)
    (tmp_path / "mine/datasets/ncars.yaml").write_text(example.partition("```")[0])
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "mine"))
    assert load_registry().check() == []
    assert load_registry().dataset("ncars", "authors").dataset.layout == "folders"
