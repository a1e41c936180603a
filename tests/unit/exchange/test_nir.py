"""NIR files, run by other programs: SpikingJelly in float64, snnTorch in float32."""

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import quick_cases
from random_models import random_input, random_model, run_model
from torch import Tensor, nn

from plifctl.errors import MachineError, UsageError
from plifctl.exchange.formats import write_network
from plifctl.exchange.lookup import find_model
from plifctl.exchange.model import TrainedModel, load_trained

nir = pytest.importorskip("nir")

CONV = "c4k3s1-BN-SN-MPk2s2-c6k3s1-BN-SN-DP-FC44-SN-DP-FC22-SN-APk2s2"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plif": (CONV, {}),
    "lif": (CONV, {"kind": "lif", "tau_0": None, "tau": 1.6}),
    "average-pooling": (CONV.replace("MP", "AP"), {}),
    "overlapping-maxima": ("c4k3s1-BN-SN-MPk3s2-MPk2s1-FC22-SN-APk2s2", {"shape": (2, 11, 8)}),
    "overlapping-averages": ("APk3s1-c4k3s1-BN-SN-APk3s2-FC22-SN-APk2s2", {"shape": (2, 11, 8)}),
    "gaps-between-windows": ("c4k3s1-BN-SN-MPk2s3-FC22-SN-APk2s2", {"shape": (2, 11, 8)}),
    "strides": ("c4k5s3-BN-SN-c6k1s2-BN-SN-FC22-SN-APk2s2", {"shape": (2, 13, 10)}),
    "even-kernel": ("c4k4s1-BN-SN-c6k2s2-BN-SN-FC22-SN-APk2s2", {}),
    "one-step": (CONV, {"T": 1, "v_threshold": 0.3}),
    "v-reset": (CONV, {"v_reset": -0.4}),
    "learnt-threshold": (CONV, {"learn_threshold": True}),
    "biases": ("c4k3s1b-SN-MPk2s2-FC33b-SN-FC22b-SN-APk2s2", {}),
    "batch-norm-kept": ("BN-c4k3s1-SN-MPk2s2-BN-c6k3s1-SN-FC22-SN-APk2s2", {}),
    "one-voter": ("FC33-SN-FC11-SN-APk1s1", {}),
    "images": ("c4k3s1-BN-SN-MPk2s2-FC20-SN-APk2s2", {"experiment": "fashion-mnist-plif", "shape": (1, 9, 9)}),
}


def write(tmp_path: Path, trained: TrainedModel) -> Path:
    path = tmp_path / "net.nir"
    write_network(path, trained, "nir")
    return path


def read_with_spikingjelly(path: Path) -> nn.Module:
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    return exchange.import_from_nir(path, dtype=torch.float64)


def read_with_snntorch(path: Path) -> nn.Module:
    snntorch = pytest.importorskip("snntorch.import_nir")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints all time constants
        return snntorch.import_from_nir(nir.read(path))


