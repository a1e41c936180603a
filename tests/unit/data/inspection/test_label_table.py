"""Tables of labels, found by what their columns contain."""

import pytest

from plifctl.data.inspection.label_table import FoundTable, find_label_table
from plifctl.errors import DamagedFileError

FILES = ["rec/a.dat", "rec/b.dat", "rec/c.dat", "rec/d.dat"]


@pytest.mark.parametrize("name", ["subject_id", "Subject ID", "subj", "user-no", "participantId", "PatientNumber"])
def test_column_of_people_is_known_by_its_usual_names(name: str) -> None:
    table = find_label_table("l.csv", f"file,class,{name}\na/1.dat,x,7\na/2.dat,y,7\n", ["a/1.dat", "a/2.dat"])
    assert table is not None
    assert table.roles["group"] == name


def test_column_of_people_comes_before_one_of_sessions() -> None:
    rows = "a/1.dat,1,anna,x\na/2.dat,1,bob,y\n"
    table = find_label_table("l.csv", f"file,session_id,subject,label\n{rows}", ["a/1.dat", "a/2.dat"])
    assert table is not None
    assert table.roles["group"] == "subject"
    table = find_label_table("l.csv", f"file,session_id,camera,label\n{rows}", ["a/1.dat", "a/2.dat"])
    assert table is not None
    assert table.roles["group"] == "session_id"


def test_table_with_an_open_quote_is_an_error_with_its_line() -> None:
    with pytest.raises(DamagedFileError, match=r"l\.csv, line 3: "):
        find_label_table("l.csv", 'file,class\na/1.dat,x\na/2.dat,"y\n', ["a/1.dat", "a/2.dat"])


def find(text: str, name: str = "labels.csv") -> FoundTable:
    table = find_label_table(name, text, FILES)
    assert table is not None
    return table


@pytest.mark.parametrize("cells", [("rec/a.dat", "rec/b.dat"), ("rec/a", "rec/b"), ("a.dat", "b.dat"), ("a", "b")])
def test_recordings_may_be_named_by_path_or_name(cells: tuple[str, str]) -> None:
    table = find(f"x,label\n{cells[0]},wave\n{cells[1]},fist\n")
    assert table.roles == {"recording": "x", "label": "label"}
    assert (table.classes, table.n_rows, table.n_missing, table.n_unlisted) == (("fist", "wave"), 2, 0, 2)


def test_columns_of_split_group_and_window_are_found() -> None:
    header = "File;Gesture;Usage;Subject;startTime_usec;endTime_usec\n"
    rows = "a;wave;train;anna;0;10\nb;fist;test;bob;5;20\nb;wave;test;bob;25;30\n"
    assert find(header + rows).roles == {
        "recording": "File",
        "label": "Gesture",
        "split": "Usage",
        "group": "Subject",
        "start": "startTime_usec",
        "end": "endTime_usec",
    }


def test_column_whose_name_fits_but_whose_cells_do_not_has_no_role() -> None:
    assert find("file,class,split\na,wave,yes\nb,fist,no\n").roles == {"recording": "file", "label": "class"}


def test_label_without_a_usual_name_is_that_with_fewest_classes() -> None:
    text = "file,hand,remark\na,left,x\nb,left,y\nc,right,z\nd,right,w\n"
    assert find(text).roles["label"] == "hand"


def test_rows_that_name_no_recording_are_counted() -> None:
    table = find("file\tclass\na\twave\nb\tfist\nzz\tfist\n")
    assert (table.n_missing, table.n_unlisted) == (1, 2)


def test_table_named_after_a_recording_lists_its_windows() -> None:
    table = find("class,startTime_usec,endTime_usec\n1,0,10\n2,10,20\n", "rec/a_labels.csv")
    assert table.recording == "rec/a.dat"
    assert table.roles == {"label": "class", "start": "startTime_usec", "end": "endTime_usec"}


@pytest.mark.parametrize("text", ["", "a,b\n", "one\na\n", "x,y\n1,2\n3,4\n", "file,file\na,b\n", "\0,\n,"])
def test_other_texts_are_no_tables(text: str) -> None:
    assert find_label_table("notes.csv", text, FILES) is None


@pytest.mark.parametrize("header", ["t,x,y,p", "timestamp,t,x,y,polarity"])
def test_events_with_numbers_that_are_names_of_recordings_are_no_table(header: str) -> None:
    rows = "".join(f"{k % 2},{k % 2},{k % 2},{k % 2}{',1' * (header.count(',') - 3)}\n" for k in range(9))
    assert find_label_table("a/2.txt", f"{header}\n{rows}", ["a/0.npy", "b/1.npy"]) is None


@pytest.mark.parametrize(
    "text",
    ["file,class,from,to\na,wave,0.0,1.5\nb,fist,,\nc,fist,2,\n", "file;class;from;to\na;wave;0,0;1,5\nb;fist;;\n"],
)
def test_windows_with_empty_cells_and_decimal_commas_are_found(text: str) -> None:
    table = find(text)
    assert table.roles == {"recording": "file", "start": "from", "end": "to", "label": "class"}
    assert table.latest == 1.5


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        ("file,onset,duration,trial_type", {"start": "onset", "duration": "duration"}),
        ("file,start,length_ms,trial_type", {"start": "start", "duration": "length_ms"}),
        ("file,start,end,trial_type", {"start": "start", "end": "end"}),
        ("file,take,duration,trial_type", {}),  # of the recording
    ],
)
def test_column_of_durations_ends_the_windows_that_have_a_start(header: str, roles: dict[str, str]) -> None:
    table = find(f"{header}\na,1,2,wave\na,4,n/a,fist\nb,5.5,7,wave\nb,9,9.5,fist\n".replace("n/a", "6"))
    assert table.roles == {"recording": "file", "label": "trial_type", **roles}
    ends = {"duration": (9, 6.5), "end": (9.5, 1.25)}
    assert (table.latest, table.median_length) == next((ends[role] for role in ends if role in roles), (None, None))


def test_column_of_durations_with_a_cell_that_is_no_number_is_found() -> None:
    table = find("file,onset,duration,label\na,1,2,wave\na,4,n/a,fist\n")
    assert (table.roles["duration"], table.latest, table.median_length) == ("duration", 4, 2)


@pytest.mark.parametrize(
    "table",
    [
        "file,onset,length,label\na,1,short,wave\na,4,long,fist\n",
        "file,onset,duration,label\na,1,0,wave\na,4,0,fist\n",  # of stimuli that only have a beginning
        "file,onset,length_of_recording,label\na,1,60,wave\na,4,60,fist\n",
    ],
)
def test_column_without_durations_of_samples_is_none_of_durations(table: str) -> None:
    assert "duration" not in find(table).roles


@pytest.mark.parametrize(("rows", "latest"), [("a,0,60000,x\nb,0,59000,y\n", 59500), ("a,45,60,x\na,1,4,y\n", 45)])
def test_latest_time_of_windows_with_durations_lies_within_the_recording(rows: str, latest: float) -> None:
    assert find(f"file,start,duration,label\n{rows}").latest == latest


def test_remarks_on_some_recordings_are_no_labels() -> None:
    assert "label" not in find("file,note\na,\nb,blurred\nc,\n").roles


def test_line_without_a_label_makes_no_class() -> None:
    assert find("file,class\na,wave\nb,fist\nc,\n").classes == ("fist", "wave")


def test_group_of_which_some_cells_are_empty_is_found() -> None:
    assert find("file,class,subject\na,wave,anna\nb,fist,\n").groups == ("", "anna")
    assert find("file,class,subject\na,wave,anna\nb,fist,\n").roles["group"] == "subject"
