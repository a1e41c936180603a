"""Nothing in a training step asks for a number: on a GPU that would wait for all that it has still to do.

The device ``meta`` has tensors, but no numbers in them, so whatever asks for one fails; so does what mixes it with
another device.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from unit.test_training import Recorder, Samples, spec_of

from plifctl.splits import Split
from plifctl.training import loop
from plifctl.training.data import Feeder
from plifctl.training.loop import Trainer

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
    feeder = Feeder(Samples(), spec, torch.device("meta"), data_in="device")
    recorder = Recorder()
    rows = Split(np.arange(2 * STEPS), np.empty(0, np.int64), np.arange(10, 12))
    trainer = Trainer(spec, feeder, rows, recorder, kernel="eager")
    monkeypatch.setattr(trainer.optimisation._optimizer, "step", lambda: None)  # torch's fused ones are for others
    trainer.look_every = STEPS
    with pytest.raises(RuntimeError, match="meta"):  # at the epoch's end it is asked for
        trainer.run()
    assert recorder.steps == STEPS - 1
