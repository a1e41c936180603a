"""Inspects recordings before they are prepared; implements ``plifctl data inspect``.

A file becomes its facts and what the user should know about it, a folder or an archive a summary of all files, and a
few recordings, on request, a picture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plifctl import files
from plifctl.config.dataset import ReadingSpec
from plifctl.config.lookup import load_registry
from plifctl.config.overrides import parse_override
from plifctl.config.problems import validate_tree
from plifctl.config.yaml_tree import Branch, Origin, merge_layers
from plifctl.data.datasets import find_published
from plifctl.data.events import Events
from plifctl.data.formats.headers import Size
from plifctl.data.framer import orient_events
from plifctl.data.frames import drop_outside, integrate_frames
from plifctl.data.inspection.collection import DECODED_BYTES, choose_files, decode_files, summarise_files
from plifctl.data.inspection.facts import RecordingFacts
from plifctl.data.inspection.folder import FolderFacts
from plifctl.data.inspection.label_table import MAX_TABLE_BYTES, find_label_table
from plifctl.data.inspection.listing import File, list_files, load_file
from plifctl.data.inspection.recording import inspect_recording
from plifctl.data.source import DEFAULT_WORKERS, RawSource
from plifctl.data.storage import decode_text, is_archive, is_tar
from plifctl.errors import DamagedFileError, RawDataError
from plifctl.pipeline.commands import prepare_command
from plifctl.pipeline.prepare import usual_time_steps
from plifctl.pipeline.progress import Progress, silent

_log = logging.getLogger(__name__)

MAX_DRAWN = 20
"""Most recordings in a picture."""

MAX_SIDE_DRAWN = 640
"""Pixels of a side in a picture; larger sensors are drawn smaller by a whole factor."""

SLICES = 8
"""Number of time slices in the picture of a recording."""


@dataclass(frozen=True)
class InspectOptions:
    """The options of ``plifctl data inspect``.

    Attributes:
        path: A recording, a folder, or an archive of recordings.
        overrides: What recordings do not say about themselves, texts ``key=value`` with the keys of a data set's YAML.
        full: Decode every recording of a folder, not only some.
        out: Picture to write, .png; None: none.
        workers: Number of threads.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    full: bool = False
    out: Path | None = None
    workers: int = DEFAULT_WORKERS


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

    @property
    def is_readable(self) -> bool:
        """Whether it is a recording that can be read."""
        return self.facts.kind == "recording"


@dataclass(frozen=True)
class InspectedFolder:
    """Facts of a folder or an archive.

    Attributes:
        path: The folder or archive.
        facts: Its facts.
        prepare: The command that prepares it, if it contains a published data set; else empty.
        out: The picture that was written; None if none was wanted.
    """

    path: Path
    facts: FolderFacts
    prepare: str
    out: Path | None

    @property
    def is_readable(self) -> bool:
        """Whether it contains a recording that can be read, or a published data set."""
        return bool(self.facts.recordings or self.prepare)


def inspect_data(options: InspectOptions, progress: Progress = silent) -> InspectedRecording | InspectedFolder:
    """Inspects a recording, a folder or an archive, and draws recordings, if wanted.

    Raises:
        UsageError: An override is wrong, or the picture is no .png.
        RawDataError: No such file or folder, or the archive cannot be read.
        MachineError: A file may not be read, or the picture cannot be written.
    """
    files.check_picture(options.out, ".png", what="the picture is a .png")
    path, reading = options.path, read_overrides(options.overrides)
    if not path.is_file() and not path.is_dir():
        raise RawDataError(f"{path}: no such file or folder", hint="name a recording, a folder, or an archive")
    if path.is_dir() or is_archive(path):
        return _inspect_folder(options, reading, progress)
    return _inspect_file(options, reading, progress)


def _inspect_file(options: InspectOptions, reading: ReadingSpec, progress: Progress) -> InspectedRecording:
    path = options.path
    with progress(f"decoding {path.name}", "files") as task:
        task.update(0, 1)
        with files.machine_errors(path):
            data = load_file(str(path))
        facts, events = inspect_recording(path.name, data, reading)
    if options.out is None or not len(events):
        return InspectedRecording(path, facts, None)
    assert facts.sensor is not None
    _draw(path.name, [(facts, events)], facts.sensor, reading, options.out)
    return InspectedRecording(path, facts, options.out)


def read_overrides(overrides: Sequence[str]) -> ReadingSpec:
    """Returns what the user states about recordings.

    Raises:
        UsageError: Unknown key, or an invalid value.
    """
    changes = [parse_override(text, ReadingSpec) for text in overrides]
    return validate_tree(ReadingSpec, merge_layers(Branch(Origin("--set")), *changes), "recordings")


