"""Latency of decisions, by hand."""

import numpy as np
import pytest

from plifctl.evaluation.latency import StepStatistics, measure_latency, summarize_steps


def test_measure_latency_hand_computed_steps() -> None:
    predictions = np.array([[1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [1, 0, 0, 1, 1], [1, 1, 0, 0, 1]])
    found = measure_latency(predictions, np.ones(5, int))
    assert found.first_correct.tolist() == [1, 2, 3, 1]
    assert found.stable_from.tolist() == [1, 4, 3]
    assert (found.never_correct, found.wrong_at_end) == (1, 2)


def test_measure_latency_never_correct_is_counted() -> None:
    found = measure_latency(np.zeros((3, 2), int), np.ones(2, int))
    assert (found.first_correct.size, found.stable_from.size) == (0, 0)
    assert (found.never_correct, found.wrong_at_end) == (2, 2)


def test_summarize_steps_has_mean_and_percentiles() -> None:
    assert summarize_steps(np.arange(1, 101)) == StepStatistics(50.5, 50.5, pytest.approx(90.1), pytest.approx(99.01))
    assert summarize_steps(np.array([], int)) is None
