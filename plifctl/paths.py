"""Every directory and file name, the environment variables, and writing without half-written files.

| variable | names |
|---|---|
| PLIFCTL_RAW_DIR | the folder that holds the raw data sets |
| PLIFCTL_CACHE_DIR | the folder of caches |
| PLIFCTL_RUNS_DIR | the folder of runs |
| PLIFCTL_REGISTRY | a registry folder of one's own, added to the shipped one |
| PLIFCTL_DEVICE | the torch device |
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from plifctl.errors import from_os_error

PACKAGE = Path(__file__).resolve().parent


def registry_dirs() -> list[Path]:
    """The shipped registry, then the user's (PLIFCTL_REGISTRY) where there is one."""
    installed = PACKAGE / "_registry"  # in a wheel; a source checkout has it beside the package
    shipped = installed if installed.is_dir() else PACKAGE.parent / "registry"
    own = os.environ.get("PLIFCTL_REGISTRY")
    return [shipped, Path(own)] if own else [shipped]


def cache_dir() -> Path:
    """PLIFCTL_CACHE_DIR, else ``data_cache/`` of the current folder if it exists, else the platform's user cache."""
    return _place("PLIFCTL_CACHE_DIR", Path("data_cache"), Path(platformdirs.user_cache_dir("plifctl")) / "data_cache")


def runs_dir() -> Path:
    """PLIFCTL_RUNS_DIR, else ``runs/`` of the current folder if it exists, else the platform's user data."""
    return _place("PLIFCTL_RUNS_DIR", Path("runs"), Path(platformdirs.user_data_dir("plifctl")) / "runs")


def raw_dir() -> Path | None:
    """PLIFCTL_RAW_DIR, or None."""
    value = os.environ.get("PLIFCTL_RAW_DIR")
    return Path(value) if value else None


def _place(variable: str, project: Path, user: Path) -> Path:
    value = os.environ.get(variable)
    if value:
        return Path(value)
    return project if project.is_dir() else user


def make_dir(path: Path) -> Path:
    """Creates ``path`` and its parents; raises MachineError where that is refused."""
    with machine_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a refusal inside the block into a MachineError that names ``path``."""
    try:
        yield
    except OSError as error:
        refusal = from_os_error(error, path)
        if refusal is None:
            raise
        raise refusal from error


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; renames it over ``path`` if the block succeeds, else removes it.

    The content is on the disk before the rename, so ``path`` is at every moment the old file or the whole new one.
    """
    make_dir(path.parent)
    with machine_errors(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with machine_errors(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide the file from a user's group
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces ``path`` by ``text`` (UTF-8), whole or not at all."""
    with written_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, tree: Any) -> None:
    """Replaces ``path`` by indented JSON, whole or not at all."""
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
