"""A data set and an experiment for a folder of recordings: what can be seen, and an assumption for the rest."""

from __future__ import annotations

import json
import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from plifctl.config.choices import TimeUnit
from plifctl.config.dataset import ReadingSpec
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.config.transforms import Downsample, Shape
from plifctl.data.datasets.own import NOT_RECORDINGS, PICTURES
from plifctl.data.formats.columns import AS_USUAL
from plifctl.data.inspection.facts import RecordingFacts
from plifctl.data.inspection.findings import is_davis_camera
from plifctl.data.inspection.folder import FolderFacts
from plifctl.data.inspection.label_table import FoundTable
from plifctl.data.inspection.layout import PERSON, PERSON_SHORT, SESSION, SESSION_SHORT
from plifctl.data.split_names import split_of
from plifctl.data.storage import ARCHIVES
from plifctl.errors import RawDataError, list_names
from plifctl.evaluation.step_cost import cost_of_layers
from plifctl.evaluation.summary import summarize_network
from plifctl.units import format_bytes

LIKE = "gesture-plif"
"""Experiment of the registry with the values that a suggestion does not state."""

LARGEST_SIDE = 128
"""Larger sensors are scaled down to this side, that of the largest sensor in the paper."""

TEST_SHARE = 0.2
"""Share of the samples of each class to test on, where the recordings have no split."""

EPOCHS = 64
"""Half a period of the learning rate; the paper trains 16 times as long."""

_SMALLEST_MAP = 4  # pooling ends at maps of about this side, as in the paper's network for 128 × 128 pixels
_BATCH = 16  # the paper's
_MEMORY_SHARE = 0.5  # of a training step; samples, weights and other programs need memory, too
_LONG_US = 1_000_000  # recordings from here on have 20 frames, as DVS128 Gesture; shorter ones 10, as N-MNIST
_UNITS: dict[TimeUnit, float] = {"s": 1e6, "ms": 1e3, "us": 1.0}  # µs, the largest first
_WITH_UNIT = ("numpy .npy", "numpy .npz", "HDF5", "text")  # the formats whose times time_unit changes
_GROUPS = [
    re.compile(rf"((?:{words}|(?<![a-z])(?:{short}))[-_]?)\d+", re.IGNORECASE)
    for words, short in ((PERSON, PERSON_SHORT), (SESSION, SESSION_SHORT))
]
"""Finds who a recording is of, and when it was made, in its name: a person may be in several sessions."""


class Value(NamedTuple):
    """A value of a YAML file.

    Attributes:
        key: Its dotted path.
        value: The value.
        comment: Where it comes from, or what was assumed; empty if that is evident.
    """

    key: str
    value: Any
    comment: str = ""


@dataclass(frozen=True)
class Suggestion:
    """A data set and an experiment, as one YAML file.

    Attributes:
        values: Its values, in the order of the file.
        notes: What the user should know or do first.
    """

    values: tuple[Value, ...]
    notes: tuple[str, ...]


