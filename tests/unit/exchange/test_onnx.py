"""ONNX files, run by onnxruntime."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import quick_cases
from random_models import random_input, random_model, run_model

from plifctl.errors import RunError, UsageError
from plifctl.exchange.formats import write_network
from plifctl.exchange.lookup import find_model
from plifctl.exchange.model import TrainedModel, load_trained

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CONV = "c4k3s1-BN-SN-MPk2s2-c6k3s1-BN-SN-DP-FC44-SN-DP-FC22-SN-APk2s2"
IMAGES = "c4k3s1-BN-SN-MPk2s2-FC20-SN-APk2s2"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plif": (CONV, {}),
    "lif": (CONV, {"kind": "lif", "tau_0": None, "tau": 1.6}),
    "batch-norm": (CONV, {"fold": False}),
    "average-pooling": (CONV.replace("MP", "AP"), {}),
    "overlapping-windows": ("MPk3s1-c4k3s1-BN-SN-APk3s2-MPk2s1-FC22-SN-APk2s2", {"shape": (2, 11, 8)}),
    "strides": ("c4k5s3-BN-SN-c6k4s2-BN-SN-FC22-SN-APk2s2", {"shape": (2, 13, 10)}),
    "one-step": (CONV, {"T": 1, "v_threshold": 0.3}),
    "soft-reset": (CONV, {"reset": "soft"}),
    "v-reset": (CONV, {"v_reset": -0.4}),
    "learnt-threshold": (CONV, {"learn_threshold": True, "reset": "soft"}),
    "tau-per-channel": (CONV, {"tau_per": "channel"}),
    "tau-per-neuron": (CONV, {"tau_per": "neuron"}),
    "biases": ("c4k3s1b-SN-MPk2s2-FC33b-SN-FC22b-SN-APk2s2", {}),
    "neurons-first": ("SN-FC11-SN-APk1s1", {}),
    "images": (IMAGES, {"experiment": "fashion-mnist-plif", "shape": (1, 9, 9)}),
    "images-for-one-step": (IMAGES, {"experiment": "fashion-mnist-plif", "shape": (1, 9, 9), "T": 1}),
    "images-to-neurons": ("SN-FC20-SN-APk2s2", {"experiment": "fashion-mnist-plif", "shape": (1, 9, 9)}),
}


def make(case: str) -> TrainedModel:
    structure, options = CASES[case]
    return random_model(structure, **{"dtype": torch.float32, **options})


def write(tmp_path: Path, trained: TrainedModel) -> Path:
    path = tmp_path / "net.onnx"
    write_network(path, trained, "onnx")
    return path


@pytest.mark.parametrize("case", quick_cases(CASES, "plif", "soft-reset", "v-reset", "images"))
def test_onnxruntime_computes_equal_votes_of_any_batch(tmp_path: Path, case: str) -> None:
    trained = make(case)
    session = onnxruntime.InferenceSession(write(tmp_path, trained))
    for samples in (1, 2, 5):
        x = random_input(trained, samples)
        (votes,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        _, expected = run_model(trained, x)
        assert votes.shape == expected.shape
        np.testing.assert_allclose(votes, expected, rtol=0, atol=1e-6)


def test_potential_at_the_threshold_fires(tmp_path: Path) -> None:
    """Input 2, τ = 2, threshold 1: the potential of the last neuron is exactly the threshold."""
    trained = random_model("FC11-SN-APk1s1", (1, 1, 1), T=1, kind="lif", tau_0=None, tau=2.0, dtype=torch.float32)
    with torch.no_grad():
        trained.network.layers["fc0"].weight.copy_(torch.arange(11)[:, None] / 5)
    session = onnxruntime.InferenceSession(write(tmp_path, trained))
    (votes,) = session.run(None, {"frames": np.ones((1, 1, 1, 1, 1), np.float32)})
    assert votes[0, 0].tolist() == [0] * 10 + [1]


@pytest.mark.parametrize("fold", [False, True])
def test_network_of_the_zoo_votes_equally(tmp_path: Path, fold: bool) -> None:
    trained = load_trained(find_model("zoo:nmnist-narrow", "best", tmp_path), fold=fold, kernel="eager")
    session = onnxruntime.InferenceSession(write(tmp_path, trained))
    x = random_input(trained)
    (votes,) = session.run(None, {"frames": x.numpy()})
    _, expected = run_model(trained, x)
    np.testing.assert_allclose(votes, expected, rtol=0, atol=1e-6)


def test_inputs_and_outputs_are_named_and_the_batch_is_open(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(write(tmp_path, make("plif")))
    found = [(value.name, value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    assert found == [
        ("frames", "tensor(float)", ["batch", 8, 2, 9, 9]),
        ("votes", "tensor(float)", [8, "batch", 11]),
    ]
    (tmp_path / "net.onnx").unlink()
    session = onnxruntime.InferenceSession(write(tmp_path, make("images")))
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("image", ["batch", 1, 9, 9])]


def test_size_of_the_graph_does_not_depend_on_the_steps(tmp_path: Path) -> None:
    counts = set()
    for T in (1, 50):
        write_network(
            tmp_path / f"{T}.onnx", random_model("FC11-SN-APk1s1", (1, 2, 2), T=T, dtype=torch.float32), "onnx"
        )
        counts.add(len(onnx.load(tmp_path / f"{T}.onnx").graph.node))
    assert len(counts) == 1


def test_metadata_describes_network_and_input(tmp_path: Path) -> None:
    trained = make("images")
    session = onnxruntime.InferenceSession(write(tmp_path, trained))
    about = session.get_modelmeta().custom_metadata_map
    assert about["experiment"] == "fashion-mnist-plif"
    assert about["digest"] == trained.digest
    assert json.loads(about["classes"]) == list(trained.spec.dataset.classes)
    assert json.loads(about["T"]) == 8
    assert (about["mean"], about["std"]) == ("[]", "[]")  # the graph normalises
    assert "test_samples" not in about
    assert about["input"] == "an image, 1×9×9 values from 0 to 1, the same at each of T = 8 steps"


def test_notes_say_who_normalises_and_in_which_precision_the_graph_computes(tmp_path: Path) -> None:
    trained = make("images")
    half = trained.spec.model_copy(update={"train": trained.spec.train.model_copy(update={"precision": "bf16"})})
    precision, _, normalises, _ = write_network(tmp_path / "net.onnx", replace(trained, spec=half), "onnx")
    assert precision == "trained and tested in bf16; this file computes in float32"
    assert normalises.startswith("the graph normalises images itself")
    assert write_network(tmp_path / "net.pt", replace(trained, spec=half), "pt") == []
    first, *_, code = write_network(tmp_path / "net.pth", replace(trained, spec=half), "spikingjelly")
    assert (first, code.startswith("the network in SpikingJelly")) == (precision, True)


def test_notes_describe_input_and_output(tmp_path: Path) -> None:
    notes = write_network(tmp_path / "net.onnx", make("plif"), "onnx")
    assert notes == [
        "input frames: event frames, 2×9×9 counts at each of T = 8 steps; float32 [batch, 8, 2, 9, 9]",
        "output votes: float32 [8, batch, 11]; the class is that of the highest sum over the steps",
    ]


def test_exporting_prints_and_warns_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, make("plif"))
    assert capfd.readouterr() == ("", "")


def scale(name: str, factor: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (constant,) = (one for one in model.graph.initializer if one.name == name)
        constant.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(constant) * np.float32(factor), name))

    return change


def take_largest_vote(model: Any) -> None:
    model.graph.node[-1].op_type = "ReduceMax"


@pytest.mark.parametrize(
    ("layer", "damage"),
    [
        ("sn0", scale("conv0.weight", 1.01)),
        ("sn1", scale("sn1.k", 0.9)),
        ("sn2", scale("sn2.v_threshold", 0.9)),
        ("sn3", scale("sn3.v_reset", 0.9)),
        ("votes", take_largest_vote),
    ],
)
def test_graph_that_computes_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str, damage: Callable[[Any], None]
) -> None:
    from plifctl.exchange import onnx as module

    build = module._Builder.build

    def build_damaged(self: Any) -> Any:
        model = build(self)
        damage(model)
        return model

    monkeypatch.setattr(module._Builder, "build", build_damaged)
    trained = random_model(CONV, v_reset=-0.4, dtype=torch.float32)
    with pytest.raises(RunError, match=rf"onnxruntime [\d.]+ computes another {layer} than the network: diff") as error:
        write(tmp_path, trained)
    assert "plifctl doctor" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_weights_too_large_for_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plifctl.exchange import onnx as module

    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    with pytest.raises(UsageError, match=re.escape("expected at most 10.0 kB in a file")):
        write(tmp_path, make("plif"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_missing_library_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.delitem(sys.modules, "plifctl.exchange.onnx", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=f"{library} is not installed") as error:
        write(tmp_path, make("plif"))
    assert error.value.hint == "pip install onnx onnxruntime"


def test_onnxruntime_that_cannot_run_the_graph_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Scan\nmore")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(RunError, match=r"cannot run the graph, so nothing was written: .*NOT_IMPLEMENTED : Scan$"):
        write(tmp_path, make("one-step"))
    assert not list(tmp_path.iterdir())
