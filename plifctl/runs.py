"""Results of finished runs."""

from __future__ import annotations

from typing import Any, Literal

from plifctl.specs import Spec


class RunData(Spec):
    """What a run was trained and tested on."""

    verified: bool
    complete: bool
    train: int
    validation: int
    test: int
    cache: str


class ResultRecord(Spec):
    """The small record of a finished run that reports are made from. Accuracies are fractions, epochs count from 1."""

    schema_version: Literal[1]
    run: str
    experiment: str
    recipe: Literal["paper", "published"]
    protocol: Literal["A", "B"]
    dataset: str
    T: int
    seed: int
    epochs: int
    digest: str
    overrides: tuple[str, ...]
    data: RunData
    accuracy: float
    best_epoch: int
    validation_accuracy: float | None
    test_accuracy: tuple[float | None, ...]
    tau: tuple[tuple[float, ...], ...]
    environment: dict[str, Any]
    finished: str
