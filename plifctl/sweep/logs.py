"""The output of a sweep's runs: a file for each, to which every job of the run appends below a line of its own."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

_MARK = "#### "
_TAIL = 20_000  # bytes


def begin_log(path: Path, command: str) -> None:
    """Appends the line below which the output of a new job comes; without room on the disk there is none."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{_MARK}{time.strftime('%Y-%m-%d %H:%M:%S')} {command}\n")


def last_error(path: Path) -> str:
    """Returns the last error in the output of the latest job, or else its last line; empty if it wrote nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    begun = max((index + 1 for index, line in enumerate(lines) if line.startswith(_MARK)), default=0)
    lines = [line.strip() for line in lines[begun:] if line.strip()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    others = [line for line in lines if not line.startswith("hint:")]
    return errors[-1] if errors else others[-1] if others else ""
