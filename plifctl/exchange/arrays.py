"""Models for other programs: one file with the weights and everything needed to use them, without training state.

| ending | read by | weights |
|---|---|---|
| .pt | ``torch.load(…, weights_only=True)``, ``plifctl eval`` | ``file["model"]``, a state dict |
| .npz | ``numpy.load``, without pickle | one array each, named as in the state dict |

Both also contain:

| key | value |
|---|---|
| spec | the resolved experiment as JSON; its network is that of the weights, folded or not |
| digest, cache | digests of the experiment and of the content of the cache it was trained on, hexadecimal |
| classes | the names of the classes, in the order of the outputs |
| input_shape, T | ``(C, H, W)`` of a frame or image; number of time steps |
| mean, std | normalisation of images in units of 0…1, one value per channel; empty if inputs are used as they are |
| plifctl | the version that wrote the file |
"""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plifctl import files, paths
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import UsageError, did_you_mean
from plifctl.snn.networks import SpikingNetwork

ENDINGS = (".pt", ".npz")


def check_destination(path: Path) -> None:
    """Checks that a file can be exported, before anything is loaded.

    Raises:
        UsageError: Its ending is unknown, or it exists: an export replaces no file.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(
            f"{path}: unknown ending {path.suffix or '(none)'}; the ending decides the format",
            hint=did_you_mean(path.suffix, ENDINGS),
        )
    with files.machine_errors(path):
        if not path.exists():
            return
    raise UsageError(
        f"{path}: exists already",
        hint=f"export to another file, or remove it: rm {shlex.quote(str(path))}",
    )


def write_model(path: Path, model: SpikingNetwork, spec: ExperimentSpec, *, digest: str, cache: str) -> None:
    """Writes a model atomically.

    Args:
        path: The file; ends in one of :data:`ENDINGS`, must not exist.
        model: The network, on any device.
        spec: The experiment it was trained by; its network may have been folded since.
        digest: Digest of the experiment as it was trained.
        cache: Digest of the content of the cache that it was trained on.

    Raises:
        UsageError: Another ending, or the file exists.
        MachineError: The file cannot be written.
    """
    check_destination(path)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    dataset, normalised = spec.dataset, spec.train.normalise == "per-set"
    about: dict[str, Any] = {
        "spec": spec.model_copy(update={"network": model.network}).model_dump_json(),
        "digest": digest,
        "cache": cache,
        "classes": list(dataset.classes),
        "input_shape": list(model.input_shape),
        "T": spec.T,
        "mean": list(dataset.mean or ()) if normalised else [],
        "std": list(dataset.std or ()) if normalised else [],
        "plifctl": paths.code_version(),
    }
    content = io.BytesIO()  # errors of the libraries' own file writing do not name a full disk
    if path.suffix == ".pt":
        torch.save({"model": weights, **about}, content)
    else:
        arrays = {name: weight.numpy() for name, weight in weights.items()}
        np.savez(content, allow_pickle=False, **arrays, **{key: np.asarray(value) for key, value in about.items()})
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
        check_destination(path)  # another process may have created the file in the meantime
