"""Layouts, found by the paths of recordings."""

import re

import pytest

from plifctl.data.datasets.folders import Folders
from plifctl.data.inspection.layout import find_layout, sort_names
from plifctl.data.split_names import split_of


@pytest.mark.parametrize(
    ("names", "layout", "root", "splits", "classes"),
    [
        (["train/a/1.bin", "test/b/2.bin"], "folders", "", ("train", "test"), ("a", "b")),
        (["Test/1/x.bin", "Train/0/y.bin"], "folders", "", ("Train", "Test"), ("0", "1")),
        (["s/n-cars_train/a/1.dat", "s/n-cars_test/a/1.dat"], "folders", "s", ("n-cars_train", "n-cars_test"), ("a",)),
        (["train/a/1", "val/a/1", "test/a/1"], "folders", "", ("train", "val", "test"), ("a",)),
        (["train/a/deep/1.bin", "test/a/1.bin"], "folders", "", ("train", "test"), ("a",)),
        (["train/1.bin", "test/2.bin"], None, "", ("train", "test"), ()),
        (["a/1.bin", "b/1.bin"], "class-folders", "", (), ("a", "b")),
        (["set/a/1.bin", "set/b/deep/1.bin"], "class-folders", "set", (), ("a", "b")),
        (["1.bin", "2.bin"], None, "", (), ()),
        (["set/1.bin", "set/2.bin"], None, "set", (), ()),
        (["a/1.bin", "2.bin"], None, "", (), ()),
        (["train/a/1.bin", "extra/b/1.bin"], "class-folders", "", (), ("extra", "train")),
        (["set/train/a/1.bin", "set/train/b/1.bin"], "class-folders", "set/train", (), ("a", "b")),
        (["anna/train/a/1", "anna/test/a/1", "bob/train/a/1", "bob/test/a/1"], None, "", (), ()),
        ([], None, "", (), ()),
    ],
)
def test_find_layout(
    names: list[str], layout: str | None, root: str, splits: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    found = find_layout(names)
    assert (found.name, found.root, found.splits, found.classes) == (layout, root, splits, classes)
    assert len(found.places) == len(names)


@pytest.mark.parametrize(
    ("names", "strays"),
    [
        (["a/1", "b/1", "2"], ("2",)),
        (["set/a/1", "set/b/1", "2"], ("2",)),
        (["set/a/1", "set/b/1", "set/2"], ("set/2",)),
        (["train/a/1", "train/b/1", "test/1"], ("test/1",)),
        (["1", "2"], ()),
        (["train/1", "test/2"], ()),
        (["a/1", "b/1"], ()),
    ],
)
def test_find_layout_names_recordings_in_no_folder_of_a_class(names: list[str], strays: tuple[str, ...]) -> None:
    found = find_layout(names)
    assert (found.strays, found.name is None) == (strays, bool(strays) or len(found.classes) < 2)


@pytest.mark.parametrize(
    ("pattern", "nested", "people"),
    [
        ("user{who:02}/{label}/1.bin", ("fist", "wave"), True),
        ("set/Subject {who}/{label}/1.bin", ("fist", "wave"), True),
        ("{split}/sub-{who}/{label}/1.bin", ("fist", "wave"), True),
        ("s{who}/{label}/1.bin", ("fist", "wave"), False),  # signs, samples?
        ("2024-05-0{who}/{label}/1.bin", ("fist", "wave"), False),
        ("user{who}/session1/{label}.bin", (), False),
        ("user{who}/{label}{split}/1.bin", ("fisttest", "fisttrain", "wavetest", "wavetrain"), True),
        ("{label}/user{who}/1.bin", ("user1", "user2"), False),
        ("user{who}/{label}.bin", (), False),
        ("user{who}/{label}{who}/1.bin", (), False),
        ("{label}/1.bin", (), False),
    ],
)
def test_find_layout_tells_folders_of_people_from_those_of_classes(
    pattern: str, nested: tuple[str, ...], people: bool
) -> None:
    choices = ((who, label, split) for who in (1, 2) for label in ("fist", "wave") for split in ("train", "test"))
    names = sorted({pattern.format(who=who, label=label, split=split) for who, label, split in choices})
    found = find_layout(names)
    assert (found.nested, found.begins_with_people) == (nested, people)


@pytest.mark.parametrize(
    ("inner", "people"), [("trial", False), ("session_", False), ("2024-05-0", False), ("gesture", True), ("", True)]
)
def test_find_layout_of_people_with_numbered_folders_asks_what_these_are(inner: str, people: bool) -> None:
    names = [f"user{who}/{inner}{number}/a.bin" for who in (1, 2) for number in (1, 2)]
    assert find_layout(names).begins_with_people == people  # people may be told by their gait, say


def test_find_layout_of_a_class_that_one_person_lacks_finds_the_people() -> None:
    names = ["user1/a/1", "user1/b/1", "user2/a/1", "user2/b/1", "user2/c/1", "user3/c/1", "user3/a/1"]
    assert find_layout(names).begins_with_people


def test_find_layout_folders_agrees_with_what_is_read() -> None:
    for name in ("train/a/1.bin", "Train/a/1.bin", "n-cars_test/a/b/1.dat"):
        assert find_layout([name, "val/a/1.bin"]).name == "folders"
        assert re.fullmatch(Folders.below, name)


def test_split_of_other_words_is_none() -> None:
    assert [split_of(name) for name in ("contest", "training", "dev", "a", "")] == [
        None,
        "train",
        "validation",
        None,
        None,
    ]


def test_sort_names_orders_numbers_by_size() -> None:
    assert sort_names(["b", "10", "9", "a"]) == ["9", "10", "a", "b"]
