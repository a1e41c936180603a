"""Opens engines by name; the libraries of clusters are imported only where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from plifctl.config.choices import Engine as EngineName
from plifctl.errors import check_choice
from plifctl.sweep.engine import Engine, Resources


def check_resources(name: EngineName, resources: Resources) -> None:
    """Raises UsageError if an engine lacks something that it needs to know before the first run is given to it."""
    if name == "slurm":
        from plifctl.sweep.slurm import require_minutes

        require_minutes(resources)


def open_engine(name: EngineName, resources: Resources, folder: Path) -> Engine:
    """Returns an engine.

    Args:
        name: Its name.
        resources: What each run gets.
        folder: Folder of the sweep, for files of the engine's own.

    Raises:
        UsageError: There is no such engine, its library is missing, or the resources do not exist.
        MachineError: It cannot be reached.
    """
    check_choice("engine", name, get_args(EngineName))
    if name == "slurm":
        from plifctl.sweep.slurm import SlurmEngine

        return SlurmEngine(resources, folder)
    if name == "ray":
        from plifctl.sweep.ray import RayEngine

        return RayEngine(resources)
    from plifctl.sweep.local import LocalEngine

    return LocalEngine(resources)
