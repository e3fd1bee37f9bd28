"""Quantities that settle slowly, and the retarders of a polarisation controller made of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Lagging:
    """A quantity that takes a number of readings to reach its target."""

    target: float
    lag: int = 0
    _from: float = field(init=False)
    _left: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._from = self.target

    def set(self, target: float) -> None:
        """Start to move an axis."""
        self._from, self._left, self.target = self.now, self.lag, target

    @property
    def now(self) -> float:
        """Where the axis is now."""
        return self.target if not self._left else self._from + (self.target - self._from) / (1 + self._left)

    def read(self) -> float:
        """Read it: time goes on by one reading."""
        value = self.now
        self._left = max(self._left - 1, 0)
        return value


class AxesTwin:
    """Positions of retarders, 0..1 of their range."""

    def __init__(self, n_axes: int, lag: int = 0) -> None:
        self.axes = [Lagging(0.0, lag) for _ in range(n_axes)]

    @property
    def positions(self) -> list[float]:
        """Where they are now."""
        return [axis.now for axis in self.axes]
