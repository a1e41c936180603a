"""Trials of choices for the recipe ``fast`` on a part of Fashion-MNIST: ``python -m benchmarks.fast_trials base flip``.

A trial differs in one thing from ``base``, which is the recipe without augmentation; some choices exist only here,
because they were not found to help. It trains on a part of protocol B's training samples and prints the accuracy on all
validation samples, which chose the recipe; test samples are not used. Random numbers of order, dropout and flips are
equal in all trials of a seed.

    python -m benchmarks.fast_trials base flip average-pooling --subset 0.2 --epochs 8 --seeds 1 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import plifctl
from plifctl.config.experiment import ExperimentSpec
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.snn.functional import predict
from plifctl.snn.losses import loss_function
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer
from plifctl.training.batches import BatchLoader
from plifctl.training.optimizer import Optimizer, learning_rate
from plifctl.training.process import keep_freed_memory
from plifctl.training.splits import make_split
from plifctl.training.trainer import build_model

BATCH_SETTINGS = {16: "1e-3", 32: "1e-3", 64: "2e-3", 128: "3e-3"}


@dataclass(frozen=True)
class Trial:
    """What a trial does differently.

    Attributes:
        settings: Overrides of the experiment.
        experiment: The experiment.
        smoothing: Share of a target that is spread over all classes.
        decay: Weight decay of weights alone, decoupled from the gradient as in AdamW.
        padding: Images are cropped at random after padding by so many pixels.
        erasing: Side of a square that is erased at a random place, pixels.
        taus: τ of each layer at the start.
        late_steps: Time steps of the last quarter of the epochs.
        averaged: Share of the last epochs whose weights are averaged; batch norms are then set anew.
    """

    settings: tuple[str, ...] = ()
    experiment: str = "fashion-mnist-plif"
    smoothing: float = 0.0
    decay: float = 0.0
    padding: int = 0
    erasing: int = 0
    taus: tuple[float, ...] = ()
    late_steps: int | None = None
    averaged: float = 0.0


TRIALS = {
    "base": Trial(),
    "average-pooling": Trial(experiment="fashion-mnist-plif-avgpool"),
    "flip": Trial(("train.augmentation=flip",)),
    **{f"T{T}": Trial((f"T={T}",)) for T in (1, 2, 8)},
    "T2-then-4": Trial(("T=2",), late_steps=4),
    **{f"batch{n}": Trial((f"train.batch_size={n}", f"train.lr={lr}")) for n, lr in BATCH_SETTINGS.items()},
    "lr2": Trial(("train.lr=2e-3",)),
    **{f"loss-{name}": Trial((f"train.loss={name}",)) for name in ("mse-per-step", "ce-rate")},
    "loss-tet": Trial(("train.loss=tet", "train.tet_weight=0.05")),
    "smoothing": Trial(smoothing=0.1),
    "decay": Trial(decay=0.05),
    "crop2": Trial(padding=2),
    "erasing8": Trial(erasing=8),
    "taus": Trial(taus=(1.5, 1.5, 3.0, 3.0)),
    "averaged": Trial(averaged=0.25),
}


class TrialRun:
    """A trial with a seed.

    Args:
        trial: What it does.
        seed: Seed of weights, order, dropout and augmentation.
        epochs: Number of epochs; the learning rate falls to 0.
        subset: Share of the training samples of each class.
    """

    def __init__(self, trial: Trial, seed: int, epochs: int, subset: float) -> None:
        common = (f"train.seed={seed}", f"train.epochs={epochs}", f"train.cosine_period={epochs}")
        first = ("T=4", "train.batch_size=32", "train.augmentation=none")
        self.trial, self.device = trial, torch.device("cpu")
        experiment = plifctl.experiment(trial.experiment, (*first, *common, *trial.settings), recipe="fast")
        self.spec: ExperimentSpec = experiment.spec
        cache = experiment_cache(self.spec)
        split = make_split("B", self.spec, cache)
        self.loader = BatchLoader(cache, self.spec, self.device, data_in="memory")
        self.validation = split.validation
        self.train = np.sort(np.concatenate(list(_first_of_each_class(split.train, cache.labels, subset))))
        self.model = build_model(self.spec, self.device)
        for layer, tau in zip(_spiking_layers(self.model), trial.taus, strict=False):
            with torch.no_grad():
                assert layer.a is not None  # PLIF
                layer.a.fill_(-np.log(tau - 1))  # Eq. 6
        self.optimizer = Optimizer(self.model, self.spec.train, self.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.sums: dict[str, Tensor] = {}

    def run(self) -> tuple[float, float, float]:
        """Returns the accuracy on training samples in the last epoch, that on validation samples, and CPU minutes."""
        epochs, start = self.spec.train.epochs, time.process_time()
        late, averaged = epochs - epochs // 4, epochs - round(self.trial.averaged * epochs)
        for epoch in range(epochs):
            T = self.trial.late_steps if self.trial.late_steps and epoch >= late else self.spec.T
            correct = sum(self._steps(epoch, T))
            if epoch >= averaged:
                for name, value in self.model.state_dict().items():
                    self.sums[name] = self.sums.get(name, 0.0) + value / (epochs - averaged)
        if self.sums:
            self._take_average(T)
        seen = self.spec.train.samples_per_epoch(len(self.train))
        return correct / seen, self._evaluate(T), (time.process_time() - start) / 60

    def _steps(self, epoch: int, T: int) -> Iterator[int]:
        """Does the steps of an epoch; yields the correct predictions of each batch."""
        self.model.train()
        self.optimizer.begin_epoch(epoch)
        loss, shrink = loss_function(self.spec.train), learning_rate(self.spec.train, epoch) * self.trial.decay
        for batch in self.loader.training_batches(self.train, epoch):
            targets = torch.lerp(batch.targets, torch.full_like(batch.targets, 0.1), self.trial.smoothing)
            rates = self.model(self._augment(batch.x), T, keys=batch.keys)
            self.optimizer.backward(loss(rates, targets))
            with torch.no_grad():
                for parameter in self.model.parameters() if shrink else ():
                    if parameter.dim() > 1:
                        parameter.mul_(1 - shrink)
            self.optimizer.step(torch.zeros(()))
            yield int((predict(rates.detach()) == batch.labels).sum())

    def _augment(self, x: Tensor) -> Tensor:
        """Crops and erases; ``x`` is normalised, black is its minimum."""
        padding, side, black = self.trial.padding, self.trial.erasing, float(x.min())
        height, width = x.shape[-2:]
        if padding:
            padded, x = F.pad(x, (padding,) * 4, value=black), torch.empty_like(x)
            for image, (top, left) in enumerate(self._draw(len(x), 2 * padding + 1, 2 * padding + 1)):
                x[image] = padded[image, :, top : top + height, left : left + width]
        if side:
            for image, (y, x_) in enumerate(self._draw(len(x), height, width)):
                rows, columns = (slice(max(0, n - side // 2), n + side // 2) for n in (y, x_))
                x[image, :, rows, columns] = black
        return x

    def _draw(self, n: int, high: int, wide: int) -> list[tuple[int, int]]:
        numbers = [torch.randint(0, most, (n,), generator=self.generator).tolist() for most in (high, wide)]
        return list(zip(*numbers, strict=True))

    def _take_average(self, T: int) -> None:
        """Gives the model the mean weights, and its batch norms statistics of these."""
        kinds = self.model.state_dict()
        self.model.load_state_dict({name: value.to(kinds[name].dtype) for name, value in self.sums.items()})
        self.model.train()
        with torch.no_grad():
            for batch in self.loader.training_batches(self.train, self.spec.train.epochs):
                self.model(batch.x, T, keys=batch.keys)

    def _evaluate(self, T: int) -> float:
        self.model.eval()
        with torch.no_grad():
            batches = self.loader.evaluation_batches(self.validation)
            correct = sum(int((predict(self.model(batch.x, T)) == batch.labels).sum()) for batch in batches)
        return correct / len(self.validation)


def _spiking_layers(model: SpikingNetwork) -> list[SpikingLayer]:
    return [layer for layer in model.modules() if isinstance(layer, SpikingLayer)]


def _first_of_each_class(rows: np.ndarray, labels: np.ndarray, share: float) -> Iterator[np.ndarray]:
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        yield own[: max(1, round(share * len(own)))]


def main() -> None:
    """Runs trials one after the other and prints a row of a Markdown table for each."""
    parser = argparse.ArgumentParser(description="Trials of choices for the recipe fast.")
    parser.add_argument("trials", nargs="+", choices=TRIALS, metavar="TRIAL", help=", ".join(TRIALS))
    parser.add_argument("--subset", type=float, default=0.2, help="share of the training samples")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    print("| trial | seed | training % | validation % | CPU min |\n|---|--:|--:|--:|--:|", flush=True)
    for name in given.trials:
        for seed in given.seeds:
            trained, validated, minutes = TrialRun(TRIALS[name], seed, given.epochs, given.subset).run()
            print(f"| {name} | {seed} | {100 * trained:.2f} | {100 * validated:.2f} | {minutes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
