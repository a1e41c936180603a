"""Schema of training and of protocol B."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from plifctl.config.augmentation import EventAugmentation
from plifctl.config.base import Option, Spec
from plifctl.config.choices import (
    Augmentation,
    Loss,
    Memory,
    Normalise,
    Optimizer,
    Precision,
    Rounding,
    Schedule,
    TestSchedule,
    Ties,
    ValidationLoader,
    ValidationMethod,
)
from plifctl.config.dataset import MAX_T

MAX_COUNT = 2**31 - 1
"""Largest number of epochs, of samples in a batch and so on: no data set has more, and torch's sizes have 64 bits."""


class TrainSpec(Spec):
    """Training (Sec. 3.7 and supplement F), with each choice on which text and authors' code differ.

    Attributes:
        loss: ``mse-per-step`` is the mean over t of each step's MSE (Sec. 3.7); ``mse-rate`` the MSE of the mean rate;
            ``ce-rate`` the cross-entropy of the mean rate; ``tet`` temporal efficient training (Deng et al. 2022).
        tet_weight: λ of the loss ``tet``; None for the others.
        optimizer: Optimizer of torch.
        optimizer_options: Its own options, without lr.
        lr: Learning rate at the start.
        schedule: ``cosine`` falls for ``cosine_period`` epochs, rises for as many, and so on; ``cosine-restarts``
            jumps back to the start after each period (SGDR); ``constant``; the others are torch's, one step per epoch.
        schedule_options: Options of torch's schedules.
        cosine_period: Half a period of ``cosine``, a period of ``cosine-restarts``, in epochs.
        epochs: Passes over the training set.
        batch_size: Samples per batch.
        seed: Seed of weights, sample order, dropout and augmentation.
        augmentation: Augmentation of training images: ``flip`` (horizontal), ``flip-crop`` (and crop after padding by
            4), ``affine`` (rotation ±30°, shift ±15 %, scale 0.85–1.11), or ``none``.
        normalise: ``per-set`` applies the data set's mean and std; ``none`` uses raw counts.
        drop_last: Leave out the last, smaller batch of an epoch.
        ties: Which of several equally good epochs is reported.
        subset: Fraction of each class's training and test samples used, in sample order.
        event_augmentation: Augmentations of the event frames of training samples, in this order; see
            :mod:`plifctl.config.augmentation`.
        accumulate: Number of batches whose mean gradient makes one optimizer step; batch norms see each batch.
        clip_norm: Maximum norm of all gradients together; None: no limit.
        precision: Number format of convolutions and matrix products; ``tf32`` is a GPU's float32 with a mantissa of
            10 bits, ``fp16`` scales the loss.
        early_stop: Number of epochs without a better accuracy after which training ends; None: never. An equal one is
            not better, also where ``ties`` reports the latest.
        memory: ``compact`` keeps the inputs of convolutions, instead of their outputs, which are computed again for
            the gradients; results are the same. Not part of the digest.
        freeze: Patterns of the parameters that are not trained, by layer (``conv*``) or parameter (``bn0.weight``). A
            batch norm that is frozen as a whole normalises by its running statistics, which stay as they are.
        weights: SHA-256 of the weights of another network that training begins with; None: all weights are drawn. The
            option ``--weights`` names the network and sets it.
    """

    loss: Loss
    tet_weight: float | None = Field(default=None, ge=0, le=1)
    optimizer: Optimizer
    optimizer_options: dict[str, Option] = Field(default_factory=dict)
    lr: float = Field(gt=0)
    schedule: Schedule
    schedule_options: dict[str, Option] = Field(default_factory=dict)
    cosine_period: int = Field(gt=0, le=MAX_COUNT)
    epochs: int = Field(gt=0, le=MAX_COUNT)
    batch_size: int = Field(gt=0, le=MAX_COUNT)
    seed: int = Field(ge=0, lt=2**32)
    augmentation: Augmentation
    normalise: Normalise
    drop_last: bool
    ties: Ties
    subset: float = Field(gt=0, le=1)
    event_augmentation: tuple[EventAugmentation, ...] = Field(default=(), strict=False)
    accumulate: int = Field(default=1, ge=1, le=MAX_COUNT)
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Precision = "fp32"
    early_stop: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    memory: Memory = "full"
    freeze: tuple[str, ...] = Field(default=(), strict=False)
    weights: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @field_validator("freeze")
    @classmethod
    def _sort_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """Returns each pattern once, in order, so that the same ones give the same digest."""
        return tuple(sorted(set(patterns)))

    @model_validator(mode="after")
    def _check_cut_mix(self) -> Self:
        if [one.name for one in self.event_augmentation].count("cut-mix") > 1:
            raise ValueError("event_augmentation has cut-mix twice: a sample is mixed with one other")
        return self

    @model_validator(mode="after")
    def _check_tet_weight(self) -> Self:
        if (self.loss == "tet") != (self.tet_weight is not None):
            needs = "needs train.tet_weight, e.g. 0.05" if self.loss == "tet" else "takes no train.tet_weight"
            raise ValueError(f"loss {self.loss} {needs}")
        return self

    def steps_per_epoch(self, samples: int) -> int:
        """Returns the number of training batches in an epoch; fewer samples than a batch still make one."""
        full, rest = divmod(samples, self.batch_size)
        return full if self.drop_last and full else full + bool(rest)

    def samples_per_epoch(self, samples: int) -> int:
        """Returns the number of samples in these batches."""
        return min(samples, self.steps_per_epoch(samples) * self.batch_size)

    def observed_samples(self, samples: int) -> int:
        """Returns the number of training samples on which firing rates are counted if an epoch is not evaluated."""
        return min(samples, 8 * self.batch_size)

    def evaluation_steps(self, samples: int) -> int:
        """Returns the number of batches in an evaluation, which leaves no sample out."""
        return -(-samples // self.batch_size)


class ValidationSpec(Spec):
    """Protocol B (supplement G): the epoch is chosen on a part of the training set, and tested once.

    Attributes:
        method: ``in-order`` validates on the last training samples of each class in the order of their ids (the
            paper's); ``share`` on a random part of each class, or whole groups where split.groups is set, drawn with
            split.seed; ``official`` on the validation samples of the data set.
        train_fraction: Fraction of each class that stays in training; not used by ``official``.
        rounding: ``ceil-keep-one`` trains on min(n − 1, ⌈f·n⌉) samples of a class of n; ``ceil`` on ⌈f·n⌉.
        loader: ``all`` validation samples as they are; ``as-training`` shuffles, augments and drops the last batch.
        test: ``once``, with the chosen model; ``every-epoch``, reported at the chosen epoch.
        T: Time steps in this protocol, where the authors' run used other than the experiment's; else None.
    """

    method: ValidationMethod = "in-order"
    train_fraction: float = Field(gt=0, lt=1)
    rounding: Rounding
    loader: ValidationLoader
    test: TestSchedule
    T: int | None = Field(default=None, ge=1, le=MAX_T)
