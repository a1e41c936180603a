"""Schema of the split into training and test samples."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from plifctl.config.base import Spec
from plifctl.config.choices import SplitMethod

FROM_TABLE = "table"
"""Groups are those of the data set's label table."""


class SplitSpec(Spec):
    """Which samples are tested on; the others are trained on.

    Splits are made when a run begins, from what a cache knows of each sample: one cache serves all folds.

    Attributes:
        method: ``official``, as the raw data say; ``share``, a random part of each class; ``folds``, one of ``folds``
            parts; ``leave-one-out``, one group.
        test: Share of the samples to test on; of ``share``.
        folds: Number of parts; of ``folds``.
        fold: Number of the part, or of the group in alphabetical order, to test on, from 1.
        groups: Samples that stay together: subjects, sessions, recordings. A regular expression that is searched in the
            sample's id, of which group 1, or all of it, names the group; or ``table``, the column of the label table.
            None: each sample by itself.
        seed: Seed of the random choice, which depends on it and on the ids alone.
    """

    method: SplitMethod = "official"
    test: float | None = Field(default=None, gt=0, lt=1)
    folds: int | None = Field(default=None, ge=2, le=10_000)
    fold: int | None = Field(default=None, ge=1, le=10_000)
    groups: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, groups: str | None) -> str | None:
        if groups is not None:
            try:
                re.compile(groups)
            except re.error as error:
                raise ValueError(f"found {groups!r}, which is no regular expression: {error}") from None
        return groups

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        needed = _KEYS[self.method]
        for key in ("test", "folds", "fold"):
            given = getattr(self, key) is not None
            if given and key not in needed:
                others = " and ".join(method for method, keys in _KEYS.items() if key in keys)
                example = "; --cv-fold 1/5 is fold 1 of the method folds" if key == "fold" else ""
                raise ValueError(f"{key}: the method {self.method} has no such value, {others} has{example}")
            if not given and key in needed:
                raise ValueError(f"{key} is missing: the method {self.method} needs it")
        if self.method == "leave-one-out" and self.groups is None:
            raise ValueError("groups is missing: the method leave-one-out tests on one group")
        if self.folds is not None and self.fold is not None and self.fold > self.folds:
            raise ValueError(f"fold: found {self.fold}, expected a number from 1 to {self.folds}")
        return self


_KEYS: dict[SplitMethod, tuple[str, ...]] = {
    "official": (),
    "share": ("test",),
    "folds": ("folds", "fold"),
    "leave-one-out": ("fold",),
}
