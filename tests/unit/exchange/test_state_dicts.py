"""State dicts of other programs become the experiment's network, or an error that shows both sides."""

import hashlib
import pickle
import shlex
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_experiment
from plifctl.errors import CheckpointError
from plifctl.exchange.formats import write_network
from plifctl.exchange.model import TrainedModel
from plifctl.exchange.state_dicts import Matched, match_weights, read_state_dict
from plifctl.training.trainer import build_model

STRUCTURE = "{c3k3s1-BN-SN-MPk2s2}*2-DP-FC20-SN-DP-FC100-SN-APk10s10"
LIF = ("neuron.kind=lif", "neuron.tau=2.0", "neuron.tau_0=null")


def experiment(*overrides: str, structure: str = STRUCTURE) -> ExperimentSpec:
    return load_experiment("fashion-mnist-plif", [f"network.structure={structure}", *overrides]).spec


SPEC = experiment()
OURS = {name: tensor.contiguous() for name, tensor in build_model(SPEC, torch.device("cpu")).state_dict().items()}


def theirs(weights: dict[str, Tensor] = OURS, prefix: str = "conv_fc.") -> OrderedDict[str, Tensor]:
    """Returns weights by the names of a Sequential with as many more layers as ours, in SpikingJelly's words."""
    numbers: dict[str, int] = {}
    renamed = OrderedDict()
    for name, tensor in weights.items():
        _, layer, last = name.split(".")
        number = numbers.setdefault(layer, 2 * len(numbers))
        renamed[f"{prefix}{number}.{'w' if last == 'a' else last}"] = tensor
    return renamed


def matched(path: Path, spec: ExperimentSpec = SPEC) -> Matched:
    return match_weights(read_state_dict(path), spec)


def saved(folder: Path, content: Any, name: str = "net.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def assert_ours(found: Matched) -> None:
    assert found.spec == SPEC
    assert not found.network.training
    state = found.network.state_dict()
    assert list(state) == list(OURS)
    assert all(torch.equal(state[name], tensor) for name, tensor in OURS.items())


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        (theirs(), ""),
        (theirs(prefix=""), ""),
        (theirs(prefix="module.conv_fc."), ""),
        (theirs(prefix="_orig_mod.module.net."), ""),
        (dict(OURS), ""),
        ({f"module.{name}": tensor for name, tensor in OURS.items()}, ""),
        ({"net": theirs(), "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1.0}]}, "epoch": 3}, "net"),
        ({"epoch": 3, "best": torch.tensor(0.9), "state_dict": theirs(prefix="module.")}, "state_dict"),
    ],
    ids=["sequential", "flat", "DataParallel", "compiled", "ours", "ours wrapped", "checkpoint", "lightning"],
)
def test_match_weights_of_a_torch_file_gives_the_network(tmp_path: Path, content: Any, entry: str) -> None:
    found = matched(saved(tmp_path, content))
    assert_ours(found)
    assert found.notes == ((f"the weights are the entry {entry} of the file",) if entry else ())


def test_match_weights_in_the_order_of_parameters_and_buffers_gives_the_network(tmp_path: Path) -> None:
    weights = theirs()
    buffers = {name: tensor for name, tensor in weights.items() if "running" in name or "tracked" in name}
    parameters = {name: tensor for name, tensor in weights.items() if name not in buffers}
    assert_ours(matched(saved(tmp_path, {**parameters, **buffers})))


def test_match_weights_of_files_without_order_uses_the_numbers_in_names(tmp_path: Path) -> None:
    assert len([name for name in theirs() if ".10." in name]) > 0  # sorted as texts, it would be before 2
    save_file(theirs(), tmp_path / "a.safetensors")
    assert_ours(matched(tmp_path / "a.safetensors"))
    save_file(OURS, tmp_path / "model.safetensors")
    assert_ours(matched(tmp_path))
    np.savez(tmp_path / "a.npz", **{name: tensor.numpy() for name, tensor in theirs().items()})
    assert_ours(matched(tmp_path / "a.npz"))


def test_match_weights_of_names_that_do_not_count_is_refused_only_without_order(tmp_path: Path) -> None:
    names = {"0": "stem.0", "2": "stem.1", "4": "stem.2"}
    weights = {}
    for name, tensor in theirs(prefix="").items():
        number, _, last = name.partition(".")
        weights[f"{names.get(number, f'body.{number}')}.{last}"] = tensor
    assert_ours(matched(saved(tmp_path, weights)))
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"order of its layers is unknown.*body.0, stem.0") as error:
        matched(tmp_path / "a.safetensors")
    assert "torch.save(net.state_dict()" in error.value.hint


