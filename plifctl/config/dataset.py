"""Schema of a data set and of how its events are framed."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from plifctl.config.base import InconsistentValues, Spec
from plifctl.config.choices import (
    OWN_LAYOUTS,
    Axes,
    Column,
    DataKind,
    InvalidEvents,
    Layout,
    OutsideEvents,
    Slicing,
    TestSet,
    TimeUnit,
    TrainingSet,
)
from plifctl.config.identity import current_word, hashed_fields
from plifctl.config.transforms import Shape, TransformSpec

_OWN_CHOICES = {"slicing", "outside_events", "invalid_events"}
_CHOICES_OF_LAYOUT: dict[Layout, set[str]] = {
    "nmnist": {"slicing", "outside_events"},
    "cifar10dvs": {"slicing", "outside_events", "axes", "test_set"},
    "gesture": {"slicing", "outside_events", "invalid_events", "training_set"},
    "synthetic-gesture": {"slicing", "outside_events", "invalid_events", "training_set"},
    **dict.fromkeys(OWN_LAYOUTS, _OWN_CHOICES),
}
"""Choices of framing that a layout has; images are not framed."""
_EXAMPLES = {
    "slicing": "number",
    "outside_events": "refuse",
    "invalid_events": "drop",
    "axes": "authors",
    "training_set": "all",
    "test_set": "last-100",
}
"""Those that the paper has, or that suit most recordings."""
_CHOICES_OF_ALL = {"transforms", "transform_seed", "overlap_us"}
"""Choices of framing of any events, which need not be stated."""

MAX_T = 10_000
"""The largest number of time steps accepted; beyond it a typo is likelier than an experiment."""


MAX_SIDE = 2**15
"""The largest height and width: formats have coordinates of at most 15 bits."""


class SampleCounts(Spec):
    """Official number of samples in each split."""

    train: int = Field(gt=0)
    test: int = Field(gt=0)


class LabelTable(Spec):
    """The CSV file of the layout ``label-table``: a line for each sample, columns found by their names in the header.

    Attributes:
        file: Path of the CSV file in the folder of the recordings.
        recording: Column with the path of the recording in that folder, with or without the ending of the file.
        label: Column with the name of the class.
        split: Column with the split, ``train``, ``validation`` or ``test``; None: the recordings have no split.
        group: Column with the subject, session …, whose samples should not be divided; None: there is none.
        start: Column with the time at which the sample begins in its recording; None: at the beginning.
        end: Column with the time at which it ends; None: at the end of the recording.
        duration: Column with the time from start to end, instead of ``end``.
        time_unit: Unit of ``start``, ``end`` and ``duration``.
    """

    file: str
    recording: str
    label: str
    split: str | None = None
    group: str | None = None
    start: str | None = None
    end: str | None = None
    duration: str | None = None
    time_unit: TimeUnit = "us"

    @model_validator(mode="after")
    def _check_duration(self) -> Self:
        if self.duration is not None and (self.start is None or self.end is not None):
            raise ValueError("duration: the time from start to end, expected with start, and without end")
        return self


class ReadingSpec(Spec):
    """What the recordings do not say about themselves; all of it is optional.

    Attributes:
        time_unit: Unit of the times in arrays and text; None: what is usual for each, see docs/formats.md.
        columns: Columns of a matrix (``.npy``) or of the lines of a text, in their order.
        fields: Names of t, x, y and p, where they are not the usual ones, in ``.npz``, structured arrays, HDF5 and the
            header of a text.
        source: The stream of events to read, where a file has several: the number of a source in AEDAT 3.1, of a
            stream in AEDAT 4.
        transpose: Exchange x and y; first of the three.
        flip_x: Mirror left and right.
        flip_y: Mirror top and bottom: jAER, for instance, counts rows from the bottom.
    """

    time_unit: TimeUnit | None = None
    columns: tuple[Column, ...] | None = Field(default=None, strict=False)
    fields: dict[Literal["t", "x", "y", "p"], str] | None = None
    source: int | None = Field(default=None, ge=0)
    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: tuple[Column, ...] | None) -> tuple[Column, ...] | None:
        if columns is not None and sorted(name for name in columns if name != "-") != ["p", "t", "x", "y"]:
            raise ValueError(f"found {list(columns)}, expected t, x, y and p once each, and - for other columns")
        return columns


class _Described(Spec):
    """What the samples of a data set are."""

    name: str
    title: str
    layout: Layout
    kind: DataKind
    shape: tuple[int, int, int] = Field(strict=False)
    classes: tuple[str, ...] = Field(strict=False, min_length=2)
    samples: SampleCounts | None = None
    mean: tuple[float, ...] | None = Field(default=None, strict=False)
    std: tuple[float, ...] | None = Field(default=None, strict=False)


class DatasetSpec(ReadingSpec, _Described):  # fields in files are in the order of the last base first
    """A data set: what its samples are, and what its recordings do not say about themselves.

    Attributes:
        name: Name in the registry.
        title: Name in messages and tables.
        layout: File names and formats of the raw data: those of a published data set, or of a user's own recordings.
        kind: What a sample is.
        shape: ``(C, H, W)`` of an image; ``(P, H, W)`` of event frames: polarities, sensor height and width, as events
            are after ``transpose``.
        classes: Names of the classes, in the order of the labels.
        samples: Official number of samples; None: not known, of a user's own recordings.
        mean: Mean of each channel of images in units of 0…1; None for events.
        std: Standard deviation of each channel, in the same unit; None for events.
        raw: Folder or archive of a user's own recordings, where ``--raw`` names no other; relative to the file that
            says so.
        labels: The table of the layout ``label-table``.
    """

    raw: str | None = None
    labels: LabelTable | None = None

    @property
    def is_own(self) -> bool:
        """Whether the recordings are the user's own, in one of the general layouts."""
        return self.layout in OWN_LAYOUTS

    @property
    def has_split(self) -> bool:
        """Whether the recordings themselves say which of them are for training, and which for the test."""
        return self.layout != "class-folders" and (self.labels is None or self.labels.split is not None)

    @property
    def public(self) -> DatasetSpec:
        """The data set as exported files describe it: without ``raw``, a path on this machine."""
        return self.model_copy(update={"raw": None})

    def hashed_reading(self) -> dict[str, Any]:
        """Returns what decides the events of a recording besides layout and shape, as JSON values; empty by default."""
        reading = ReadingSpec.model_validate(self.model_dump(include=set(ReadingSpec.model_fields)))
        labels = {} if self.labels is None else {"labels": self.labels.model_dump(mode="json", exclude_none=True)}
        return hashed_fields(reading, "dataset") | labels

    @model_validator(mode="after")
    def _check_shape(self) -> DatasetSpec:
        if self.kind == "events" and self.shape[0] != 2:
            raise ValueError(f"shape: found {self.shape[0]} polarities, expected 2: [2, height, width]")
        if not all(0 < size <= MAX_SIDE for size in self.shape):
            raise ValueError(f"shape: found {list(self.shape)}, expected numbers from 1 to {MAX_SIDE}")
        return self

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        name, count = Counter(unicodedata.normalize("NFC", name) for name in classes).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{name!r} is there {count} times, expected each class once")
        return classes

    @model_validator(mode="after")
    def _check_images(self) -> DatasetSpec:
        if self.kind == "images":
            channels = self.shape[0]
            if self.mean is None or self.std is None or len(self.mean) != channels or len(self.std) != channels:
                raise ValueError(f"an image data set of {channels} channels needs {channels} values of mean and of std")
        if (self.kind == "events") != (self.layout in _CHOICES_OF_LAYOUT):
            raise ValueError(f"raw files of the layout {self.layout} hold no {self.kind}")
        return self

    @model_validator(mode="after")
    def _check_layout(self) -> DatasetSpec:
        if not self.is_own:
            if self.samples is None:
                raise ValueError("samples: the numbers of training and test samples are missing")
            if self.time_unit is not None:
                raise ValueError(f"time_unit: the times of the layout {self.layout} have a known unit; omit it")
            for key in ("raw", *(name for name in ReadingSpec.model_fields if name != "time_unit")):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key}: the files of the layout {self.layout} are known; omit it")
        if (self.labels is not None) != (self.layout == "label-table"):
            problem = "is missing" if self.labels is None else f"the layout {self.layout} has no table"
            raise ValueError(f"labels: {problem}; the layout label-table needs it")
        return self


