"""Where things are: directories, and the environment variables that name them.

| variable | names |
|---|---|
| PLIFCTL_RAW_DIR | the folder that holds the raw data sets |
| PLIFCTL_CACHE_DIR | the folder of caches |
| PLIFCTL_RUNS_DIR | the folder of runs |
| PLIFCTL_REGISTRY | a registry folder of one's own, added to the shipped one |
| PLIFCTL_DEVICE | the torch device |
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import platformdirs

from plifctl import __version__

PACKAGE = Path(__file__).resolve().parent


def code_version() -> str:
    """The version of the code; of a source checkout with its commit, ``0.1.0+1a2b3c4d5e6f`` or ``…-dirty``."""
    if not (PACKAGE.parent / ".git").exists():
        return __version__
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return __version__  # no git here, or a checkout of somebody else's
    return f"{__version__}+{said.stdout.strip()}"


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


def survey_dir(cache_dir: Path) -> Path:
    """Where a folder of caches keeps what was found in raw data."""
    return cache_dir / ".surveys"


def raw_dir() -> Path | None:
    """PLIFCTL_RAW_DIR, or None."""
    value = os.environ.get("PLIFCTL_RAW_DIR")
    return Path(value) if value else None


def download_dir(cache_dir: Path, dataset: str) -> Path:
    """Where the raw files of a data set are downloaded to unless the user named a folder; beside the caches."""
    return cache_dir / "raw" / dataset


def _place(variable: str, project: Path, user: Path) -> Path:
    value = os.environ.get(variable)
    if value:
        return Path(value)
    return project if project.is_dir() else user
