"""Control characters from files are escaped, never interpreted; faults of the streams."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from plifctl.cli import console
from plifctl.errors import RawDataError

HOSTILE = "a\x1b[2J\x9b31m\u202eb\r\udcff\nc\td [bold]é ﷽"
SHOWN = "a\\x1b[2J\\x9b31m\\u202eb\\r\\udcff\nc\td [bold]é ﷽"


def test_emit_hostile_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit(HOSTILE)
    console.emit_verdicts([("x", "DAMAGED", [HOSTILE])], as_json=False)
    assert capsys.readouterr().out == f"{SHOWN}\nx: DAMAGED\n  {SHOWN}\n"


def test_messages_hostile_text_is_escaped_to_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.note(HOSTILE)
    console.warn(HOSTILE)
    console.fail(RawDataError(HOSTILE, hint=HOSTILE))
    result = capsys.readouterr().err
    first, second = SHOWN.split("\t")[0].splitlines()
    assert not set("\x1b\x9b\u202e\r") & set(result)
    assert result.count(f"{first}\\n{second}") == 3  # each on one line
    assert f"hint: {first}\nhint: {second}" in result


def test_warn_indented_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn("two things:\n  one\n  a\nb")
    assert capsys.readouterr().err == "warning: two things:\n  one\n  a\\nb\n"


def test_emit_table_hostile_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit_table(["\x1b[1m"], [["\x1b[2Jx"]], title="\x9bt")
    assert capsys.readouterr().out == "\\x9bt\n\\x1b[1m\n\\x1b[2Jx\n"


def test_emit_json_hostile_text_gives_the_same_document(capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"a\x9b": HOSTILE}
    console.emit_json(tree)
    text = capsys.readouterr().out
    assert json.loads(text) == tree
    assert not set("\x1b\x9b\u202e\r\udcff") & set(text)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Starts the console with the given streams; everything is put back afterwards."""

    def start(**streams: TextIO | None) -> None:
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        console.start(json_wanted=True)

    monkeypatch.setattr(logging.getLogger("plifctl"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("plifctl"), "level", logging.NOTSET)
    for name in ("_json", "_emitted", "_stopped"):
        monkeypatch.setattr(console, name, getattr(console, name))
    return start


def test_start_closed_streams_do_not_end_the_command(started: Callable[..., None]) -> None:
    started(stdout=None, stderr=None)  # what Python does for a command called with >&- 2>&-
    console.emit_table(["name"], [["demo"]])
    console.warn("w")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_warn_on_a_full_disk_is_dropped(started: Callable[..., None]) -> None:
    with Path("/dev/full").open("w") as full:
        started(stderr=full)
        console.warn("w")
        logging.getLogger("plifctl").warning("of the library")
        print("of another library", file=sys.stderr, flush=True)
        sys.stderr.flush()


def test_warn_to_a_closed_pipe_is_dropped(started: Callable[..., None]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:  # noqa: PTH123
        started(stderr=closed)
        console.fail(RawDataError("e", hint="h"))
        console.note("n")


def test_emit_to_a_closed_pipe_exits_quietly(started: Callable[..., None]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:  # noqa: PTH123
        started(stdout=closed)
        with pytest.raises(SystemExit) as end:
            console.emit("data")
        assert end.value.code == 0
        sys.stdout.flush()  # what is left goes to /dev/null


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_emit_on_a_full_disk_is_an_error_that_names_stdout(started: Callable[..., None]) -> None:
    with Path("/dev/full").open("w") as full:
        started(stdout=full)
        with pytest.raises(OSError, match="stdout"):
            console.emit("data")
        sys.stdout.flush()
    with Path("/dev/full").open("w") as full:
        started(stdout=full)
        console.fail(RawDataError("e"))  # the document of an error: the exit code stays that of the error
        sys.stdout.flush()  # what is left goes to /dev/null
