"""A user's own recordings, labelled by a CSV file."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import build_cache
from raw_files import (
    AEDAT3_HEADER,
    aedat3_packet,
    aedat3_word,
    encode_atis,
    encode_npz,
    events_by_id,
    open_events,
    pack_tar,
    pack_zip,
)

from plifctl.cache import CacheBuilder, key_of
from plifctl.config.dataset import LabelTable
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.datasets.label_csv import read_label_table
from plifctl.data.events import EVENT
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.source import RawSource
from plifctl.data.storage import decode_text
from plifctl.errors import DamagedFileError, MissingRawDataError, RawDataError

pytestmark = pytest.mark.usefixtures("places")

WORDS = """\
name: words
title: spoken words
layout: label-table
kind: events
shape: [2, 34, 34]
classes: [yes, no]
labels: {LABELS}
recipes:
  paper:
    frames: {{slicing: number, outside_events: refuse, invalid_events: drop}}
"""
WHOLE = "{file: labels.csv, recording: file, label: word}"
TIMED = "{file: labels.csv, recording: file, label: word, start: from, end: to, time_unit: ms}"
SPLIT = "{file: labels.csv, recording: file, label: word, split: part, group: speaker}"


def times(*ms: int) -> np.ndarray:
    """Events at these times, ms."""
    events = np.zeros(len(ms), EVENT)
    events["t"] = np.array(ms) * 1000
    events["x"] = np.arange(len(ms)) % 34
    return events


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three recordings of 100 events each, one every 10 ms, in three formats."""
    events = times(*range(0, 1000, 10))
    (tmp_path / "data/s1").mkdir(parents=True)
    (tmp_path / "data/s1/a.aedat").write_bytes(encode_aedat3(events))
    (tmp_path / "data/s1/b.bin").write_bytes(encode_atis(events))
    (tmp_path / "data/c d.npz").write_bytes(encode_npz(**{name: events[name] for name in "txyp"}))
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "registry"))
    return tmp_path / "data"