class FramesSpec(Spec):
    """How the events of a recording become T frames (Eq. S1 and its variants).

    Attributes:
        slicing: ``number`` cuts at ⌊N·j/T⌋ (Eq. S1); ``number-remainder`` at ⌊N/T⌋·j with the rest in the last slice
            (the authors' code); ``time`` into T equal spans of time; ``duration`` into as many spans of duration_us as
            the sample lasts, padded with empty frames to the longest sample; ``duration-first`` into T spans of
            duration_us, padded where the sample is shorter, later events left out.
        duration_us: Length of a slice, µs; of ``duration`` and ``duration-first``.
        overlap_us: Time that a slice shares with the one before, µs; of the same.
        outside_events: Events outside the sensor are an error (``refuse``), or left out and counted (``drop``).
        invalid_events: AEDAT 3.1 events whose valid bit is 0; None where the format has no such bit.
        axes: How CIFAR10-DVS addresses become x, y, p; None for the others.
        training_set: ``all`` recordings, or the ``first-78`` that the authors' gesture runs used; None for the others.
        test_set: Of each class of CIFAR10-DVS, the ``last-100`` (file numbers 900–999, the paper's) or the
            ``first-100`` (0–99, of many later papers); None for the others.
        transforms: Transforms of the events of each sample before framing, in this order.
        transform_seed: Seed of the random transforms; None where there are none.
    """

    slicing: Slicing
    duration_us: int | None = Field(default=None, gt=0)
    overlap_us: int = Field(default=0, ge=0)
    outside_events: OutsideEvents
    invalid_events: InvalidEvents | None = None
    axes: Annotated[Axes | None, BeforeValidator(current_word)] = None
    training_set: TrainingSet | None = None
    test_set: TestSet | None = None
    transforms: tuple[TransformSpec, ...] = Field(default=(), strict=False)
    transform_seed: int | None = Field(default=None, ge=0, lt=2**32)

    @property
    def has_duration(self) -> bool:
        """Whether slices have a fixed duration."""
        return self.slicing in ("duration", "duration-first")

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.overlap_us and not self.has_duration:
            raise ValueError("overlap_us: only slices of a fixed duration overlap: duration, duration-first")
        if self.duration_us is not None and self.overlap_us >= self.duration_us:
            raise ValueError(f"overlap_us: found {self.overlap_us}, expected less than duration_us: {self.duration_us}")
        return self

    @model_validator(mode="after")
    def _check_seed(self) -> Self:
        random = [transform.name for transform in self.transforms if transform.random]
        if random and self.transform_seed is None:
            raise ValueError(f"transform_seed is missing: {random[0]} draws random numbers")
        if self.transform_seed is not None and not random:
            raise ValueError("transform_seed: no transform here draws random numbers")
        return self