@torch.no_grad()
def run_other(net: nn.Module, trained: TrainedModel, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Runs the network of another program step by step; returns spikes and votes as :func:`run_model` does."""
    spikes: dict[str, list[Tensor]] = {name: [] for name in trained.network.spiking_layers()}

    def recorder(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: spikes[name].append(output[0] if isinstance(output, tuple) else output)

    for name in spikes:
        net.get_submodule(name).register_forward_hook(recorder(name))
    votes, state = [], None
    for t in range(trained.spec.T):
        vote, state = net(x if x.dim() == 4 else x[:, t], state)
        votes.append(vote)
    return {name: torch.stack(steps) for name, steps in spikes.items()}, torch.stack(votes)


def assert_same(found: tuple[dict[str, Tensor], Tensor], expected: tuple[dict[str, Tensor], Tensor]) -> None:
    for name, spikes in expected[0].items():
        assert torch.equal(found[0][name].to(spikes), spikes), name
    assert torch.allclose(found[1].to(expected[1]), expected[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", quick_cases(CASES, "plif", "v-reset", "images"))
@pytest.mark.long
def test_spikingjelly_reads_equal_spikes(tmp_path: Path, case: str) -> None:
    structure, options = CASES[case]
    trained = random_model(structure, **options)
    net, x = read_with_spikingjelly(write(tmp_path, trained)), random_input(trained)
    assert_same(run_other(net, trained, x), run_model(trained, x))


@pytest.mark.parametrize("case", quick_cases(CASES, "plif", "v-reset", "images"))
@pytest.mark.long
def test_snntorch_reads_equal_spikes(tmp_path: Path, case: str) -> None:
    structure, options = CASES[case]
    trained = random_model(structure, **options, dtype=torch.float32)
    net, x = read_with_snntorch(write(tmp_path, trained)), random_input(trained)
    assert_same(run_other(net, trained, x), run_model(trained, x))


@pytest.mark.parametrize("sample", [0, 1])
def test_snntorch_reset_as_in_the_note_begins_a_sample(tmp_path: Path, sample: int) -> None:
    trained = random_model(CONV, dtype=torch.float32)
    net, x = read_with_snntorch(write(tmp_path, trained)), random_input(trained)
    _, expected = run_model(trained, x)
    if sample:  # the second one
        run_other(net, trained, x.flip(1))
        pytest.importorskip("snntorch.utils").reset(net)
    votes = [net(x[:, t])[0] for t in range(8)]
    assert torch.allclose(torch.stack(votes), expected, rtol=0, atol=1e-6)


@pytest.mark.long
def test_network_of_the_zoo_votes_equally_in_both_programs(tmp_path: Path) -> None:
    trained = load_trained(find_model("zoo:nmnist-narrow", "best", tmp_path), fold=True, kernel="eager")
    x = random_input(trained)
    expected = run_model(trained, x)
    path = write(tmp_path, trained)
    trained.network.double()
    in_double = run_model(trained, x.double())
    assert_same(run_other(read_with_snntorch(path), trained, x), expected)
    assert_same(run_other(read_with_spikingjelly(path), trained, x.double()), in_double)


@pytest.mark.parametrize(("tau_per", "structure"), [("channel", CONV), ("neuron", "FC44b-SN-FC22-SN-APk2s2")])
def test_snntorch_reads_several_time_constants_from_weights(tmp_path: Path, tau_per: str, structure: str) -> None:
    trained = random_model(structure, tau_per=tau_per, dtype=torch.float32)
    net, x = read_with_snntorch(write(tmp_path, trained)), random_input(trained)
    assert_same(run_other(net, trained, x), run_model(trained, x))


def test_potential_at_the_threshold_fires(tmp_path: Path) -> None:
    """Input 2, τ = 2, threshold 1: the potential of the last neuron is exactly the threshold."""
    for dtype, read in ((torch.float64, read_with_spikingjelly), (torch.float32, read_with_snntorch)):
        trained = random_model("FC11-SN-APk1s1", (1, 1, 1), T=1, kind="lif", tau_0=None, tau=2.0, dtype=dtype)
        with torch.no_grad():
            trained.network.layers["fc0"].weight.copy_(torch.arange(11)[:, None] / 5)
        path = tmp_path / f"{dtype}.nir"
        write_network(path, trained, "nir")
        votes, _ = read(path)(torch.ones(1, 1, 1, 1, dtype=dtype))
        assert votes[0].tolist() == [0] * 10 + [1]


@pytest.mark.parametrize(
    ("structure", "options", "problem"),
    [
        (
            CONV,
            {"reset": "soft"},
            "sn0: a soft reset; NIR has hard ones only: export .onnx, or train with neuron.reset",
        ),
        ("MPk2s2-c4k3s1-SN-FC22-SN-APk2s2", {}, "pool0: max pooling of other values than spikes"),
        ("c4k3s1-SN-APk2s2-MPk2s2-FC22-SN-APk2s2", {}, "pool1: max pooling of other values than spikes"),
    ],
)
def test_network_beyond_nir_is_refused(tmp_path: Path, structure: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        write(tmp_path, random_model(structure, **options))
    assert list(tmp_path.iterdir()) == []


def test_infinite_time_constant_is_refused(tmp_path: Path) -> None:
    trained = random_model(CONV)
    with torch.no_grad():
        trained.network.layers["sn1"].a.fill_(-1000.0)
    with pytest.raises(UsageError, match="sn1: 1/τ is 0"):
        write(tmp_path, trained)


def test_neurons_with_own_time_constants_have_a_scale_node(tmp_path: Path) -> None:
    """No other program here reads these: the equation of NIR is solved by hand."""
    trained = random_model("SN-FC22-SN-APk2s2", (2, 3, 3), tau_per="neuron", T=1)
    graph = nir.read(write(tmp_path, trained))
    assert list(graph.nodes) == sorted(["input", "sn0_gain", "sn0", "fc0_flatten", "fc0", "sn1", "vote", "output"])
    frame = np.random.default_rng(0).uniform(0, 5, (2, 3, 3))
    lif = graph.nodes["sn0"]
    potential = 1e-4 / lif.tau * lif.r * (graph.nodes["sn0_gain"].scale * frame)
    expected, _ = trained.network.eval().step(torch.from_numpy(frame)[None])
    spikes = (potential > lif.v_threshold).ravel()
    assert 0 < spikes.sum() < spikes.size
    fc, last = graph.nodes["fc0"], graph.nodes["sn1"]
    votes = graph.nodes["vote"].weight @ (1e-4 / last.tau * last.r * (fc.weight @ spikes) > last.v_threshold)
    np.testing.assert_allclose(votes, expected[0].detach())


def test_metadata_describes_network_and_input(tmp_path: Path) -> None:
    trained = random_model(CASES["images"][0], **CASES["images"][1])
    about = nir.read(write(tmp_path, trained)).metadata
    assert about["experiment"] == "fashion-mnist-plif"
    assert about["digest"] == trained.digest
    assert json.loads(about["T"]) == 8
    assert json.loads(about["classes"]) == list(trained.spec.dataset.classes)
    assert json.loads(about["input_shape"]) == [1, 9, 9]
    assert about["input"] == "an image, 1×9×9 values from 0 to 1, the same at each of T = 8 steps"
    assert (about["mean"], about["std"]) == ("[]", "[]")  # the graph normalises


def test_note_names_layers_whose_tau_has_reached_one(tmp_path: Path) -> None:
    trained = random_model(CONV)
    assert trained.network.layers["sn1"].a is not None
    trained.network.layers["sn1"].a.data.fill_(40.0)  # type: ignore[union-attr, operator]
    notes = write_network(tmp_path / "net.nir", trained, "nir")
    assert "SpikingJelly does not read τ = 1, it expects more: sn1" in notes
    assert nir.read(tmp_path / "net.nir").nodes["sn1"].tau.max() == 1e-4


@pytest.mark.parametrize(
    ("structure", "options", "words"),
    [
        (CONV, {}, ["event frames, 2×9×9 counts at each of T = 8 steps", "pool0_max", "SpikingJelly: votes, state ="]),
        (CONV, {"v_reset": -0.5}, ["above v_reset = -0.5"]),
        (CASES["images"][0], CASES["images"][1], ["the graph normalises images itself: give it values from 0 to 1"]),
        (CONV, {"tau_per": "channel"}, ["SpikingJelly does not read layers of several τ; snnTorch does"]),
        ("c4k3s1-SN-FC22-SN-APk2s2", {"tau_per": "neuron"}, ["neither SpikingJelly nor snnTorch", "sn0_gain"]),
    ],
)
def test_notes_say_what_a_user_has_to_know(
    tmp_path: Path, structure: str, options: dict[str, Any], words: list[str]
) -> None:
    notes = "\n".join(write_network(tmp_path / "net.nir", random_model(structure, **options), "nir"))
    assert [word for word in words if word not in notes] == []
    assert ("v_reset" in notes) == ("v_reset" in options)


def test_file_that_is_read_differently_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = nir.read

    def read_damaged(path: Path) -> Any:
        graph = read(path)
        graph.nodes["conv0"].weight[0, 0, 0, 0] += 1e-6
        return graph

    monkeypatch.setattr(nir, "read", read_damaged)
    with pytest.raises(MachineError, match=r"graph\.nodes\.conv0\.weight read back is not what was written"):
        write(tmp_path, random_model(CONV))
    assert list(tmp_path.iterdir()) == []


def test_missing_library_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "plifctl.exchange.nir", raising=False)
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(UsageError, match="nir is not installed") as error:
        write(tmp_path, random_model(CONV))
    assert error.value.hint == "pip install nir"
