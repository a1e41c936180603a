"""Spikes of chosen samples, kept in a run for figures and the page."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plifctl import files
from plifctl.errors import RunError

_META = ("sample_ids", "labels", "votes", "classes", "inputs")


@dataclass(frozen=True)
class SpikeRecording:
    """What went into a network and which neurons fired, for N samples.

    Attributes:
        sample_ids: Of the samples, as the cache names them ``[N]``.
        labels: Right classes ``[N]``.
        classes: Names of the classes.
        inputs: As the cache holds them, before normalisation: ``[N, T, C, H, W]``, or ``[N, 1, C, H, W]`` where an
            image is shown at every step.
        votes: Output of the voting layer at each step ``[N, T, classes]``, 0…1.
        spikes: Of each recorded spiking layer by name, before pooling: bool ``[N, T, C, H, W]`` or ``[N, T, F]``.
    """

    sample_ids: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    inputs: np.ndarray
    votes: np.ndarray
    spikes: dict[str, np.ndarray]


def save_spikes(path: Path, recording: SpikeRecording) -> None:
    """Writes a recording as a compressed ``.npz``, a bit for each spike; whole or not at all."""
    arrays: dict[str, np.ndarray] = {
        "sample_ids": np.array(recording.sample_ids),
        "labels": recording.labels,
        "classes": np.array(recording.classes),
        "inputs": recording.inputs,
        "votes": recording.votes,
    }
    for name, spikes in recording.spikes.items():
        arrays[f"shape/{name}"] = np.array(spikes.shape)
        arrays[f"bits/{name}"] = np.packbits(spikes)
    with files.atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_spikes(path: Path) -> SpikeRecording:
    """Reads what :func:`save_spikes` wrote, executing nothing.

    Raises:
        RunError: There is none, or it is damaged.
    """
    again = f"plifctl eval {path.parent.name} --record-spikes 10 writes it anew"
    if not path.is_file():
        raise RunError(f"{path}: no recorded spikes", hint=again)
    try:
        content = io.BytesIO(path.read_bytes())  # numpy leaves a damaged file open
        with np.load(content, allow_pickle=False) as arrays:
            meta = {name: arrays[name] for name in _META}
            names = [name.removeprefix("bits/") for name in arrays.files if name.startswith("bits/")]
            spikes = {name: _unpacked(arrays[f"bits/{name}"], arrays[f"shape/{name}"]) for name in names}
        ids, classes = (tuple(map(str, meta.pop(name))) for name in ("sample_ids", "classes"))
        found = SpikeRecording(ids, meta["labels"], classes, meta["inputs"], meta["votes"], spikes)
        _check(found)
    except Exception as error:  # numpy and zipfile raise nearly anything on a damaged file
        raise RunError(f"{path}: damaged: {error}", hint=again) from error
    return found


def _unpacked(bits: np.ndarray, shape: np.ndarray) -> np.ndarray:
    sizes = tuple(int(size) for size in shape)
    count = math.prod(sizes)
    if min(sizes) < 0 or bits.size != -(-count // 8):
        raise ValueError(f"{bits.size} bytes of spikes, expected those of {sizes}")
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
        raise ValueError("its parts do not fit each other")