def suggest_experiment(
    facts: FolderFacts, name: str, raw: str, neuron: NeuronSpec, memory_bytes: int, stated: ReadingSpec = AS_USUAL
) -> Suggestion:
    """Returns a data set and an experiment for the recordings of a folder.

    Args:
        facts: What the folder contains.
        name: Name of both.
        raw: Path of the folder or archive, as the file states it.
        neuron: The neuron of :data:`LIKE`.
        memory_bytes: Memory of the machine that trains.
        stated: What the user states about the recordings; of these keys, nothing is assumed.

    Raises:
        RawDataError: There are no recordings that can be read, fewer than two classes, or no recording that shows the
            size of the sensor.
    """
    inspect = f"plifctl data inspect {shlex.quote(raw)}"
    _check_recordings(facts, inspect)
    classes, shape = _classes(facts), _shape(facts, inspect)
    if stated.transpose:
        polarities, height, width = shape.value
        shape = shape._replace(value=(polarities, width, height))
    transforms, framed = _scaled_down(shape.value)
    n_samples, median_us = _samples(facts)
    T = 20 if median_us >= _LONG_US else 10
    n = len(classes)
    structure, whole = structure_for(framed, n), structure_for(shape.value, n)
    unscaled = step_bytes(whole, shape.value, n, T, _BATCH, neuron)
    batch = _batch_size(lambda size: step_bytes(structure, framed, n, T, size, neuron), memory_bytes, n_samples)
    values = (
        Value("name", name),
        Value("title", name),
        Value("like", LIKE, "values that are not stated here; plifctl show lists them all"),
        Value("T", T, f"frames of a sample; the median sample lasts {median_us / 1e6:,.3g} s"),
        Value("dataset.name", name),
        Value("dataset.title", name),
        Value("dataset.layout", facts.layout.name),
        Value("dataset.kind", "events"),
        shape,
        Value("dataset.classes", classes, _about_classes(facts)),
        Value("dataset.raw", _place(raw, facts.layout.root), "--raw names another place"),
        *_reading_values(facts.recordings, stated),
        *(_label_values(facts.labels, facts.recordings) if facts.labels is not None else ()),
        *_frames_values(facts.recordings),
        *_transform_values(transforms, shape.value, unscaled),
        Value("network.name", name),
        Value("network.structure", structure, "the paper's rule for this size (Sec. 4.1)"),
        Value("network.dropout", 0.5),
        Value("network.batch_norm", "per-step"),
        Value("train.epochs", EPOCHS, "the paper trains 1024"),
        batch,
        *_accumulation(batch.value),
        *_split_values(facts),
    )
    notes = (*_notes_on_mixed(_assumptions(facts.recordings, stated)), *_notes(facts))
    return Suggestion(values, notes)


def _samples(facts: FolderFacts) -> tuple[int, float]:
    """Returns the number of samples and their median duration, µs: of the lines of a table, else of the recordings."""
    table, durations = facts.labels, [one.duration_us for one in facts.recordings if one.duration_us is not None]
    n, median_us = len(facts.recordings), statistics.median(durations or [0])
    if table is not None:
        n = table.n_rows - table.n_missing
        if table.median_length is not None and table.latest is not None:
            median_us = table.median_length * _UNITS[_window_unit(table.latest, facts.recordings)]
    return n, median_us


def _place(raw: str, root: str) -> str:
    """Returns the folder of the splits or classes; of an archive the archive, in which it is found."""
    return raw if not root or raw.lower().endswith(ARCHIVES) else f"{raw}/{root}"


