"""Training on a GPU: a graphed step equals the step, nothing waits, and the same seed gives the same bits."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import ShadeSamples

from plifctl.config.choices import DataPlacement, Kernel
from plifctl.config.lookup import load_registry
from plifctl.training.batches import BatchLoader
from plifctl.training.progress import EpochRow, Recorder
from plifctl.training.splits import Split
from plifctl.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class StrictRecorder(Recorder):
    """Keeps rows; waiting for the GPU within an epoch is an error."""

    def __init__(self) -> None:
        self.rows: list[EpochRow] = []
        self.saved: dict[str, Any] = {}

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        waits = part != "train" or step >= steps - 1
        torch.cuda.set_sync_debug_mode("default" if waits or epoch == 1 else "error")

    def on_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)

    def save(self, name: str, state: dict[str, Any]) -> None:
        self.saved[name] = state

    def load_best(self) -> dict[str, Any]:
        return dict(self.saved["best"])


def train(
    monkeypatch: pytest.MonkeyPatch, *settings: str, graph: bool, kernel: Kernel, data_in: DataPlacement = "device"
) -> Trainer:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        settings = ("T=4", "train.batch_size=4", "train.epochs=3", *settings)
        spec = load_registry().experiment("fashion-mnist-plif", overrides=settings).spec
        loader = BatchLoader(ShadeSamples(90), spec, torch.device("cuda"), data_in=data_in)
        split = Split(np.arange(70), np.empty(0, np.int64), np.arange(70, 90))
        trainer = Trainer(spec, loader, split, StrictRecorder(), graph=graph, kernel=kernel)
        trainer.run()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.cuda.set_sync_debug_mode("default")
    return trainer


@pytest.mark.parametrize("kernel", ["eager", "triton"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_graphed_step_every_precision_equals_the_step(
    kernel: Kernel, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = f"train.precision={precision}"
    plain, recorded, again = (train(monkeypatch, choice, graph=graph, kernel=kernel) for graph in (False, True, True))
    read = train(
        monkeypatch, choice, graph=True, kernel=kernel, data_in="disk"
    )  # by a thread, while the graph is recorded
    for other in (recorded, again, read):
        losses = [[row.loss for row in trainer.recorder.rows] for trainer in (plain, other)]  # type: ignore[attr-defined]
        assert losses[0] == losses[1]
        weights = [trainer.model.state_dict() for trainer in (plain, other)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
