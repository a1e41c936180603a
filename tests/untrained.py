"""Networks with random weights, which answer as trained ones do: models for tests that train nothing."""

from pathlib import Path
from typing import Any

import torch
import yaml

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_experiment
from plifctl.exchange.arrays import write_torch
from plifctl.exchange.model import TrainedModel
from plifctl.pipeline.predict import Model
from plifctl.training.trainer import build_model

CPU = torch.device("cpu")
SHAPE = (2, 8, 10)
"""Shape of the frames of :func:`event_spec`."""

CLASSES = ("left", "right", "上")
FIRES = ("neuron.v_threshold=0.03",)
"""With random weights, neurons of the usual threshold would not fire."""


def event_spec(
    folder: Path, *overrides: str, dataset: dict[str, Any] | None = None, frames: dict[str, Any] | None = None
) -> ExperimentSpec:
    """Returns an experiment on recordings of one's own, T = 4.

    Args:
        folder: Where its file is written.
        overrides: Changes, ``key=value``.
        dataset: Further values of the data set.
        frames: Further values of the framing.
    """
    described = {"layout": "class-folders", "kind": "events", "shape": [*SHAPE], "classes": [*CLASSES], "raw": "raw"}
    network = {"structure": "FC40-SN-FC30-SN-APk10s10", "dropout": 0.0, "batch_norm": "over-time"}
    tree = {
        "name": "own",
        "title": "own recordings",
        "like": "demo",
        "T": 4,
        "dataset": {"name": "own", "title": "own recordings", **described, **(dataset or {})},
        "frames": {"slicing": "number", "outside_events": "refuse", "invalid_events": "drop", **(frames or {})},
        "network": {"name": "own", **network},
        "split": {"method": "share", "test": 0.2},
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return load_experiment(path, [*FIRES, *overrides]).spec


def image_spec(name: str, *overrides: str) -> ExperimentSpec:
    """Returns an experiment on the images of a published data set, with a tiny network and T = 3."""
    structure = "network.structure=c4k3s1-BN-SN-MPk4s4-FC100-SN-APk10s10"
    return load_experiment(name, [structure, "T=3", *FIRES, *overrides]).spec


def make_model(spec: ExperimentSpec) -> Model:
    """Returns a network with random weights, always the same."""
    torch.manual_seed(0)
    network = build_model(spec, CPU, "auto")
    return Model(TrainedModel(Path("model.pt"), spec, network, "", spec.digest, {}))


def write_untrained(path: Path, spec: ExperimentSpec) -> Path:
    """Writes the file of such a network, and returns its path."""
    write_torch(path, make_model(spec).trained)
    return path
