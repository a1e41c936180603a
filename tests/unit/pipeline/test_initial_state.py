"""Measurements of the figure ``start``."""

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import build_cache, idx_files

from plifctl.cache import Cache
from plifctl.config.lookup import load_experiment, load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.source import RawSource
from plifctl.errors import CacheError
from plifctl.pipeline import initial_state
from plifctl.pipeline.initial_state import measure_initial_states
from plifctl.training.batches import BatchLoader
from plifctl.training.initial_state import measure_initial_state

STRUCTURE = "c4k3s1-BN-SN-MPk4s4-DP-FC20-SN-DP-FC100-SN-APk10s10"
OWN = f"name: own\nlike: mnist-lif\nT: 2\nnetwork: {{structure: {STRUCTURE}}}\n"


@pytest.fixture
def cache(places: Path) -> Cache:
    """A cache of MNIST with 30 training images, beside own.yaml: a small network of LIF neurons."""
    (places / "own.yaml").write_text(OWN)
    (places / "raw").mkdir()
    for name, content in idx_files().items():
        (places / "raw" / name).write_bytes(content)
    framing = load_experiment("own").spec.framing
    return build_cache(open_raw(framing, RawSource(places / "raw", verify=False)), None, places / "data_cache")


@pytest.mark.slow
def test_measure_initial_states_gives_every_tau_and_says_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_state, "EXPERIMENT", "demo")  # a smaller network on the same sensor
    monkeypatch.setattr(initial_state, "TAUS", (1.5, 32.0))
    (found,) = measure_initial_states(load_registry())
    assert "T = 8, weights of seed 2020, on one batch of 4 simulated gestures" in found.about
    first_layer = [next(iter(state.firing_rates.values())) for state in found.by_tau.values()]
    assert list(found.by_tau) == [1.5, 32.0]
    assert first_layer[0] > first_layer[1]


def test_measure_initial_states_of_experiments_uses_the_first_training_batch_of_each(
    cache: Cache, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "other.yaml").write_text(OWN.replace("name: own", "name: other") + "train: {batch_size: 5}\n")
    monkeypatch.setattr(initial_state, "TAUS", (2.0, 16.0))
    own, other = measure_initial_states(load_registry(), ["own", Path("other.yaml"), "own"])
    assert (own.title, other.title) == ("MNIST (own)", "MNIST (other)")
    assert "T = 2, weights of seed 2020, on the first 16 training samples of the first epoch" in own.about
    assert "first 5 training samples" in other.about
    spec = load_experiment("other").spec
    loader = BatchLoader(cache, spec, torch.device("cpu"))
    expected = measure_initial_state(spec, next(loader.training_batches(np.arange(30), 0)))
    assert dict(other.by_tau[2.0].firing_rates) == dict(expected.firing_rates)
    assert dict(other.by_tau[2.0].weight_gradients) == dict(expected.weight_gradients)
    assert [len(state.tau_gradients) for state in other.by_tau.values()] == [3, 3]  # although its neurons are LIF
    assert expected.firing_rates["sn0"] > other.by_tau[16.0].firing_rates["sn0"]


def test_measure_initial_states_of_a_large_batch_uses_its_first_samples(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_state, "TAUS", (2.0,))
    monkeypatch.setattr(initial_state, "MAX_SAMPLES", 3)
    (found,) = measure_initial_states(load_registry(), ["own"])
    assert "on the first 3 training samples" in found.about


def test_measure_initial_states_without_a_cache_names_the_command_before_measuring(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_state, "measure_initial_state", lambda *_: pytest.fail("measured"))
    with pytest.raises(CacheError) as error:
        measure_initial_states(load_registry(), ["own", "cifar10-lif-tau16"])
    assert error.value.hint == "plifctl prepare cifar10"
