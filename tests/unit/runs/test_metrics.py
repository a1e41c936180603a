"""metrics.jsonl and its checksums: rows of data, damage found, every kill survived, rows of 0.1.0 read."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from plifctl.errors import RunError
from plifctl.runs import metrics
from plifctl.runs.metrics import MetricsFile


def row(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "loss": 1 / epoch, "test_accuracy": None, "tau": [2.0, 2.5], "layers": ["sn0", "sn1"]}


def sealed_line(content: dict[str, Any]) -> str:
    """A row as plifctl 0.1.0 wrote it."""
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return json.dumps({**content, "seal": seal}) + "\n"


def written(folder: Path, epochs: int) -> MetricsFile:
    file = MetricsFile(folder)
    for epoch in range(1, epochs + 1):
        file.append(row(epoch))
    return file


def test_rows_when_appended_hold_data_only(tmp_path: Path) -> None:
    file = written(tmp_path, 3)
    lines = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert lines == file.read() == [row(1), row(2), row(3)]
    assert [line.split("  ")[1] for line in file.checksums.read_text().splitlines()] == [
        "epoch 1",
        "epoch 2",
        "epoch 3",
    ]


def test_rows_when_read_by_pandas_are_clean_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_json(written(tmp_path, 3).path, lines=True)
    assert list(table.columns) == list(row(1))
    assert table["loss"].tolist() == pytest.approx([1, 1 / 2, 1 / 3])


def test_read_without_files_is_empty(tmp_path: Path) -> None:
    assert MetricsFile(tmp_path).read() == []
    MetricsFile(tmp_path).truncate(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old", [0, 2])
def test_append_killed_at_any_byte_can_be_read_and_resumed(tmp_path: Path, old: int) -> None:
    """Every prefix of what is written in the third epoch: bytes of the row first, then of its checksum."""
    file = written(tmp_path, 3)
    if old:
        file.path.write_text("".join(sealed_line(row(n)) for n in (1, 2)))
        file.checksums.unlink()
        file.append(row(3))
    rows, checksums = file.path.read_bytes(), file.checksums.read_bytes()
    row_length = len(rows.splitlines(keepends=True)[2])
    checksum_length = len(checksums.splitlines(keepends=True)[-1])
    for done in range(row_length + checksum_length):
        file.path.write_bytes(rows[: len(rows) - max(0, row_length - done)])
        file.checksums.write_bytes(checksums[: len(checksums) - checksum_length + max(0, done - row_length)])
        assert file.read() == [row(1), row(2)], done
        file.truncate(2)
        assert file.read() == [row(1), row(2)]
        file.append(row(3))
        assert (file.path.read_bytes(), file.checksums.read_bytes()) == (rows, checksums)


@pytest.mark.parametrize("killed_after", range(8))
def test_truncate_killed_at_any_step_can_be_read_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    (tmp_path / "short").mkdir()
    file, steps = written(tmp_path, 5), 0
    expected = [path.read_bytes() for path in (written(tmp_path / "short", 2).path, tmp_path / "short/metrics.sha256")]
    keep = metrics._keep

    def killed(path: Path, lines: list[bytes]) -> None:
        nonlocal steps
        if steps == killed_after:
            raise KeyboardInterrupt
        steps += 1
        keep(path, lines)

    monkeypatch.setattr(metrics, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        file.truncate(2)
    monkeypatch.undo()
    assert file.read()[:2] == [row(1), row(2)]
    file.truncate(2)
    assert [file.path.read_bytes(), file.checksums.read_bytes()] == expected


def test_truncate_below_the_rows_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, 2)
    before = file.path.read_bytes()
    with pytest.raises(RunError, match=r"metrics\.jsonl: 2 epochs, expected 3") as error:
        file.truncate(3)
    assert "omit --resume" in error.value.hint
    assert file.path.read_bytes() == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.sha256"])
def test_read_after_any_flipped_bit_is_an_error(tmp_path: Path, name: str) -> None:
    """Of an unfinished run, which has no manifest."""
    file = written(tmp_path, 3)
    whole = (tmp_path / name).read_bytes()
    missed = []
    for index in range(len(whole)):
        for bit in (0, 3, 6):
            damaged = bytearray(whole)
            damaged[index] ^= 1 << bit
            (tmp_path / name).write_bytes(damaged)
            with suppress(RunError):
                missed.append((index, file.read()))
    # a checksum whose line feed is gone was not completely written: its row is left out, and no number differs
    assert missed in ([], [(len(whole) - 1, [row(1), row(2)])] * 3)


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.sha256"])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_read_after_a_line_is_lost_is_an_error(tmp_path: Path, name: str, lost: int) -> None:
    file = written(tmp_path, 3)
    lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
    (tmp_path / name).write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
    if (name, lost) == ("metrics.sha256", 2):  # as a kill leaves it
        assert file.read() == [row(1), row(2)]
    else:
        with pytest.raises(RunError, match="damaged"):
            file.read()


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.sha256"])
@pytest.mark.parametrize("cut", [1, 20, "line"])
def test_read_of_a_finished_run_with_an_incomplete_row_is_an_error(tmp_path: Path, name: str, cut: int | str) -> None:
    file = written(tmp_path, 3)
    content = (tmp_path / name).read_bytes()
    last = len(content.splitlines(keepends=True)[-1])
    (tmp_path / name).write_bytes(content[: -last if cut == "line" else -int(cut)])
    with pytest.raises(RunError, match="damaged"):
        file.read(finished=True)


def test_read_without_checksums_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path, 3)
    file.checksums.unlink()
    with pytest.raises(RunError, match=r"metrics\.jsonl:1: damaged: metrics\.sha256 has no checksum"):
        file.read()


def test_rows_of_0_1_0_are_read_and_appended_to_without_rewriting(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    old = "".join(sealed_line(row(n)) for n in (1, 2, 3))
    file.path.write_text(old + '{"epoch": 4, "lo')
    assert file.read() == [row(1), row(2), row(3)]
    assert not file.checksums.exists()
    file.truncate(2)
    file.append({**row(3), "loss": 9.0})
    kept = "".join(sealed_line(row(n)) for n in (1, 2))
    assert file.path.read_text().startswith(kept)
    assert file.read() == [row(1), row(2), {**row(3), "loss": 9.0}]
    assert len(file.checksums.read_text().splitlines()) == 1


@pytest.mark.parametrize("changed", ['"epoch": 2', '"loss": 0.6', '"seal": "0'])
def test_rows_of_0_1_0_when_modified_are_damaged(tmp_path: Path, changed: str) -> None:
    file = MetricsFile(tmp_path)
    line = sealed_line({"epoch": 1, "loss": 0.5})
    start = line.index(changed.split(":")[0])
    file.path.write_text(line[:start] + changed + line[start + len(changed) :])
    with pytest.raises(RunError, match=r"metrics\.jsonl:1: damaged: checksum mismatch"):
        file.read()


def test_read_while_another_process_appends_sees_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs end between the reading of the two files."""
    file = written(tmp_path, 1)
    content, appended = metrics._content, iter(range(2, 4))

    def busy(path: Path) -> bytes:
        if path == file.path:
            for epoch in appended:
                file.append(row(epoch))
        return content(path)

    monkeypatch.setattr(metrics, "_content", busy)
    assert file.read() == [row(1), row(2), row(3)]
