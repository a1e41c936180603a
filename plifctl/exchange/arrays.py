"""Models as one file of arrays, with the weights and everything needed to use them, without training state.

| ending | read by | weights |
|---|---|---|
| .pt | ``torch.load(…, weights_only=True)`` | ``file["model"]``, a state dict |
| .npz | ``numpy.load``, without pickle | one array each, named as in the state dict |

plifctl reads both. Both also contain:

| key | value |
|---|---|
| spec | the resolved experiment as JSON; its network is that of the weights, folded or not |
| digest, cache | digests of the experiment and of the content of the cache it was trained on, hexadecimal |
| classes | the names of the classes, in the order of the outputs |
| input_shape, T | ``(C, H, W)`` of a frame or image; number of time steps |
| mean, std | normalisation of images in units of 0…1, one value per channel; empty if inputs are used as they are |
| origin | what the weights were converted from, or that a program had them in memory; empty: as plifctl trained them |
| test_samples | ids of the test samples, of a split of the run, or of a label table; else empty; older files lack it |
| plifctl | the version that wrote the file |
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plifctl import files, paths
from plifctl.errors import CheckpointError
from plifctl.exchange.model import TrainedModel
from plifctl.runs.checkpoints import describe_damage
from plifctl.runs.foreign import hint_to_convert
from plifctl.runs.npz import load_arrays
from plifctl.snn.networks import LAYERS


def describe(trained: TrainedModel) -> dict[str, Any]:
    """Returns what a file says about its weights, as plain values by the keys of the table above."""
    spec, network = trained.spec, trained.network
    mean, std = spec.normalisation or ((), ())
    return {
        "spec": spec.model_copy(update={"network": network.network, "dataset": spec.dataset.public}).model_dump_json(),
        "digest": trained.digest,
        "cache": trained.cache or "",
        "classes": list(spec.dataset.classes),
        "input_shape": list(network.input_shape),
        "T": spec.T,
        "mean": list(mean),
        "std": list(std),
        "origin": trained.origin,
        "test_samples": list(trained.listed_test_samples() or ()),
        "plifctl": paths.code_version(),
    }


def weights_of(trained: TrainedModel) -> dict[str, Tensor]:
    """Returns the weights by name, on the CPU and contiguous."""
    return {name: weight.detach().cpu().contiguous() for name, weight in trained.network.state_dict().items()}


def write_torch(path: Path, trained: TrainedModel) -> list[str]:
    """Writes a ``.pt`` file."""
    content = io.BytesIO()  # errors of the libraries' own file writing do not name a full disk
    torch.save({"model": weights_of(trained), **describe(trained)}, content)
    path.write_bytes(content.getbuffer())
    return []


def write_numpy(path: Path, trained: TrainedModel) -> list[str]:
    """Writes a ``.npz`` file."""
    content = io.BytesIO()
    arrays = {name: weight.numpy() for name, weight in weights_of(trained).items()}
    about = {key: np.asarray(value) for key, value in describe(trained).items()}
    np.savez(content, allow_pickle=False, **arrays, **about)
    path.write_bytes(content.getbuffer())
    return []


def read_numpy(path: Path) -> dict[str, Any]:
    """Returns the content of a ``.npz`` file, as :func:`plifctl.runs.load_checkpoint` returns that of a ``.pt`` file.

    Raises:
        CheckpointError: The file is damaged, or not a model of plifctl.
    """
    with files.machine_errors(path):
        content = files.read_regular(path)
    try:
        arrays = load_arrays(content)
        if "spec" not in arrays:
            raise CheckpointError(
                f"{path}: arrays of another program: they lack plifctl's description", hint=hint_to_convert(path)
            )
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays if name.startswith(LAYERS)}
        texts = {key: str(arrays[key]) for key in ("spec", "digest", "cache")}
        texts["origin"] = str(arrays["origin"]) if "origin" in arrays else ""  # older files have none
        listed = arrays["test_samples"].tolist() if "test_samples" in arrays else []
    except CheckpointError:
        raise
    except Exception as error:  # numpy and zipfile raise many types on a damaged file
        raise CheckpointError(f"{path}: damaged, or not a model of plifctl: {describe_damage(error)}") from error
    return {"model": weights, "test_samples": listed, **texts}
