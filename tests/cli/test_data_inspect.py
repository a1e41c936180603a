"""plifctl data inspect, run as a user runs it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_files import AEDAT3_HEADER, encode_dat, encode_npy, pack_zip, write_nmnist

from plifctl.config.choices import EmbeddedDataset
from plifctl.data.synthetic import write_synthetic
from plifctl.paths import registry_dirs

Plifctl = Callable[..., Any]


def test_inspect_recording_shows_facts_assumptions_and_hints(plifctl: Plifctl, places: Path) -> None:
    (places / "a.dat").write_bytes(encode_dat((7, 1, 2, 0), (1_000_009, 3, 4, 1)))
    result = plifctl("data", "inspect", "a.dat")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "a.dat"
    assert "  events    2, 50.0 % on" in lines
    assert "  time      7 to 1,000,009 µs" in lines
    assert "  duration  1.000 s" in lines
    assert any(line.startswith("assumed: the file does not state the size of the sensor") for line in lines)
    assert "  hint: state that of your camera, height first: shape: [2, 5, 4]" in lines


def test_inspect_recording_as_json_is_one_document(plifctl: Plifctl, places: Path) -> None:
    (places / "a.dat").write_bytes(encode_dat((7, 1, 2, 0), (9, 3, 4, 1)))
    tree = json.loads(plifctl("data", "inspect", "a.dat", "--json").out)
    assert (tree["format"], tree["n_events"], tree["n_on"], tree["sensor_seen"]) == ("Prophesee .dat", 2, 1, [4, 5])
    assert tree["findings"][0]["kind"] == "assumed"
    assert tree["sensor_stated"] is None


def test_inspect_recording_with_date_shows_it(plifctl: Plifctl, places: Path) -> None:
    events = np.array([(1_605_537_493_000_000, 1, 1, 0)], [("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "u1")])
    (places / "a.npy").write_bytes(encode_npy(events))
    assert "2020-11-16 14:38:13 UTC" in plifctl("data", "inspect", "a.npy").out


def test_inspect_recording_with_set_reads_it_so(plifctl: Plifctl, places: Path) -> None:
    (places / "a.npy").write_bytes(encode_npy(np.array(((3, 4, 1, 20), (1, 2, 0, 30), (5, 6, 1, 40)))))
    tree = json.loads(plifctl("data", "inspect", "a.npy", "--set", "time_unit=s", "--json").out)
    assert tree["duration_us"] == 20_000_000
    result = plifctl("data", "inspect", "a.npy", "--set", "time_unit=min")
    assert (result.code, "time_unit" in result.err) == (2, True)
    result = plifctl("data", "inspect", "a.npy", "--set", "flipy=true")
    assert (result.code, "did you mean flip_y?" in result.err) == (2, True)


@pytest.mark.long
def test_inspect_recording_with_out_draws_row_0_at_the_top(plifctl: Plifctl, places: Path) -> None:
    # one on event each µs in the upper left corner of 8 × 8 pixels, and one in the lower right at the end
    (places / "a.dat").write_bytes(encode_dat(*((t, 0, 0, 1) for t in range(80)), (80, 7, 7, 0)))
    result = plifctl("data", "inspect", "a.dat", "--out", "a.png")
    assert (result.code, result.out.splitlines()[-1]) == (0, "written: a.png")

    def first_panel(name: str) -> np.ndarray[Any, Any]:
        with Image.open(places / name) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        coloured = np.ptp(pixels, axis=2) > 20
        coloured[:160] = False  # title and legend
        rows, columns = np.nonzero(coloured)
        return np.array([rows.min(), columns.min()])

    assert plifctl("data", "inspect", "a.dat", "--out", "b.png", "--set", "flip_y=true").code == 0
    (top, left), (flipped, same) = first_panel("a.png"), first_panel("b.png")
    assert left == same
    assert flipped > top + 100


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.dat",), 4, "no such file or folder"),
        (("a.dat", "--out", "a.jpg"), 2, "the picture is a .png"),
        (("a.dat", "--out", "dir.png"), 2, "this is a folder"),
        ((), 2, "missing argument"),
    ],
)
def test_inspect_with_bad_input_says_why(
    plifctl: Plifctl, places: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (places / "dir.png").mkdir()
    (places / "a.dat").write_bytes(encode_dat((7, 1, 2, 0)))
    result = plifctl("data", "inspect", *arguments)
    assert (result.code, message in result.err) == (code, True)
    assert result.out == ""


@pytest.mark.parametrize("content", [AEDAT3_HEADER + bytes(5), b"#ROSBAG V2.0\n"])
def test_inspect_unreadable_file_shows_what_is_known_and_ends_with_4(
    plifctl: Plifctl, places: Path, content: bytes
) -> None:
    (places / "a.aedat").write_bytes(content)
    result = plifctl("data", "inspect", "a.aedat", "--out", "a.png")
    assert result.code == 4
    assert "problem: " in result.out
    assert not (places / "a.png").exists()
    assert json.loads(plifctl("data", "inspect", "a.aedat", "--json").out)["n_events"] in (None, 0)


@pytest.mark.parametrize(
    "name", ["sample.aedat4", "sample_aedat_header.aedat", "sample_ncars.dat", "sample_nmnist.bin"]
)
def test_inspect_real_samples(plifctl: Plifctl, shared: Path, name: str) -> None:
    assert plifctl("data", "inspect", shared / "data/samples" / name).code == 0


def dat(n: int, step: int = 1000) -> bytes:
    return encode_dat(*((step * k, k % 8, k % 6, k % 2) for k in range(n)))


@pytest.fixture
def hands(places: Path) -> Path:
    """A folder of two classes: five recordings, one of them cut off, and a table of labels."""
    for name, content in {
        "fist/1.dat": dat(10),
        "fist/2.dat": dat(20),
        "wave/1.dat": dat(30),
        "wave/2.dat": dat(40, 10**6),
        "wave/3.dat": dat(10)[:-1],
        "labels.csv": b"file,subject,class\nfist/1,anna,fist\nfist/2,bob,fist\nwave/1,bob,wave\nwave/9,bob,wave\n",
        "notes.md": b"# notes\n",
    }.items():
        (places / "hands" / name).parent.mkdir(parents=True, exist_ok=True)
        (places / "hands" / name).write_bytes(content)
    return places / "hands"


def test_inspect_folder_shows_formats_classes_problems(plifctl: Plifctl, hands: Path) -> None:
    result = plifctl("data", "inspect", "hands")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].startswith("hands: 7 files, ")
    assert "layout: CLASS/FILE (layout: class-folders)" in lines
    assert any(line.split() == ["fist", "2", "30", "0.009", "0.014", "0.019"] for line in lines)
    assert "labels.csv: a table of labels, 4 rows" in lines
    assert "  problem: 1 rows name no file in this folder" in lines
    assert any(line.startswith("unreadable: ") and "the file is cut off" in line for line in lines)
    assert "  in wave/3.dat" in lines
    assert "stands out: wave/2.dat: 39 s, 1,000 times the median" not in lines  # 2,053 times
    assert any(line.startswith("stands out: wave/2.dat: 39 s, ") for line in lines)
    assert "no recording: notes.md: text" in lines


def test_inspect_folder_as_json_has_everything(plifctl: Plifctl, hands: Path) -> None:
    tree = json.loads(plifctl("data", "inspect", "hands", "--json").out)
    assert (tree["layout"], [row["class"] for row in tree["classes"]]) == ("class-folders", ["fist", "wave"])
    assert [one["name"] for one in tree["recordings"]] == ["fist/1.dat", "fist/2.dat", "wave/1.dat", "wave/2.dat"]
    assert [one["name"] for one in tree["unreadable"]] == ["wave/3.dat"]
    assert tree["tables"][0]["roles"] == {"recording": "file", "label": "class", "group": "subject"}
    assert tree["formats"][0]["n_decoded"] == 4


@pytest.mark.long
def test_inspect_folder_with_out_draws_each_class(plifctl: Plifctl, hands: Path, places: Path) -> None:
    result = plifctl("data", "inspect", "hands", "--out", "hands.png")
    assert (result.code, result.out.splitlines()[-1]) == (0, "written: hands.png")
    with Image.open(places / "hands.png") as picture:
        assert picture.format == "PNG"


def test_inspect_archive_is_read_without_extracting(plifctl: Plifctl, hands: Path, places: Path) -> None:
    pack_zip(hands, places / "all.zip")
    tree = json.loads(plifctl("data", "inspect", "all.zip", "--json").out)
    assert (tree["root"], len(tree["recordings"])) == ("hands", 4)


def test_inspect_folder_without_recordings_ends_with_4(plifctl: Plifctl, places: Path) -> None:
    (places / "empty").mkdir()
    (places / "empty/notes.md").write_text("# notes\n")
    result = plifctl("data", "inspect", "empty")
    assert (result.code, "no recording: notes.md: text" in result.out) == (4, True)


def test_inspect_published_data_set_names_the_command(plifctl: Plifctl, places: Path) -> None:
    write_nmnist(places / "raw")
    assert "plifctl prepare nmnist --T 10 --raw raw" in plifctl("data", "inspect", "raw").out
    for split in ("Train", "Test"):  # folders of another data set
        (places / "raw" / split / "0").rename(places / "raw" / split / "zero")
        (places / "raw" / split / "1").rename(places / "raw" / split / "one")
    assert "plifctl prepare" not in plifctl("data", "inspect", "raw").out


@pytest.mark.parametrize("dataset", ["synthetic-gesture", "synthetic-order"])
def test_simulated_recordings_are_not_published_ones(plifctl: Plifctl, places: Path, dataset: EmbeddedDataset) -> None:
    write_synthetic(places / "raw", dataset, train_users=1, test_users=1)
    assert f"plifctl prepare {dataset} --T " in plifctl("data", "inspect", "raw").out
    other = {"synthetic-gesture": "synthetic-order", "synthetic-order": "synthetic-gesture"}[dataset]
    for name in ("gesture", other):
        result = plifctl("prepare", name, "--T", 2, "--raw", "raw", "--no-checksum")
        assert (result.code, f"simulated recordings of {dataset} (SIMULATED.txt), not {name}" in result.err) == (
            4,
            True,
        )
    (places / "raw/SIMULATED.txt").write_text("Simulated by plifctl synthesize; it may write this folder again.\n")
    assert plifctl("prepare", dataset, "--T", 2, "--raw", "raw").code == 0  # as early versions marked it
    own = (registry_dirs()[0] / f"datasets/{dataset}.yaml").read_text().replace(f"name: {dataset}", "name: my-sim")
    (places / "my-sim.yaml").write_text(own)
    assert plifctl("prepare", "my-sim.yaml", "--T", 2, "--raw", "raw").code == 0
    assert "not gesture" in plifctl("prepare", "gesture", "--T", 2, "--raw", "raw").err


def test_inspect_folder_with_one_file_unreadable_by_permission(plifctl: Plifctl, hands: Path) -> None:
    (hands / "fist/1.dat").chmod(0)
    if os.access(hands / "fist/1.dat", os.R_OK):
        pytest.skip("root reads everything")
    tree = json.loads(plifctl("data", "inspect", "hands", "--json").out)
    assert [one["name"] for one in tree["unreadable"]] == ["fist/1.dat", "wave/3.dat"]


@pytest.mark.parametrize("name", ["notes.txt", "fist/times.tsv", "labels2.csv"])
def test_inspect_and_init_name_a_broken_link_to_a_text_as_unreadable(plifctl: Plifctl, hands: Path, name: str) -> None:
    (hands / name).symlink_to("moved-away")
    (hands / "wave/3.dat").unlink()
    result = plifctl("data", "inspect", "hands")
    assert (result.code, f"  in {name}" in result.out.splitlines()) == (0, True)
    assert (f"{name}: No such file or directory; its labels are not used" in result.err) == (name != "notes.txt")
    assert "unreadable: No such file or directory" in result.out
    result = plifctl("data", "init", "hands")
    assert (result.code, f"cannot be read: {name}; move" in result.out + result.err) == (0, True)


@pytest.mark.parametrize("layout", ["o-unsplit", "o-three-splits/o-three-splits", "zip-backslash/o-backslash.zip"])
def test_inspect_field_layouts(plifctl: Plifctl, shared: Path, layout: str) -> None:
    tree = json.loads(plifctl("data", "inspect", shared / "data/field/layouts" / layout, "--json").out)
    assert sorted({row["class"] for row in tree["classes"]}) == ["a", "b"]
