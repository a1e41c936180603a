"""A training step neither waits for a GPU nor keeps it waiting.

Whatever asks for a number waits for all that the GPU has still to do. The device ``meta`` has tensors, but no numbers
in them, so that fails there; so does what mixes it with another device.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from unit.test_training import CPU, Recorder, Samples, spec_of

from plifctl.training import trainer as loop
from plifctl.training.batches import BatchLoader
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer

STEPS = 5


@pytest.mark.parametrize(
    "settings",
    [
        ("train.augmentation=affine",),
        ("train.augmentation=flip-crop", "train.clip_norm=1.0"),
        ("train.loss=tet", "train.tet_weight=0.05", "neuron.tau_per=channel"),
        ("train.loss=ce-rate", "neuron.tau_per=neuron", "network.batch_norm=over-time"),
        ("train.normalise=per-set", "neuron.learn_threshold=true"),
    ],
    ids=str,
)
def test_no_step_asks_for_a_number(settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "autocast", lambda *_: nullcontext())  # torch knows none of such a device
    spec = spec_of("train.batch_size=2", *settings)
    feeder = BatchLoader(Samples(), spec, torch.device("meta"), data_in="device")
    recorder = Recorder()
    rows = Split(np.arange(2 * STEPS), np.empty(0, np.int64), np.arange(10, 12))
    trainer = Trainer(spec, feeder, rows, recorder, kernel="eager")
    monkeypatch.setattr(trainer.optimisation._optimizer, "step", lambda: None)  # torch's fused ones are for others
    trainer.look_every = STEPS
    with pytest.raises(RuntimeError, match="meta"):  # at the epoch's end it is asked for
        trainer.run()
    assert recorder.steps == STEPS - 1


class Operations(TorchDispatchMode):
    """Counts what torch is asked for."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_a_further_batch_takes_few_operations() -> None:
    """On a GPU each of them is a launch, which takes as long for one small batch as for all of them at once."""
    spec = spec_of("train.batch_size=2", "train.augmentation=none", "train.normalise=per-set")
    batches = BatchLoader(Samples(), spec, CPU, data_in="memory").training(np.arange(24), epoch=0)
    next(batches)
    with Operations() as operations:
        next(batches)
    assert 0 < operations.count <= 20
