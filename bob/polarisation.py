"""Polarisation feedback: from public counts to the positions of a controller's retarders. Pure; decision 56.

What is looked at is public anyway: the preambles' known Z symbols, and the check basis, whose outcomes sifting
publishes. Without a lock, positions are tried until one shows the preamble. With one, every axis is read a little to
either side and moved along the slope of the mean contrast (1 - 2 QBER, averaged over both bases), which is the cosine
of an angle in every retarder; near the top the readings only watch, and a fall by more than ``TOLERATED`` starts again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Axes = NDArray[np.float64]

#: From wherever the light's Z axis has gone, one of these (added to all first axes) shows a contrast of at least 0.57
#: to four alternating retarders; a controller of another kind is searched by the same steps, more of them.
SEARCH = np.array(
    [[0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0.25, 0, 0], [0, 0.75, 0, 0], [0.25, 0.25, 0, 0], [0.25, 0.75, 0, 0]]
)
SEARCH_TURN = 0.382
"""After all of ``SEARCH``, the start is moved by this part of a turn (golden section: never the same again)."""
START = np.array([0.0, 0.0, 0.25, 0.0])
"""Here the axes of four alternating retarders turn the light in three different directions."""
PROBE = 0.035
"""Part of a turn to either side of a reading: costs 1.2 % of QBER while it lasts."""
LONGEST_STEP = 0.09
GAIN = 1.0 / (2.0 * math.pi * 0.6)
"""Newton's step at the top, in turns per unit of slope; 0.6 is the usual curvature of the mean contrast there."""
FAR = 0.85
"""Below this mean contrast the longest step is taken whatever the slope."""
TOLERATED = 0.012
"""Fall of the mean contrast that is answered (0.6 % of QBER)."""
SMALL_STEP = 0.012
"""A round whose steps are all below this has arrived (0.14 % of QBER)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Public counts of one stretch of slots at one setting.

    Parameters
    ----------
    z_right, z_wrong : clicks of preamble symbols with the right and the wrong Z outcome.
    x_right, x_wrong : check-basis symbols with the right and the wrong X outcome.
    """

    z_right: int = 0
    z_wrong: int = 0
    x_right: int = 0
    x_wrong: int = 0

    def __add__(self, other: Reading) -> Reading:
        return Reading(
            self.z_right + other.z_right,
            self.z_wrong + other.z_wrong,
            self.x_right + other.x_right,
            self.x_wrong + other.x_wrong,
        )

    @property
    def clicks(self) -> int:
        """Of the scarcer basis."""
        return min(self.z_right + self.z_wrong, self.x_right + self.x_wrong)

    @property
    def score(self) -> float:
        """Mean contrast of the two bases: what is climbed."""
        z, x = self.z_right + self.z_wrong, self.x_right + self.x_wrong
        return 0.5 * ((self.z_right - self.z_wrong) / max(z, 1) + (self.x_right - self.x_wrong) / max(x, 1))


@dataclass
class Feedback:
    """Where the retarders should be.

    Parameters
    ----------
    n_axes : of the controller, all periodic in 0 .. 1.
    enough_clicks : of each basis, for one reading.
    patience_s : how long a setting may fail to give a lock.
    """

    n_axes: int = 4
    enough_clicks: int = 2000
    patience_s: float = 8.0
    axes: Axes = field(init=False)
    state: str = field(init=False, default="searching")
    _sum: Reading = field(init=False, default_factory=Reading)
    _centre: Axes = field(init=False)
    _axis: int = field(init=False, default=0)
    _above: float | None = field(init=False, default=None)
    _largest: float = field(init=False, default=0.0)
    _best: float = field(init=False, default=-1.0)
    _dark_s: float = field(init=False, default=0.0)
    _tried: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.axes = np.resize(START, self.n_axes)
        self._centre = self.axes.copy()

    def without_lock(self, seconds: float) -> Axes | None:
        """So much time has gone by without a lock; the next position to try, or None to wait on."""
        self._dark_s += seconds
        if self._dark_s < self.patience_s:
            return None
        self._dark_s = 0.0
        if self.state == "climbing":  # a reading that loses the light is as bad as no contrast
            return self._probed(-0.1)
        self.state = "searching"
        rounds, place = divmod(self._tried, len(SEARCH))
        self._tried += 1
        return self._move(np.resize(START + SEARCH[place] + rounds * SEARCH_TURN, self.n_axes) % 1.0)

    def add(self, reading: Reading) -> Axes | None:
        """More counts at the present setting, with a lock; the next position, or None to stay."""
        self._dark_s = 0.0
        self._sum = self._sum + reading
        if self._sum.clicks < self.enough_clicks:
            return None
        score, self._sum = self._sum.score, Reading()
        if self.state == "climbing":
            return self._probed(score)
        if self.state == "watching":
            self._best = max(self._best, score)
            if score > self._best - TOLERATED:
                return None
        self.state, self._best = "climbing", score
        self._centre, self._axis, self._above, self._largest = self.axes.copy(), 0, None, 0.0
        return self._probe(PROBE)

    def _probed(self, score: float) -> Axes:
        """One side has been read; read the other, or move along the slope and take the next axis."""
        if self._above is None:
            self._above = score
            return self._probe(-PROBE)
        slope = (self._above - score) / (2.0 * math.sin(2.0 * math.pi * PROBE))
        here = 0.5 * (self._above + score)
        step = math.copysign(LONGEST_STEP, slope) if here < FAR and abs(slope) > 0.1 else GAIN * slope
        step = min(max(step, -LONGEST_STEP), LONGEST_STEP)
        if here < 0.6 and abs(slope) < 0.05:  # flat and low: not the top but the bottom, or beside it
            step = LONGEST_STEP
        self._centre[self._axis] = (self._centre[self._axis] + step) % 1.0
        self._largest, self._above = max(self._largest, abs(step)), None
        self._axis = (self._axis + 1) % self.n_axes
        if self._axis == 0:
            arrived, self._largest = self._largest < SMALL_STEP, 0.0
            if arrived and here > FAR:
                self.state, self._best = "watching", -1.0
                return self._move(self._centre)
        return self._probe(PROBE)

    def _probe(self, to_side: float) -> Axes:
        axes = self._centre.copy()
        axes[self._axis] = (axes[self._axis] + to_side) % 1.0
        return self._move(axes)

    def _move(self, axes: Axes) -> Axes:
        self.axes = axes.copy()
        self._sum = Reading()
        return self.axes
