"""Recorded spikes of chosen samples, stored in a run for figures and the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plifctl import files
from plifctl.errors import RunError
from plifctl.runs.folders import run_argument
from plifctl.runs.npz import load_arrays, save_arrays

_META = ("sample_ids", "labels", "votes", "classes", "inputs")


@dataclass(frozen=True)
class SpikeRecording:
    """Input of a network and the spikes of its neurons, for N samples.

    Attributes:
        sample_ids: Ids of the samples in the cache ``[N]``.
        labels: True classes ``[N]``.
        classes: Names of the classes.
        inputs: Input as in the cache, before normalisation: ``[N, T, C, H, W]``, or ``[N, 1, C, H, W]`` where an
            image is shown at every step.
        votes: Output of the voting layer at each step ``[N, T, classes]``, 0…1.
        spikes: Spikes of each recorded layer by name, before pooling: bool ``[N, T, C, H, W]`` or ``[N, T, F]``.
        saved_after: After how much of the run's training the weights were saved (``epoch 3``); empty: not stated.
    """

    sample_ids: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    inputs: np.ndarray
    votes: np.ndarray
    spikes: dict[str, np.ndarray]
    saved_after: str = ""


def grey_inputs(inputs: np.ndarray) -> np.ndarray:
    """Returns inputs ``[…, C, H, W]`` in greyscale ``[…, H, W]``: the sum of both polarities of events, else the mean.

    Two channels are events: images have one or three.
    """
    grey: np.ndarray = inputs.sum(-3) if inputs.shape[-3] == 2 else inputs.mean(-3)
    return grey


def save_spikes(path: Path, recording: SpikeRecording) -> None:
    """Writes a recording atomically as a compressed ``.npz``, one bit for each spike."""
    arrays: dict[str, np.ndarray] = {
        "sample_ids": np.array(recording.sample_ids),
        "labels": recording.labels,
        "classes": np.array(recording.classes),
        "inputs": recording.inputs,
        "votes": recording.votes,
        "saved_after": np.array(recording.saved_after),
    }
    for name, spikes in recording.spikes.items():
        arrays[f"shape/{name}"] = np.array(spikes.shape)
        arrays[f"bits/{name}"] = np.packbits(spikes)
    save_arrays(path, arrays)


def load_spikes(path: Path) -> SpikeRecording:
    """Returns a recording written by :func:`save_spikes`; executes no code from it.

    Raises:
        RunError: The file is missing or damaged.
    """
    again = f"plifctl eval {run_argument(path.parent)} --record-spikes 10 writes it again"
    if not path.is_file():
        raise RunError(f"{path}: no recorded spikes", hint=again)
    try:
        arrays = load_arrays(files.read_regular(path))
        meta = {name: arrays[name] for name in _META}
        names = [name.removeprefix("bits/") for name in arrays if name.startswith("bits/")]
        spikes = {name: _unpack_spikes(arrays[f"bits/{name}"], arrays[f"shape/{name}"]) for name in names}
        ids, classes = (tuple(map(str, meta.pop(name))) for name in ("sample_ids", "classes"))
        after = str(arrays.get("saved_after", ""))  # 0.1.0 did not write it
        found = SpikeRecording(ids, meta["labels"], classes, meta["inputs"], meta["votes"], spikes, after)
        _check(found)
    except Exception as error:  # numpy and zipfile raise many types on a damaged file
        raise RunError(f"{path}: damaged: {error}", hint=again) from error
    return found


def _unpack_spikes(bits: np.ndarray, shape: np.ndarray) -> np.ndarray:
    sizes = tuple(int(size) for size in shape)
    count = math.prod(sizes)
    if min(sizes) < 0 or bits.size != -(-count // 8):
        raise ValueError(f"{bits.size} bytes of spikes, expected the shape {sizes}")
    spikes: np.ndarray = np.unpackbits(bits, count=count).reshape(sizes).astype(bool)
    return spikes


def _check(found: SpikeRecording) -> None:
    samples, steps, classes = found.votes.shape
    fits = (
        found.labels.shape == (samples,) == (len(found.sample_ids),)
        and classes == len(found.classes)
        and bool(((found.labels >= 0) & (found.labels < classes)).all())
        and found.inputs.ndim == 5
        and found.inputs.shape[:2] in ((samples, steps), (samples, 1))
        and all(spikes.shape[:2] == (samples, steps) and spikes.ndim in (3, 5) for spikes in found.spikes.values())
    )
    if not fits:
        raise ValueError("the shapes of its arrays do not match")
