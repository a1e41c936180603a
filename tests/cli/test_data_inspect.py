"""plifctl data inspect, run as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_files import AEDAT3_HEADER, encode_dat, encode_npy

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
