"""What all specs have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Misfit(ValueError):
    """Values that do not fit each other.

    Args:
        message: What does not fit.
        blame: The dotted path, as a tuple, of the value that is likeliest wrong.
    """

    def __init__(self, message: str, blame: tuple[str, ...]) -> None:
        super().__init__(message)
        self.blame = blame


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