@pytest.mark.parametrize("name", ["own.pt", "own.npz", "own"])
def test_match_weights_of_our_own_files_gives_the_network(tmp_path: Path, name: str) -> None:
    network = build_model(SPEC, torch.device("cpu"))
    trained = TrainedModel(tmp_path, SPEC, network, "cache", SPEC.digest, {})
    write_network(tmp_path / name, trained, "folder" if name == "own" else name.removeprefix("own."))  # type: ignore[arg-type]
    assert_ours(matched(tmp_path / name))
    found = read_state_dict(tmp_path / name).spec
    assert found is not None
    assert (found.digest, found.neuron) == (SPEC.digest, SPEC.neuron)


@pytest.mark.parametrize("config", ["", "{", "[]", '{"spec": {"name": "x"}}', '{"architectures": ["Net"]}'])
def test_file_of_another_program_has_no_description(tmp_path: Path, config: str) -> None:
    assert read_state_dict(saved(tmp_path, theirs())).spec is None
    save_file(theirs(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    assert read_state_dict(tmp_path).spec is None


@pytest.mark.parametrize("name", ["net.nir", "net.onnx"])
def test_graph_is_no_state_dict_and_the_hint_says_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"a graph")
    with pytest.raises(CheckpointError, match=r"for other programs, and does not read them") as error:
        read_state_dict(tmp_path / name)
    assert error.value.hint == "save the state dict in the program that made the network"


def test_match_weights_with_biases_adds_them_to_the_structure(tmp_path: Path) -> None:
    weights = theirs()
    weights["conv_fc.0.bias"] = torch.randn(3)
    weights["conv_fc.6.bias"] = torch.zeros(3)
    weights["conv_fc.12.bias"] = torch.randn(20)
    weights["conv_fc.16.bias"] = torch.zeros(100)
    found = matched(saved(tmp_path, weights))
    structure = "c3k3s1b-BN-SN-MPk2s2-c3k3s1-BN-SN-MPk2s2-DP-FC20b-SN-DP-FC100-SN-APk10s10"
    assert found.spec.network.structure == found.network.network.structure == structure
    assert found.spec.digest == experiment(structure=structure).digest != SPEC.digest
    state = found.network.state_dict()
    assert torch.equal(state["layers.conv0.bias"], weights["conv_fc.0.bias"])
    assert torch.equal(state["layers.fc0.bias"], weights["conv_fc.12.bias"])
    assert found.notes == (
        "the biases of conv1, fc1 are all 0 and were left out",
        f"conv0, fc0 have biases, so the structure is now {structure}",
    )


def test_match_weights_of_the_authors_layout_leaves_out_surrogates(tmp_path: Path) -> None:
    """Their networks have three Sequentials, and older SpikingJelly's surrogates have a buffer."""
    names = ["static_conv.0", "static_conv.1", "conv.0", "conv.2", "conv.3", "conv.4", "fc.2", "fc.3", "fc.5", "fc.6"]
    numbers = list(dict.fromkeys(name.rpartition(".")[0] for name in theirs()))
    weights = {}
    for name, tensor in theirs().items():
        layer, _, last = name.rpartition(".")
        new = dict(zip(numbers, names, strict=True))[layer]
        weights[f"{new}.{last}"] = tensor
        if last == "w":
            weights[f"{new}.surrogate_function.alpha"] = torch.tensor([2.0])
    found = matched(saved(tmp_path, weights))
    assert_ours(found)
    assert found.notes == ("the surrogates of the file were left out; training depends on those of the experiment",)


def test_match_weights_for_a_structure_with_biases_keeps_those_of_0(tmp_path: Path) -> None:
    weights = theirs()
    weights["conv_fc.12.bias"] = torch.zeros(20)
    spec = experiment(structure=STRUCTURE.replace("FC20", "FC20b"))
    found = matched(saved(tmp_path, weights), spec)
    assert (found.spec, found.notes) == (spec, ())
    with pytest.raises(CheckpointError, match=r"→ –? *conv_fc.14.w +\[\] +layers.fc0.bias +\[20\]"):
        matched(saved(tmp_path, theirs()), spec)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_match_weights_of_other_types_become_float32_with_a_note(tmp_path: Path, kind: torch.dtype) -> None:
    weights = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in theirs().items()}
    found = matched(saved(tmp_path, weights))
    assert found.notes == (f"weights of type {str(kind).removeprefix('torch.')} became float32",)
    for expected, tensor in zip(weights.values(), found.network.state_dict().values(), strict=True):
        assert torch.equal(expected.to(tensor.dtype), tensor)


