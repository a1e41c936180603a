"""plifctl data init, run as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_files import encode_dat, write_nmnist

from plifctl.config.lookup import load_experiment

Plifctl = Callable[..., Any]


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
    result = plifctl("prepare", "hands", "--raw", "recordings")
    assert (result.code, "10 training and 10 test samples" in result.out) == (0, True)


def test_init_as_json_has_values_and_comments(plifctl: Plifctl, recordings: Path) -> None:
    tree = json.loads(plifctl("data", "init", "recordings", "--json").out)
    assert (tree["path"], tree["values"]["dataset.layout"]) == ("recordings.yaml", "folders")
    assert "ASSUMED" in tree["comments"]["dataset.shape"]


def test_init_with_set_states_it(plifctl: Plifctl, recordings: Path) -> None:
    assert plifctl("data", "init", "recordings", "--name", "hands", "--set", "flip_y=true").code == 0
    assert load_experiment("hands").spec.dataset.flip_y


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
