"""The networks that come with plifctl."""

import json
from pathlib import Path

import numpy as np
import pytest

import plifctl
from plifctl.exchange.folder import read_evidence
from plifctl.exchange.lookup import zoo_folders

NETWORKS = zoo_folders()


def test_zoo_is_small_and_has_the_networks_that_the_guide_names() -> None:
    assert set(NETWORKS) == {"demo", "nmnist-narrow"}
    files = [file for folder in NETWORKS.values() for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 3e6


@pytest.mark.parametrize("name", NETWORKS)
def test_model_card_states_the_accuracy_of_the_predictions(name: str) -> None:
    folder = NETWORKS[name]
    evidence, card = read_evidence(folder), (folder / "README.md").read_text(encoding="utf-8")
    assert evidence.record is not None
    assert evidence.predictions is not None
    right, n = evidence.predictions.right, len(evidence.predictions)
    assert f"**{100 * right / n:.2f} %** ({right:,} of {n:,} samples)" in card
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["digest"] == evidence.record.digest
    assert "half precision" in card


@pytest.mark.parametrize("name", NETWORKS)
def test_network_loads_and_classifies_frames(name: str) -> None:
    model = plifctl.load(f"zoo:{name}")
    assert sum(weight.numel() for weight in model.parameters()) <= 1_000_000
    prediction = model.predict(np.zeros((model.T, *model.input_shape), np.uint8))
    assert prediction.rates.shape == (model.T, len(model.classes))


@pytest.mark.slow
def test_demo_is_reproduced_on_recordings_simulated_here(places: Path) -> None:
    from plifctl.data.synthetic import write_synthetic

    write_synthetic(places / "raw")
    plifctl.prepare("synthetic-gesture", T=8, raw=places / "raw")
    result = plifctl.evaluate("zoo:demo", operations=0, layer_times=0)
    assert result.reproduced
    assert result.kept_predictions is not None
    assert result.kept_predictions.equal == 110


@pytest.mark.long
def test_nmnist_network_classifies_real_recordings(shared: Path, places: Path) -> None:
    plifctl.prepare("nmnist", T=10, raw=shared / "data/NMNIST", verify=False, download=False)
    result = plifctl.evaluate("zoo:nmnist-narrow", operations=0, layer_times=0)
    assert result.reproduced
    assert result.accuracy == pytest.approx(0.96)
    assert plifctl.load("zoo:nmnist-narrow").predict(shared / "data/samples/sample_nmnist.bin").share > 0.5
