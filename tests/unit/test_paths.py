"""Files that are whole or not there, and where things lie."""

import os
from pathlib import Path

import pytest

from plifctl import files, paths
from plifctl.errors import MachineError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_text(path, "old")

    def fails() -> None:
        with files.atomic_write(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with path.open() as reader:
        files.write_text(path, "new")
        assert reader.read() == "old"  # whoever reads has the whole old file
    assert path.read_text() == "new"


def test_what_is_written_may_be_read_by_whom_the_umask_lets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UMASK", 0o027)
    files.write_text(tmp_path / "x", "")
    with files.atomic_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    with files.atomic_folder(folder) as temporary:
        (temporary / "a").write_text("old")
        assert not folder.exists()
    stale, fresh = tmp_path / ".f.killed.partial", tmp_path / ".f.written.partial"
    stale.mkdir()
    os.utime(stale, (0, 0))
    fresh.mkdir()  # somebody else's, who is at it
    os.utime(fresh, (0, 0))
    (fresh / "c").write_text("now")

    def fails() -> None:
        with files.atomic_folder(folder) as beside:
            (beside / "b").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".f.written.partial", "a", "c", "f"]


def test_an_old_folder_is_gone_only_when_the_new_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("old")
    there = []
    rename = Path.replace

    def watched(path: Path, target: Path) -> Path:
        there.append(sorted(str(file.relative_to(tmp_path)).rpartition("/")[2] for file in tmp_path.rglob("[ab]")))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    with files.atomic_folder(folder) as temporary:
        (temporary / "b").write_text("new")
    assert there == [["a", "b"], ["a", "b"]]
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "b"]


def test_an_old_folder_comes_back_where_the_new_one_cannot_be_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("old")
    rename = Path.replace

    def refused(path: Path, target: Path) -> Path:
        if (path / "b").exists():
            raise PermissionError(13, "Permission denied", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(MachineError), files.atomic_folder(folder) as temporary:
        (temporary / "b").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "a"]


def test_a_refusal_names_the_file_that_was_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"inner: permission denied"), files.machine_errors(tmp_path):
        raise PermissionError(13, "Permission denied", str(tmp_path / "inner"))
    with pytest.raises(FileNotFoundError), files.machine_errors(tmp_path):
        raise FileNotFoundError


def test_folders_of_the_project_come_before_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, place in (("CACHE", paths.cache_dir), ("RUNS", paths.runs_dir)):
        monkeypatch.delenv(f"PLIFCTL_{name}_DIR", raising=False)
        folder = Path("data_cache" if name == "CACHE" else "runs")
        assert place().is_absolute()
        folder.mkdir()
        assert place() == folder
        monkeypatch.setenv(f"PLIFCTL_{name}_DIR", "elsewhere")
        assert place() == Path("elsewhere")
