"""Facts of folders and archives."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from raw_files import atis_recording, encode_dat, pack_tar, pack_zip

from plifctl.data.inspection.collection import choose_files, decode_files, summarise_files
from plifctl.data.inspection.facts import RecordingFacts
from plifctl.data.inspection.folder import FolderFacts
from plifctl.data.inspection.layout import Place
from plifctl.data.inspection.listing import list_files
from plifctl.data.inspection.outliers import find_outliers
from plifctl.errors import DamagedFileError


def dat(n: int, step: int = 1000, size: tuple[int, int] | None = None) -> bytes:
    data = encode_dat(*((step * k, k % 8, k % 6, k % 2) for k in range(n)))
    if size is not None:
        data = data.replace(b"% Version", f"% Width {size[0]}\n% Height {size[1]}\n% Version".encode())
    return data


def write(root: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def inspect(root: Path) -> FolderFacts:
    files: list[RecordingFacts] = []
    decode_files(list_files(root), workers=2, on_facts=files.append)
    return FolderFacts.of(files)


def summarise(root: Path) -> list[RecordingFacts]:
    files: list[RecordingFacts] = []
    summarise_files(list_files(root), on_facts=files.append)
    return files


def names(files: Sequence[RecordingFacts]) -> list[str]:
    return [one.name for one in files]


class TestFacts:
    def test_formats_and_classes_are_summed(self, tmp_path: Path) -> None:
        facts = inspect(write(tmp_path, a__1_dat=dat(5), a__2_dat=dat(9, size=(8, 6)), b__1_bin=atis_recording(20)))
        rows = {row.format: row for row in facts.formats()}
        assert (rows["Prophesee .dat"].n_files, rows["Prophesee .dat"].n_events) == (2, 14)
        assert (rows["Prophesee .dat"].sensors, rows["Prophesee .dat"].seen) == (((8, 6),), (8, 6))
        a, b = facts.classes()
        assert (a.place, a.n_files, a.n_events, a.durations_us) == (Place("", "a"), 2, 14, (4000, 6000, 8000))
        assert (b.place, b.n_events) == (Place("", "b"), 20)
        assert facts.layout.name == "class-folders"
        assert facts.first_of_each_class() == ["a/1.dat", "b/1.bin"]

    def test_damaged_file_is_named_and_ends_nothing(self, tmp_path: Path) -> None:
        facts = inspect(write(tmp_path, a__1_dat=dat(5), a__2_dat=dat(5)[:-3], a__3_dat=dat(5)[:-2], a__n_md=b"# a\n"))
        assert (names(facts.recordings), names(facts.unreadable)) == (["a/1.dat"], ["a/2.dat", "a/3.dat"])
        assert names(facts.others) == ["a/n.md"]
        error, sensor = facts.findings()
        assert (error.names, error.finding.kind) == (("a/2.dat", "a/3.dat"), "problem")
        assert "the file is cut off" in error.finding.message
        assert sensor.finding.topic == "sensor"

    def test_findings_of_one_topic_are_shown_once_for_all(self, tmp_path: Path) -> None:
        back = encode_dat((90, 1, 1, 1), (50, 2, 9, 0))
        facts = inspect(write(tmp_path, a_dat=dat(9), b_dat=back, c_dat=back))
        sensor, remark = facts.findings()
        assert "times go back: 2 events" in remark.finding.message
        assert remark.names == ("b.dat", "c.dat")
        assert "the files do not state the size of the sensor; their events need 8 × 10" in sensor.finding.message
        assert "shape: [2, 10, 8]" in sensor.finding.hint

    def test_empty_folder_has_no_facts(self, tmp_path: Path) -> None:
        facts = inspect(tmp_path)
        assert (facts.recordings, facts.formats(), facts.classes(), facts.findings()) == ((), [], [], [])


class TestListing:
    def test_folder_zip_and_tar_have_the_same_facts(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "set", train__a__1_dat=dat(5), test__a__1_dat=dat(7), README_md=b"# a\n")
        pack_zip(folder, tmp_path / "set.zip")
        pack_tar(folder, tmp_path / "set.tar.gz")
        plain = inspect(folder)
        for archive in ("set.zip", "set.tar.gz"):
            facts = inspect(tmp_path / archive)
            assert facts.layout.root == "set"
            assert facts.classes() == plain.classes()
            assert {one.name.removeprefix("set/"): one.events for one in facts.recordings} == {
                one.name: one.events for one in plain.recordings
            }

    def test_broken_link_pipe_and_hidden_file_do_no_harm(self, tmp_path: Path) -> None:
        write(tmp_path, a_dat=dat(5))
        (tmp_path / ".hidden").write_bytes(b"x")
        (tmp_path / "$RECYCLE.BIN").mkdir()
        (tmp_path / "$RECYCLE.BIN/b.dat").write_bytes(dat(5))
        (tmp_path / "gone.dat").symlink_to(tmp_path / "nothing")
        os.mkfifo(tmp_path / "pipe.dat")
        facts = inspect(tmp_path)
        assert names(facts.recordings) == ["a.dat"]
        assert names(facts.unreadable) == ["gone.dat", "pipe.dat"]
        assert names(summarise(tmp_path)) == ["a.dat", "gone.dat", "pipe.dat"]

    def test_file_beside_the_classes_that_cannot_be_read_does_not_hide_them(self, tmp_path: Path) -> None:
        write(tmp_path, a__1_dat=dat(5), b__1_dat=dat(5))
        (tmp_path / "gone.dat").symlink_to(tmp_path / "nothing")
        facts = inspect(tmp_path)
        assert (facts.layout.name, facts.layout.classes) == ("class-folders", ("a", "b"))
        assert [(row.place.label, row.n_files) for row in facts.classes()] == [("a", 1), ("b", 1)]
        assert names(facts.unreadable) == ["gone.dat"]

    def test_loop_of_links_ends(self, tmp_path: Path) -> None:
        write(tmp_path, a_dat=dat(5))
        (tmp_path / "loop").symlink_to(tmp_path)
        facts = inspect(tmp_path)
        assert names(facts.recordings) == ["a.dat"]
        assert [(one.name, one.findings[0].message) for one in facts.unreadable] == [
            ("loop", "loop/: a link to a folder above it")
        ]

    def test_archive_that_is_none_is_an_error(self, tmp_path: Path) -> None:
        write(tmp_path, a_zip=b"PK\3\4 and no more")
        with pytest.raises(DamagedFileError, match="not an archive"):
            list(list_files(tmp_path / "a.zip"))


class TestBudget:
    def test_summaries_suffice_where_events_have_a_fixed_size(self, tmp_path: Path) -> None:
        (one,) = summarise(write(tmp_path, a_dat=dat(9, size=(8, 6))))
        assert (one.events, one.n_events, one.duration_us, one.sensor) == (None, 9, 8000, (8, 6))

    def test_choose_files_takes_some_of_each_class_and_format(self, tmp_path: Path) -> None:
        files = {f"{label}__{k}_dat": dat(10) for label in "ab" for k in range(4)}
        summaries = summarise(write(tmp_path, **files, c__1_bin=atis_recording(250), n_md=b"# a\n"))
        size = len(dat(10))
        assert choose_files(summaries, 0) == {"a/0.dat", "c/1.bin"}
        assert choose_files(summaries, 1250 + 4 * size) == {"a/0.dat", "a/1.dat", "b/0.dat", "b/1.dat", "c/1.bin"}
        assert len(choose_files(summaries, None)) == 9


class TestOutliers:
    def test_recordings_of_another_unit_are_named(self, tmp_path: Path) -> None:
        usual = {f"{k}_dat": dat(10) for k in range(3)}
        facts = inspect(write(tmp_path, **usual, long_dat=dat(10, 10**6), short_dat=dat(10, 1), e_dat=dat(0)))
        found = {one.name: one.message for one in facts.outliers}
        assert found == {
            "e.dat": "no events",
            "long.dat": "9 s, 1,000 times the median",
            "short.dat": "9e-06 s, 1/1,000 of the median",
        }

    def test_recordings_of_another_sensor_are_named(self, tmp_path: Path) -> None:
        usual = {f"{k}_dat": dat(10, size=(8, 6)) for k in range(2)}
        facts = inspect(write(tmp_path, **usual, z_dat=dat(10, size=(16, 12))))
        assert [(one.name, one.message) for one in facts.outliers] == [
            ("z.dat", "of a sensor of 16 × 12, most are of 8 × 6")
        ]

    def test_few_recordings_have_no_median(self, tmp_path: Path) -> None:
        facts = inspect(write(tmp_path, a_dat=dat(10), b_dat=dat(10, 10**6)))
        assert list(find_outliers(facts.recordings)) == []