def test_match_weights_of_lif_neurons_has_no_time_constants(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in theirs().items() if not name.endswith(".w")}
    path = saved(tmp_path, weights)
    assert matched(path, experiment(*LIF)).network.taus() == [2.0] * 4
    with pytest.raises(CheckpointError) as error:
        matched(path)
    assert "--set neuron.kind=lif" in error.value.hint
    with pytest.raises(CheckpointError) as error:
        matched(saved(tmp_path, theirs()), experiment(*LIF))
    assert "--set neuron.kind=plif" in error.value.hint


def test_match_weights_of_another_network_shows_both_sides(tmp_path: Path) -> None:
    weights = theirs()
    weights["conv_fc.6.weight"] = torch.zeros(5, 3, 3, 3)
    with pytest.raises(CheckpointError) as error:
        matched(saved(tmp_path, weights))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("net.pth: these weights are not those of fashion-mnist-plif; first difference at →:")
    assert lines[1].split() == ["file", "fashion-mnist-plif"]
    assert len(lines) == 2 + len(OURS)
    (marked,) = [line for line in lines[2:] if "→" in line]
    assert marked.split() == [
        "→",
        "conv_fc.6.weight",
        "[5,",
        "3,",
        "3,",
        "3]",
        "layers.conv1.weight",
        "[3,",
        "3,",
        "3,",
        "3]",
    ]
    assert lines[2].split() == [
        "conv_fc.0.weight",
        "[3,",
        "1,",
        "3,",
        "3]",
        "layers.conv0.weight",
        "[3,",
        "1,",
        "3,",
        "3]",
    ]
    assert "plifctl show fashion-mnist-plif --params" in error.value.hint


@pytest.mark.parametrize(
    ("change", "marked"),
    [
        (lambda w: w.popitem(), "– layers.sn3.a []"),
        (lambda w: w.update({"head.weight": torch.zeros(2)}), "head.weight [2] –"),
        (lambda w: w.pop("conv_fc.2.running_var"), "conv_fc.2.num_batches_tracked [] layers.bn0.running_var [3]"),
        (lambda w: w.update({"conv_fc.4.v": torch.zeros(())}), "conv_fc.4.v [] layers.conv1.weight [3, 3, 3, 3]"),
    ],
    ids=["missing", "unused", "missing in between", "unknown"],
)
def test_match_weights_missing_or_unused_tensor_is_marked(tmp_path: Path, change: Any, marked: str) -> None:
    weights = theirs()
    change(weights)
    with pytest.raises(CheckpointError) as error:
        matched(saved(tmp_path, weights))
    (line,) = [line for line in str(error.value).splitlines()[2:] if "→" in line]
    assert line.split() == ["→", *marked.split()]