def _accumulation(batch: int) -> Iterator[Value]:
    if batch < _BATCH:
        yield Value("train.accumulate", _BATCH // batch, f"steps of {_BATCH} samples, as in the paper")


def structure_for(shape: Shape, classes: int) -> str:
    """Returns the network of the paper for frames of a shape, in the notation of Table S1.

    Convolutions of 128 channels, each with pooling, until the map has about 4 × 4 pixels; a fully connected layer of a
    quarter of its inputs; and 10 neurons for each class.

    Args:
        shape: ``(P, H, W)`` of the frames.
        classes: Number of classes.

    Source: Table S1 and Sec. 4.1; for DVS128 Gesture it is the network of the paper.

    Example:
        >>> structure_for((2, 128, 128), 11)
        '{c128k3s1-BN-SN-MPk2s2}*5-DP-FC512-SN-DP-FC110-SN-APk10s10'
    """
    _, height, width = shape
    blocks = 0
    while min(height, width) // 2 >= _SMALLEST_MAP:
        height, width, blocks = height // 2, width // 2, blocks + 1
    convolutions = f"{{c128k3s1-BN-SN-MPk2s2}}*{blocks}" if blocks else "c128k3s1-BN-SN"
    return f"{convolutions}-DP-FC{128 * height * width // 4}-SN-DP-FC{10 * classes}-SN-APk10s10"


def step_bytes(structure: str, shape: Shape, classes: int, T: int, batch: int, neuron: NeuronSpec) -> int:
    """Returns about how much memory a training step needs.

    Args:
        structure: The network.
        shape: ``(P, H, W)`` of the frames.
        classes: Number of classes.
        T: Number of frames.
        batch: Number of samples.
        neuron: The neuron.
    """
    network = NetworkSpec(name="suggested", structure=structure, dropout=0.5, batch_norm="per-step")
    layers = summarize_network(network, neuron, shape, classes, T, static=False)
    return cost_of_layers(layers, shape, batch).nbytes


def _check_recordings(facts: FolderFacts, inspect: str) -> None:
    """Raises RawDataError, with the reason of the first file, if there are files and none is a recording to read.

    Args:
        facts: What the folder contains.
        inspect: The command that shows it.
    """
    if facts.recordings:
        return
    pictures = [one.name for one in facts.others if PICTURES.search(one.name)]
    files = facts.unreadable or [one for one in facts.others if not NOT_RECORDINGS.search(one.name)]
    if pictures and not facts.unreadable:
        raise RawDataError(
            f"no recordings of events: found pictures or videos, {list_names(pictures, 3)}",
            hint="images are read in the layouts mnist, fashion-mnist and cifar10 only, in the files of those",
        )
    if files and files[0].findings:
        problem = files[0].findings[0]
        name = "" if problem.message.startswith(files[0].name) else f"{files[0].name}: "
        raise RawDataError(
            f"no recording can be read: {name}{problem.message}", hint=f"{problem.hint}\n{inspect}".lstrip()
        )


def _classes(facts: FolderFacts) -> list[str]:
    classes = list(facts.labels.classes if facts.labels is not None else facts.layout.classes)
    if facts.labels is None and facts.layout.begins_with_people:
        raise RawDataError(
            f"no classes: the folders {list_names(classes, 3)} look like people, and those in them, "
            f"{list_names(facts.layout.nested, 3)}, like the classes",
            hint="make a folder for each class, and in it one for each person: CLASS/PERSON/FILE; or a CSV file with "
            "the path, the label and the person of each recording",
        )
    if facts.labels is None and facts.layout.strays:
        raise RawDataError(
            f"no classes: in no folder of a class, as other recordings are: {list_names(facts.layout.strays, 3)}",
            hint="move them into the folder of their class, or out of the folder",
        )
    if facts.layout.name is None or len(classes) < 2:
        found = f"found {list_names(classes)}" if classes else "found none"
        if unused := facts.unused_tables:
            found += f"; {_why_unused(unused[0], len(facts.recordings))}"
        raise RawDataError(
            f"no classes: expected at least two folders of recordings, or a CSV file with their labels; {found}",
            hint="make a folder for each class, or a CSV file with the path and the label of each recording",
        )
    return classes


def _about_classes(facts: FolderFacts) -> str:
    """Returns the comment on the classes: whether they may be people."""
    if facts.labels is None and facts.layout.has_people_as_classes:
        return "ASSUMED: these folders look like people"
    return "in the order of the labels"


def _shape(facts: FolderFacts, inspect: str) -> Value:
    """Returns the size of the sensor: the one that the recordings state, or that their events need.

    Args:
        facts: What the folder contains.
        inspect: The command that shows it.
    """
    stated = Counter(one.summary.sensor for one in facts.recordings if one.summary.sensor is not None)
    if stated:
        width, height = stated.most_common(1)[0][0] or (0, 0)
        cameras = sorted({one.summary.camera for one in facts.recordings if one.summary.camera})
        comment = f"polarities, height, width: stated in the recordings {f'({cameras[0]})' if cameras else ''}".rstrip()
        return Value("dataset.shape", (2, height, width), comment)
    seen = facts.seen
    if seen is None:
        raise RawDataError("no recording has events: the size of the sensor is not known", hint=inspect)
    comment = "polarities, height, width: ASSUMED from the largest x and y; state the size of your camera"
    return Value("dataset.shape", (2, seen[1], seen[0]), comment)


def _scaled_down(shape: Shape) -> tuple[list[dict[str, Any]], Shape]:
    """Returns the transforms that make a sensor at most :data:`LARGEST_SIDE` wide and high, and the shape after."""
    factor = LARGEST_SIDE / max(shape[1:])
    if factor >= 1:
        return [], shape
    rounded = math.floor(1e4 * factor) / 1e4
    transform = Downsample(name="downsample", factor=rounded)
    return [transform.model_dump()], transform.shape_after(shape)


def _transform_values(transforms: Sequence[dict[str, Any]], shape: Shape, need: int) -> Iterator[Value]:
    if transforms:
        memory = f"{format_bytes(need)} for a batch of {_BATCH}"
        comment = f"{shape[2]} × {shape[1]} pixels would need {memory}; crop is another way"
        yield Value("frames.transforms", list(transforms), comment)


def _batch_size(need: Callable[[int], int], memory_bytes: int, samples: int) -> Value:
    """Returns the largest batch up to the paper's that fits the memory, and of which there are several.

    Args:
        need: Returns the memory of a step by the number of samples.
        memory_bytes: Memory of the machine.
        samples: Number of samples of the data set.
    """
    batch = _BATCH
    while batch > 2 and (need(batch) > _MEMORY_SHARE * memory_bytes or 2 * batch > samples):
        batch //= 2
    comment = f"a step needs about {format_bytes(need(batch))} of memory; {format_bytes(memory_bytes)} are free here"
    return Value("train.batch_size", batch, comment)


class _Assumption(NamedTuple):
    """A key that some recordings need to be read as they should.

    Attributes:
        value: The key, its value and why.
        needed: Names of the recordings that need it.
        changed: Names of all recordings that are read otherwise with it.
    """

    value: Value
    needed: list[str]
    changed: list[str]

    @property
    def fits(self) -> bool:
        """Whether every recording that it changes needs it."""
        return set(self.changed) <= set(self.needed)


def _reading_values(recordings: Sequence[RecordingFacts], stated: ReadingSpec) -> Iterator[Value]:
    """Yields what the recordings do not say about themselves: unit of times, order of columns, orientation."""
    yield from (one.value for one in _assumptions(recordings, stated) if one.fits)


def _assumptions(recordings: Sequence[RecordingFacts], stated: ReadingSpec) -> Iterator[_Assumption]:
    """Yields the keys that recordings seem to need, also those that would be wrong for a part of them."""
    decoded = [one for one in recordings if one.events is not None]
    guesses = Counter(one.reading.model_dump_json(exclude_defaults=True) for one in decoded)
    guess = json.loads(guesses.most_common(1)[0][0]) if guesses else {}
    known = guess.keys() | stated.model_fields_set
    in_unit = [one.name for one in decoded if one.format in _WITH_UNIT]
    for key, value in guess.items():
        needed = [one.name for one in decoded if one.reading.model_dump(mode="json")[key] == value]
        value = Value(f"dataset.{key}", value, "as plifctl data inspect reads the recordings")
        yield _Assumption(value, needed, in_unit if key == "time_unit" else needed)
    matrices = [one for one in decoded if one.events and any(remark.kind == "unit" for remark in one.events.remarks)]
    if "time_unit" not in known and matrices:
        longest = max(one.duration_us or 0 for one in matrices)
        comment = f"ASSUMED, as tonic saves matrices; the longest recording then lasts {longest / 1e6:,.3g} s"
        yield _Assumption(Value("dataset.time_unit", "ms", comment), [one.name for one in matrices], in_unit)
    if not {"flip_x", "flip_y"} & known:
        names = [one.name for one in recordings]
        jaer = [one for one in recordings if one.format == "AEDAT 2.0"]
        if davis := [one.name for one in jaer if is_davis_camera(one.summary.camera)]:
            comment = "ASSUMED: jAER, which writes AEDAT 2.0, mirrors the columns of a DAVIS"
            yield _Assumption(Value("dataset.flip_x", True, comment), davis, names)
        if jaer:
            comment = "ASSUMED: jAER, which writes AEDAT 2.0, counts rows from the bottom"
            yield _Assumption(Value("dataset.flip_y", True, comment), [one.name for one in jaer], names)


def _notes_on_mixed(assumptions: Iterable[_Assumption]) -> Iterator[str]:
    """Yields a note on each key that would be wrong for a part of the recordings."""
    for value, needed, changed in (one for one in assumptions if not one.fits):
        others = [name for name in changed if name not in set(needed)]
        setting = f"{value.key}: {str(value.value).lower()}"
        yield (
            f"{setting} is not stated: {list_names(needed, 2)} seem to need it, {list_names(others, 2)} would be "
            "wrong with it; save them alike, or make two data sets"
        )


def _label_values(table: FoundTable, recordings: Sequence[RecordingFacts]) -> Iterator[Value]:
    yield Value("dataset.labels.file", table.name)
    for role, column in table.roles.items():
        yield Value(f"dataset.labels.{role}", column, "" if role == "recording" else "ASSUMED from the column")
    if table.latest is not None:
        unit, end = _window_unit(table.latest, recordings), "duration" if "duration" in table.roles else "end"
        yield Value("dataset.labels.time_unit", unit, f"ASSUMED: of start and {end}, as the recordings last")


def _window_unit(latest: float, recordings: Sequence[RecordingFacts]) -> TimeUnit:
    """Returns the largest unit in which the latest time of the windows lies within the recordings."""
    last = max((one.span_us[1] for one in recordings if one.span_us is not None), default=0)
    return next((unit for unit, factor in _UNITS.items() if latest * factor <= 1.05 * last), "us")


def _frames_values(recordings: Sequence[RecordingFacts]) -> Iterator[Value]:
    outside = sum(one.events.n_outside for one in recordings if one.events is not None)
    yield Value("frames.slicing", "number", "equal numbers of events (Eq. S1); time: equal times")
    if outside:
        yield Value("frames.outside_events", "drop", f"{outside:,} events lie outside the sensor")
    else:
        yield Value("frames.outside_events", "refuse")
    if any(finding.topic == "all-invalid" for one in recordings for finding in one.findings):
        yield Value("frames.invalid_events", "keep", "all events of some recordings are marked invalid")
    else:
        yield Value("frames.invalid_events", "drop")


def _split_values(facts: FolderFacts) -> Iterator[Value]:
    """Yields how samples are split, where the recordings do not say it, and where validation samples come from."""
    stated = {split_of(name) for name in facts.splits}
    if {"train", "test"} <= stated:
        if "validation" in stated:
            yield Value("validation.method", "official", "the samples of the folder for validation")
        return
    groups = list(_group_values(facts))
    unknown = "" if groups else "; nothing says whose a recording is, so that a person may be in training and test"
    unused = next((table.name for table in facts.unused_tables if "split" in table.roles), "")
    reason = f"that of {unused} is not used" if unused else "there is no split"
    yield Value("split.method", "share", f"ASSUMED: {reason}; other methods: folds, leave-one-out{unknown}")
    yield Value("split.test", TEST_SHARE, "of the samples of each class, drawn by split.seed")
    yield from groups


def _group_values(facts: FolderFacts) -> Iterator[Value]:
    """Yields which samples stay together, if a table or the names of the recordings say who or when they are of."""
    if facts.labels is not None and "group" in facts.labels.roles:
        if _why_no_groups(facts.labels):
            return
        groups = Value("split.groups", "table", f"samples of one {facts.labels.roles['group']} stay together")
    elif (named := _groups_in_names(facts)) is not None:
        groups = named
    else:
        return
    yield groups
    yield Value("validation.method", "share", "the method that keeps groups together")


def _why_no_groups(table: FoundTable) -> str:
    """Returns why samples cannot be kept together by the groups of a table; empty if they can, or it names none."""
    if "group" not in table.roles:
        return ""
    if "" in table.groups:
        return "some cells are empty"
    return f"all cells are {table.groups[0]}" if len(table.groups) == 1 else ""


def _groups_in_names(facts: FolderFacts) -> Value | None:
    """Returns the pattern of groups that all names of recordings have; None if there is none, or one group alone.

    Where the classes are named so, they are the groups: those tested on would not have been trained on.
    """
    recordings = [one.name for one in facts.recordings]
    for pattern in (one for one in _GROUPS if not any(map(one.search, facts.layout.classes))):
        found = [match for name in recordings if (match := pattern.search(name))]
        names, words = {match[0] for match in found}, {match[1] for match in found}
        different = len({name.lower() for name in names}) == len(names)  # else User01 and user01 would be two
        if different and len(found) == len(recordings) and len({word.lower() for word in words}) == 1 < len(names):
            regex = rf"{min(words)}\d+" if len(words) == 1 else rf"(?i){min(words).lower()}\d+"
            return Value("split.groups", regex, f"samples of one of {len(names)} stay together: {min(names)} …")
    return None


def _spelt_in_two_ways(facts: FolderFacts) -> list[str]:
    """Returns people or sessions in the names of recordings that differ in capitals alone; the first such."""
    for pattern in _GROUPS:
        spellings: dict[str, set[str]] = {}
        for found in (match[0] for one in facts.recordings if (match := pattern.search(one.name))):
            spellings.setdefault(found.lower(), set()).add(found)
        if several := [sorted(same) for same in spellings.values() if len(same) > 1]:
            return several[0]
    return []


def _why_unused(table: FoundTable, recordings: int) -> str:
    """Returns the note on a table that says something of the recordings, and is not used."""
    if "label" not in table.roles:
        said = " and ".join(table.roles[role] for role in ("group", "split") if role in table.roles)
        problem = f"names the {said} of recordings, and is not used: it has no column of classes"
    else:
        problem = (
            f"has labels ({table.roles['label']}: {list_names(table.classes, 3)}), and is not used: "
            f"{table.n_missing} of its {table.n_rows} lines name no file or several, {table.n_unlisted} of "
            f"{recordings} recordings are in no line"
        )
    return f"{table.name} {problem}; correct it, and type the command again with another --name"


def _notes(facts: FolderFacts) -> Iterator[str]:
    if facts.labels is not None and (why := _why_no_groups(facts.labels)):
        yield f"the column {facts.labels.roles['group']} does not keep samples together: {why}"
    yield from (_why_unused(table, len(facts.recordings)) for table in facts.unused_tables)
    nested = facts.layout.nested
    if facts.labels is None and facts.layout.has_people_as_classes:
        yield (
            f"the classes are {list_names(facts.layout.classes, 3)}, which look like people: if they are, arrange the "
            "recordings as CLASS/PERSON/FILE, or write a CSV file with the path, the label and the person of each"
        )
    elif facts.layout.name in ("class-folders", "folders") and nested and _groups_in_names(facts) is None:
        classes, inner = (list_names(names, 3) for names in (facts.layout.classes, nested))
        yield (
            f"the classes are {classes}; the folders in them, {inner}, repeat: if they are people, state "
            "split.groups; if they are the classes, arrange the recordings as CLASS/PERSON/FILE"
        )
    if facts.labels is None and (same := _spelt_in_two_ways(facts)):
        yield f"{' and '.join(same)} would be different groups: if they are one, rename the files and init again"
    if facts.unreadable:
        names = list_names([one.name for one in facts.unreadable], 3)
        yield f"cannot be read: {names}; move them out of the folder before you prepare it"
    if facts.outliers:
        names = list_names([one.name for one in facts.outliers], 3)
        yield f"recordings that stand out: {names}; plifctl data inspect says why"
    if facts.n_decoded < len(facts.recordings):
        yield f"{facts.n_decoded:,} of {len(facts.recordings):,} recordings were decoded; --full decodes all"
