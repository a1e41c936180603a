"""Which sweeps the runs of a runs directory belong to: from the plans in ``sweeps/``, which plifctl.sweep writes."""

from __future__ import annotations

import logging
from pathlib import Path

from plifctl.errors import RunError
from plifctl.runs.documents import load_document

FOLDER = "sweeps"
"""Folder of the plans in the runs directory."""

_log = logging.getLogger(__name__)


def plan_files(runs_dir: Path) -> list[Path]:
    """Returns the plans of a runs directory, by name."""
    return sorted(path for path in (runs_dir / FOLDER).glob("[!.]*.json") if path.is_file())


def sweeps_by_run(runs_dir: Path) -> dict[str, tuple[str, ...]]:
    """Returns the names of the sweeps of each run that is part of one; a damaged plan is left out with a warning."""
    found: dict[str, tuple[str, ...]] = {}
    for path in plan_files(runs_dir):
        try:
            names = [str(run["name"]) for run in load_document(path, ("definition", "runs"))["runs"]]
        except RunError as error:
            _log.warning("%s", error)
            continue
        except (TypeError, KeyError) as error:
            _log.warning("%s: damaged: %s", path, error)
            continue
        for name in names:
            found[name] = (*found.get(name, ()), path.stem)
    return found
