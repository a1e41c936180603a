"""Measurements of the figure ``start``."""

import pytest

from plifctl.config.lookup import load_registry
from plifctl.pipeline import initial_state


@pytest.mark.slow
def test_measure_initial_states_gives_every_tau_and_says_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_state, "EXPERIMENT", "demo")  # a smaller network on the same sensor
    monkeypatch.setattr(initial_state, "TAUS", (1.5, 32.0))
    about, states = initial_state.measure_initial_states(load_registry())
    assert "T = 8, weights of seed 2020, on one batch of 4 simulated gestures" in about
    first_layer = [next(iter(state.firing_rates.values())) for state in states.values()]
    assert list(states) == [1.5, 32.0]
    assert first_layer[0] > first_layer[1]
