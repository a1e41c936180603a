"""Models for other programs: one file with the weights and all that is needed to use them, and nothing of the training.

| ending | read by | weights |
|---|---|---|
| .pt | ``torch.load(…, weights_only=True)``, ``plifctl eval`` | ``file["model"]``, a state dict |
| .npz | ``numpy.load``, without pickle | an array each, named as in the state dict |

Beside the weights, both hold:

| key | is |
|---|---|
| spec | the resolved experiment as JSON; its network is the one that the weights are of |
| digest, cache | of the experiment and of the content of the cache that it was trained on, hexadecimal |
| classes | the names of the classes, in the order of the outputs |
| input_shape, T | ``(C, H, W)`` of a frame or image; time steps |
| mean, std | what images in units of 0…1 are normalised by, one a channel; empty where inputs are fed as they are |
| plifctl | the version that wrote it |
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
    """Refuses a file that could not be written, before anything is loaded.

    Raises:
        UsageError: Its ending is not known, or something is there: an export replaces nothing.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(
            f"{path}: the ending decides the format, and {path.suffix or 'none'} is not known",
            hint=did_you_mean(path.suffix, ENDINGS),
        )
    with files.machine_errors(path):
        if not path.exists():
            return
    raise UsageError(
        f"{path}: is there already; an export makes a new file",
        hint=f"export to another file, or remove it: rm {shlex.quote(str(path))}",
    )


def write_model(path: Path, model: SpikingNetwork, spec: ExperimentSpec, *, digest: str, cache: str) -> None:
    """Writes a model, whole or not at all.

    Args:
        path: Ends in one of ``ENDINGS``; must not be there.
        model: The network, on any device.
        spec: The experiment it was trained by; its network may have been folded since.
        digest: Of the experiment as it was trained.
        cache: Digest of the content of the cache that it was trained on.

    Raises:
        UsageError: Another ending, or the file is there.
        MachineError: It cannot be written.
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
    whole = io.BytesIO()  # the libraries' own writing of files has no good word for a full disk
    if path.suffix == ".pt":
        torch.save({"model": weights, **about}, whole)
    else:
        arrays = {name: weight.numpy() for name, weight in weights.items()}
        np.savez(whole, allow_pickle=False, **arrays, **{key: np.asarray(value) for key, value in about.items()})
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(whole.getbuffer())
        check_destination(path)  # what came there meanwhile is not ours to replace
