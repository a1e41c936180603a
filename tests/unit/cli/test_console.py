"""Control characters from files are escaped, never interpreted."""

import json
import logging
import os
import sys

import pytest

from plifctl.cli import console
from plifctl.errors import RawDataError

HOSTILE = "a\x1b[2J\x9b31m\u202eb\r\udcff\nc\td [bold]é ﷽"
SHOWN = "a\\x1b[2J\\x9b31m\\u202eb\\r\\udcff\nc\td [bold]é ﷽"


def test_emit_hostile_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit(HOSTILE)
    console.emit_verdict("x", [HOSTILE])
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


def test_start_closed_stdout_does_not_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # what Python does for a command called with >&-
    monkeypatch.setattr(logging.getLogger("plifctl"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("plifctl"), "level", logging.NOTSET)
    console.start(json_wanted=False)
    console.emit_table(["name"], [["demo"]])
    assert sys.stdout.name == os.devnull
    sys.stdout.close()
