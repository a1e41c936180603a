"""Times of training steps: what is timed is what a training does."""

import numpy as np
import pytest
from tiny_training import CPU, ShadeSamples, tiny_spec

from plifctl.training.step_times import BatchTimer

ACCUMULATE = 4


def test_timed_steps_update_the_weights_as_often_as_a_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(f"train.accumulate={ACCUMULATE}")
    timer = BatchTimer(spec, ShadeSamples(), CPU, kernel="eager", graph=False, data_in="memory")
    trainer, batches, updates = timer._trainer, [0], [0]
    for count, name in ((batches, "_forward_backward"), (updates, "_optimizer_step")):
        original = getattr(trainer, name)

        def counted(*arguments: object, count: list[int] = count, original: object = original) -> None:
            count[0] += 1
            original(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(trainer, name, counted)
    rows = np.arange(16)
    timer.time_loaded_step(rows, 1e-9)  # the first steps, and one that is timed
    assert (batches[0] - 1, updates[0]) == (updates[0], updates[0])
    warm = updates[0]
    batches[0] = updates[0] = 0
    timer.time_step(rows[:5], 1e-9)
    assert warm > 0
    assert updates[0] > 0
    assert batches[0] == ACCUMULATE * updates[0]