def open_words(words: Path, table: str | bytes, labels: str = WHOLE, raw: Path | None = None) -> EventDataset:
    """Writes a table and the YAML that describes it; opens the data set."""
    (words / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    write_yaml(words, labels)
    return open_events("words", raw or words)


def write_yaml(words: Path, labels: str) -> None:
    (words.parent / "registry/datasets").mkdir(parents=True, exist_ok=True)
    text = WORDS.replace("{LABELS}", labels).replace("{{", "{").replace("}}", "}")
    (words.parent / "registry/datasets/words.yaml").write_text(text)


ALL = "file,word\ns1/a.aedat,yes\ns1/b,no\nc d,no\n"


def test_label_table_with_a_stray_quote_is_refused(words: Path) -> None:
    table = 'file,word,remark\ns1/a.aedat,yes,"good\ns1/b,no,\nc d,no,fine\n'
    with pytest.raises(DamagedFileError, match=r"labels\.csv, line 2: unexpected end"):
        open_words(words, table)


def test_label_table_sample_of_each_line_is_a_recording(words: Path) -> None:
    raw = open_words(words, ALL)
    assert [(sample.id, sample.label, sample.split, sample.group) for sample in raw.samples] == [
        ("c d", 1, "train", ""),
        ("s1/a", 0, "train", ""),
        ("s1/b", 1, "train", ""),
    ]
    assert raw.notes == ()
    assert {name: len(events) for name, events in events_by_id(raw).items()} == dict.fromkeys(
        ("c d", "s1/a", "s1/b"), 100
    )
    assert raw.formats_read() == ["AEDAT 3.1", "ATIS", "zip"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_label_table_in_every_encoding_and_with_every_separator_is_the_same(
    words: Path, encoding: str, separator: str, newline: str
) -> None:
    text = ALL.replace(",", separator).replace("\n", newline) + newline + separator + newline
    assert open_words(words, text.encode(encoding)).samples == open_words(words, ALL).samples


@pytest.mark.parametrize(
    "table",
    [
        "file,word\nA.AEDAT,yes\n",
        "word,note,file\nyes,x,.\\s1\\a\n",
        'file,word\n"/home/anna/data/s1/a.aedat", yes \n',
        "file,word\nC:\\data\\s1\\a.aedat,yes,,,\n",
        " file , word \r\n a , yes \r\n",
    ],
)
def test_label_table_recordings_are_found_as_people_name_them(words: Path, table: str) -> None:
    assert [(sample.id, sample.label) for sample in open_words(words, table).samples] == [("s1/a", 0)]


def test_label_table_names_with_accents_in_either_form_are_found(words: Path) -> None:
    (words / "c d.npz").rename(words / f"{unicodedata.normalize('NFD', 'für é')}.npz")
    raw = open_words(words, f"file,word\n{unicodedata.normalize('NFC', 'für é')},no\n")
    assert [sample.id for sample in raw.samples] == [unicodedata.normalize("NFC", "für é")]
    assert len(events_by_id(raw)["für é"]) == 100


def test_label_table_windows_are_half_open_and_may_overlap(words: Path) -> None:
    table = "file,word,from,to\ns1/a,yes,100,300\ns1/a,no,200,400\ns1/b,no,,50.5\nc d,no,990.5,\ns1/b,yes,0.0,60\n"
    raw = open_words(words, table, TIMED)
    found = {name: [t // 1000 for t, *_ in events] for name, events in events_by_id(raw).items()}
    assert found == {
        "c d/00": [],
        "s1/a/00": list(range(100, 300, 10)),
        "s1/a/01": list(range(200, 400, 10)),
        "s1/b/00": list(range(0, 60, 10)),
        "s1/b/01": list(range(0, 60, 10)),
    }
    assert [sample.label for sample in raw.samples] == [1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("unit", "start", "end", "separator"),
    [
        ("ns", "100000000", "200000000", ","),
        ("us", "100000", "2e5", ","),
        ("us", "99990.000001", "199990.1", ","),
        ("ms", "100.0", "200", ";"),
        ("ms", "99,999", "200,0", ";"),
        ("s", "0.1", ".2", "\t"),
        ("s", "0,1", "0,2", "\t"),
    ],
)
def test_label_table_times_of_every_unit_are_exact(
    words: Path, unit: str, start: str, end: str, separator: str
) -> None:
    table = "\n".join(separator.join(cells) for cells in (("file", "word", "from", "to"), ("s1/a", "no", start, end)))
    raw = open_words(words, table, TIMED.replace("ms", unit))
    assert [t for t, *_ in events_by_id(raw)["s1/a/00"]] == list(range(100_000, 200_000, 10_000))


def test_label_table_counts_of_invalid_events_are_those_of_the_window(words: Path) -> None:
    events = [(aedat3_word(1, valid=int(n not in (12, 90))), 10_000 * n) for n in range(100)]
    (words / "s1/a.aedat").write_bytes(AEDAT3_HEADER + aedat3_packet(*events))
    raw = open_words(words, "file,word,from,to\ns1/a,yes,100,200\ns1/a,no,200,300\n", TIMED)
    samples = raw.decode("s1/a.aedat", (words / "s1/a.aedat").read_bytes())
    assert [(len(sample.events), sample.n_raw) for sample in samples] == [(9, 10), (10, 10)]
    whole = open_words(words, "file,word\ns1/a,yes\n")
    (sample,) = whole.decode("s1/a.aedat", (words / "s1/a.aedat").read_bytes())
    assert (len(sample.events), sample.n_raw) == (98, 100)


def test_label_table_splits_and_groups_are_those_of_the_table(words: Path) -> None:
    table = "speaker,file,word,part\nanna,s1/a,yes,Train\nbob,s1/b,no,TEST\nanna,c d,no,val\n"
    raw = open_words(words, table, SPLIT)
    assert [(sample.id, sample.split, sample.group) for sample in raw.samples] == [
        ("s1/a", "train", "anna"),
        ("c d", "validation", "anna"),
        ("s1/b", "test", "bob"),
    ]
    cache = build_cache(raw, 2, words.parent / "c")
    assert (cache.splits, cache.groups) == (["train", "validation", "test"], ["anna", "anna", "bob"])


@pytest.mark.parametrize(("name", "pack"), [("a.zip", pack_zip), ("a.tar.gz", pack_tar)])
def test_label_table_archive_and_folder_have_the_same_digest(
    words: Path, name: str, pack: Callable[[Path, Path], None]
) -> None:
    folder = open_words(words, ALL)
    pack(words, words.parent / name)
    packed = open_events("words", words.parent / name)
    assert (packed.digest, packed.samples) == (folder.digest, folder.samples)
    assert events_by_id(packed) == events_by_id(folder)


def test_label_table_in_a_folder_of_its_own_is_read(words: Path) -> None:
    (words / "meta").mkdir()
    (words / "meta/Table 1.csv").write_text(ALL)
    labels = WHOLE.replace("labels.csv", "meta\\Table 1.csv")
    write_yaml(words, labels)
    folder = open_events("words", words)
    assert len(folder.samples) == 3
    pack_zip(words, words.parent / "a.zip")
    packed = open_events("words", words.parent / "a.zip")
    assert (packed.digest, packed.samples) == (folder.digest, folder.samples)


def test_label_table_of_text_recordings_is_not_taken_for_one(words: Path) -> None:
    (words / "s1/e.csv").write_text("t,x,y,p\n7,1,2,1\n")
    (words / "s1/a.csv").write_text("about a\n")
    raw = open_words(words, ALL + "e,yes\n")
    assert events_by_id(raw)["s1/e"] == [(7, 1, 2, 1)]
    assert raw.notes == ()


def test_label_table_what_no_line_names_is_noted_and_changes_nothing(words: Path) -> None:
    before = open_words(words, ALL).digest
    for name in ("s1/x.aedat", "s1/y.aedat", "s1/face.png", "README.md", "old.csv", ".hidden", "s1/Thumbs.db"):
        (words / name).write_bytes(b"")
    raw = open_events("words", words)
    assert raw.digest == before
    assert raw.notes == (
        "2 files are not read (no recording by its name), for example README.md",
        "2 files are not read (in no line of labels.csv), for example s1/x.aedat",
    )


def test_label_table_class_without_samples_is_noted(words: Path) -> None:
    assert open_words(words, "file,word\nc d,no\n").notes[0] == "no samples of class yes"


def test_label_table_changed_label_gives_another_cache_of_the_same_samples(words: Path) -> None:
    before = open_words(words, ALL)
    after = open_words(words, ALL.replace("a.aedat,yes", "a.aedat,no"))
    assert key_of(before).digest != key_of(after).digest
    assert [before.source_digest(row) for row in range(3)] == [after.source_digest(row) for row in range(3)]
    assert [sample.label for sample in after.samples] == [1, 1, 1]


def test_label_table_changed_window_or_recording_changes_the_source_digest(words: Path) -> None:
    table = "file,word,from,to\ns1/a,yes,0,100\ns1/a,no,100,200\n"
    before = open_words(words, table, TIMED)
    after = open_words(words, table.replace("100,200", "100,210"), TIMED)
    assert before.source_digest(0) == after.source_digest(0)
    assert before.source_digest(1) != after.source_digest(1)
    (words / "s1/a.aedat").write_bytes(encode_aedat3(times(1, 2, 3)))
    assert open_events("words", words).source_digest(0) != before.source_digest(0)


def test_label_table_interrupted_build_keeps_the_samples_that_did_not_change(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "file,word,from,to\ns1/a,yes,0,100\ns1/b,no,100,200\n"
    open_words(words, table, TIMED)
    framing = load_registry().dataset("words").with_T(2)

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("plifctl.cache.build.write_cache", fail)
        with pytest.raises(KeyboardInterrupt), CacheBuilder(framing, words.parent / "c") as builder:
            builder.finish(open_raw(framing, RawSource(words)))
    (words / "labels.csv").write_text(table.replace("a,yes", "a,no"))
    reported: list[tuple[int, int]] = []
    with CacheBuilder(framing, words.parent / "c", progress=lambda *counts: reported.append(counts)) as builder:
        cache = builder.finish(open_raw(framing, RawSource(words)))
    assert reported == [(2, 2)]
    assert cache.labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("labels", "table", "message", "hint"),
    [
        (
            WHOLE,
            "file,wrd\na,yes\n",
            r"labels\.csv, line 1: no column 'word' \(labels\.label\); found the columns file, wrd$",
            "labels: label:",
        ),
        (WHOLE, "file,word,word\na,yes,no\n", r"line 1: 2 columns 'word'", "labels: label:"),
        (WHOLE, "file,word\na,ys\n", r"labels\.csv, line 2: class 'ys', expected a class", "did you mean yes?"),
        (WHOLE, "file,word\n\na,yes\n,no\n", r"labels\.csv, line 4: no recording is named$", "correct"),
        (WHOLE, "file,word\ns9/a,yes\n", r"line 2: s9/a is missing$", "found there, for example: c d.npz"),
        (
            WHOLE,
            "file,word\na,yes\nb,no\nA.aedat,no\n",
            r"line 4: repeats line 2: A\.aedat$",
            "remove one",
        ),
        (WHOLE, "file,word\n", r"labels\.csv: no samples, expected a header and a line for each sample$", ""),
        (WHOLE, b"", r"labels\.csv: no samples", ""),
        (WHOLE, "file,word\nf\xfcr,yes\n".encode("latin-1"), r"line 2: characters that are not UTF-8$", "CSV UTF-8"),
        (WHOLE, 'file,word\n"a,yes\n', r"line 2: unexpected end of data$", "save the table again as CSV"),
        (
            WHOLE,
            "file,word\na, b,yes\n",
            r"line 2: 3 cells, the header has 2$",
            "needs quotes",
        ),
        (TIMED, "file,word,from,to\na,yes,0\n", r"line 2: 3 cells, the header has 4$", "write all 4 cells"),
        (TIMED, "file,word,from,to\na,yes,0,1o\n", r"time '1o', expected a number of ms$", "correct"),
        (
            TIMED,
            "file,word,from,to\na,yes,nan,1\n",
            r"line 2: time 'nan', expected a number of ms",
            "correct",
        ),
        (
            TIMED,
            "file,word,from,to\na,yes,1,1e30\n",
            r"line 2: time '1e30', expected a number of ms",
            "correct",
        ),
        (
            TIMED,
            "file,word,from,to\na,yes,1,1e999999999\n",
            r"time '1e999999999', expected a number",
            "correct",
        ),
        (
            TIMED,
            "file,word,from,to\na,yes,7,7\n",
            r"ends at 7, expected a time after its start, 7$",
            "correct",
        ),
        (TIMED, "file,word,from,to\na,yes,0,9\na,no,0.0,9\n", r"line 3: repeats line 2: a$", "remove one"),
        (
            SPLIT,
            "file,word,part,speaker\na,yes,fold1,x\n",
            r"split 'fold1', expected train, validation or test$",
            "correct",
        ),
        (SPLIT, "file,word,part\na,yes,train\n", r"no column 'speaker' \(labels\.group\)", "labels: group:"),
    ],
)
def test_label_table_errors_name_file_line_and_remedy(
    words: Path, labels: str, table: str | bytes, message: str, hint: str
) -> None:
    with pytest.raises(RawDataError, match=message) as error:
        open_words(words, table, labels)
    assert str(words) in str(error.value)
    assert hint in error.value.hint


def test_label_table_with_any_damage_raises_only_raw_data_errors() -> None:
    table = (
        "file;word;from;to;part;who\na.dat;yes;0,5;1e3;train;anna\n'b ü';no;;7;val;\n\"c\nd\";no;-1;0;TEST;x\n".encode()
    )
    spec = LabelTable(file="t.csv", recording="file", label="word", split="part", group="who", start="from", end="to")
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(1000):
        damaged = bytearray(table)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(damaged)))
            damaged[at : at + int(rng.integers(0, 3))] = rng.bytes(int(rng.integers(0, 3)))
        try:
            found = read_label_table(decode_text(bytes(damaged)), "t.csv", spec, ("yes", "no"))
        except RawDataError:
            continue
        read += all(isinstance(line.start, int | None) and line.label in (0, 1) for line in found)
    assert 20 < read < 900


def test_label_table_ambiguous_name_is_refused(words: Path) -> None:
    (words / "s2").mkdir()
    (words / "s2/a.dat").write_bytes(b"")
    with pytest.raises(RawDataError, match=r"line 2: a: found s1/a\.aedat, s2/a\.dat") as error:
        open_words(words, "file,word\na,yes\n")
    assert "with its folder" in error.value.hint


def test_label_table_two_paths_that_find_one_file_are_refused(words: Path) -> None:
    with pytest.raises(RawDataError, match=r"line 3: .*tuesday/c d.npz and monday/c d.npz of line 2 both fit c d.npz"):
        open_words(words, "file,word\nmonday/c d.npz,yes\ntuesday/c d.npz,no\n")
    table = "file,word,from,to\nc d.npz,yes,0,10\nmonday/c d.npz,yes,10,20\ntuesday/c d.npz,no,20,30\n"
    with pytest.raises(RawDataError, match=r"line 4: .*tuesday/c d.npz and monday/c d.npz of line 3 both fit c d.npz"):
        open_words(words, table, TIMED)


def test_label_table_paths_with_more_folders_than_there_are_are_noted(words: Path) -> None:
    table = "file,word,from,to\n/data/S1/a,yes,0,10\ns1/a.aedat,no,10,20\nold/c d,no,0,10\n"
    (words / "s1/b.bin").unlink()
    assert open_words(words, table, TIMED).notes == (
        "2 recordings were found by the end of their path in labels.csv, for example /data/S1/a: its first folders are "
        "not there",
    )


def test_label_table_many_errors_are_named_at_once(words: Path) -> None:
    with pytest.raises(RawDataError, match="line 2: x0 is missing") as error:
        open_words(words, "file,word\n" + "".join(f"x{n},no\n" for n in range(15)))
    assert len(str(error.value).splitlines()) == 11
    assert str(error.value).endswith("and 5 more")


def test_label_table_missing_table_is_named(words: Path) -> None:
    write_yaml(words, WHOLE)
    with pytest.raises(MissingRawDataError, match=r"looked for labels\.csv in .*; found there: c d\.npz, s1/") as error:
        open_events("words", words)
    assert error.value.hint.startswith("expected files: labels.csv (labels: in the data set's YAML)")
    pack_zip(words, words.parent / "a.zip")
    with pytest.raises(RawDataError, match=r"a\.zip: labels\.csv is missing$"):
        open_events("words", words.parent / "a.zip")
    (words / "labels.csv").write_text(ALL)
    with pytest.raises(RawDataError, match=r"labels\.csv: not a file of this data set, expected an archive"):
        open_events("words", words / "labels.csv")


def test_label_table_two_tables_in_an_archive_are_refused(words: Path) -> None:
    for name in ("a", "b"):
        (words / name).mkdir()
        (words / name / "labels.csv").write_text(ALL)
    write_yaml(words, WHOLE)
    pack_zip(words, words.parent / "a.zip")
    with pytest.raises(RawDataError, match=r"a\.zip: found data/a/labels\.csv and data/b/labels\.csv"):
        open_events("words", words.parent / "a.zip")


def test_label_table_files_outside_of_its_folder_in_an_archive_are_not_recordings(words: Path) -> None:
    open_words(words, ALL)
    outer = words.parent / "outer"
    outer.mkdir()
    (outer / "c d.npz").write_bytes(b"another")
    words.rename(outer / "data")
    pack_zip(outer, words.parent / "a.zip")
    packed = open_events("words", words.parent / "a.zip")
    assert len(events_by_id(packed)) == 3
    assert packed.notes == ("1 file is not read (in no line of labels.csv), for example ../outer/c d.npz",)


def test_label_table_large_table_is_read(words: Path) -> None:
    lines = [f"s1/a,no,{n},{n + 100}" for n in range(5000)]
    raw = open_words(words, "\n".join(["file,word,from,to", *lines]), TIMED)
    assert len(raw.samples) == 5000


@pytest.mark.parametrize(
    ("labels", "scale", "note"),
    [
        (TIMED, 1000, "s1/a.aedat: the labels look like µs instead of ms"),
        (TIMED.replace("ms", "us"), 1, "s1/a.aedat: the labels look like ms instead of µs"),
        (TIMED.replace("ms", "s"), 1, "s1/a.aedat: the labels look like ms instead of s"),
    ],
)
def test_label_table_times_of_another_unit_are_noted(words: Path, labels: str, scale: int, note: str) -> None:
    lines = [f"s1/a,{'yes' if n % 2 else 'no'},{n * scale},{(n + 100) * scale}" for n in range(0, 900, 100)]
    table = "\n".join(["file,word,from,to", *lines, f"c d,no,0,{900 * scale}", f"s1/b,yes,0,{900 * scale}"])
    raw = open_words(words, table, labels)
    try:
        notes = "\n".join(build_cache(raw, 2, words.parent / "c").notes)
    except RawDataError as error:  # no sample has any events
        notes = str(error)
    assert note in notes


def test_label_table_windows_without_events_are_noted(words: Path) -> None:
    table = "file,word,from,to\ns1/a,yes,0,100\ns1/a,no,5000,6000\ns1/b,no,,100\ns1/b,no,3000,\n"
    notes = build_cache(open_words(words, table, TIMED), 2, words.parent / "c").notes
    assert notes[-3].startswith("empty: 2 of 4 samples have a label but no events: s1/a/01, s1/b/01")
    assert notes[-2].startswith("s1/a.aedat: cut short: its last event is at 990,000 µs")
    assert notes[-1].startswith("s1/b.bin: cut short: its last event is at 990,000 µs")


def test_label_table_empty_recording_is_noted(words: Path) -> None:
    (words / "s1/a.aedat").write_bytes(encode_aedat3(times()))
    notes = build_cache(open_words(words, ALL), 2, words.parent / "c").notes
    assert notes == ("empty: 1 of 3 samples has a label but no events: s1/a",)


def test_label_table_damaged_recording_error_names_it(words: Path) -> None:
    raw = open_words(words, ALL)
    (words / "s1/a.aedat").write_bytes(b"#!AER-DAT3.1\r\n")
    raw = open_words(words, ALL)
    with pytest.raises(DamagedFileError, match=r"data: s1/a\.aedat"):
        events_by_id(raw)


def test_label_table_copies_of_a_recording_are_noted_by_split_and_class(words: Path) -> None:
    (words / "s1/copy.bin").write_bytes((words / "s1/b.bin").read_bytes())
    same = "1 recording is there more than once"
    windows = "file,word,from,to\ns1/b,yes,0,9\ns1/b,no,9,50\ns1/copy,yes,0,9\ns1/copy,no,9,50\n"
    assert [note for note in open_words(words, windows, TIMED).notes if same in note] == [
        f"{same}; the same are s1/b.bin, s1/copy.bin"
    ]
    split = "file,word,part,speaker\ns1/a,yes,train,x\ns1/b,yes,train,x\ns1/copy,no,test,y\n"
    assert f"{same}, 1 of them in different splits, 1 of them in different classes; the same are" in " ".join(
        open_words(words, split, SPLIT).notes
    )


LASTING = "{file: labels.csv, recording: file, label: word, start: from, duration: lasts, time_unit: ms}"


def test_label_table_windows_with_durations_are_those_with_ends(words: Path) -> None:
    lasting = open_words(words, "file,word,from,lasts\ns1/a,yes,100.5,0.1004\ns1/a,no,200,\nc d,no,0,500\n", LASTING)
    ids, lengths = [sample.id for sample in lasting.samples], list(map(len, events_by_id(lasting).values()))
    ended = open_words(words, "file,word,from,to\ns1/a,yes,100.5,100.6004\ns1/a,no,200,\nc d,no,0,500\n", TIMED)
    assert [sample.id for sample in ended.samples] == ids
    assert list(map(len, events_by_id(ended).values())) == lengths


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (",5", "lasts 5, but has no start"),
        ("5,0", r"lasts 0, expected a time above 0 \(without labels.duration"),
        ("5,n/a", "time 'n/a', expected a number of ms"),
        ("3e15,3e15", "lasts 3e15, expected an end of at most"),
    ],
)
def test_label_table_wrong_duration_is_named_with_its_line(words: Path, cells: str, message: str) -> None:
    with pytest.raises(RawDataError, match=f"line 2: {message}"):
        open_words(words, f"file,word,from,lasts\ns1/a,yes,{cells}\n", LASTING)


@pytest.mark.parametrize("others", [{}, {"start": "from", "end": "to"}, {"end": "to"}])
def test_label_table_duration_is_stated_with_start_and_without_end(others: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="duration: the time from start to end, expected with start, and without end"):
        LabelTable(file="t.csv", recording="file", label="word", duration="lasts", **others)


def test_label_table_windows_of_different_splits_that_overlap_are_noted(words: Path) -> None:
    labels = "{file: labels.csv, recording: file, label: word, split: part, start: from, end: to, time_unit: ms}"
    head = "file,word,part,from,to\ns1/a,yes,train,0,400\ns1/a,no,train,100,200\ns1/b,yes,test,100,300\n"
    apart = open_words(words, f"{head}s1/a,yes,test,400,\n", labels)
    assert not any("in common" in note for note in apart.notes)
    shared = open_words(words, f"{head}s1/a,yes,test,399.999,\n", labels)
    note = "samples of different splits have events in common: s1/a/00 and s1/a/02"
    assert note in shared.notes
