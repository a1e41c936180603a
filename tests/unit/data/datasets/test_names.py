"""Names of recordings in lists and tables, matched with files."""

import unicodedata

import pytest

from plifctl.data.datasets.names import MemberNames

MEMBERS = ("anna/1.aedat", "anna/2.aedat", "bob/1.aedat", "bob/v1.2.dat", "größe/zwölf ü.dat", "Top.bin", "top.bin")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("anna/1.aedat", ["anna/1.aedat"]),
        ("anna/1", ["anna/1.aedat"]),
        ("anna\\1.aedat", ["anna/1.aedat"]),
        ("./anna/1", ["anna/1.aedat"]),
        ("C:\\data\\mine\\anna\\1.AEDAT", ["anna/1.aedat"]),
        (' "2.aedat"\r', ["anna/2.aedat"]),
        ("2", ["anna/2.aedat"]),
        ("ANNA/2", ["anna/2.aedat"]),
        ("1", ["anna/1.aedat", "bob/1.aedat"]),
        ("1.aedat", ["anna/1.aedat", "bob/1.aedat"]),
        ("carl/1.aedat", []),
        ("carl/2", []),
        ("v1.2", ["bob/v1.2.dat"]),
        ("v1", []),
        (unicodedata.normalize("NFD", "größe/zwölf ü"), ["größe/zwölf ü.dat"]),
        ("top.bin", ["top.bin"]),
        ("Top", ["Top.bin"]),
        ("TOP.bin", ["Top.bin", "top.bin"]),
        ("elsewhere/top.bin", ["top.bin"]),
        ("", []),
    ],
)
def test_find_names_as_people_write_them(text: str, found: list[str]) -> None:
    assert MemberNames(MEMBERS).find(text) == found


def test_find_prefers_the_file_of_that_very_name() -> None:
    names = MemberNames(["a.b", "a.b.dat", "x/a.b"])
    assert names.find("a.b") == ["a.b"]
    assert names.find("x/a.b") == ["x/a.b"]


def test_find_prefers_folders_of_that_very_spelling() -> None:
    names = MemberNames(["Anna/1.raw", "anna/1.raw"])
    assert (names.find("Anna/1"), names.find("x/anna/1.raw")) == (["Anna/1.raw"], ["anna/1.raw"])
    assert names.find("ANNA/1") == ["Anna/1.raw", "anna/1.raw"]


def test_find_where_all_files_have_one_name() -> None:
    members = [f"take {n}/events.raw" for n in range(20_000)]
    names = MemberNames(members)
    assert [names.find(f"D:/data/{name}") for name in members] == [[name] for name in members]
    assert len(names.find("events")) == 20_000
