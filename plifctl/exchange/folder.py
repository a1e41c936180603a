"""A network as a folder, as on the Hugging Face hub.

| file | content |
|---|---|
| model.safetensors | the weights, named as in the state dict |
| config.json | the resolved experiment, classes, input, normalisation, digests: what :mod:`arrays` lists; ``files`` |
| README.md | the model card |
| result.json | the result record of the run that trained it, if that run is finished |
| predictions.npz | the prediction of these weights for each test sample, by its id |

``files`` in config.json has size and SHA-256 of weights, result and predictions: safetensors has no checksums, and
nothing else tells the predictions of one network from those of another. The model card may be edited.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from plifctl import files
from plifctl.errors import CheckpointError, RunError
from plifctl.exchange.arrays import describe, weights_of
from plifctl.exchange.lookup import CONFIG, WEIGHTS
from plifctl.exchange.model import TrainedModel, load_trained
from plifctl.exchange.model_card import Evidence, MeasuredCache, model_card
from plifctl.runs.documents import fingerprint, fingerprint_of
from plifctl.runs.external import RECORD
from plifctl.runs.predictions import FILE_NAME as PREDICTIONS
from plifctl.runs.predictions import Predictions
from plifctl.runs.records import read_record, record_text

FORMAT_VERSION = 1
CARD = "README.md"
FILES = (WEIGHTS, CONFIG, CARD, RECORD, PREDICTIONS)
STATED = (WEIGHTS, RECORD, PREDICTIONS)
"""The files whose checksums are in config.json."""

_KEYS = ("format_version", "spec", "digest", "cache", "origin", "files")
"""Keys of config.json that are read."""


def write_folder(path: Path, trained: TrainedModel, evidence: Evidence | None = None) -> list[str]:
    """Writes the files of a network into an empty folder.

    Args:
        path: The folder.
        trained: The network.
        evidence: Its result and predictions, and in which precision the weights are written.
    """
    from safetensors.torch import save

    evidence = evidence or Evidence()
    weights = {name: to_half(weight) if evidence.half else weight for name, weight in weights_of(trained).items()}
    (path / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
    if evidence.record is not None:
        (path / RECORD).write_text(record_text(evidence.record), encoding="utf-8", newline="\n")
    if evidence.predictions is not None:
        evidence.predictions.save(path / PREDICTIONS)
    about, stated = describe(trained), {name: fingerprint(path / name) for name in STATED if (path / name).exists()}
    config = {"library_name": "plifctl", "format_version": FORMAT_VERSION, **about, "spec": json.loads(about["spec"])}
    changed = {"half": evidence.half, "folded": evidence.folded or bool(trained.folded)}
    if (measured := evidence.measured) is not None:
        config |= {"measured_cache": measured.content, "measured_complete": measured.complete}
    files.write_json(path / CONFIG, {**config, **changed, "files": stated})
    (path / CARD).write_text(model_card(trained, evidence), encoding="utf-8")
    return [f"the result and how it was measured: {CARD}", "hf upload NAME FOLDER sends it to the Hugging Face hub"]


def to_half(weight: torch.Tensor) -> torch.Tensor:
    """Returns numbers in half precision; counters, and tensors with numbers too large for it, as they are."""
    half = weight.half() if weight.is_floating_point() else weight
    return half if half.isfinite().all() else weight


def read_evidence(path: Path) -> Evidence:
    """Returns result and predictions of a folder, as far as it has them.

    Raises:
        RunError: A file is damaged, or not of this network.
        CheckpointError: A file that config.json states is missing.
    """
    there, config = {name for name in (RECORD, PREDICTIONS) if (path / name).is_file()}, _read_config(path)
    for name in there:
        _check_stated(path / name, fingerprint(path / name), config)
    for name in (RECORD, PREDICTIONS):
        if name not in there and name in dict(config["files"]):
            raise CheckpointError(
                f"{path}: {name} is missing, whose checksum {CONFIG} has", hint="copy all files of the folder again"
            )
    record = read_record(path / RECORD) if RECORD in there else None
    predictions = Predictions.load(path / PREDICTIONS) if PREDICTIONS in there else None
    half = config["half"] if "half" in config else _is_half(path)
    content, complete = config.get("measured_cache"), config.get("measured_complete")
    measured = MeasuredCache(str(content), bool(complete)) if content is not None else None
    return Evidence(record, predictions, half=bool(half), folded=bool(config.get("folded")), measured=measured)


def _is_half(path: Path) -> bool:
    """Returns whether weights are stored in half precision."""
    from safetensors import safe_open

    with safe_open(path / WEIGHTS, "pt") as stored:
        return any(stored.get_slice(name).get_dtype() == "F16" for name in stored.keys())  # noqa: SIM118 - no mapping


def describe_folder(path: Path) -> dict[str, Any]:
    """Returns title, input, T, number of classes, bytes of the weights, and accuracy of a folder, as plain values.

    Raises:
        RunError: A file is damaged.
    """
    spec, predictions = load_trained(path).spec, read_evidence(path).predictions
    return {
        "title": spec.title,
        "input": "×".join(map(str, spec.dataset.shape)),
        "T": spec.T,
        "classes": len(spec.dataset.classes),
        "kB": round((path / WEIGHTS).stat().st_size / 1e3),
        "accuracy_%": None if predictions is None else f"{100 * predictions.accuracy:.2f}",
        "test_samples": None if predictions is None else len(predictions),
    }


def check_shared(path: Path) -> Evidence:
    """Returns result and predictions of a folder that somebody shares, after checking that they agree.

    Raises:
        RunError: One of them is missing or damaged, or they contradict each other or the description of the weights.
    """
    evidence, digest = read_evidence(path), read_folder(path)["digest"]
    record, predictions = evidence.record, evidence.predictions
    if record is None or predictions is None:
        missing = RECORD if record is None else PREDICTIONS
        raise RunError(f"{path}: {missing} is missing: the folder states no result that can be verified")
    if record.digest != digest:
        raise RunError(
            f"{path}: {RECORD} is of experiment {str(record.digest)[:12]}, {CONFIG} of {digest[:12]}",
            hint="the files of the folder do not belong together",
        )
    if record.accuracy != predictions.accuracy:
        raise RunError(
            f"{path}: {RECORD} states an accuracy of {100 * record.accuracy:.2f} %, "
            f"the predictions have {100 * predictions.accuracy:.2f} %",
            hint="half precision or folding changed the weights since, or a run that kept no predictions was exported "
            "on another machine: export the run without --half and --fold-bn, where it was trained",
        )
    return evidence


def read_folder(path: Path) -> dict[str, Any]:
    """Returns the content of a folder, as :func:`plifctl.runs.load_checkpoint` returns that of a ``.pt`` file.

    Weights in half precision become float32.

    Raises:
        CheckpointError: A file is missing, damaged, or of another program.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    config = _read_config(path)
    with files.machine_errors(path):
        content = files.read_regular(path / WEIGHTS)
    try:
        weights = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path / WEIGHTS}: damaged: {error}") from error
    _check_stated(path / WEIGHTS, fingerprint_of(content), config)
    single = {name: weight.float() if weight.dtype == torch.half else weight for name, weight in weights.items()}
    texts = {key: str(config[key]) for key in ("digest", "cache", "origin")}
    listed = config.get("test_samples", [])
    return {"model": single, "spec": json.dumps(config["spec"]), "test_samples": listed, **texts}


