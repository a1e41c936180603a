"""Format nir; not available yet."""

from __future__ import annotations

from pathlib import Path

from plifctl.errors import UsageError
from plifctl.exchange.model import TrainedModel


def write_nir(path: Path, trained: TrainedModel) -> list[str]:
    """Refuses."""
    raise UsageError("--to nir is not available yet")
