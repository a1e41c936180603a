"""Metrics of a run's epochs: ``metrics.jsonl``, and the checksums of its rows in ``metrics.sha256``.

A row of ``metrics.jsonl`` holds data only, so that ``pandas.read_json("metrics.jsonl", lines=True)`` gives a column for
each metric. ``metrics.sha256`` has a line with the SHA-256 of each row and its epoch: ``6fd1…  epoch 12``.

A row is written first, then its checksum, and each is on the disk before the next step. Whenever a process is killed,
at most one row has no checksum, and at most one line, the last, is incomplete. Reading skips such unfinished rows, and
:meth:`MetricsFile.truncate` removes them before a resumed run appends. Everything else is damage. Rows are removed from
the end, one by one, each checksum before its row, so that this holds at every moment.

Rows of plifctl 0.1.0 contain their checksum, under ``seal``. They are read as they are; a resumed run appends new rows
after them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.errors import RunError
from plifctl.runs.documents import SEAL, verify_content

_CHECKSUM_LINE = re.compile(rb"([0-9a-f]{64})  epoch (\d+)")
_ATTEMPTS = 5


def layers_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the spiking layers in a row; rows of early runs have none, so that they are numbered."""
    return tuple(row.get("layers") or number_layers(len(row["tau"])))


def number_layers(count: int) -> tuple[str, ...]:
    """Returns the names of so many spiking layers."""
    return tuple(f"sn{index}" for index in range(count))


class MetricsFile:
    """The metrics of a run, one row per epoch.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.checksums = folder / "metrics.jsonl", folder / "metrics.sha256"

    def read(self, *, finished: bool = False) -> list[dict[str, Any]]:
        """Returns the rows; a last row that was not completely written is left out.

        Args:
            finished: Whether the run is finished, so that an incomplete row is damage.

        Raises:
            RunError: A row or a checksum is damaged or missing.
        """
        rows_text, checksums_text = self._snapshot()
        for path, text in ((self.path, rows_text), (self.checksums, checksums_text)):
            if finished and text and not text.endswith(b"\n"):
                raise RunError(f"{path}: damaged: its last line is incomplete")
        lines, checksums = _lines(rows_text), _lines(checksums_text)
        expected = dict(map(self._parse_checksum, range(1, len(checksums) + 1), checksums))
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, 1):
            try:
                row = _parse_row(line, expected)
            except (ValueError, TypeError, KeyError) as error:
                raise RunError(f"{self.path}:{number}: damaged: {error}") from error
            if row is not None:
                rows.append(row)
            elif number < len(lines) or finished:
                raise RunError(f"{self.path}:{number}: damaged: {self.checksums.name} has no checksum of it")
        if expected:
            raise RunError(f"{self.path}: damaged: {self.checksums.name} has epoch {min(expected)}, which is missing")
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Appends a row, the epoch after the last one.

        Raises:
            MachineError: The disk is full or cannot be written.
        """
        line = json.dumps(row).encode()
        _append(self.path, line)
        _append(self.checksums, f"{hashlib.sha256(line).hexdigest()}  epoch {row['epoch']}".encode())

    def truncate(self, epochs: int) -> None:
        """Removes the rows after an epoch, and rows that a killed process left incomplete.

        Args:
            epochs: Epochs to keep.

        Raises:
            RunError: A row is damaged, or there are fewer rows.
        """
        found = sum(row["epoch"] <= epochs for row in self.read())
        if found < epochs:
            raise RunError(
                f"{self.path}: {found} epochs, expected {epochs}, as many as the checkpoint has",
                hint="start another run: omit --resume",
            )
        lines, checksums = _lines(_content(self.path)), _lines(_content(self.checksums))
        _keep(self.checksums, checksums)
        _keep(self.path, lines)
        while lines and (epoch := json.loads(lines[-1])["epoch"]) > epochs:
            if checksums and self._parse_checksum(len(checksums), checksums[-1])[0] == epoch:
                _keep(self.checksums, checksums := checksums[:-1])
            _keep(self.path, lines := lines[:-1])

    def _snapshot(self) -> tuple[bytes, bytes]:
        """Returns a consistent content of both files, although another process may append."""
        for _ in range(_ATTEMPTS):
            checksums, rows = _content(self.checksums), _content(self.path)
            if _content(self.checksums) == checksums:
                break
        return rows, checksums

    def _parse_checksum(self, number: int, line: bytes) -> tuple[int, str]:
        match = _CHECKSUM_LINE.fullmatch(line)
        if match is None:
            raise RunError(f"{self.checksums}:{number}: damaged: expected a SHA-256 and an epoch")
        return int(match[2]), match[1].decode()


def _parse_row(line: bytes, expected: dict[int, str]) -> dict[str, Any] | None:
    """Returns a row, or None if its checksum was not written; removes the checksum from ``expected``."""
    row = files.parse_json(line)
    if isinstance(row, dict) and SEAL in row:
        row = verify_content(row)
        int(row["epoch"])
        return row
    checksum = expected.pop(int(row["epoch"]), None)
    if checksum is None:
        return None
    if checksum != hashlib.sha256(line).hexdigest():
        raise ValueError("checksum mismatch with metrics.sha256: one of them was modified")
    found: dict[str, Any] = row
    return found


def _content(path: Path) -> bytes:
    try:
        return files.read_regular(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error


def _lines(content: bytes) -> list[bytes]:
    """Returns the complete lines; text after the last line feed is incomplete."""
    return content.split(b"\n")[:-1]


def _append(path: Path, line: bytes) -> None:
    with files.machine_errors(path), path.open("ab") as file:
        new = file.tell() == 0
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
        if new:
            files.sync_folder(path.parent)


def _keep(path: Path, lines: Sequence[bytes]) -> None:
    """Cuts a file off after its first ``lines``."""
    size = sum(len(line) + 1 for line in lines)
    if len(_content(path)) > size:
        with files.machine_errors(path), path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
