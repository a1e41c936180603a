"""What a cache's numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plifctl.config.base import digest_of, flatten
from plifctl.config.dataset import Framing
from plifctl.config.identity import hashed_fields, hashed_words
from plifctl.data.datasets.base import EventDataset, ImageDataset
from plifctl.data.formats.detect import FIRST_VERSION, raised_versions
from plifctl.data.frames import INTEGRATOR_VERSION
from plifctl.data.transforms import transforms_version


@dataclass(frozen=True)
class CacheKey:
    """What a cache's numbers depend on, as JSON values. Not workers, compression, host or time."""

    fields: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256, hexadecimal."""
        return digest_of(dict(self.fields))

    def path(self, cache_dir: Path) -> Path:
        """Returns where the cache of this key belongs."""
        return cache_dir / str(self.fields["dataset"]) / f"{readable(self.fields)}-{self.digest[:12]}.h5"

    @property
    def recipe(self) -> dict[str, Any]:
        """The part that is known without the raw data: what :func:`raw_independent_key` gives."""
        return {name: value for name, value in self.fields.items() if name not in ("raw", "decoders")}


def readable(fields: Mapping[str, Any]) -> str:
    """Returns how the recordings of a key, or of a recipe, are cut, in a word; ``images`` of images."""
    frames, T = fields["frames"], fields["T"]
    if frames is None:
        return "images"
    return f"{frames['duration_us']}us" if T is None else f"T{T}-{frames['slicing']}"


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
    return hashed_words(fields)


def key_of(raw: EventDataset | ImageDataset) -> CacheKey:
    """Returns the key of the cache that ``raw`` gives.

    Decoders that have changed since 0.1.0 are in the key of what they read, so that no other cache is orphaned.
    """
    raised = raised_versions(raw.formats_read())
    decoders = {"decoders": raised} if raised else {}
    return CacheKey({**raw_independent_key(raw.framing), "raw": raw.digest, **decoders})


def differences(wanted: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a key has, and what was wanted, by field; raw data count only where ``wanted`` names them."""
    want, has = flatten(wanted), flatten(fields)
    if "raw" not in want:
        has = {name: value for name, value in has.items() if name != "raw" and not name.startswith("decoders.")}
    return {name: (has.get(name), want.get(name)) for name in {**want, **has} if has.get(name) != want.get(name)}


def said(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Returns :func:`differences` as a sentence."""
    return ", ".join(f"{name} is {_shown(has)}, wanted {_shown(want)}" for name, (has, want) in found.items())


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
