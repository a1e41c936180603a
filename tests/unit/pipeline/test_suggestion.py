"""A data set and an experiment, suggested for the recordings of a folder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from plifctl.config.dataset import ReadingSpec
from plifctl.config.lookup import load_registry
from plifctl.data.formats.headers import Size
from plifctl.data.formats.summary import Summary
from plifctl.data.inspection.facts import EventFacts, Finding, RecordingFacts
from plifctl.data.inspection.folder import FolderFacts
from plifctl.data.inspection.label_table import FoundTable, find_label_table
from plifctl.data.remarks import Remark
from plifctl.errors import RawDataError
from plifctl.pipeline.suggestion import LIKE, Suggestion, step_bytes, structure_for, suggest_experiment

GIGABYTES = 10**9
NEURON = load_registry().experiment(LIKE).spec.neuron
FOLDERS = [f"{split}/{label}/{k}.dat" for split in ("train", "test") for label in "ab" for k in range(20)]


def recording(
    name: str,
    *,
    sensor: Size | None = (128, 128),
    seen: Size = (100, 90),
    duration_us: int = 2_000_000,
    **changes: Any,
) -> RecordingFacts:
    events = replace(
        EventFacts(9, 0, 0, duration_us, 4, (0, seen[0] - 1), (0, seen[1] - 1), 0, 0, ()), **changes.pop("events", {})
    )
    format_name, summary = changes.pop("format", "Prophesee .dat"), Summary(changes.pop("camera", ""), sensor)
    return RecordingFacts(name, 100, "recording", format_name, summary, events, **changes)


def suggest(
    names: Sequence[str] = FOLDERS, memory: float = 64 * GIGABYTES, tables: Sequence[FoundTable] = (), **facts: Any
) -> Suggestion:
    return suggest_experiment(
        FolderFacts.of([recording(name, **facts) for name in names], tables), "mine", "raw", NEURON, int(memory)
    )


def values(suggestion: Suggestion) -> dict[str, Any]:
    return {value.key: value.value for value in suggestion.values}


def comment(suggestion: Suggestion, key: str) -> str:
    return next(value.comment for value in suggestion.values if value.key == key)


def test_suggestion_for_the_papers_size_is_the_papers_network() -> None:
    registry = load_registry()
    assert structure_for((2, 128, 128), 11) == registry.network("gesture").structure
    assert structure_for((2, 34, 34), 10) == "{c128k3s1-BN-SN-MPk2s2}*3-DP-FC512-SN-DP-FC100-SN-APk10s10"


def test_step_bytes_are_about_those_measured() -> None:
    measured = 911 * 2**20  # docs/benchmarks.md: gesture-plif, T = 20, batch 2
    assert step_bytes(structure_for((2, 128, 128), 11), (2, 128, 128), 11, 20, 2, NEURON) == pytest.approx(
        measured, rel=0.1
    )


def test_folders_with_a_split_have_no_assumptions() -> None:
    suggestion = suggest()
    found = values(suggestion)
    assert (found["dataset.layout"], found["dataset.classes"]) == ("folders", ["a", "b"])
    assert (found["dataset.shape"], found["dataset.raw"]) == ((2, 128, 128), "raw")
    assert (found["T"], found["train.batch_size"]) == (20, 16)
    assert not [key for key in found if key.startswith(("split.", "frames.transforms", "train.accumulate"))]
    assert not [value for value in suggestion.values if "ASSUMED" in value.comment]
    assert suggestion.notes == ()


def test_sensor_that_is_only_seen_is_an_assumption() -> None:
    suggestion = suggest(sensor=None)
    assert values(suggestion)["dataset.shape"] == (2, 90, 100)
    assert "ASSUMED" in comment(suggestion, "dataset.shape")


def test_shape_is_that_after_x_and_y_were_exchanged() -> None:
    facts = FolderFacts.of([recording(name, sensor=(346, 260)) for name in FOLDERS])
    found = suggest_experiment(facts, "mine", "raw", NEURON, 64 * GIGABYTES, ReadingSpec(transpose=True))
    assert values(found)["dataset.shape"] == (2, 346, 260)


def test_classes_without_split_are_divided_and_groups_stay_together() -> None:
    found = values(suggest([f"set/{label}/user{k:02}_1.dat" for label in "ab" for k in range(9)]))
    assert (found["dataset.layout"], found["dataset.raw"]) == ("class-folders", "raw/set")
    assert (found["split.method"], found["split.test"]) == ("share", 0.2)
    assert (found["split.groups"], found["validation.method"]) == (r"user\d+", "share")
    assert "split.groups" not in values(suggest([f"{label}/{k}.dat" for label in "ab" for k in range(9)]))


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("{label}/session{half}/user{k}.dat", r"user\d+"),  # a person may be in both sessions
        ("{label}/session{half}/{k}.dat", r"session\d+"),
        ("{label}/{User}{k}.dat", r"(?i)user\d+"),
        ("user{half}/{label}{k}.dat", None),  # the classes
    ],
)
def test_groups_are_people_before_sessions_in_any_capitals_and_never_the_classes(name: str, groups: str | None) -> None:
    names = {
        name.format(label=label, k=k, half=k // 5, User=("user", "User")[k // 5]) for label in "ab" for k in range(9)
    }
    assert values(suggest(sorted(names))).get("split.groups") == groups


def test_folders_of_people_are_not_taken_for_classes() -> None:
    with pytest.raises(
        RawDataError, match=r"folders user1, user2 look like people.*fist, wave, like the classes"
    ) as error:
        suggest([f"user{who}/{label}/{k}.dat" for who in (1, 2) for label in ("fist", "wave") for k in range(9)])
    assert "CLASS/PERSON/FILE" in error.value.hint


@pytest.mark.parametrize("name", ["user0{k}/{take}_1.dat", "sub-0{k}/ses-1/dvs/{take}.dat"])
def test_classes_that_look_like_people_are_an_assumption(name: str) -> None:
    found = suggest([name.format(k=k, take=take) for k in range(3) for take in ("wave", "fist")])
    assert comment(found, "dataset.classes") == "ASSUMED: these folders look like people"
    assert any(
        "which look like people: if they are, arrange the recordings as CLASS/PERSON/FILE" in note
        for note in found.notes
    )


def test_people_who_differ_in_capitals_alone_are_a_note() -> None:
    found = suggest([f"{label}/{user}0{k}.dat" for label in "ab" for user in ("User", "user") for k in range(4)])
    assert "split.groups" not in values(found)
    assert any(note.startswith("User00 and user00 would be different groups") for note in found.notes)


def test_folders_that_repeat_in_the_classes_are_named() -> None:
    found = suggest(
        [f"{label}/{who}/{k}.dat" for who in ("anna", "bob") for label in ("fist", "wave") for k in range(9)]
    )
    (note,) = (note for note in found.notes if "repeat" in note)
    assert note.startswith("the classes are fist, wave; the folders in them, anna, bob, repeat")
    assert "whose a recording is" in comment(found, "split.method")
    grouped = suggest([f"{label}/user{who}/{k}.dat" for who in (1, 2) for label in ("fist", "wave") for k in range(9)])
    assert not any("repeat" in note for note in grouped.notes)
    assert "whose a recording is" not in comment(grouped, "split.method")


@pytest.mark.parametrize(
    ("word", "groups"),
    [
        ("sub-", r"sub-\d+"),
        ("subj", r"subj\d+"),
        ("Patient_", r"Patient_\d+"),
        ("ses-", r"ses-\d+"),
        ("handUser", r"User\d+"),
        ("chorus", None),  # ends like a word for people
        ("ball-sub", r"sub\d+"),
        ("possub", None),
    ],
)
def test_people_by_other_words_stay_together(word: str, groups: str | None) -> None:
    found = values(suggest([f"{label}/{word}{k // 3:02}_{k}.dat" for label in "ab" for k in range(9)]))
    assert found.get("split.groups") == groups


@pytest.mark.parametrize("sensor", [(1280, 720), (346, 260), (304, 240), (129, 100)])
def test_larger_sensors_are_scaled_down(sensor: Size) -> None:
    suggestion = suggest(sensor=sensor)
    found = values(suggestion)
    (transform,) = found["frames.transforms"]
    assert 120 < (max(sensor) - 1) * transform["factor"] + 1 < 129
    assert "GB for a batch of 16" in comment(suggestion, "frames.transforms")
    assert found["dataset.shape"] == (2, sensor[1], sensor[0])


@pytest.mark.parametrize(("gigabytes", "batch", "accumulate"), [(64, 16, None), (5, 4, 4), (0.1, 2, 8)])
def test_batch_fits_the_memory(gigabytes: float, batch: int, accumulate: int | None) -> None:
    found = values(suggest(memory=gigabytes * GIGABYTES))
    assert (found["train.batch_size"], found.get("train.accumulate")) == (batch, accumulate)


def test_batch_leaves_several_batches_of_few_recordings() -> None:
    assert values(suggest([f"{label}/{k}.dat" for label in "ab" for k in range(4)]))["train.batch_size"] == 4


def test_short_recordings_have_fewer_frames() -> None:
    assert values(suggest(duration_us=300_000))["T"] == 10


def test_what_recordings_do_not_say_becomes_keys_of_the_data_set() -> None:
    found = suggest(reading=ReadingSpec(columns=("t", "x", "y", "p"), time_unit="s"))
    assert (values(found)["dataset.columns"], values(found)["dataset.time_unit"]) == (["t", "x", "y", "p"], "s")
    matrices = suggest(events={"remarks": (Remark("unit"),)})
    assert (values(matrices)["dataset.time_unit"], "ASSUMED" in comment(matrices, "dataset.time_unit")) == ("ms", True)


def test_recordings_of_jaer_are_turned_the_right_way_up() -> None:
    jaer = suggest(format="AEDAT 2.0")
    assert (values(jaer)["dataset.flip_y"], "dataset.flip_x" in values(jaer)) == (True, False)
    assert "ASSUMED" in comment(jaer, "dataset.flip_y")
    davis = suggest(format="AEDAT 2.0", camera="Davis346red")
    assert (values(davis)["dataset.flip_y"], values(davis)["dataset.flip_x"]) == (True, True)


@pytest.mark.parametrize(
    ("key", "value", "part", "rest"),
    [
        ("time_unit", "ms", {"format": "numpy .npy", "events": {"remarks": (Remark("unit"),)}}, {"format": "text"}),
        ("time_unit", "s", {"format": "text", "reading": ReadingSpec(time_unit="s")}, {"format": "numpy .npy"}),
        ("flip_y", True, {"format": "AEDAT 2.0"}, {"format": "AEDAT 3.1"}),
        ("flip_x", True, {"format": "AEDAT 2.0", "camera": "Davis346red"}, {"format": "AEDAT 2.0"}),
    ],
)
def test_key_that_a_part_of_the_recordings_needs_is_a_note(
    key: str, value: object, part: dict[str, Any], rest: dict[str, Any]
) -> None:
    mixed = [recording(name, **(part if k % 3 else rest)) for k, name in enumerate(FOLDERS)]
    found = suggest_experiment(FolderFacts.of(mixed), "mine", "raw", NEURON, 10**10)
    assert f"dataset.{key}" not in values(found)
    (note,) = (note for note in found.notes if f"dataset.{key}" in note)
    assert note.startswith(f"dataset.{key}: {str(value).lower()} is not stated: train/a/1.dat")
    assert "train/a/0.dat, train/a/3.dat and 25 more would be wrong with it" in note


def test_unit_of_matrices_is_stated_beside_recordings_that_it_does_not_change() -> None:
    matrix = {"format": "numpy .npy", "events": {"remarks": (Remark("unit"),)}}
    mixed = [recording(name, **(matrix if k % 2 else {})) for k, name in enumerate(FOLDERS)]
    assert values(suggest_experiment(FolderFacts.of(mixed), "mine", "raw", NEURON, 10**10))["dataset.time_unit"] == "ms"


def test_outside_and_invalid_events_are_handled_as_they_occur() -> None:
    usual, outside = values(suggest()), values(suggest(events={"n_outside": 3}))
    invalid = values(suggest(findings=(Finding("problem", "all-invalid", "all"),)))
    assert (usual["frames.outside_events"], outside["frames.outside_events"]) == ("refuse", "drop")
    assert (usual["frames.invalid_events"], invalid["frames.invalid_events"]) == ("drop", "keep")


LISTED = [f"rec/{k}.dat" for k in range(20)]


class TestTable:
    def table(self, header: str = "file,class", row: str = "rec/{k},{label}") -> FoundTable:
        rows = "".join(
            row.format(k=k, label="ab"[k % 2], split=["train", "test"][k % 4 == 0]) + "\n" for k in range(20)
        )
        table = find_label_table("labels.csv", f"{header}\n{rows}", LISTED)
        assert table is not None
        return table

    def test_table_that_names_all_recordings_labels_them(self) -> None:
        found = values(suggest(LISTED, tables=[self.table()]))
        assert (found["dataset.layout"], found["dataset.classes"], found["dataset.raw"]) == (
            "label-table",
            ["a", "b"],
            "raw",
        )
        assert (found["dataset.labels.file"], found["dataset.labels.recording"]) == ("labels.csv", "file")
        assert (found["dataset.labels.label"], found["split.method"]) == ("class", "share")

    def test_table_with_splits_groups_and_windows_states_them(self) -> None:
        table = self.table("file,class,split,user,start,end", "rec/{k},{label},{split},u{k},0,1900")
        suggestion = suggest(LISTED, tables=[table])
        found = values(suggestion)
        assert {key: found[f"dataset.labels.{key}"] for key in ("split", "group", "start", "end", "time_unit")} == {
            "split": "split",
            "group": "user",
            "start": "start",
            "end": "end",
            "time_unit": "ms",
        }
        assert "split.method" not in found

    @pytest.mark.parametrize(
        ("subjects", "why"), [(("anna", ""), "some cells are empty"), (("1", "1"), "all cells are 1")]
    )
    def test_groups_that_cannot_keep_samples_together_are_a_note(self, subjects: tuple[str, str], why: str) -> None:
        rows = "".join(f"{k}.npy,{'ab'[k % 2]},{subjects[k % 2]}\n" for k in range(8))
        names = [f"{k}.npy" for k in range(8)]
        table = find_label_table("labels.csv", f"file,class,subject\n{rows}", names)
        assert table is not None
        found = suggest(names, tables=[table])
        assert "split.groups" not in values(found)
        assert f"the column subject does not keep samples together: {why}" in found.notes

    @pytest.mark.parametrize(("header", "end"), [("start,end", "{end}"), ("onset,duration", "{length}")])
    def test_table_with_windows_decides_time_steps_and_batch(self, header: str, end: str) -> None:
        """Three long recordings, of which 120 short windows are the samples."""
        rows = "".join(
            f"{k % 3}.npy,{'ab'[k % 2]},{k / 2},{end.format(end=k / 2 + 0.3, length=0.3)}\n" for k in range(120)
        )
        names = [f"{k}.npy" for k in range(3)]
        table = find_label_table("labels.csv", f"file,class,{header}\n{rows}", names)
        assert table is not None
        suggestion = suggest(names, tables=[table], duration_us=60_000_000)
        found = values(suggestion)
        assert (found["T"], found["train.batch_size"], "train.accumulate" in found) == (10, 16, False)
        assert found["dataset.labels.time_unit"] == "s"
        assert comment(suggestion, "T") == "frames of a sample; the median sample lasts 0.3 s"

    def test_table_with_groups_keeps_them_together(self) -> None:
        found = values(suggest(LISTED, tables=[self.table("file,class,user", "rec/{k},{label},u{k}")]))
        assert found["split.groups"] == "table"

    def test_table_with_the_split_alone_is_named(self) -> None:
        names = [f"{label}/{k}.dat" for label in "ab" for k in range(10)]
        rows = "".join(f"{name},{'test' if '9' in name else 'train'}\n" for name in names)
        table = find_label_table("split.csv", f"file,split\n{rows}", names)
        assert table is not None
        found = suggest(names, tables=[table])
        assert "ASSUMED: that of split.csv is not used" in comment(found, "split.method")
        assert any(note.startswith("split.csv names the split of recordings, and is not used") for note in found.notes)

    def test_table_that_labels_too_few_is_named_where_there_are_no_classes(self) -> None:
        table = self.table()
        with pytest.raises(RawDataError, match=r"labels\.csv has labels .*, 5 of 25 recordings are in no line"):
            suggest([*LISTED, *(f"rec/more{k}.dat" for k in range(5))], tables=[replace(table, n_unlisted=5)])

    def test_column_that_names_most_different_recordings_names_them(self) -> None:
        names = [f"{k}.dat" for k in range(1, 11)]
        rows = "".join(f"{(k + 1) // 2},{k},{'ab'[k % 2]}\n" for k in range(1, 11))
        table = find_label_table("labels.csv", f"subject,file,label\n{rows}", names)
        assert table is not None
        assert (table.roles["recording"], table.roles["group"], table.n_unlisted) == ("file", "subject", 0)


@pytest.mark.parametrize("names", [["1.dat", "2.dat"], ["a/1.dat", "a/2.dat"], []])
def test_recordings_without_classes_are_refused(names: list[str]) -> None:
    with pytest.raises(RawDataError, match="no classes"):
        suggest(names)


def test_notes_name_what_to_do_first() -> None:
    broken = RecordingFacts("a/broken.dat", 9, "unreadable", "Prophesee .dat")
    facts = FolderFacts.of([*(recording(name) for name in FOLDERS), recording("train/a/e.dat", duration_us=1), broken])
    notes = suggest_experiment(facts, "mine", "raw", NEURON, GIGABYTES).notes
    assert ["cannot be read: a/broken.dat" in notes[0], "train/a/e.dat" in notes[1]] == [True, True]