def test_match_weights_of_many_layers_shows_those_around_the_difference(tmp_path: Path) -> None:
    spec = experiment(structure="{c2k1s1-BN-SN}*20-FC100-SN-APk10s10")
    weights = theirs(build_model(spec, torch.device("cpu")).state_dict())
    weights["conv_fc.60.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as error:
        matched(saved(tmp_path, weights), spec)
    lines = str(error.value).splitlines()
    assert len(lines) == 2 + 60 + 1
    assert "→ conv_fc.60" in lines[32]
    assert lines[-1] == f"    and {len(weights) - 60} more rows"


def test_match_weights_not_finite_names_file_and_tensor(tmp_path: Path) -> None:
    weights = theirs()
    weights["conv_fc.0.weight"] = torch.full((3, 1, 3, 3), torch.nan)
    with pytest.raises(CheckpointError, match=r"net.pth: .*layers.conv0.weight has 27 of 27 values .*NaN"):
        matched(saved(tmp_path, weights))


class TestReadStateDict:
    def test_read_state_dict_has_the_digest_of_the_file(self, tmp_path: Path) -> None:
        save_file({"0.weight": torch.ones(2)}, tmp_path / "a.safetensors")
        state = read_state_dict(tmp_path / "a.safetensors")
        assert state.sha256 == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"model": theirs(), "ema": theirs()}, "several state dicts: model, ema"),
            ({"epoch": 3}, "no state dict: found epoch"),
            (torch.zeros(3), "no state dict: found a Tensor"),
            ({"best": torch.zeros(3)}, "no state dict: found best"),
        ],
    )
    def test_read_state_dict_without_one_is_refused(self, tmp_path: Path, content: Any, message: str) -> None:
        with pytest.raises(CheckpointError, match=f"net.pth: contains {message}"):
            read_state_dict(saved(tmp_path, content))

    @pytest.mark.parametrize(
        "content",
        [nn.Sequential(nn.Linear(2, 2)), {"net": theirs(), "best": np.float64(0.5)}],
        ids=["module", "numpy scalar"],
    )
    def test_read_state_dict_of_a_pickle_hints_a_line_that_makes_one(self, tmp_path: Path, content: Any) -> None:
        path = saved(tmp_path, content, "it's.pt")
        with pytest.raises(CheckpointError, match="loading it would execute code") as error:
            read_state_dict(path)
        self._follow(error.value.hint, tmp_path)
        assert read_state_dict(tmp_path / "state.pt").weights.keys() >= {
            "0.weight" if isinstance(content, nn.Module) else "conv_fc.0.weight"
        }

    def test_read_state_dict_of_an_old_format_or_script_hints_a_line_that_makes_one(self, tmp_path: Path) -> None:
        torch.save(theirs(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        with pytest.raises(CheckpointError, match="torch's old format") as error:
            read_state_dict(tmp_path / "old.pth")
        self._follow(error.value.hint, tmp_path)
        assert_ours(matched(tmp_path / "state.pt"))
        with pytest.warns(DeprecationWarning, match="torch.jit"):
            torch.jit.script(nn.Sequential(nn.Linear(2, 2))).save(tmp_path / "s.pt")
        with pytest.raises(CheckpointError, match="a TorchScript archive") as error:
            read_state_dict(tmp_path / "s.pt")
        with pytest.warns(DeprecationWarning, match="torch.jit"):
            self._follow(error.value.hint, tmp_path)
        assert list(read_state_dict(tmp_path / "state.pt").weights) == ["0.weight", "0.bias"]

    def _follow(self, hint: str, folder: Path) -> None:
        """Runs the Python line of a hint."""
        (line,) = [line for line in hint.splitlines() if line.startswith("python -c ")]
        assert hint.splitlines()[-1] == "plifctl convert state.pt OUT.pt --experiment NAME"
        code = shlex.split(line)[2].replace('"state.pt"', repr(str(folder / "state.pt")))
        exec(code, {})

    @pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1})[:-4], b"PK\x03\x04" + b"\0" * 40])
    def test_read_state_dict_damaged_or_other_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.pt: "):
            read_state_dict(tmp_path / "a.pt")
        path = saved(tmp_path, theirs())
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=r"net\.pth: damaged, or no state dict"):
            read_state_dict(path)
        with pytest.raises(CheckpointError, match=r"none.pt: no such file"):
            read_state_dict(tmp_path / "none.pt")
