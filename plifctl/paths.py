"""Directories that plifctl uses, and the environment variables that set them.

| variable | sets |
|---|---|
| PLIFCTL_RAW_DIR | the folder of raw data sets |
| PLIFCTL_CACHE_DIR | the cache directory |
| PLIFCTL_RUNS_DIR | the runs directory |
| PLIFCTL_REGISTRY | the user's own registry folder, added to the shipped one |
| PLIFCTL_DEVICE | the torch device |
| PLIFCTL_KERNEL_TRIALS | ``off``: on a GPU, no kernels are tried |
"""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path

import platformdirs

from plifctl import __version__
from plifctl.errors import UsageError

PACKAGE = Path(__file__).resolve().parent


def expand(path: str | Path) -> Path:
    """Returns a path; a leading ``~`` or ``~user`` is a home folder, as in a shell.

    Raises:
        UsageError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: {error}", hint=f"if the name begins with ~: ./{path}") from None


def lookup_name(name: str | Path) -> str:
    """Returns the text by which a run, a file or a folder is looked up; ``./demo`` keeps its ``./``, unlike a Path.

    Args:
        name: A text is a name or a path; a Path is that of a file or a folder if there is one, else a name.
    """
    if isinstance(name, Path):
        path = expand(name)
        return os.path.join(".", path) if os.path.lexists(path) else str(path)  # noqa: PTH118 - keeps the "./"
    return str(expand(name)) if name.startswith("~") else name


@lru_cache(maxsize=1)
def code_version() -> str:
    """Returns the version, in a source checkout with the commit: ``0.1.0+1a2b3c4d5e6f`` or ``…-dirty``.

    It is that of the first call: a process keeps the code that it has loaded.
    """
    if not (PACKAGE.parent / ".git").exists():
        return __version__
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return __version__  # git is missing, or the checkout belongs to another user
    return f"{__version__}+{described.stdout.strip()}"


def package_version(package: str) -> str | None:
    """Returns the version of an installed package; None: it is not installed."""
    from importlib import metadata  # here: --help does not need it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def registry_dirs() -> list[Path]:
    """Returns the shipped registry folder, then the user's own (PLIFCTL_REGISTRY) if it is set.

    Raises:
        UsageError: PLIFCTL_REGISTRY is set, but there is no such folder.
    """
    installed = PACKAGE / "_registry"  # in a wheel; a source checkout has it beside the package
    shipped = installed if installed.is_dir() else PACKAGE.parent / "registry"
    own = _variable("PLIFCTL_REGISTRY")
    if own is None:
        return [shipped]
    if not own.is_dir():
        hint = "it names one folder" if os.pathsep in str(own) else ""
        raise UsageError(f"PLIFCTL_REGISTRY={own}: no such folder", hint=hint)
    return [shipped, own]


def cache_dir() -> Path:
    """Returns PLIFCTL_CACHE_DIR, or ``data_cache/`` in the current folder if it exists, else the user cache folder."""
    user = Path(platformdirs.user_cache_dir("plifctl"))
    return _directory("PLIFCTL_CACHE_DIR", Path("data_cache"), user / "data_cache")


def runs_dir() -> Path:
    """Returns PLIFCTL_RUNS_DIR, or ``runs/`` in the current folder if it exists, else the user data folder."""
    return _directory("PLIFCTL_RUNS_DIR", Path("runs"), Path(platformdirs.user_data_dir("plifctl")) / "runs")


def kernels_dir() -> Path:
    """Returns the folder in which the kernels chosen on GPUs are remembered."""
    return Path(platformdirs.user_cache_dir("plifctl")) / "kernels"


def raw_dir() -> Path | None:
    """Returns PLIFCTL_RAW_DIR, or None if it is not set."""
    return _variable("PLIFCTL_RAW_DIR")


def _directory(variable: str, project: Path, user: Path) -> Path:
    return _variable(variable) or (project if project.is_dir() else user)


def _variable(name: str) -> Path | None:
    """Returns the path that an environment variable is set to; a leading ``~`` is the home folder, as in a shell."""
    value = os.environ.get(name)
    return expand(value) if value else None