class Framing(Spec):
    """A data set and how its recordings become frames: all that a cache depends on besides the raw data.

    Attributes:
        dataset: The data set.
        frames: How events become frames; None for images, which are not framed.
        T: Number of frames of each sample; None for images, for slices of a fixed duration (the longest sample needs
            as many as it needs), and where it has not been chosen yet.
    """

    dataset: DatasetSpec
    frames: FramesSpec | None = None
    T: int | None = Field(default=None, ge=1, le=MAX_T)

    @model_validator(mode="after")
    def _check_frames(self) -> Self:
        check_frames(self.dataset, self.frames)
        return self

    @property
    def needs_T(self) -> bool:  # noqa: N802 - T is the field's name
        """Whether the number of frames must be chosen: for events, unless slices have a fixed duration."""
        return self.frames is not None and self.frames.slicing != "duration"

    @property
    def event_frames(self) -> FramesSpec:
        """How events become frames, of a data set of recordings."""
        assert self.frames is not None, f"{self.dataset.name} has no events"
        return self.frames

    @property
    def shape(self) -> Shape:
        """Shape of one sample at one step: ``(P, H, W)`` of event frames, ``(C, H, W)`` of images."""
        return frame_shape(self.dataset, self.frames)

    def with_T(self, T: int | None) -> Framing:  # noqa: N802
        """Returns this framing with ``T`` frames if it needs T, else without a T."""
        return self.model_copy(update={"T": T if self.needs_T else None})


def check_frames(dataset: DatasetSpec, frames: FramesSpec | None) -> None:
    """Raises InconsistentValues unless exactly the choices that the data set has are set."""
    choices = _CHOICES_OF_LAYOUT.get(dataset.layout, set())
    if frames is None and choices:
        example = ", ".join(f"{key}: {value}" for key, value in _EXAMPLES.items() if key in choices)
        problem = f"frames is missing: events need it, e.g. frames: {{{example}}}"
        raise InconsistentValues(problem, ("frames",), ("dataset", "layout"))
    if frames is not None and frames.has_duration:
        choices = choices | {"duration_us"}
    chosen = set(frames.model_dump(exclude_none=True)) - _CHOICES_OF_ALL if frames else set()
    if foreign := sorted(chosen - choices):
        raise InconsistentValues(f"frames.{foreign[0]}: {dataset.title} has no such choice", ("frames", foreign[0]))
    if "duration_us" in choices - chosen:
        problem = "frames.duration_us is missing: the length of a slice, e.g. frames.duration_us=10000"
        raise InconsistentValues(problem, ("frames", "slicing"))
    if missing := sorted(choices - chosen):
        raise InconsistentValues(f"frames.{missing[0]}: {dataset.title} needs this choice", ("frames", missing[0]))
    frame_shape(dataset, frames)


def frame_shape(dataset: DatasetSpec, frames: FramesSpec | None) -> Shape:
    """Returns the shape of one sample at one step, as a network sees it: after the transforms.

    Returns:
        ``(P, H, W)`` of event frames, ``(C, H, W)`` of images.

    Raises:
        InconsistentValues: A transform cannot be applied to events of that shape.
    """
    shape = dataset.shape
    for index, transform in enumerate(frames.transforms if frames else ()):
        try:
            shape = transform.shape_after(shape)
        except ValueError as error:
            path = ("frames", "transforms", index)
            raise InconsistentValues(f"frames.transforms[{index}]: {error}", path) from None
    return shape
