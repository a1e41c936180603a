"""The key of a cache: everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plifctl.config.base import digest_of, flatten
from plifctl.config.dataset import Framing
from plifctl.config.identity import current_word, hashed_fields, hashed_words
from plifctl.data.datasets.base import EventDataset, ImageDataset
from plifctl.data.formats.detect import FIRST_VERSION, raised_versions
from plifctl.data.frames import INTEGRATOR_VERSION
from plifctl.data.transforms import transforms_version


@dataclass(frozen=True)
class CacheKey:
    """Everything that the numbers of a cache depend on, as JSON values; not workers, compression, host or time."""

    fields: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256, hexadecimal."""
        return digest_of(dict(self.fields))

    def path(self, cache_dir: Path) -> Path:
        """Returns the path of the cache with this key."""
        return cache_dir / str(self.fields["dataset"]) / f"{framing_label(self.fields)}-{self.digest[:12]}.h5"

    @property
    def raw_independent(self) -> dict[str, Any]:
        """The part that is known without the raw data, as :func:`raw_independent_key` returns it."""
        return {name: value for name, value in self.fields.items() if name not in ("raw", "decoders")}


FRAMING_LABEL = r"(?:images|T\d+-[a-z-]+|(?:T\d+-)?\d+us(?:-overlap\d+us)?)"
"""Pattern of all labels that :func:`framing_label` returns."""


def framing_label(fields: Mapping[str, Any]) -> str:
    """Returns a short label of a key's framing: ``T20-number``, ``10000us``, ``T20-10000us`` …, or ``images``."""
    frames, T = fields["frames"], fields["T"]
    if frames is None:
        return "images"
    if frames.get("duration_us") is None:
        return f"T{T}-{frames['slicing']}"
    overlap = f"-overlap{frames['overlap_us']}us" if "overlap_us" in frames else ""
    return ("" if T is None else f"T{T}-") + f"{frames['duration_us']}us{overlap}"


def raw_independent_key(framing: Framing) -> dict[str, Any]:
    """Returns the part of a key that is known without the raw data."""
    dataset, frames = framing.dataset, framing.frames
    fields = {
        "dataset": dataset.name,
        "layout": dataset.layout,
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "decoder_version": FIRST_VERSION,  # newer decoders are in "decoders", see key_of
        "integrator_version": INTEGRATOR_VERSION if frames else None,
        "transforms_version": transforms_version(frames.transforms) if frames else None,
        "T": framing.T if framing.needs_T else None,
        "frames": hashed_fields(frames, "frames") if frames else None,
    }
    return hashed_words(fields | dataset.hashed_reading())  # newer than 0.1.0: only what is set


def key_of(raw: EventDataset | ImageDataset) -> CacheKey:
    """Returns the key of the cache that is built from ``raw``.

    Decoders that have changed since 0.1.0 are in the keys of what they read only, so that all other caches stay valid.
    """
    raised = raised_versions(raw.formats_read())
    decoders = {"decoders": raised} if raised else {}
    return CacheKey({**raw_independent_key(raw.framing), "raw": raw.digest, **decoders})


def differences(wanted: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ, found and wanted values; raw data are compared only if ``wanted`` names them."""
    want, has = flatten(wanted), flatten(fields)
    if "raw" not in want:
        has = {name: value for name, value in has.items() if name != "raw" and not name.startswith("decoders.")}
    return {name: (has.get(name), want.get(name)) for name in {**want, **has} if has.get(name) != want.get(name)}


def describe_differences(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Returns what :func:`differences` found, as text for a message."""
    return ", ".join(f"{name} is {_text(has)}, expected {_text(want)}" for name, (has, want) in found.items())


def _text(value: Any) -> str:
    return "not set" if value is None else str(current_word(value))
