"""Manifest of a finished run: size and SHA-256 of each file that the training wrote.

It is written when all other files are complete, just before ``result.json``, whose digest it already contains.
``result.json`` is the last file and marks the run as finished, so that every finished run has its manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.errors import RunError
from plifctl.runs import controls
from plifctl.runs.directory import Run
from plifctl.runs.documents import file_problem, fingerprint, fingerprint_of

_NAME = "manifest.json"
_LISTED = (
    *("config.yaml", "env.json", "run.json", "split.json", "metrics.jsonl", "metrics.sha256", "predictions.npz"),
    *("result.json", "checkpoints/*.pt", "events.out.tfevents.*"),
)
"""Files that a training writes; others are the user's, or of evaluations, which replace theirs."""


def write_manifest(folder: Path, pending: dict[str, bytes]) -> None:
    """Writes the manifest of a run that is about to be finished.

    Args:
        folder: The run directory.
        pending: Content of the files that are written next, by name.
    """
    found = sorted(path for pattern in _LISTED for path in folder.glob(pattern) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    listed = {name: path for name, path in names.items() if name not in pending}
    for path in listed.values():  # the events of TensorBoard: the manifest must not outlive what it lists
        files.sync_file(path)
    facts = {name: fingerprint(path) for name, path in listed.items()}
    facts |= {name: fingerprint_of(content) for name, content in pending.items()}
    files.write_text(folder / _NAME, _text(facts))


def verify_run(run: Run, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Reads every file in the manifest of a finished run, and the controls it keeps; returns the problems found.

    Other files added later, such as the user's notes, are ignored.

    Args:
        run: A finished run.
        progress: Called with the number of files done and of all files.
    """
    path = run.path / _NAME
    try:
        content = files.read_regular(path)
        listed: dict[str, dict[str, Any]] = files.parse_json(content)["files"]
        if content != _text(listed).encode():
            return [f"{_NAME}: damaged: its layout is not what plifctl writes"]
        expected = {n: {"bytes": int(facts["bytes"]), "sha256": str(facts["sha256"])} for n, facts in listed.items()}
    except FileNotFoundError:
        return [f"{_NAME}: missing"]
    except OSError as error:
        return [f"{_NAME}: cannot be read: {error.strerror or error}"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return [f"{_NAME}: damaged: {error}"]
    problems = []
    for number, (name, facts) in enumerate(expected.items(), 1):
        if problem := file_problem(run.path / name, facts):
            problems.append(f"{name}: {problem}")
        if progress is not None:
            progress(number, len(expected))
    return problems + _control_problems(run)


def _control_problems(run: Run) -> list[str]:
    try:
        controls.read_controls(run.path)
    except RunError as error:
        return [str(error).removeprefix(f"{run.path}{os.sep}")]
    return []


def _text(listed: dict[str, dict[str, Any]]) -> str:
    return json.dumps({"schema_version": 1, "files": listed}, indent=1, ensure_ascii=False) + "\n"
