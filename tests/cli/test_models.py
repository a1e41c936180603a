"""A network of one's own, from the guide's YAML to a file for other programs."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Plifctl = Callable[..., Any]
GUIDE = (Path(__file__).resolve().parents[2] / "docs/guide.md").read_text(encoding="utf-8")


def blocks(heading: str, language: str) -> list[str]:
    """The blocks of code in one section of the guide."""
    section = re.split(r"^##+ ", GUIDE.split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language]


@pytest.fixture
def own(plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch) -> Plifctl:
    """The command line with the guide's registry folder of one's own."""
    for text in blocks("Your own network", "yaml"):
        path = places / text.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("PLIFCTL_REGISTRY", "mine")
    return plifctl


def test_the_guide_can_be_followed(own: Plifctl, gestures: Path, places: Path) -> None:
    assert gestures == places / "raw"
    (commands,) = blocks("Your own network", "")
    typed = [line.split("#")[0].split()[1:] for line in commands.splitlines() if line.startswith("plifctl ")]
    assert [words[0] for words in typed] == ["check", "show", "synthesize", "prepare", "train"]
    for words in typed:
        if words[0] != "synthesize":  # the raw data are there, and fewer
            said = own(*words, *(["--epochs", "1"] if words[0] == "train" else []))
            assert said.code == 0, said.err

    plain = json.loads(own("eval", "last", "--json").out)
    said = own("eval", "last", "--fold-bn", "--json")
    folded = json.loads(said.out)
    assert "folded: bn0 into conv0, bn1 into conv1" in said.err
    assert folded.pop("folded") == {"bn0": "conv0", "bn1": "conv1"}
    assert plain.pop("folded") == {}
    # weights hardly trained leave few potentials at the threshold: rates are equal, or off by single spikes
    rates = [[layer.pop("firing_rate") for layer in tree["layers"]] for tree in (plain, folded)]
    assert rates[0] == pytest.approx(rates[1], abs=1e-3)
    assert plain == folded

    (export,) = blocks("Use a trained network elsewhere", "")
    for line in export.splitlines():
        said = own(*line.split("#")[0].split()[1:])
        assert said.code == 0, said.err
    assert f"{100 * plain['accuracy']:.2f} % of 11" in said.out  # of model.pt

    (snippet,) = blocks("Use a trained network elsewhere", "python")
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()) as printed:
        exec(snippet, names)
    assert len(re.findall("'([^']+)'", printed.getvalue())) == 3
    saved = names["saved"]
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

    said = own("export", "model.pt", "again.pt", "--fold-bn", "--json")  # of an exported file
    assert "nothing to fold" in said.err
    assert json.loads(said.out)["structure"] == names["spec"].network.structure
    again = torch.load("again.pt", weights_only=True)
    assert again["digest"] == saved["digest"]
    assert all(torch.equal(again["model"][name], weight) for name, weight in saved["model"].items())

    said = own("export", "last", "model.pt")
    assert said.code == 2
    assert "rm model.pt" in said.err
    said = own("export", "last", "model.onnx")
    assert said.code == 2
    assert ".npz, .pt" in said.err
    assert own("export", "best", "new.pt").code == 2
    assert own("eval", "model.npz").code == 2
    assert not Path("new.pt").exists()
    (places / "foreign.pt").write_bytes(b"no model")
    assert own("export", "foreign.pt", "new.pt").code == 6


def test_normalisation_goes_with_the_model(tmp_path: Path) -> None:
    from plifctl.config.registry import load_registry
    from plifctl.exchange.arrays import write_model
    from plifctl.snn.networks import SpikingNetwork

    changes = ["network.structure=c2k3s1-BN-SN-FC100-SN-APk10s10"]
    spec = load_registry().experiment("fashion-mnist-plif", overrides=changes).spec
    model = SpikingNetwork(spec.network, spec.neuron, (1, 28, 28), 10)
    for ending in ("pt", "npz"):
        write_model(tmp_path / f"m.{ending}", model, spec, digest=spec.digest, cache="c")
    saved = torch.load(tmp_path / "m.pt", weights_only=True)
    assert spec.dataset.mean is not None
    assert saved["mean"] == list(spec.dataset.mean)
    assert np.load(tmp_path / "m.npz")["std"].tolist() == saved["std"]


class TestShowParams:
    def test_table_and_document(self, plifctl: Plifctl) -> None:
        said = plifctl("show", "fashion-mnist-plif", "--params")
        assert said.code == 0
        assert re.search(r"conv1 +convolution 3×3 +128×14×14 +147,456 +26,214,400 +MACs +8\n", said.out)
        assert "13,198,980 parameters" in said.out
        tree = json.loads(plifctl("show", "fashion-mnist-plif", "--params", "--json", "--set", "T=4").out)
        assert tree["parameters"] == 13_198_980
        once = sum(layer["operations"] for layer in tree["layers"] if layer["kind"] == "MACs" and layer["runs"] == 1)
        macs = tree["operations"]["MACs"]
        assert once == 860_672
        assert macs["per_sample"] == 4 * macs["per_step"] - 3 * once

    def test_what_is_set_counts(self, plifctl: Plifctl) -> None:
        changes = ("network.structure=FC110-SN-APk10s10", "neuron.tau_per=neuron")
        said = plifctl("show", "demo", "--params", "--json", *(word for text in changes for word in ("--set", text)))
        layers = json.loads(said.out)["layers"]
        assert [layer["parameters"] for layer in layers] == [2 * 128 * 128 * 110, 110, 0]

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("gesture", "plifctl show gesture-"),
            ("synthetic-gesture", "plifctl show demo --params"),
            ("cifar10-x", "did"),
        ],
    )
    def test_it_needs_an_experiment(self, plifctl: Plifctl, name: str, hint: str) -> None:
        said = plifctl("show", name, "--params")
        assert said.code == 2
        assert f"hint: {hint}" in said.err

    @pytest.mark.subprocess
    def test_it_needs_no_torch(self) -> None:
        code = (
            "import sys; sys.argv = ['plifctl', 'show', 'demo', '--params']\n"
            "from plifctl.cli import main\n"
            "try: main()\nexcept SystemExit: pass\n"
            "print(sorted({'torch', 'h5py', 'numba', 'tonic'} & set(sys.modules)))"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert said.stdout.splitlines()[-1] == "[]"


class TestErrorsOfANetworkOfOnesOwn:
    @pytest.mark.parametrize(
        ("was", "now", "message"),
        [
            ("FC110", "FC100", "small.yaml:3:3: mine: .* 11 classes need FC110"),
            ("MPk2s2-DP", "MPk64s64-DP", r"small.yaml:3:3: mine: .* MPk64s64 has no output for .* \[32, 16, 16\]"),
            ("FC64", "FC64-BN", "small.yaml:3:3: small: structure: BN follows a fully connected layer"),
            ("MPk2s2", "MPk2", r"small.yaml:3:3: small: structure: position 22: 'MPk2-.* a layer \(c128k3s1"),
        ],
    )
    def test_they_name_the_line(self, own: Plifctl, places: Path, was: str, now: str, message: str) -> None:
        path = places / "mine/networks/small.yaml"
        path.write_text(path.read_text().replace(was, now))
        said = own("check")
        assert said.code == 3
        assert re.search(message, said.out)

    def test_without_its_folder(self, own: Plifctl, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PLIFCTL_REGISTRY")
        for command in ("show", "train"):
            said = own(command, "mine")
            assert said.code == 2
            assert "PLIFCTL_REGISTRY" in said.err
