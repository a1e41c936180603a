"""A network as a folder, as on the Hugging Face hub.

| file | content |
|---|---|
| model.safetensors | the weights, named as in the state dict |
| config.json | the resolved experiment, classes, input, normalisation, digests: what :mod:`arrays` lists |
| README.md | the model card |
| result.json | the result record of the run that trained it, if that run is finished |
| predictions.npz | the prediction of these weights for each test sample, by its id |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from plifctl import files
from plifctl.errors import CheckpointError
from plifctl.exchange.arrays import describe, weights_of
from plifctl.exchange.model import CONFIG, WEIGHTS, TrainedModel

FORMAT_VERSION = 1


def write_folder(path: Path, trained: TrainedModel) -> list[str]:
    """Writes the files of a network into an empty folder."""
    from safetensors.torch import save

    weights = weights_of(trained)
    (path / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
    about = describe(trained)
    config = {"library_name": "plifctl", "format_version": FORMAT_VERSION, **about, "spec": json.loads(about["spec"])}
    (path / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return []


def read_folder(path: Path) -> dict[str, Any]:
    """Returns the content of a folder, as :func:`plifctl.runs.load_checkpoint` returns that of a ``.pt`` file.

    Weights in half precision become float32.

    Raises:
        CheckpointError: A file is missing, damaged, or of another program.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise CheckpointError(
                f"{path}: {name} is missing", hint="plifctl export RUN FOLDER writes a folder that plifctl reads"
            )
    with files.machine_errors(path):
        text, content = files.read_regular(path / CONFIG), files.read_regular(path / WEIGHTS)
    try:
        config = files.parse_json(text)
        about = {"spec": json.dumps(config["spec"]), **{key: str(config[key]) for key in ("digest", "cache")}}
        about["origin"] = str(config.get("origin", ""))
        version = config["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / CONFIG}: damaged, or of another program: {error!r}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path / CONFIG}: format version {version}, expected {FORMAT_VERSION}")
    try:
        weights = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path / WEIGHTS}: damaged: {error}") from error
    single = {name: weight.float() if weight.dtype == torch.float16 else weight for name, weight in weights.items()}
    return {"model": single, **about}
