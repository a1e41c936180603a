"""Augmentations of the event frames of training batches: ``train.event_augmentation`` of an experiment.

Random numbers are drawn for each sample in each epoch, and are the same for all T frames of the sample.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from plifctl.config.base import Spec

Probability = Annotated[float, Field(ge=0, le=1)]


class Flip(Spec):
    """Mirrors x with probability ``p``."""

    name: Literal["flip"]
    p: Probability


class Roll(Spec):
    """Shifts x and y by up to ``pixels`` in either direction, cyclically, so that no event is lost.

    Source: Y. Li et al., Neuromorphic Data Augmentation for Training Spiking Neural Networks, ECCV 2022 ("rolling").
    """

    name: Literal["roll"]
    pixels: int = Field(gt=0)


class Rotate(Spec):
    """Rotates by up to ``degrees`` in either direction about the centre; nearest pixel, 0 from outside."""

    name: Literal["rotate"]
    degrees: float = Field(gt=0, le=180)


class CutMix(Spec):
    """Replaces, with probability ``p``, a rectangle by that of the next sample in the batch.

    The rectangle has the frame's proportions and the fraction 1 − λ of its area, λ drawn from Beta(``alpha``,
    ``alpha``); its centre is any pixel, and it is cut off at the border. The target is the mix of both by area.

    Source: S. Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features,
        ICCV 2019, with the rounding of its code.
    """

    name: Literal["cut-mix"]
    p: Probability
    alpha: float = Field(gt=0)


_Any = Flip | Roll | Rotate | CutMix
EventAugmentation = Annotated[_Any, Field(discriminator="name")]
"""Any augmentation; ``name`` says which."""

EVENT_AUGMENTATIONS: dict[str, type[Spec]] = {
    get_args(kind.model_fields["name"].annotation)[0]: kind for kind in get_args(_Any)
}
"""Augmentations by name."""
