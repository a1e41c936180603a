"""The step that a training is at, for whoever looks on from another process."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class StepProgress:
    """Where a training is.

    Attributes:
        epoch: From 1.
        part: ``train``, ``validate`` or ``test``.
        step: Batches of the part that are done.
        steps: Batches of the part in all.
        loss: Of the last batch; None where it has none.
        rate: Batches a second in this part; 0 where it has just begun.
        elapsed: Seconds since this process began with the epoch.
    """

    epoch: int
    part: str
    step: int
    steps: int
    loss: float | None
    rate: float
    elapsed: float


class ProgressTracker:
    """Makes beats of steps, with the speed they come at."""

    def __init__(self) -> None:
        self._part: tuple[int, str] | None = None
        self._epoch_began = self._part_began = time.monotonic()
        self._first = 0

    def beat(self, epoch: int, step: int, steps: int, loss: float, part: str) -> StepProgress:
        """Returns the beat of a step that is just done; arguments as of ``Recorder.on_step``."""
        now = time.monotonic()
        if self._part is None or self._part[0] != epoch:
            self._epoch_began = now
        if self._part != (epoch, part):
            self._part, self._part_began, self._first = (epoch, part), now, step
        took = now - self._part_began
        rate = (step - self._first) / took if took > 0 else 0.0
        known = None if math.isnan(loss) else loss
        return StepProgress(epoch, part, step, steps, known, round(rate, 3), round(now - self._epoch_began, 1))


def write_beat(path: Path, beat: StepProgress) -> None:
    """Replaces ``path``, whole or not at all. A training does not fail because nobody can look on."""
    temporary = path.with_name(f".{path.name}.partial")
    with suppress(OSError):
        temporary.write_text(json.dumps(asdict(beat)) + "\n", encoding="utf-8")  # not worth waiting for the disk
        temporary.replace(path)


def read_beat(path: Path) -> StepProgress | None:
    """Returns the last beat; None where there is none that can be read."""
    try:
        return StepProgress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
