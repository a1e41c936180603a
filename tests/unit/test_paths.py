"""Atomic writes of files and folders, and default directories."""

import errno
import os
from pathlib import Path

import pytest

from plifctl import files, paths
from plifctl.errors import MachineError, UsageError


def test_atomic_write_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
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
        assert reader.read() == "old"  # an open reader keeps the old content
    assert path.read_text() == "new"


def test_permissions_of_written_files_follow_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UMASK", 0o027)
    files.write_text(tmp_path / "x", "")
    with files.atomic_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_atomic_folder_that_fails_keeps_the_old_folder_and_removes_stale_ones(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    with files.atomic_folder(folder) as temporary:
        (temporary / "a").write_text("old")
        assert not folder.exists()
    stale, fresh = tmp_path / ".f.killed_1.partial", tmp_path / ".f.written1.partial"
    stale.mkdir()
    os.utime(stale, (0, 0))
    fresh.mkdir()  # another process is writing it
    os.utime(fresh, (0, 0))
    (fresh / "c").write_text("now")

    def fails() -> None:
        with files.atomic_folder(folder) as beside:
            (beside / "b").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".f.written1.partial", "a", "c", "f"]


def test_atomic_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("precious")
    with pytest.raises(UsageError, match="a file"), files.atomic_folder(tmp_path / "f"):
        pass
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "precious")]


def test_atomic_folder_removes_the_old_folder_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_atomic_folder_that_cannot_be_renamed_restores_the_old_one(
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


def test_machine_errors_name_the_file_of_the_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"inner: permission denied"), files.machine_errors(tmp_path):
        raise PermissionError(13, "Permission denied", str(tmp_path / "inner"))
    with pytest.raises(FileNotFoundError), files.machine_errors(tmp_path):
        raise FileNotFoundError


def test_directories_by_environment_then_project_then_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, place in (("CACHE", paths.cache_dir), ("RUNS", paths.runs_dir)):
        monkeypatch.delenv(f"PLIFCTL_{name}_DIR", raising=False)
        folder = Path("data_cache" if name == "CACHE" else "runs")
        assert place().is_absolute()
        folder.mkdir()
        assert place() == folder
        monkeypatch.setenv(f"PLIFCTL_{name}_DIR", "elsewhere")
        assert place() == Path("elsewhere")
        monkeypatch.setenv(f"PLIFCTL_{name}_DIR", "~/elsewhere")
        assert place() == Path.home() / "elsewhere"


def test_registry_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "mine"))
    with pytest.raises(UsageError, match=r"PLIFCTL_REGISTRY=.*mine: no such folder"):
        paths.registry_dirs()
    monkeypatch.setenv("PLIFCTL_REGISTRY", os.pathsep.join(["mine", "ours"]))
    with pytest.raises(UsageError, match="no such folder") as error:
        paths.registry_dirs()
    assert error.value.hint == "it names one folder"
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    assert paths.registry_dirs()[1:] == [tmp_path / "mine"]


def test_atomic_folder_for_the_current_folder_with_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the current folder, which cannot be replaced"), files.atomic_folder(Path()):
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_atomic_folder_that_fails_in_an_empty_folder_leaves_it_empty(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").write_text("x")
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"), files.atomic_folder(tmp_path) as temporary:
        fail(temporary)
    assert list(tmp_path.iterdir()) == []


def test_check_new_file_of_a_device_hints_at_no_removal() -> None:
    with pytest.raises(UsageError, match="/dev/null: exists already") as caught:
        files.check_new_file(Path("/dev/null"))
    assert caught.value.hint == "choose another name"


def test_check_new_file_that_cannot_be_written_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "read-only", str(tmp_path / "tmp12345"))

    monkeypatch.setattr("plifctl.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(MachineError, match=r"a\.csv: the file system is read-only"):
        files.check_new_file(tmp_path / "a.csv")


@pytest.mark.parametrize("below", [".", "deeper", "deeper/still"])
def test_make_dir_where_a_file_is_names_the_file(below: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(MachineError, match="taken: a file, expected a folder"):
        files.make_dir(tmp_path / "taken" / below)
    assert (tmp_path / "taken").read_text() == "x"


def test_expand_of_an_unknown_user_is_an_error() -> None:
    with pytest.raises(UsageError, match="~no-such-user-here/a: "):
        paths.expand("~no-such-user-here/a")
    assert paths.expand("~/a") == Path.home() / "a"


def test_lookup_name_of_a_path_keeps_that_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert paths.lookup_name("./demo") == "./demo"
    assert paths.lookup_name("demo") == "demo"
    assert paths.lookup_name(Path("demo")) == "./demo"
    assert paths.lookup_name(Path("20260101-demo")) == "20260101-demo"  # no such file: the name of a run
    assert paths.lookup_name("~/demo") == str(Path.home() / "demo")


@pytest.mark.skipif(os.name == "nt", reason="groups of folders")
def test_new_folders_in_a_folder_of_a_group_keep_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UMASK", 0o007)
    tmp_path.chmod(0o2770)
    with files.atomic_folder(tmp_path / "shared" / "net") as temporary:
        (temporary / "a").write_text("a")
    assert oct((tmp_path / "shared/net").stat().st_mode & 0o7777) == "0o2770"
    tmp_path.chmod(0o770)
    with files.atomic_folder(tmp_path / "net"):
        pass
    assert oct((tmp_path / "net").stat().st_mode & 0o7777) == "0o770"
