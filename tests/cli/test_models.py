"""A user's own network, from the YAML in the guide to an exported file."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Plifctl = Callable[..., Any]
GUIDE = (Path(__file__).resolve().parents[2] / "docs/guide.md").read_text(encoding="utf-8")


def blocks(heading: str, language: str) -> list[str]:
    """Returns the code blocks of a section of the guide."""
    section = re.split(r"^##+ ", GUIDE.split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language]


@pytest.fixture
def own(plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch) -> Plifctl:
    """The command line with the registry folder of the guide."""
    for text in blocks("A registry folder", "yaml"):
        path = places / text.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("PLIFCTL_REGISTRY", "mine")
    return plifctl


def test_guide_section_followed_gives_the_files_it_describes(own: Plifctl, gestures: Path, places: Path) -> None:
    assert gestures == places / "raw"
    (commands,) = blocks("A registry folder", "bash")
    typed = [line.split("#")[0].split()[1:] for line in commands.splitlines() if line.startswith("plifctl ")]
    assert [words[0] for words in typed] == ["check", "show", "synthesize", "prepare", "train"]
    for words in typed:
        if words[0] != "synthesize":  # smaller raw data exist already
            result = own(*words, *(["--epochs", "1"] if words[0] == "train" else []))
            assert result.code == 0, result.err

    plain = json.loads(own("eval", "last", "--json", "--layer-times", 0).out)
    result = own("eval", "last", "--fold-bn", "--json", "--layer-times", 0)
    folded = json.loads(result.out)
    assert "folded: bn0 into conv0, bn1 into conv1" in result.err
    assert folded.pop("folded") == {"bn0": "conv0", "bn1": "conv1"}
    assert plain.pop("folded") == {}
    # few potentials are at the threshold with hardly trained weights: rates are equal up to single spikes
    rates = [[layer.pop("firing_rate") for layer in tree["layers"]] for tree in (plain, folded)]
    assert rates[0] == pytest.approx(rates[1], abs=1e-3)
    assert plain == folded

    (export,) = blocks("Use a trained network elsewhere", "bash")
    for line in export.splitlines():
        result = own(*line.split("#")[0].split()[1:])
        assert result.code == 0, result.err
    assert f"{100 * plain['accuracy']:.2f} % of 11" in result.out  # of model.pt

    saved = torch.load("model.pt", weights_only=True)
    assert saved["T"] == 8
    assert saved["input_shape"] == [2, 128, 128]
    assert saved["mean"] == []
    assert not [name for name in saved["model"] if ".bn" in name]

    arrays = np.load("model.npz", allow_pickle=False)
    spec = json.loads(str(arrays["spec"]))
    assert "BN" in spec["network"]["structure"]
    (run,) = (places / "runs").iterdir()
    best = torch.load(run / "checkpoints/best.pt", weights_only=True)
    for name, weight in best["model"].items():
        assert np.array_equal(arrays[name], weight.numpy())
    assert str(arrays["digest"]) == saved["digest"] == best["digest"]
    assert arrays["classes"].tolist() == saved["classes"]

    result = own("export", "model.pt", "again.pt", "--fold-bn", "--json")  # of an exported file
    assert "nothing to fold" in result.err
    assert json.loads(result.out)["structure"] == json.loads(saved["spec"])["network"]["structure"]
    again = torch.load("again.pt", weights_only=True)
    assert again["digest"] == saved["digest"]
    assert all(torch.equal(again["model"][name], weight) for name, weight in saved["model"].items())

    result = own("export", "last", "model.pt")
    assert result.code == 2
    assert "rm model.pt" in result.err
    result = own("export", "last", "model.tflite")
    assert result.code == 2
    assert ".npz, .onnx, .pt" in result.err
    assert own("export", "best", "new.pt").code == 2
    assert json.loads(own("eval", "model.npz", "--json", "--layer-times", 0).out)["accuracy"] == plain["accuracy"]
    assert not Path("new.pt").exists()
    (places / "foreign.pt").write_bytes(b"no model")
    assert own("export", "foreign.pt", "new.pt").code == 6


def test_write_model_stores_the_normalisation(tmp_path: Path) -> None:
    from plifctl.config.lookup import load_registry
    from plifctl.exchange.formats import write_network
    from plifctl.exchange.model import TrainedModel
    from plifctl.snn.networks import SpikingNetwork

    changes = ["network.structure=c2k3s1-BN-SN-FC100-SN-APk10s10"]
    spec = load_registry().experiment("fashion-mnist-plif", overrides=changes).spec
    model = SpikingNetwork(spec.network, spec.neuron, (1, 28, 28), 10)
    for ending in ("pt", "npz"):
        write_network(tmp_path / f"m.{ending}", TrainedModel(tmp_path, spec, model, "c", spec.digest, {}), ending)
    saved = torch.load(tmp_path / "m.pt", weights_only=True)
    assert spec.dataset.mean is not None
    assert saved["mean"] == list(spec.dataset.mean)
    assert np.load(tmp_path / "m.npz")["std"].tolist() == saved["std"]


class TestShowParams:
    def test_show_params_prints_table_and_json(self, plifctl: Plifctl) -> None:
        result = plifctl("show", "fashion-mnist-plif", "--params")
        assert result.code == 0
        assert re.search(r"conv1 +convolution 3×3 +128×14×14 +147,456 +26,214,400 +MACs +8\n", result.out)
        assert "13,198,980 parameters" in result.out
        tree = json.loads(plifctl("show", "fashion-mnist-plif", "--params", "--json", "--set", "T=4").out)
        assert tree["parameters"] == 13_198_980
        once = sum(layer["operations"] for layer in tree["layers"] if layer["kind"] == "MACs" and layer["runs"] == 1)
        macs = tree["operations"]["MACs"]
        assert once == 860_672
        assert macs["per_sample"] == 4 * macs["per_step"] - 3 * once

    def test_show_params_uses_overrides(self, plifctl: Plifctl) -> None:
        changes = ("network.structure=FC110-SN-APk10s10", "neuron.tau_per=neuron")
        result = plifctl("show", "demo", "--params", "--json", *(word for text in changes for word in ("--set", text)))
        layers = json.loads(result.out)["layers"]
        assert [layer["parameters"] for layer in layers] == [2 * 128 * 128 * 110, 110, 0]

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("gesture", "plifctl show gesture-"),
            ("synthetic-gesture", "plifctl show demo --params"),
            ("cifar10-x", "did"),
        ],
    )
    def test_show_params_of_another_entry_is_refused(self, plifctl: Plifctl, name: str, hint: str) -> None:
        result = plifctl("show", name, "--params")
        assert result.code == 2
        assert f"hint: {hint}" in result.err

    @pytest.mark.subprocess
    def test_show_params_imports_no_torch(self) -> None:
        code = (
            "import sys; sys.argv = ['plifctl', 'show', 'demo', '--params']\n"
            "from plifctl.cli import main\n"
            "try: main()\nexcept SystemExit: pass\n"
            "print(sorted({'torch', 'h5py', 'numba', 'tonic'} & set(sys.modules)))"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == "[]"


class TestErrorsOfOwnNetwork:
    @pytest.mark.parametrize(
        ("was", "now", "message"),
        [
            ("FC110", "FC100", "small.yaml:3:3: gestures-small: .* 11 classes need FC110"),
            (
                "MPk2s2-DP",
                "MPk64s64-DP",
                r"small.yaml:3:3: gestures-small: .* MPk64s64 has no .* \[32, 16, 16\]",
            ),
            ("FC64", "FC64-BN", "small.yaml:3:3: small: structure: BN follows a fully connected layer"),
            ("MPk2s2", "MPk2", r"small.yaml:3:3: small: structure: position 22: 'MPk2-.* a layer \(c128k3s1"),
        ],
    )
    def test_check_of_an_invalid_network_names_the_line(
        self, own: Plifctl, places: Path, was: str, now: str, message: str
    ) -> None:
        path = places / "mine/networks/small.yaml"
        path.write_text(path.read_text().replace(was, now))
        result = own("check")
        assert result.code == 3
        assert re.search(message, result.out)

    def test_own_experiment_without_its_folder_hints_the_variable(
        self, own: Plifctl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PLIFCTL_REGISTRY")
        for command in ("show", "train"):
            result = own(command, "mine")  # the name of the folder
            assert result.code == 2
            assert "PLIFCTL_REGISTRY" in result.err