def _read_config(path: Path) -> dict[str, Any]:
    """Returns the description in a folder.

    Raises:
        CheckpointError: It or the weights are missing; or it is damaged, or of another program.
    """
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise CheckpointError(
                f"{path}: {name} is missing", hint="plifctl export RUN FOLDER writes a folder that plifctl reads"
            )
    with files.machine_errors(path):
        text = files.read_regular(path / CONFIG)
    try:
        config = files.parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path / CONFIG}: damaged: {error}") from error
    config = config if isinstance(config, dict) else {}
    if missing := [key for key in _KEYS if key not in config]:
        raise CheckpointError(f"{path / CONFIG}: of another program: it has no {', '.join(missing)}")
    if (version := config["format_version"]) != FORMAT_VERSION:
        raise CheckpointError(f"{path / CONFIG}: format version {version}, expected {FORMAT_VERSION}")
    return config


def _check_stated(path: Path, found: dict[str, Any], config: dict[str, Any]) -> None:
    """Raises CheckpointError unless size and SHA-256 of a file are those that the description states."""
    stated = config["files"]
    if not isinstance(stated, dict) or stated.get(path.name) != found:
        raise CheckpointError(
            f"{path}: not the file of which {CONFIG} has the checksum: damaged, or of another network",
            hint="copy all files of the folder again",
        )
