"""plifctl data init, run as a user runs it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_files import encode_dat, encode_davis, pack_tar, pack_zip, write_nmnist

from plifctl.config.lookup import load_experiment

Plifctl = Callable[..., Any]
DAVIS_HEADER = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n"


@pytest.fixture
def recordings(places: Path) -> Path:
    """Recordings of a sensor of 8 × 6 pixels, in a folder for each split and class."""
    for index, name in enumerate(
        f"{split}/{label}/{k}" for split in ("train", "test") for label in "ab" for k in "12345"
    ):
        path = places / "recordings" / f"{name}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_dat(*((1000 * k, (k + index) % 8, k % 6, k % 2) for k in range(40))))
    return places / "recordings"


def test_init_writes_one_file_that_can_be_shown_and_prepared(plifctl: Plifctl, recordings: Path, places: Path) -> None:
    result = plifctl("data", "init", "recordings", "--name", "hands")
    assert (result.code, "written: hands.yaml" in result.out) == (0, True)
    assert "dataset.shape: polarities, height, width: ASSUMED" in result.out
    spec = load_experiment("hands").spec
    assert (spec.dataset.shape, spec.dataset.classes) == ((2, 6, 8), ("a", "b"))
    assert spec.dataset.raw == str(recordings)
    assert plifctl("check", "hands.yaml").code == 0
    result = plifctl("prepare", "hands")
    assert (result.code, "10 training and 10 test samples" in result.out) == (0, True)


def test_init_of_a_class_folder_whose_name_is_not_utf8_names_it(plifctl: Plifctl, recordings: Path) -> None:
    os.rename(os.fsencode(recordings / "train/a"), os.fsencode(recordings / "train") + b"/gr\xfc\xdfe")  # noqa: PTH104
    result = plifctl("data", "init", "recordings/train", "--name", "hands")
    assert result.code == 4
    assert r"recordings/train: gr\xfc\xdfe: the name of a class folder is not UTF-8" in result.err
    assert "hint: rename the folder" in result.err


def test_init_of_recordings_whose_path_is_not_utf8_names_it(plifctl: Plifctl, recordings: Path) -> None:
    folder = recordings.rename(os.fsdecode(os.fsencode(recordings.parent) + b"/gr\xfc\xdfe"))
    result = plifctl("data", "init", folder.name, "--name", "hands")
    assert result.code == 4
    assert r"gr\xfc\xdfe: the path of the recordings is not UTF-8" in result.err
    assert "hint: rename the folder" in result.err


def test_init_with_a_table_whose_path_is_not_utf8_names_it(plifctl: Plifctl, recordings: Path, places: Path) -> None:
    flatten_with_table(recordings, places / "all", os.fsdecode(b"gr\xfc\xdfe.csv"))
    result = plifctl("data", "init", "all", "--name", "hands")
    assert result.code == 4
    assert r"all: gr\xfc\xdfe.csv: the path of the table of labels is not UTF-8" in result.err
    assert "hint: rename the file" in result.err


@pytest.mark.parametrize("name", ["two\nlines", "two\u2028lines", "a\x85b\x1b"])
def test_init_of_recordings_and_a_table_with_line_breaks_in_their_paths_can_be_prepared(
    plifctl: Plifctl, recordings: Path, places: Path, name: str
) -> None:
    flatten_with_table(recordings, places / name, f"{name}.csv")
    assert plifctl("data", "init", name, "--name", "hands").code == 0
    dataset = load_experiment("hands").spec.dataset
    assert dataset.labels is not None
    assert (dataset.raw, dataset.labels.file) == (str(places / name), f"{name}.csv")
    result = plifctl("prepare", "hands")
    assert (result.code, "10 samples" in result.out) == (0, True)


def flatten_with_table(recordings: Path, folder: Path, table: str) -> None:
    """Moves recordings into one folder, with a table of their labels."""
    folder.mkdir()
    lines = ["file,hand"]
    for k, path in enumerate(sorted(recordings.glob("train/*/*.dat"))):
        path.rename(folder / f"{k}.dat")
        lines.append(f"{k}.dat,{['left', 'right'][k % 2]}")
    (folder / table).write_text("\n".join(lines))


def test_init_of_own_recordings_named_as_nmnist_says_how_to_take_them(plifctl: Plifctl, places: Path) -> None:
    write_nmnist(places / "digits")
    result = plifctl("data", "init", "digits")
    assert result.code == 2
    assert "hint: plifctl prepare nmnist --T 10 --raw digits" in result.err
    assert "if they are your own: rename Train and Test, e.g. to train and test" in result.err
    for split in ("Train", "Test"):
        (places / "digits" / split).rename(places / "digits" / split.lower())
    assert plifctl("data", "init", "digits").code == 0
    dataset = load_experiment("digits").spec.dataset
    assert (dataset.layout, dataset.classes) == ("folders", ("0", "1"))
    result = plifctl("prepare", "digits")
    assert (result.code, "6 training and 2 test samples" in result.out) == (0, True)


def test_init_of_class_folders_makes_a_split_when_a_run_begins(plifctl: Plifctl, recordings: Path) -> None:
    assert plifctl("data", "init", "recordings/train", "--name", "hands").code == 0
    spec = load_experiment("hands").spec
    assert (spec.dataset.layout, spec.split.method, spec.split.test) == ("class-folders", "share", 0.2)
    result = plifctl("prepare", "hands")
    assert (result.code, "10 samples without an official split" in result.out) == (0, True)


def test_init_of_recordings_with_a_table_reads_its_labels(plifctl: Plifctl, recordings: Path, places: Path) -> None:
    (places / "all/rec").mkdir(parents=True)
    lines = ["file;hand;subject;from_ms;to_ms"]
    for k, path in enumerate(sorted(recordings.glob("train/*/*.dat"))):
        path.rename(places / f"all/rec/{k}.dat")
        lines.append(f"{k}.dat;{['left', 'right'][k % 2]};{['anna', 'bob'][k // 5]};0;20")
    (places / "all/labels.csv").write_text("\n".join(lines))
    assert plifctl("data", "init", "all", "--name", "hands").code == 0
    dataset = load_experiment("hands").spec.dataset
    assert (dataset.layout, dataset.classes) == ("label-table", ("left", "right"))
    assert dataset.labels is not None
    assert (dataset.labels.label, dataset.labels.group, dataset.labels.time_unit) == ("hand", "subject", "ms")
    result = plifctl("prepare", "hands")
    assert (result.code, "10 samples" in result.out, "200 events framed" in result.out) == (0, True, True)


@pytest.mark.parametrize("folder", ["recordings", "recordings/train"])
@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_init_of_an_archive_with_one_folder_in_it_can_be_prepared(
    plifctl: Plifctl, recordings: Path, places: Path, folder: str, pack: Callable[[Path, Path], None]
) -> None:
    name = "packed.zip" if pack is pack_zip else "packed.tar.gz"
    pack((places / folder).rename(places / "study"), places / name)
    assert plifctl("data", "init", name, "--name", "hands").code == 0
    assert load_experiment("hands").spec.dataset.raw == str(places / name)
    assert plifctl("prepare", "hands").code == 0
    (places / "outer/data").mkdir(parents=True)
    (places / "study").rename(places / "outer/data/study")
    pack(places / "outer", places / f"deep-{name}")
    assert plifctl("prepare", "hands", "--T", 3, "--raw", f"deep-{name}").code == 0


def test_init_as_json_has_values_and_comments(plifctl: Plifctl, recordings: Path) -> None:
    tree = json.loads(plifctl("data", "init", "recordings", "--json").out)
    assert (tree["path"], tree["values"]["dataset.layout"]) == ("recordings.yaml", "folders")
    assert "ASSUMED" in tree["comments"]["dataset.shape"]


def test_init_with_set_states_it(plifctl: Plifctl, recordings: Path) -> None:
    assert plifctl("data", "init", "recordings", "--name", "hands", "--set", "flip_y=true").code == 0
    assert load_experiment("hands").spec.dataset.flip_y


@pytest.mark.parametrize(
    ("stated", "flips"),
    [((), (True, True)), (("flip_y=false",), (False, False)), (("flip_x=false", "flip_y=true"), (False, True))],
)
def test_init_assumes_nothing_that_set_states(
    plifctl: Plifctl, places: Path, stated: tuple[str, ...], flips: tuple[bool, bool]
) -> None:
    for label in "ab":
        (places / "mine" / label).mkdir(parents=True)
        recording = encode_davis(*((1000 * k, k % 300, k % 200, k % 2) for k in range(40)), header=DAVIS_HEADER)
        (places / "mine" / label / "1.aedat").write_bytes(recording)
    settings = [word for text in stated for word in ("--set", text)]
    assert plifctl("data", "init", "mine", "--name", "hands", *settings).code == 0
    dataset = load_experiment("hands").spec.dataset
    assert (dataset.flip_x, dataset.flip_y) == flips


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("recordings", "--name", "taken"), 2, "taken.yaml: exists already"),
        (("recordings", "--name", "gesture"), 2, "gesture is a name in the registry"),
        (("recordings", "--name", "a/b"), 2, "cannot be a name"),
        (("nowhere",), 4, "nowhere: no such folder"),
        (("recordings/train/a",), 4, "no classes"),
        (("published",), 2, "plifctl prepare nmnist --T 10 --raw published"),
    ],
)
def test_init_with_bad_input_writes_nothing(
    plifctl: Plifctl, recordings: Path, places: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (places / "taken.yaml").write_text("mine")
    write_nmnist(places / "published")
    result = plifctl("data", "init", *arguments)
    assert (result.code, message in result.err) == (code, True)
    assert [path.read_text() for path in places.glob("*.yaml")] == ["mine"]


def save_arrays(folder: Path, suffix: str, array: np.ndarray) -> None:
    for place in (folder / label / f"{k}{suffix}" for label in "ab" for k in range(2)):
        place.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npz":
            np.savez(place, **{name: array[:, k] for k, name in enumerate("txyp"[: array.shape[1]])})
        elif suffix == ".npy":
            np.save(place, array)
        else:
            np.savetxt(place, array, fmt="%d", delimiter=",", header="t,x,y", comments="")


@pytest.mark.parametrize(
    ("suffix", "shape", "message", "hint"),
    [
        (".npz", (9, 3), "no recording can be read: a/0.npz: contains t, x, y, expected", "add a column p"),
        (".npy", (9, 3), "no recording can be read: a/0.npy: an array of shape [9, 3], expected", "add a column p"),
        (".csv", (9, 3), "no recording can be read: a/0.csv: a text file that begins with 't,x,y'", "add a column p"),
        (".npy", (9, 2, 4, 4), "a/0.npy: an array of shape [9, 2, 4, 4], expected", "save its events with numpy"),
        (".npz", (0, 4), "no recording has events: the size of the sensor is not known", ""),
    ],
)
def test_init_without_a_recording_that_can_be_read_says_why(
    plifctl: Plifctl, places: Path, suffix: str, shape: tuple[int, ...], message: str, hint: str
) -> None:
    save_arrays(places / "mine", suffix, np.arange(np.prod(shape)).reshape(shape))
    result = plifctl("data", "init", "mine")
    messages = " ".join(result.err.split())
    assert (result.code, message in messages, hint in messages) == (4, True, True)
    assert messages.endswith("hint: plifctl data inspect mine")


@pytest.mark.parametrize(
    ("folder", "stray"), [("recordings", "test/0.dat"), ("recordings/train", "0.dat"), ("recordings/train", "../0.dat")]
)
def test_init_names_recordings_in_no_folder_of_a_class(
    plifctl: Plifctl, recordings: Path, places: Path, folder: str, stray: str
) -> None:
    if stray.startswith("../"):  # above the folder of the classes
        shutil.rmtree(recordings / "test")
    shutil.copy(recordings / "train/a/1.dat", places / folder / stray)
    result = plifctl("data", "init", "recordings" if "../" in stray else folder, "--name", "hands")
    messages = " ".join(result.err.split())
    assert result.code == 4
    name = stray.removeprefix("../")
    assert f"no classes: in no folder of a class, as other recordings are: {name} hint: move them" in messages


@pytest.mark.parametrize("ending", [".png", ".mp4"])
def test_init_of_pictures_or_videos_says_which_images_are_read(plifctl: Plifctl, places: Path, ending: str) -> None:
    for name in ("a/1", "b/2"):
        (places / "mine" / name).parent.mkdir(parents=True)
        (places / "mine" / f"{name}{ending}").write_bytes(b"\x89PNG\r\n" if ending == ".png" else b"\0\0\0\x18ftypmp42")
    result = plifctl("data", "init", "mine")
    messages = " ".join(result.err.split())
    assert (result.code, f"found pictures or videos, a/1{ending}, b/2{ending}" in messages) == (4, True)
    assert "images are read in the layouts mnist, fashion-mnist and cifar10 only" in messages


def test_init_of_class_folders_with_a_table_of_subjects_keeps_subjects_together(
    plifctl: Plifctl, recordings: Path
) -> None:
    files = sorted(path.relative_to(recordings / "train") for path in recordings.glob("train/*/*.dat"))
    rows = [f"{file.as_posix()},{file.parts[0]},{['anna', 'bob'][k % 2]}" for k, file in enumerate(files)]
    (recordings / "train/labels.csv").write_text("\n".join(["file,class,subject", *rows]))
    assert plifctl("data", "init", "recordings/train", "--name", "hands").code == 0
    spec = load_experiment("hands").spec
    assert (spec.dataset.layout, spec.dataset.classes, spec.split.groups) == ("label-table", ("a", "b"), "table")
    assert plifctl("prepare", "hands").code == 0


def test_init_names_a_table_of_labels_that_it_does_not_use(plifctl: Plifctl, recordings: Path) -> None:
    (recordings / "train/labels.csv").write_text("file,class\na/1,go\nb/1,stop\na/9,go\n")
    result = plifctl("data", "init", "recordings/train", "--name", "hands")
    messages = " ".join(result.err.split())
    assert result.code == 0
    assert "labels.csv has labels (class: go, stop), and is not used: 1 of its 3 lines name no file" in messages
    assert "8 of 10 recordings are in no line" in messages
    assert load_experiment("hands").spec.dataset.layout == "class-folders"


def test_init_names_a_table_of_subjects_without_classes(plifctl: Plifctl, recordings: Path) -> None:
    rows = [f"{label}/{k}.dat,{['anna', 'bob'][int(k) % 2]}" for label in "ab" for k in "12345"]
    (recordings / "train/people.csv").write_text("\n".join(["file,subject", *rows]))
    result = plifctl("data", "init", "recordings/train", "--name", "hands")
    assert result.code == 0
    assert "people.csv names the subject of recordings, and is not used: it has no column" in " ".join(
        result.err.split()
    )


def test_init_of_one_split_alone_takes_its_folders_as_classes(plifctl: Plifctl, recordings: Path) -> None:
    shutil.rmtree(recordings / "test")
    assert plifctl("data", "init", "recordings", "--name", "hands").code == 0
    spec = load_experiment("hands").spec
    assert (spec.dataset.layout, spec.dataset.raw) == ("class-folders", str(recordings / "train"))
    assert spec.split.method == "share"
    assert plifctl("prepare", "hands").code == 0
