"""The current step of a training, ``progress.json``, for other processes such as ``plifctl watch``.

The file's time of modification is the **heartbeat** of the training: it is renewed every few seconds, also during a
step that takes minutes, so that other machines on a network file system know that the run is not killed. The file is
removed when the process ends by itself.

Its time is that of the file server, whose clock may differ from this machine's. :func:`is_recent` compares the two, for
display. :func:`is_beating`, which decides whether a training may begin, waits for the next beat instead.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from plifctl import files

_log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
HEARTBEAT_S = 10.0
HEARTBEAT_LIMIT_S = 60.0
"""Time without a heartbeat after which its training counts as killed: it covers missed beats."""

_LONG_OVER_S = 86_400
"""Age of the last heartbeat from which none is waited for: no two clocks differ by a day."""


@dataclass(frozen=True)
class StepProgress:
    """The progress of a training within the current epoch.

    Attributes:
        epoch: From 1.
        part: ``train``, ``validate``, ``test`` or ``observe``.
        step: Batches of the part done so far.
        steps: Batches of the part in all.
        loss: Loss of the last batch; None if it has none.
        rate: Batches per second in this part; 0 if it has just started.
        elapsed: Seconds since this process started the epoch.
    """

    epoch: int
    part: str
    step: int
    steps: int
    loss: float | None
    rate: float
    elapsed: float


class ProgressTracker:
    """Measures the speed of the steps of a training."""

    def __init__(self) -> None:
        self._part: tuple[int, str] | None = None
        self._epoch_started = self._part_started = time.monotonic()
        self._first = 0

    def update(self, epoch: int, step: int, steps: int, loss: float, part: str) -> StepProgress:
        """Returns the progress after a step; arguments as those of ``Recorder.on_step``."""
        now = time.monotonic()
        if self._part is None or self._part[0] != epoch:
            self._epoch_started = now
        if self._part != (epoch, part):
            self._part, self._part_started, self._first = (epoch, part), now, step
        took = now - self._part_started
        rate = (step - self._first) / took if took > 0 else 0.0
        known = None if math.isnan(loss) else loss
        return StepProgress(epoch, part, step, steps, known, round(rate, 3), round(now - self._epoch_started, 1))


def write_progress(path: Path, progress: StepProgress) -> None:
    """Replaces ``path`` atomically; a failure to write does not stop the training."""
    temporary = path.with_name(f".{path.name}.partial")
    with suppress(OSError):
        temporary.write_text(json.dumps(asdict(progress)) + "\n", encoding="utf-8")  # no fsync: it is soon replaced
        temporary.replace(path)


def read_progress(path: Path) -> StepProgress | None:
    """Returns the last progress written; None if none can be read."""
    try:
        return TypeAdapter(StepProgress).validate_json(files.read_regular(path), strict=True)
    except (OSError, ValueError):
        return None


@contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Renews the heartbeat of the training in a thread while the block runs, and removes the file in the end."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            with suppress(OSError):  # no step was written yet, or the disk failed: training continues
                os.utime(path)

    with suppress(OSError):
        path.touch()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):  # it would hide the error of the block
            path.unlink()


def is_recent(path: Path) -> bool:
    """Returns whether the last heartbeat was within the limit, as far as the clocks agree."""
    return not _differs(path, HEARTBEAT_LIMIT_S)


def _differs(path: Path, seconds: float) -> bool:
    """Returns whether the last heartbeat is more than ``seconds`` from this machine's time, or there is none."""
    try:
        return abs(time.time() - path.stat().st_mtime) > seconds
    except OSError:
        return True


def is_beating(path: Path) -> bool:
    """Returns whether the heartbeat is renewed, as soon as it is, or after the limit that it is not."""
    last, until = files.stamp(path), time.monotonic() + HEARTBEAT_LIMIT_S
    if _differs(path, _LONG_OVER_S):
        return False
    _log.info("%s: waiting up to a minute for a sign that another machine still trains it", path.parent.name)
    while last is not None and time.monotonic() < until:
        time.sleep(1)
        if files.stamp(path) not in (None, last):
            return True
    return False
