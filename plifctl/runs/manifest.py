"""What a finished run's files are: a sha256 of each, so that damage shows.

The manifest is written when all other files lie still, just before ``result.json``, whose digest it holds already:
``result.json`` stays the last file and the mark of completion, so that no finished run is without its manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.runs.directory import Run

_NAME = "manifest.json"
_PASSING = ("progress.json", ".lock")
"""Files that come and go."""


def write_manifest(folder: Path, coming: dict[str, bytes]) -> None:
    """Writes the manifest of a run that is about to be finished.

    Args:
        folder: The run's.
        coming: Files that are written next, by name.
    """
    there = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    left_out = {_NAME, *_PASSING, *coming}
    facts = {name: _facts(path) for name, path in there.items() if name not in left_out}
    for name, content in coming.items():
        facts[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files.write_text(folder / _NAME, _text(facts))


def verify_run(run: Run, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Reads every file that a finished run's manifest names, and returns what is not as it was written.

    Files that came later, such as notes of one's own, are nobody's business.

    Args:
        run: A finished run.
        progress: Is told of files done and files in all.
    """
    path = run.path / _NAME
    try:
        text = path.read_text(encoding="utf-8")
        files: dict[str, dict[str, Any]] = json.loads(text)["files"]
        if text != _text(files):
            return [f"{_NAME}: damaged: not as it was written"]
        wanted = {name: (int(facts["bytes"]), str(facts["sha256"])) for name, facts in files.items()}
    except FileNotFoundError:
        return [f"{_NAME}: missing"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return [f"{_NAME}: damaged: {error}"]
    problems = []
    for number, (name, (size, digest)) in enumerate(wanted.items(), 1):
        file = run.path / name
        if not file.is_file():
            problems.append(f"{name}: missing")
        elif file.stat().st_size != size:
            problems.append(f"{name}: {file.stat().st_size:,} bytes, expected {size:,}")
        elif _facts(file)["sha256"] != digest:
            problems.append(f"{name}: its content is not what was written")
        if progress is not None:
            progress(number, len(wanted))
    return problems


def _text(files: dict[str, dict[str, Any]]) -> str:
    return json.dumps({"schema_version": 1, "files": files}, indent=1, ensure_ascii=False) + "\n"


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