def _inspect_folder(options: InspectOptions, reading: ReadingSpec, progress: Progress) -> InspectedFolder:
    path = options.path
    facts = read_folder(options, reading, progress)
    prepare = prepare_published(path)
    out = _draw_folder(options, facts, reading) if options.out is not None else None
    return InspectedFolder(path, facts, prepare, out)


def prepare_published(path: Path) -> str:
    """Returns the command that prepares the published data set in a folder; empty if there is none."""
    published = find_published(path) if path.is_dir() else None
    if published is None:
        return ""
    registry = load_registry()
    framing = registry.dataset(published).with_T(usual_time_steps(published, registry))
    return prepare_command(framing, source=RawSource(path))


def read_folder(options: InspectOptions, reading: ReadingSpec, progress: Progress) -> FolderFacts:
    """Returns the facts of a folder or an archive.

    Raises:
        RawDataError: The archive cannot be read.
        MachineError: The folder may not be read.
    """
    with files.machine_errors(options.path):
        found, lists = _inspect_files(options, reading, progress)
    recordings = [one.name for one in found.values() if one.kind != "other"]
    lists = [file for file in lists if found[file.name].kind in ("other", "unreadable")]
    tables = []
    for file in lists:
        try:
            tables.append(find_label_table(file.name, decode_text(file.load()), recordings))
        except (DamagedFileError, OSError) as error:
            name = file.name.lower()
            if name.endswith((".csv", ".tsv")) or "label" in name:  # another text is not meant to be one
                reason = f"{file.name}: {error.strerror}" if isinstance(error, OSError) else error
                _log.warning("%s; its labels are not used", reason)
    return FolderFacts.of(list(found.values()), [table for table in tables if table is not None])


def _inspect_files(
    options: InspectOptions, reading: ReadingSpec, progress: Progress
) -> tuple[dict[str, RecordingFacts], list[File]]:
    """Returns the facts of every file by its name, and the files that may be tables of labels."""
    path, found = options.path, {}
    total = 0
    with progress(f"reading {path.name}", "files") as task:

        def keep(facts: RecordingFacts) -> None:
            found[facts.name] = facts
            task.update(len(found), max(total, len(found)))

        if is_tar(path):  # its members can be read once only, one after the other
            lists: list[File] = []
            decode_files(_noting(list_files(path), lists), reading=reading, workers=options.workers, on_facts=keep)
            return found, lists
        listed = list(list_files(path))
        total = len(listed)
        summarise_files(listed, reading=reading, workers=options.workers, on_facts=keep)
    chosen = choose_files(list(found.values()), None if options.full else DECODED_BYTES)
    with progress(f"decoding {path.name}", "files") as task:
        done = 0

        def replace(facts: RecordingFacts) -> None:
            nonlocal done
            done += 1
            found[facts.name] = facts
            task.update(done, len(chosen))

        wanted = (file for file in listed if file.name in chosen)
        decode_files(wanted, reading=reading, workers=options.workers, on_facts=replace)
    return found, [file for file in listed if _may_be_table(file)]


def _noting(all_files: Iterable[File], lists: list[File]) -> Iterator[File]:
    for file in all_files:
        if _may_be_table(file):
            lists.append(file)
        yield file


def _may_be_table(file: File) -> bool:
    return file.name.lower().endswith((".csv", ".tsv", ".txt")) and file.nbytes <= MAX_TABLE_BYTES


def _draw_folder(options: InspectOptions, facts: FolderFacts, reading: ReadingSpec) -> Path | None:
    """Draws the first recording of each class; of a folder without classes the first one."""
    assert options.out is not None
    names = facts.first_of_each_class()[:MAX_DRAWN]
    drawn = []
    for file in list_files(options.path):
        if file.name in names:
            one, events = inspect_recording(file.name, file.load(), reading)
            drawn += [(one, events)] if len(events) else []
    if not drawn:
        return None
    width, height = (max(size) for size in zip(*(one.sensor for one, _ in drawn if one.sensor), strict=True))
    _draw(options.path.name, drawn, (width, height), reading, options.out)
    return options.out


def _draw(
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
    factor = -(-max(width, height) // MAX_SIDE_DRAWN)
    samples = []
    for facts, events in recordings:
        t, x, y, p = drop_outside(orient_events(events, reading, (2, height, width)), 2, height, width).columns
        shrunk = Events.from_columns(t, x // factor, y // factor, p)
        frames = integrate_frames(
            shrunk, SLICES, "time", -(-height // factor), -(-width // factor), dtype=np.uint32, where=facts.name
        )
        duration = f"{len(events):,} events in {(facts.duration_us or 0) / 1e6:,.3g} s"
        samples.append(Sample(facts.name, facts.format, duration, frames))
    size = f"{width} × {height} pixels{f', drawn at 1/{factor}' if factor > 1 else ''}"
    details = f"{size}, row 0 at the top; {SLICES} slices of equal time, from left to right"
    save_picture(draw_events(title, details, samples), out)
