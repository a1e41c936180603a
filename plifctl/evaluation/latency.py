"""Latency of decisions: the number of time steps after which the predictions are correct."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepStatistics:
    """Mean and percentiles of numbers of time steps."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Latency:
    """Time steps, counted from 1, after which predictions are correct.

    Attributes:
        first_correct: First step with a correct prediction, of the samples that have one.
        stable_from: Step from which on the prediction is correct to the end, of the samples whose last one is.
        never_correct: Number of samples without a correct prediction at any step.
        wrong_at_end: Number of samples whose last prediction is wrong.
    """

    first_correct: np.ndarray
    stable_from: np.ndarray
    never_correct: int
    wrong_at_end: int


def summarize_steps(steps: np.ndarray) -> StepStatistics | None:
    """Returns mean and percentiles of numbers of time steps, ``[N]``; None of no samples."""
    if not len(steps):
        return None
    return StepStatistics(float(steps.mean()), *(float(np.percentile(steps, share)) for share in (50, 90, 99)))


def measure_latency(predictions: np.ndarray, labels: np.ndarray) -> Latency:
    """Returns the latency of predictions over time.

    Args:
        predictions: Predicted class after each step, ``[T, N]``.
        labels: True class, ``[N]``.

    Example:
        >>> found = measure_latency(np.array([[0, 1], [1, 0], [1, 0]]), np.array([1, 1]))
        >>> found.first_correct, found.stable_from, found.wrong_at_end
        (array([2, 1]), array([2]), 1)
    """
    correct = predictions == labels
    steps = len(correct)
    ever = correct.any(0)
    steps_correct_at_end = np.where(correct.all(0), steps, np.argmin(correct[::-1], 0))
    stable_from = steps - steps_correct_at_end + 1
    return Latency(correct.argmax(0)[ever] + 1, stable_from[correct[-1]], int((~ever).sum()), int((~correct[-1]).sum()))
