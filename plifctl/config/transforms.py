"""Transforms of events before they are framed, as registry files write them.

Each is tonic's transform of that kind, described with the units of its numbers.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from plifctl.config.base import Spec

Shape = tuple[int, int, int]
"""``(P, H, W)`` of event frames, ``(C, H, W)`` of images."""

Microseconds = Annotated[int, Field(gt=0, le=10**12)]
Probability = Annotated[float, Field(gt=0, lt=1)]


class _Transform(Spec):
    """A transform of the events of a sample; ``random``: it draws random numbers."""

    random: ClassVar[bool] = False
    name: str

    def shape_after(self, shape: Shape) -> Shape:
        """Returns ``(P, H, W)`` of events that had ``shape`` before.

        Raises:
            ValueError: The transform cannot be applied to events of that shape.
        """
        return shape


class Denoise(_Transform):
    """Keeps an event if one of the four adjacent pixels had an event less than ``filter_time_us`` before."""

    name: Literal["denoise"]
    filter_time_us: Microseconds


class Refractory(_Transform):
    """Drops an event that follows another of the same pixel, kept or not, within ``period_us``."""

    name: Literal["refractory"]
    period_us: Microseconds


class DropEvents(_Transform):
    """Drops the fraction ``p`` of the events, drawn at random."""

    random = True
    name: Literal["drop-events"]
    p: Probability


class DropPixels(_Transform):
    """Drops all events of each pixel with probability ``p``."""

    random = True
    name: Literal["drop-pixels"]
    p: Probability


class HotPixels(_Transform):
    """Drops all events of pixels with a mean rate over the sample above ``max_rate_hz``."""

    name: Literal["hot-pixels"]
    max_rate_hz: float = Field(gt=0)


class _CropTransform(_Transform):
    height: int = Field(gt=0)
    width: int = Field(gt=0)

    def shape_after(self, shape: Shape) -> Shape:
        if self.height > shape[1] or self.width > shape[2]:
            raise ValueError(f"{self.height}×{self.width} pixels cannot be cut out of {shape[1]}×{shape[2]}")
        return (shape[0], self.height, self.width)


class Crop(_CropTransform):
    """Keeps the central ``height`` × ``width`` pixels."""

    name: Literal["crop"]


class RandomCrop(_CropTransform):
    """Keeps ``height`` × ``width`` pixels at a random position in each sample."""

    random = True
    name: Literal["random-crop"]


class Downsample(_Transform):
    """Multiplies x and y by ``factor``, rounded down; every event stays."""

    name: Literal["downsample"]
    factor: float = Field(gt=0, lt=1)

    def shape_after(self, shape: Shape) -> Shape:
        # one more than the new index of the last row and column, computed by the same floating-point product
        return (shape[0], int((shape[1] - 1) * self.factor) + 1, int((shape[2] - 1) * self.factor) + 1)


class MergePolarities(_Transform):
    """Sets all polarities to 0, so that frames have one channel."""

    name: Literal["merge-polarities"]

    def shape_after(self, shape: Shape) -> Shape:
        return (1, *shape[1:])


class TimeJitter(_Transform):
    """Adds to each time a normal random number of standard deviation ``std_us``; the events are sorted again."""

    random = True
    name: Literal["time-jitter"]
    std_us: float = Field(gt=0, le=10**12)


_Any = (
    Denoise
    | Refractory
    | DropEvents
    | DropPixels
    | HotPixels
    | Crop
    | RandomCrop
    | Downsample
    | MergePolarities
    | TimeJitter
)
TransformSpec = Annotated[_Any, Field(discriminator="name")]
"""Any transform; ``name`` says which."""

TRANSFORMS: dict[str, type[_Transform]] = {
    get_args(kind.model_fields["name"].annotation)[0]: kind for kind in get_args(_Any)
}
"""Transforms by name."""
