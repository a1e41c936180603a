"""Which folders are runs of plifctl, and which of their files it wrote.

Runs are **trained** here, **imported** from the logs of other code, or **added** from a folder that somebody else
exported; the last two are external.

**A run is a folder in which plifctl wrote at least one document.** A document counts by the checksum that it carries,
not by its name: many programs write a ``config.yaml``. A run of which some documents are damaged stays a run, and a
folder of other programs never becomes one. Other folders are not locked, not changed and not removed.

**Names** are looked up in this order: ``last``, an id in the runs directory, a part that only one id has, a path. A
part between hyphens comes first: ``s2`` is a run of seed 2, also where there is one of seed 20. The empty name, ``.``
and ``..`` name no run.

**Only children of the runs directory are removed,** and never what a link points to.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from plifctl import files, paths
from plifctl.errors import RunError, UsageError
from plifctl.runs.documents import load_document

_DOCUMENTS = {"run.json": "cache", "config.yaml": "spec", "env.json": "torch", "split.json": "train"}
"""Documents of a run since its first moment, in the order in which they are tried, and a key that each has."""

IMPORTED = "imported.json"
ADDED = "added.json"
_EXTERNAL = (IMPORTED, ADDED)
EXTERNAL_PREFIX = b'{"schema_version": 1, "name": '
"""How plifctl begins the document of an external run, by which a damaged one is recognised."""

_WRITTEN = (
    *_DOCUMENTS,
    *("progress.json", "manifest.json", "predictions.npz", "result.json", "spikes.npz", "controls.json"),
    *("last.pt", "best.pt", "start.pt"),
    *_EXTERNAL,
)
"""Files of a run that are written under a temporary name first."""


def is_trained(path: Path) -> bool:
    """Returns whether a folder is a run that plifctl trained, possibly a damaged one."""
    for name, key in _DOCUMENTS.items():
        try:
            if (path / name).is_file() and key in load_document(path / name, ()):
                return True
        except (RunError, OSError):  # damaged, or a name that the system does not take
            continue
    return False


def is_imported(path: Path) -> bool:
    """Returns whether a folder is a run that plifctl imported, possibly a damaged one."""
    return _is_external(path / IMPORTED)


def is_added(path: Path) -> bool:
    """Returns whether a folder is a run of somebody else that was added, possibly a damaged one."""
    return _is_external(path / ADDED)


def _is_external(document: Path) -> bool:
    try:
        if not document.is_file():  # a pipe would block
            return False
        with document.open("rb") as file:
            return file.read(len(EXTERNAL_PREFIX)) == EXTERNAL_PREFIX
    except OSError:
        return False


def is_run(path: Path) -> bool:
    """Returns whether a folder is a run of any kind."""
    return is_trained(path) or is_imported(path) or is_added(path)


def external_folders(runs_dir: Path, kind: str | None = None) -> list[Path]:
    """Returns the folders of external runs, by name.

    Args:
        runs_dir: Runs directory.
        kind: Name of the document of one kind, :data:`IMPORTED` or :data:`ADDED`; None: both.
    """
    names = (kind,) if kind is not None else _EXTERNAL
    found = [path for name in names for path in runs_dir.glob(f"[!.]*/{name}") if _is_external(path)]
    return sorted({path.parent for path in found})


def candidates(runs_dir: Path) -> list[Path]:
    """Returns the folders of the runs directory that have a document named as one of a trained run, by name."""
    return sorted({path.parent for name in _DOCUMENTS for path in runs_dir.glob(f"[!.]*/{name}") if path.is_file()})


def check_name(name: str) -> None:
    """Raises UsageError for a name that can name no run: an empty one, ``.`` or ``..``."""
    if not name.strip() or Path(name).name in ("", ".."):
        raise UsageError(f"{name!r} names no run", hint="name its id; plifctl runs lists all runs")


def match_name(name: str, ids: Sequence[str]) -> list[str]:
    """Returns the id that equals ``name``, else those that contain it between hyphens, else those that contain it."""
    if name in ids:
        return [name]
    return [known for known in ids if f"-{name}-" in f"-{known}-"] or [known for known in ids if name in known]


def only_match(name: str, matching: Sequence[str]) -> str | None:
    """Returns the id that matches a name; None: none does.

    Raises:
        UsageError: Several ids match.
    """
    if len(matching) > 1:
        last = "the last 5 are " if len(matching) > 5 else ""
        names = ", ".join(matching[-5:])
        raise UsageError(f"{len(matching)} runs match {name!r}: {last}{names}", hint="use more of the name")
    return matching[0] if matching else None


def child(name: str, runs_dir: Path) -> Path | None:
    """Returns the folder that a run with exactly this id has in the runs directory; None: it can be no id."""
    return runs_dir / name if name == Path(name).name and name != "last" and not name.startswith(".") else None


def find_folder(name: str, runs_dir: Path) -> Path | None:
    """Returns the folder of a run that is named by a path, or by its name in the runs directory; None: no such folder.

    Raises:
        UsageError: The folder is not a run.
    """
    for path in (runs_dir / name, Path(name)) if name == Path(name).name else (Path(name),):
        if is_run(path):
            return path
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir fails for a name that is too long
            raise UsageError(f"{path}: not a run of plifctl", hint="plifctl runs lists all runs")
    return None


def run_argument(path: Path) -> str:
    """Returns a run as commands take it, quoted for a shell: its id, or its path if it is in another runs directory."""
    usual = path.parent.resolve() == paths.runs_dir().resolve()
    return shlex.quote(path.name if usual else os.path.join(".", path))  # noqa: PTH118 - Path leaves out the "./"


def check_removable(path: Path, runs_dir: Path) -> None:
    """Raises UsageError unless ``path`` is a child of the runs directory, not a link, and a run of plifctl."""
    if path.is_symlink():
        raise UsageError(
            f"{path}: a link to {path.resolve()}; nothing was removed", hint="remove the link itself with your shell"
        )
    if path.parent.resolve() != runs_dir.resolve():
        raise UsageError(
            f"{path}: not in the runs directory {runs_dir}; nothing was removed",
            hint=f"plifctl runs rm {shlex.quote(path.name)} --runs-dir {shlex.quote(str(path.parent))}",
        )
    if not is_run(path):
        raise UsageError(f"{path}: not a run of plifctl; nothing was removed")


def remove_folder(path: Path) -> None:
    """Removes a run and everything in its folder; the caller has checked that it may.

    The result goes first, so that no report counts a run that is partly removed, and the documents that make the folder
    a run go last, so that it can be removed again after a kill.
    """
    order = {"result.json": 0, "config.yaml": 0, "run.json": 2, IMPORTED: 2, ADDED: 2}
    with files.machine_errors(path):
        for child in sorted(path.iterdir(), key=lambda child: (order.get(child.name, 1), child.name)):
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink(missing_ok=True)
        path.rmdir()


def temporary_files(path: Path) -> list[Path]:
    """Returns the temporary files in a run that a process of plifctl has left behind, if no process trains it."""
    found = [file for folder in (path, path / "checkpoints") for file in folder.glob(".*.partial")]
    return [file for file in found if files.temporary_of(file) in _WRITTEN or file.name == ".progress.json.partial"]


def is_abandoned_folder(path: Path) -> bool:
    """Returns whether ``path`` is the temporary folder of a run that was being created, with nothing else in it."""
    if files.temporary_of(path) is None or path.is_symlink() or not path.is_dir():
        return False
    known = (*_WRITTEN, "checkpoints")
    found = [*path.iterdir(), *(path / "checkpoints").glob("*")]
    return all(file.name in known or files.temporary_of(file) in known for file in found)
