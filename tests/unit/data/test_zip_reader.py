"""Members of zip archives read from several threads, on systems with and without positional reads."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from plifctl.data import zip_reader


@pytest.mark.parametrize("has_pread", [True, False])
def test_read_from_many_threads_returns_each_members_content(
    has_pread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_pread:
        monkeypatch.setattr(zip_reader, "_pread", zip_reader._seek_and_read)
    contents = {f"{i}.bin": np.random.default_rng(i).bytes(20_000 + i) for i in range(60)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    reader = zip_reader.ZipReader(tmp_path / "a.zip", where="a.zip")
    members = reader.infolist() * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reader.read, members))
    assert all(content == contents[info.filename] for info, content in zip(members, found, strict=True))


@pytest.mark.parametrize("cut", [1, 50, 300])
def test_archive_of_archives_whose_end_is_cut_off_is_not_read_as_its_last_member(tmp_path: Path, cut: int) -> None:
    for name in ("one.npz", "two.npz"):
        np.savez(tmp_path / name, t=np.arange(100))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("one.npz", "two.npz"):
            archive.write(tmp_path / name, name)
    whole = (tmp_path / "a.zip").read_bytes()
    for content in (whole, whole + b"junk", b"prefix" + whole):
        assert [info.filename for info in zip_reader.ZipReader(content, where="a").infolist()] == ["one.npz", "two.npz"]
    with pytest.raises(zipfile.BadZipFile):
        zip_reader.ZipReader(whole[:-cut], where="a")


@pytest.mark.parametrize("marked", [True, False])
def test_names_in_utf8_are_read_whether_or_not_they_are_marked(tmp_path: Path, marked: bool) -> None:
    """Programs of macOS do not set the flag that says so."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("größe/ü.bin", b"1")
        archive.writestr("plain.bin", b"2")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    if not marked:
        for signature, at in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            content[content.index(signature) + at] &= ~8
    reader = zip_reader.ZipReader(bytes(content), where="a.zip")
    assert [info.filename for info in reader.infolist()] == ["größe/ü.bin", "plain.bin"]
    assert [reader.read(info) for info in reader.infolist()] == [b"1", b"2"]


def test_names_of_old_programs_stay_in_their_code_page(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("gr__e.bin", b"1")
    content = (tmp_path / "a.zip").read_bytes().replace(b"gr__e", b"gr\x94\xe1e")  # in code page 437
    assert [info.filename for info in zip_reader.ZipReader(content, where="a.zip").infolist()] == ["größe.bin"]
