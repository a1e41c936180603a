"""A network as a folder: weights, description, model card, result and predictions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from plifctl.config.lookup import load_registry
from plifctl.errors import CheckpointError, RunError, UsageError
from plifctl.exchange.folder import check_shared, read_evidence
from plifctl.exchange.formats import write_network
from plifctl.exchange.model import TrainedModel, load_trained
from plifctl.exchange.model_card import Evidence, MeasuredCache, model_card
from plifctl.runs.predictions import Predictions
from plifctl.runs.records import ResultRecord, RunData
from plifctl.training.trainer import build_model

CHANGES = ["network.structure=c4k3s1-BN-SN-MPk2s2-FC100-SN-APk10s10"]


@pytest.fixture
def trained(tmp_path: Path) -> TrainedModel:
    spec = load_registry().experiment("fashion-mnist-plif", overrides=CHANGES).spec
    network = build_model(spec, torch.device("cpu")).eval()
    return TrainedModel(tmp_path / "best.pt", spec, network, "c" * 64, spec.digest, {})


@pytest.fixture
def evidence(trained: TrainedModel) -> Evidence:
    labels = np.arange(20, dtype=np.uint8) % 10
    predicted = labels.copy()
    predicted[3] = 0
    predictions = Predictions(tuple(f"test/{i}" for i in range(20)), labels, predicted, 2)
    record = ResultRecord(
        schema_version=1,
        run="20260101T000000Z-fashion-mnist-plif-s1",
        experiment=trained.spec.name,
        recipe="paper",
        protocol="A",
        dataset=trained.spec.dataset.name,
        T=trained.spec.T,
        seed=1,
        epochs=3,
        digest=trained.digest,
        overrides=tuple(CHANGES),
        data=RunData(verified=True, complete=False, train=40, validation=0, test=20, cache="c" * 64),
        accuracy=0.95,
        best_epoch=2,
        validation_accuracy=None,
        test_accuracy=(0.5, 0.95, 0.9),
        tau=((2.0, 2.0),) * 3,
        environment={"plifctl": "0.2.0", "torch": "2.13.0", "python": "3.11.7"},
        finished="2026-01-01T00:00:00Z",
    )
    return Evidence(record, predictions, changes=tuple(CHANGES))


def metadata(folder: Path) -> dict[str, object]:
    """The YAML at the head of a model card."""
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    tree: dict[str, object] = yaml.safe_load(head)
    return tree


def test_folder_round_trip_gives_the_same_weights_and_spec(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path
) -> None:
    write_network(tmp_path / "net", trained, "folder", evidence)
    again = load_trained(tmp_path / "net")
    assert again.spec == trained.spec
    assert (again.digest, again.cache, again.run) == (trained.digest, trained.cache, None)
    for name, weight in trained.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], weight)
    found = read_evidence(tmp_path / "net")
    assert found.record == evidence.record
    assert found.predictions is not None
    assert evidence.predictions is not None
    assert found.predictions.compare(evidence.predictions).different == ()
    check_shared(tmp_path / "net")


def test_folder_in_half_precision_has_half_the_bytes_and_float32_when_loaded(
    trained: TrainedModel, tmp_path: Path
) -> None:
    write_network(tmp_path / "full", trained, "folder")
    write_network(tmp_path / "half", trained, "folder", Evidence(half=True))
    stored = load_file(tmp_path / "half/model.safetensors")
    assert stored["layers.conv0.weight"].dtype == torch.float16
    assert stored["layers.bn0.num_batches_tracked"].dtype == torch.int64
    weight = load_trained(tmp_path / "half").network.state_dict()["layers.conv0.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, trained.network.state_dict()["layers.conv0.weight"].half().float())
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.52 * sizes[1]


def test_numbers_too_large_for_half_precision_stay_in_float32(trained: TrainedModel, tmp_path: Path) -> None:
    norm = trained.network.layers["bn0"]
    norm.running_var[0] = 1e5  # type: ignore[index]
    write_network(tmp_path / "half", trained, "folder", Evidence(half=True))
    stored = load_file(tmp_path / "half/model.safetensors")
    assert stored["layers.bn0.running_var"].dtype == torch.float32
    assert stored["layers.bn0.running_mean"].dtype == torch.float16
    weights = load_trained(tmp_path / "half").network.state_dict()
    assert torch.equal(weights["layers.bn0.running_var"], norm.running_var)  # type: ignore[arg-type]


def test_model_card_states_result_protocol_and_caveats(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path
) -> None:
    write_network(tmp_path / "net", trained, "folder", evidence)
    card = (tmp_path / "net/README.md").read_text(encoding="utf-8")
    for expected in (
        "**95.00 %** (19 of 20 samples)",
        "(protocol A)",
        "3; the network is that of epoch 2",
        "40 for training, 0 for validation, 20 for testing",
        "Trained and tested on a part of the data set",
        "Not the experiment of its name: `network.structure=",
        "chosen by test accuracy",
        f"`{trained.network.network.structure}`",
        trained.digest[:12],
        "@inproceedings{fang2021incorporating,",
    ):
        assert expected in card
    assert "not verified by" not in card
    assert "energy" not in card
    tree = metadata(tmp_path / "net")
    assert tree["library_name"] == "plifctl"
    assert tree["pipeline_tag"] == "image-classification"
    (entry,) = tree["model-index"]  # type: ignore[attr-defined]
    assert entry["results"][0]["metrics"][0]["value"] == 0.95


def test_model_card_keeps_any_text_in_its_cell(trained: TrainedModel) -> None:
    card = model_card(replace(trained, origin="converted from a\\b|c\x1b[31m\nd"), Evidence())
    assert r"| weights | converted from a\\b\|c�[31m�d |" in card.splitlines()


def test_model_card_says_when_protocol_b_tested(trained: TrainedModel, evidence: Evidence, tmp_path: Path) -> None:
    assert evidence.record is not None
    validated = evidence.record.model_copy(update={"protocol": "B"})
    spec = trained.spec.model_copy(
        update={"validation": trained.spec.validation.model_copy(update={"test": "every-epoch"})}
    )
    for name, network, expected in (
        ("once", trained, "tested once"),
        ("all", replace(trained, spec=spec), "tested as"),
    ):
        write_network(tmp_path / name, network, "folder", replace(evidence, record=validated))
        assert f"chosen by validation samples, and {expected}" in (tmp_path / name / "README.md").read_text()


@pytest.mark.parametrize(
    ("run", "text"), [("run", "The training had not ended"), (None, "which does not have the result of its run")]
)
def test_model_card_without_a_result_says_what_its_accuracy_is(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path, run: str | None, text: str
) -> None:
    trained = replace(trained, run=tmp_path / run if run else None)
    write_network(tmp_path / "net", trained, "folder", replace(evidence, record=None))
    card = (tmp_path / "net/README.md").read_text(encoding="utf-8")
    assert "**95.00 %**" in card
    assert text in card


CONVERTED = "converted from net.pth, sha256 abc"
IN_MEMORY = "a model in memory that was loaded from 2026-demo"


@pytest.mark.parametrize(
    ("origin", "words", "absent"),
    [
        (CONVERTED, ["Weights from another file, converted by plifctl", "On which samples the weights were"], "memory"),
        (IN_MEMORY, ["Trained with plifctl", "A program had the weights in memory and may have"], "converted"),
        (f"{IN_MEMORY}, {CONVERTED}", ["converted by plifctl", "A program had the weights in memory"], "Trained with"),
    ],
    ids=["converted", "memory", "both"],
)
def test_model_card_says_where_the_weights_come_from_and_what_is_not_known(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path, origin: str, words: list[str], absent: str
) -> None:
    write_network(tmp_path / "net", replace(trained, origin=origin), "folder", replace(evidence, record=None))
    card = (tmp_path / "net/README.md").read_text(encoding="utf-8")
    expected = [*words, "is not stated. Not comparable with results.", f"| weights | {origin} |"]
    assert [word for word in expected if word not in card] == []
    assert absent not in card
    assert "The training had not ended" not in card
    assert "train." not in card
    write_network(tmp_path / "untested", replace(trained, origin=origin), "folder")
    assert "## Caveats" not in (tmp_path / "untested/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("complete", [True, False])
def test_model_card_names_the_cache_that_was_measured(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path, complete: bool
) -> None:
    evidence = replace(evidence, record=None, measured=MeasuredCache("d" * 64, complete))
    write_network(tmp_path / "net", trained, "folder", evidence)
    assert read_evidence(tmp_path / "net").measured == evidence.measured
    card = (tmp_path / "net/README.md").read_text(encoding="utf-8")
    assert "| cache of the training | content `cccccccccccc` |" in card
    state = "which is complete" if complete else "which lacks samples of the data set"
    assert f"| measured on | cache of content `dddddddddddd`, {state} |" in card
    assert ("Tested on a part of the data set" in card) == (not complete)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["neuron.v_reset=-0.5"], "| threshold | 1 |\n| reset | hard to -0.5 |"),
        (
            ["neuron.learn_threshold=true", "neuron.reset=soft"],
            "| threshold | learnt, of the layers: 0.370, 1.250 |\n"
            "| reset | soft (subtracts the threshold); the potential at rest is 0 |",
        ),
        (["neuron.tau_per=channel"], "τ of the layers in time steps (means, one τ per channel): 2.000, 2.000 |"),
    ],
    ids=["hard", "learnt-soft", "channels"],
)
def test_model_card_describes_the_neurons_as_they_are_now(tmp_path: Path, overrides: list[str], expected: str) -> None:
    spec = load_registry().experiment("fashion-mnist-plif", overrides=[*CHANGES, *overrides]).spec
    network = build_model(spec, torch.device("cpu")).eval()
    for layer, threshold in zip(network.spiking_layers().values(), (0.37, 1.25), strict=True):
        if layer.v_threshold is not None:
            layer.v_threshold.data.fill_(threshold)
    write_network(tmp_path / "net", TrainedModel(tmp_path, spec, network, None, spec.digest, {}), "folder")
    assert expected in (tmp_path / "net/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["predictions.npz", "result.json"])
def test_file_of_the_evidence_that_is_missing_is_an_error(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path, name: str
) -> None:
    write_network(tmp_path / "net", trained, "folder", evidence)
    (tmp_path / "net" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing, whose checksum config\.json has"):
        read_evidence(tmp_path / "net")


@pytest.mark.parametrize(("half", "folded"), [(True, False), (False, True), (True, True), (False, False)])
def test_changes_of_the_weights_are_known_of_a_folder(
    trained: TrainedModel, tmp_path: Path, half: bool, folded: bool
) -> None:
    network = trained.fold() if folded else trained
    write_network(tmp_path / "net", network, "folder", Evidence(half=half))
    found = read_evidence(tmp_path / "net")
    assert (found.half, found.folded) == (half, folded)
    config = json.loads((tmp_path / "net/config.json").read_text(encoding="utf-8"))
    del config["half"]  # as folders of earlier versions
    (tmp_path / "net/config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_evidence(tmp_path / "net").half == half
    write_network(tmp_path / "again", load_trained(tmp_path / "net"), "folder", found)
    assert read_evidence(tmp_path / "again").half == half
    assert ("Batch norms were folded" in (tmp_path / "again/README.md").read_text(encoding="utf-8")) == folded


def test_model_card_without_a_result_says_so(trained: TrainedModel, tmp_path: Path) -> None:
    write_network(tmp_path / "net", trained, "folder")
    assert "No result is stated" in (tmp_path / "net/README.md").read_text(encoding="utf-8")
    assert "model-index" not in metadata(tmp_path / "net")
    with pytest.raises(RunError, match=r"result\.json is missing"):
        check_shared(tmp_path / "net")


def test_model_card_of_half_precision_states_the_accuracy_of_its_own_weights(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path
) -> None:
    assert evidence.predictions is not None
    worse = replace(evidence.predictions, predicted=np.zeros(20, np.uint8))
    write_network(tmp_path / "net", trained, "folder", replace(evidence, predictions=worse, half=True))
    card = (tmp_path / "net/README.md").read_text(encoding="utf-8")
    assert "**10.00 %** (2 of 20 samples)" in card
    assert "in float32, they reach 95.00 %" in card
    with pytest.raises(RunError, match=r"states an accuracy of 95\.00 %, the predictions have 10\.00 %"):
        check_shared(tmp_path / "net")
    write_network(tmp_path / "unknown", trained, "folder", replace(evidence, predictions=None, half=True))
    card = (tmp_path / "unknown/README.md").read_text(encoding="utf-8")
    assert "**95.00 %**" not in card  # that of other weights


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_folder_names_the_file(trained: TrainedModel, tmp_path: Path, name: str) -> None:
    write_network(tmp_path / "net", trained, "folder")
    file = tmp_path / "net" / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name):
        load_trained(tmp_path / "net")
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_trained(tmp_path / "net")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2, expected 1"),
        ({"spec": {"name": "x"}}, "its experiment is invalid: title: Field required"),
        ({"digest": None, "spec": []}, "its experiment is invalid"),
        ({"files": []}, "not the file of which"),
    ],
)
def test_config_of_another_kind_is_refused(
    trained: TrainedModel, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_network(tmp_path / "net", trained, "folder")
    config = tmp_path / "net/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_trained(tmp_path / "net")


@pytest.mark.parametrize("name", ["model.safetensors", "result.json", "predictions.npz"])
def test_file_of_another_network_is_refused(
    trained: TrainedModel, evidence: Evidence, tmp_path: Path, name: str
) -> None:
    write_network(tmp_path / "net", trained, "folder", evidence)
    with torch.no_grad():
        next(trained.network.parameters())[0] += 1
    assert evidence.record is not None
    assert evidence.predictions is not None
    predicted = evidence.predictions.labels.copy()
    predicted[5] = 0  # one is wrong, as before
    other = Evidence(evidence.record.model_copy(update={"seed": 2}), replace(evidence.predictions, predicted=predicted))
    write_network(tmp_path / "other", trained, "folder", other)
    check_shared(tmp_path / "other")
    (tmp_path / "net" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(CheckpointError, match=f"{name}: not the file of which config.json has the checksum"):
        check_shared(tmp_path / "net")


def test_flipped_bit_of_a_weight_is_found(trained: TrainedModel, tmp_path: Path) -> None:
    write_network(tmp_path / "net", trained, "folder")
    file = tmp_path / "net/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, or of another network"):
        load_trained(tmp_path / "net")


@pytest.mark.parametrize("name", ["net.nir", "net.onnx"])
def test_file_for_other_programs_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"a graph")
    with pytest.raises(CheckpointError, match=r"for other programs, and does not read them"):
        load_trained(tmp_path / name)


def test_folder_of_another_experiment_is_not_shared(trained: TrainedModel, evidence: Evidence, tmp_path: Path) -> None:
    assert evidence.record is not None
    other = evidence.record.model_copy(update={"digest": "d" * 64})
    write_network(tmp_path / "net", trained, "folder", replace(evidence, record=other))
    with pytest.raises(RunError, match="is of experiment dddd"):
        check_shared(tmp_path / "net")


def test_write_network_replaces_nothing_and_leaves_nothing_behind(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        write_network(tmp_path / "full", trained, "folder")
    (tmp_path / "empty").mkdir()
    write_network(tmp_path / "empty", trained, "folder")
    assert (tmp_path / "empty/config.json").is_file()

    def fail(*_: object) -> str:
        raise RuntimeError

    monkeypatch.setattr("plifctl.exchange.folder.model_card", fail)
    with pytest.raises(RuntimeError):
        write_network(tmp_path / "net", trained, "folder")
    assert not (tmp_path / "net").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["net", "empty"])
def test_write_network_leaves_the_folder_of_another_process(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    theirs = tmp_path / name / "config.json"

    def write_meanwhile(*_: object) -> str:
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("theirs", encoding="utf-8")
        return ""

    monkeypatch.setattr("plifctl.exchange.folder.model_card", write_meanwhile)
    with pytest.raises(UsageError, match="exists already"):
        write_network(tmp_path / name, trained, "folder")
    assert theirs.read_text(encoding="utf-8") == "theirs"
    assert list(theirs.parent.iterdir()) == [theirs]
