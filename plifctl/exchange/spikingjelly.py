"""Format spikingjelly; not available yet."""

from __future__ import annotations

from pathlib import Path

from plifctl.errors import UsageError
from plifctl.exchange.model import TrainedModel


def write_state_dict(path: Path, trained: TrainedModel) -> list[str]:
    """Refuses."""
    raise UsageError("--to spikingjelly is not available yet")
