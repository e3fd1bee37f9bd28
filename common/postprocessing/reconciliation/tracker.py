"""The error rate of a link, followed through its decoded frames: what the next frame is sized by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from common.postprocessing.reconciliation.fitted import (
    FAILED_EFFICIENCY,
    INITIAL_BITS,
    LONG_MEMORY_BITS,
    MOST_CHECKS,
    SHORT_MEMORY_BITS,
    SURPRISE,
    inverse_entropy,
)
from common.postprocessing.reconciliation.frame import FrameSpec


@dataclass
class _Average:
    """Exponential average weighted by bits."""

    memory_bits: int
    bits: float
    errors: float

    @property
    def mean(self) -> float:
        return self.errors / self.bits

    def add(self, n_bits: int, errors: float) -> None:
        keep = max(0.0, 1 - n_bits / self.memory_bits)
        self.errors = keep * self.errors + errors
        self.bits = keep * self.bits + n_bits


class QberTracker:
    """Follows the error rate through decoded frames: an average that starts again when a frame contradicts it.

    Parameters
    ----------
    initial_qber : before any frame, a fraction.
    initial_bits : how many bits that is worth.
    memory_bits : how far back it looks while nothing changes.
    """

    def __init__(
        self, initial_qber: float, initial_bits: int = INITIAL_BITS, memory_bits: int = LONG_MEMORY_BITS
    ) -> None:
        self._long = _Average(memory_bits, initial_bits, initial_bits * initial_qber)
        self._short = _Average(SHORT_MEMORY_BITS, initial_bits, initial_bits * initial_qber)
        self._learned = False
        self._wander = 0.0

    @property
    def qber(self) -> float:
        """The present estimate of the QBER."""
        return self._long.mean

    @property
    def uncertainty(self) -> float:
        """Relative standard deviation of the estimate, by the errors that it rests on."""
        return 1 / math.sqrt(max(self._long.errors, 1.0))

    @property
    def uncertainty_of_next(self) -> float:
        """The same for bits that come later: also by how much the rate has jumped lately."""
        return math.hypot(self.uncertainty, self._wander)

    def decoded(self, n_bits: int, errors: float) -> None:
        """A frame was decoded; without a single error it tells no rate of 0, but one that gives half an error."""
        errors = max(errors, 0.5)
        before, p = self._long.bits, self._long.mean
        jump = errors / n_bits - p
        if abs(jump) > SURPRISE * math.sqrt(p * (1 - p) * (1 / n_bits + 1 / before)):
            self._wander = max(self._wander, abs(jump) / p) if self._learned else 0.0
            self._long = _Average(self._long.memory_bits, n_bits, errors)
            self._short = _Average(SHORT_MEMORY_BITS, n_bits, errors)
        else:
            self._wander *= max(0.0, 1 - n_bits / self._long.memory_bits)
            self._add(n_bits, errors)
        self._learned = True

    def failed(self, spec: FrameSpec) -> None:
        """A frame was not decoded: its error rate was probably above what everything disclosed could correct."""
        worst = inverse_entropy(min(MOST_CHECKS, spec.code.syndrome_bits / spec.payload_bits / FAILED_EFFICIENCY))
        self._learned = True
        if worst > self.qber:
            self._wander = max(self._wander, worst / self.qber - 1)
            self._add(spec.payload_bits, round(worst * spec.payload_bits))

    def _add(self, n_bits: int, errors: float) -> None:
        self._long.add(n_bits, errors)
        self._short.add(n_bits, errors)
        p = self._long.mean
        if abs(self._short.mean - p) > SURPRISE * math.sqrt(p * (1 - p) / self._short.bits):
            self._long = replace(self._short, memory_bits=self._long.memory_bits)
