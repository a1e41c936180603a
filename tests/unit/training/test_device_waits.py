"""A training step never waits for a GPU, and takes few operations.

Reading a value waits for all pending work of the GPU. On the device ``meta``, whose tensors have no values, reading one
fails, and so does mixing it with another device.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import CPU, MemoryRecorder, ShadeSamples, tiny_spec
from torch.utils._python_dispatch import TorchDispatchMode

from plifctl.training import trainer as trainer_module
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
@pytest.mark.long
def test_training_step_on_meta_device_reads_no_value(
    settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "autocast", lambda *_: nullcontext())  # torch has none for meta
    spec = tiny_spec("train.batch_size=2", *settings)
    loader = BatchLoader(ShadeSamples(), spec, torch.device("meta"), data_in="device")
    recorder = MemoryRecorder()
    rows = Split(np.arange(2 * STEPS), np.empty(0, np.int64), np.arange(10, 12))
    trainer = Trainer(spec, loader, rows, recorder, kernel="eager")
    monkeypatch.setattr(trainer.optimizer._optimizer, "step", lambda: None)  # torch's fused ones do not support meta
    trainer.collect_every = STEPS
    with pytest.raises(RuntimeError, match="meta"):  # values are read at the end of the epoch
        trainer.run()
    assert recorder.steps == STEPS - 1


class Operations(TorchDispatchMode):
    """Counts the operations of torch."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_next_batch_takes_few_operations() -> None:
    """On a GPU each operation is a launch, which takes as long for one small batch as for all batches at once."""
    spec = tiny_spec("train.batch_size=2", "train.augmentation=none", "train.normalise=per-set")
    batches = BatchLoader(ShadeSamples(), spec, CPU, data_in="memory").training_batches(np.arange(24), epoch=0)
    next(batches)
    with Operations() as operations:
        next(batches)
    assert 0 < operations.count <= 20
