"""The class of a random source that its driver cannot know: stated in the manifest, with the reason."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.randomness import RandomnessClass


class StatedClass(BaseModel):
    """Manifest of a source whose class is the operator's statement."""

    model_config = ConfigDict(extra="forbid")
    randomness: RandomnessClass | None = None
    """Class of the source; None: what the driver can tell by itself."""
    reason: str | None = Field(None, min_length=10, max_length=100)
    """Why it is of that class (maker, principle, evaluation): shown wherever the source is named."""

    @model_validator(mode="after")
    def _with_reason(self) -> StatedClass:
        if (self.randomness is None) != (self.reason is None):
            raise ValueError("randomness and reason are given together")
        return self
