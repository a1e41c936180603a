"""plifctl show-sample, run as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_runs import prepare_gestures
from PIL import Image
from raw_files import encode_dat

Plifctl = Callable[..., Any]


@pytest.fixture
def prepared(plifctl: Plifctl, made_once: Callable[..., None]) -> Plifctl:
    """The command line with a cache of the tiny gestures, T = 4: classes 0 to 10 of users 1, 2 (training) and 3."""
    made_once(prepare_gestures)

    def show(*arguments: object) -> Any:
        return plifctl("show-sample", "synthetic-gesture", "--T", 4, *arguments)

    return show


class TestSelection:
    def test_show_sample_without_options_draws_first_sample(self, prepared: Plifctl, places: Path) -> None:
        result = prepared()
        assert result.code == 0
        assert result.out.splitlines()[-1] == "written: synthetic-gesture-user01_lab-00.png"
        assert "user01_lab/00" in result.out
        assert "400 events" in result.out
        with Image.open(places / "synthetic-gesture-user01_lab-00.png") as picture:
            assert picture.format == "PNG"

    @pytest.mark.parametrize(
        ("arguments", "ids"),
        [
            (("--sample", "user02_lab/07"), ["user02_lab/07"]),
            (("--sample", 12), ["user02_lab/01"]),
            (("--split", "test"), ["user03_lab/00"]),
            (("--label", 3), ["user01_lab/03"]),
            (("--label", 3, "--split", "test"), ["user03_lab/03"]),
            (("--label", 3, "--count", 2), ["user01_lab/03", "user02_lab/03"]),
            (("--count", 3), ["user01_lab/00", "user01_lab/01", "user01_lab/02"]),
            (("--each-class", "--split", "test"), [f"user03_lab/{label:02}" for label in range(11)]),
        ],
    )
    def test_show_sample_with_selection_draws_those_samples(
        self, prepared: Plifctl, arguments: tuple[object, ...], ids: list[str]
    ) -> None:
        tree = json.loads(prepared(*arguments, "--json").out)
        assert [entry["id"] for entry in tree["samples"]] == ids
        assert all(entry["n_events"] == 400 for entry in tree["samples"])
        with Image.open(tree["out"]) as picture:
            assert picture.format == "PNG"

    def test_show_sample_with_each_class_and_count_draws_several_of_each(self, prepared: Plifctl) -> None:
        tree = json.loads(prepared("--each-class", "--count", 2, "--json").out)
        assert [entry["label"] for entry in tree["samples"]] == [label for label in range(11) for _ in (1, 2)]
        assert tree["out"] == "synthetic-gesture-each-class.png"

    def test_show_sample_with_label_by_name_finds_the_class(self, prepared: Plifctl) -> None:
        name = json.loads(prepared("--sample", 5, "--json").out)["samples"][0]["class"]
        assert json.loads(prepared("--label", name, "--json").out)["samples"][0]["label"] == 5

    def test_show_sample_as_gif_has_events_in_their_columns(self, prepared: Plifctl, places: Path) -> None:
        # class 5 of the tiny gestures lies in columns 50 to 57 of 128; 2 pixels for one in the 4 frames, side by side
        prepared("--sample", "user01_lab/05", "--out", "a.gif")
        with Image.open(places / "a.gif") as file:
            assert file.n_frames == 4
            pixels = np.asarray(file.convert("RGB")).astype(int)
        height = 5 * 128
        panel = pixels[-20 - 1 - height : -20 - 1, 21 : 21 + height]
        coloured = np.ptp(panel, axis=2).any(0)  # frame and text are grey, and a pixel off with other fonts
        inked = np.unique(np.flatnonzero(coloured) // 5)
        assert inked.tolist() == list(range(50, 58))

    def test_show_sample_with_existing_out_replaces_it(self, prepared: Plifctl, places: Path) -> None:
        (places / "a.gif").write_text("older")
        assert prepared("--out", "a.gif").code == 0
        with Image.open(places / "a.gif") as file:
            assert (file.format, file.n_frames) == ("GIF", 4)
        assert prepared("--out", "new/folder/b.PNG").code == 0
        assert (places / "new/folder/b.PNG").is_file()

    def test_show_sample_of_images_draws_png_and_refuses_gif(
        self, plifctl: Plifctl, places: Path, shared: Path
    ) -> None:
        raw = shared / "data/CIFAR10"
        assert plifctl("prepare", "cifar10", "--raw", raw, "--no-checksum").code == 0
        result = plifctl("show-sample", "cifar10", "--label", "ship", "--count", 4)
        assert result.code == 0
        assert result.out.count("ship (class 8)") == 4
        assert (places / "cifar10-4-samples.png").is_file()
        result = plifctl("show-sample", "cifar10", "--out", "a.gif")
        assert result.code == 2
        assert "do not move" in result.err


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "code", "message", "hint"),
        [
            (("--out", "a.jpg"), 2, "pictures are .png, or .gif", "--out a.png"),
            (("--out", "a"), 2, "pictures are .png, or .gif", "--out a.png"),
            (("--sample", "user02_lab/77"), 2, "no sample 'user02_lab/77'", "did you mean user02_lab/0"),
            (("--sample", 33), 2, "33 samples, rows 0 to 32", ""),
            (("--sample", 3, "--split", "test"), 2, "names one sample", ""),
            (("--sample", 3, "--count", 2), 2, "names one sample", ""),
            (("--label", "shrnk"), 2, "unknown class 'shrnk'", "did you mean shrink?"),
            (("--label", 11), 2, "unknown class '11'", "known:"),
            (("--count", 2, "--out", "a.gif"), 2, "one sample, not 2", "--out NAME.png"),
            (
                ("--set", "frames.slicing=time"),
                5,
                "slicing is number, expected time",
                "plifctl prepare synthetic-",
            ),
            (("--recipe", "authors"), 5, "no cache of", "--recipe authors"),
            (("--set", "frames.slicng=time"), 2, "slicng", "did you mean"),
            (("--T", 5), 5, "T is 4, expected 5", "plifctl prepare synthetic-gesture --T 5"),
        ],
    )
    def test_show_sample_with_bad_input_hints_what_to_type(
        self, prepared: Plifctl, places: Path, arguments: tuple[object, ...], code: int, message: str, hint: str
    ) -> None:
        result = prepared(*arguments)
        assert result.code == code
        assert message in result.err
        assert hint in result.err
        assert not [*places.glob("*.png"), *places.glob("*.gif")]

    def test_show_sample_without_cache_hints_prepare(self, plifctl: Plifctl) -> None:
        result = plifctl("show-sample", "gesture")
        assert result.code == 5
        assert "hint: plifctl prepare gesture --T 20" in result.err
        assert plifctl("show-sample", "gestur").code == 2

    def test_show_sample_with_out_that_is_a_folder_is_a_usage_error(self, prepared: Plifctl, places: Path) -> None:
        (places / "a.png").mkdir()
        result = prepared("--out", "a.png")
        assert result.code == 2
        assert "this is a folder" in result.err


def test_show_sample_of_names_that_are_not_utf8_or_long_draws_them(plifctl: Plifctl, places: Path) -> None:
    for n, name in enumerate(("a/gr\udcfc\udcdfe", f"a/{'long ' * 24}/{'ü' * 100}", "b/1", "b/2")):
        path = places / f"hands/{name}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_dat(*((1000 * k, k % 8, k % 6, k % 2) for k in range(40 + n))))
    assert plifctl("data", "inspect", "hands", "--out", "hands.png").code == 0
    assert plifctl("data", "init", "hands").code == 0
    assert plifctl("prepare", "hands").code == 0
    for row in range(2):
        assert plifctl("show-sample", "hands", "--sample", row).code == 0
    long = f"hands-a-{'long ' * 24}-{'ü' * 35}.png"
    assert {path.name for path in places.glob("*.png")} == {"hands.png", "hands-a-gr\udcfc\udcdfe.png", long}
