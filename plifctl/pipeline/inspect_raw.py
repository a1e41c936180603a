"""Inspects recordings before they are prepared; implements ``plifctl data inspect``.

A file becomes its facts and what the user should know about it, a folder or an archive a summary of all files, and a
few recordings, on request, a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plifctl import files
from plifctl.config.dataset import ReadingSpec
from plifctl.config.overrides import parse_override
from plifctl.config.problems import validate_tree
from plifctl.config.yaml_tree import Branch, Origin, merge_layers
from plifctl.data.events import Events
from plifctl.data.formats.headers import Size
from plifctl.data.framer import orient_events
from plifctl.data.frames import drop_outside, integrate_frames
from plifctl.data.inspection.facts import RecordingFacts
from plifctl.data.inspection.recording import inspect_recording
from plifctl.errors import RawDataError, UsageError
from plifctl.pipeline.progress import Progress, silent

SLICES = 8
"""Number of time slices in the picture of a recording."""


@dataclass(frozen=True)
class InspectOptions:
    """The options of ``plifctl data inspect``.

    Attributes:
        path: A recording.
        overrides: What recordings do not say about themselves, texts ``key=value`` with the keys of a data set's YAML.
        out: Picture to write, .png; None: none.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None


@dataclass(frozen=True)
class InspectedRecording:
    """Facts of a recording.

    Attributes:
        path: The file.
        facts: Its facts.
        out: The picture that was written; None if none was wanted.
    """

    path: Path
    facts: RecordingFacts
    out: Path | None


def inspect_file(options: InspectOptions, progress: Progress = silent) -> InspectedRecording:
    """Decodes a recording and returns its facts; draws it, if wanted.

    Raises:
        UsageError: An override is wrong, or the picture is no .png.
        RawDataError: No such file, or it cannot be read.
        MachineError: The picture cannot be written.
    """
    check_picture(options.out)
    reading, path = read_overrides(options.overrides), options.path
    if not path.is_file():
        raise RawDataError(f"{path}: no such file or folder", hint="name a recording, a folder, or an archive")
    with progress(f"decoding {path.name}", "files") as task:
        task.update(0, 1)
        with files.machine_errors(path):
            data = path.read_bytes()
        facts, events = inspect_recording(path.name, data, reading)
    if options.out is None or not len(events):
        return InspectedRecording(path, facts, None)
    assert facts.sensor is not None
    draw_recordings(path.name, [(facts, events)], facts.sensor, reading, options.out)
    return InspectedRecording(path, facts, options.out)


def read_overrides(overrides: Sequence[str]) -> ReadingSpec:
    """Returns what the user states about recordings.

    Raises:
        UsageError: Unknown key, or an invalid value.
    """
    changes = [parse_override(text, ReadingSpec) for text in overrides]
    return validate_tree(ReadingSpec, merge_layers(Branch(Origin("--set")), *changes), "recordings")


def check_picture(out: Path | None) -> None:
    """Raises UsageError unless a picture can be written to ``out``."""
    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the picture is a .png", hint=f"--out {out.stem}.png")
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out}: this is a folder", hint=f"--out {out / 'NAME.png'}")


def draw_recordings(
    title: str,
    recordings: Sequence[tuple[RecordingFacts, Events]],
    sensor: Size,
    reading: ReadingSpec,
    out: Path,
) -> None:
    """Writes a picture with the time slices of each recording, row 0 at the top.

    Args:
        title: Title of the picture.
        recordings: Facts and events of each.
        sensor: Width and height to draw.
        reading: Orientation, and what else the user states.
        out: Picture to write.

    Raises:
        UsageError: The picture would be too large.
        MachineError: It cannot be written.
    """
    from plifctl.report.pictures import Sample, draw_events, save_picture  # imports matplotlib

    width, height = (sensor[1], sensor[0]) if reading.transpose else sensor
    samples = []
    for facts, events in recordings:
        oriented = orient_events(events, reading, (2, height, width))
        inside = drop_outside(oriented, 2, height, width)
        frames = integrate_frames(inside, SLICES, "time", height, width, dtype=np.uint32)
        duration = f"{len(events):,} events in {(facts.duration_us or 0) / 1e6:,.3g} s"
        samples.append(Sample(facts.name, facts.format, duration, frames))
    details = f"{width} × {height} pixels, row 0 at the top; {SLICES} slices of equal time, from left to right"
    save_picture(draw_events(title, details, samples), out)
