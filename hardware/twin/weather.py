"""The simulated link's weather: fading, background light, interruptions, and a fibre that turns polarisation. Pure.

Fading: the loss in dB is an Ornstein-Uhlenbeck process (log-normal transmittance with one correlation time), as the
field link of arXiv:2406.02045 shows (14.6 dB, standard deviation 1.1 dB). Polarisation: Bloch vectors a -> T a with T a
random walk on the rotations, seen by Bob after his controller's retarders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Generator = np.random.Generator

#: Bloch vectors of the symbols H, V, R, L, which are also the axes of the four detectors.
BLOCH = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
N_AXES = 4


@dataclass(frozen=True, slots=True)
class Climate:
    """What the weather is made of; the defaults are a perfect day.

    Parameters
    ----------
    fading_db, fading_time_s : standard deviation of the loss in dB and its correlation time.
    background_cps, background_period_s : most background counts of all detectors together, and the length of a day
        (it is night at the start).
    outages_s : (start, duration) in link seconds of interruptions of the light.
    polarisation_drift : root mean square angle in radians after one second. random_polarisation : start anywhere.
    """

    fading_db: float = 0.0
    fading_time_s: float = 1.0
    background_cps: float = 0.0
    background_period_s: float = 86_400.0
    outages_s: tuple[tuple[float, float], ...] = ()
    polarisation_drift: float = 0.0
    random_polarisation: bool = False

    @property
    def calm(self) -> bool:
        """Whether nothing ever changes."""
        return self == Climate(fading_time_s=self.fading_time_s, background_period_s=self.background_period_s)


def rotation(axis: Sequence[float] | NDArray[np.float64], angle: float) -> Matrix:
    """*(3, 3)*: the rotation about a unit vector (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turned: Matrix = np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)
    return turned


def random_rotation(rng: Generator) -> Matrix:
    """Uniform over all rotations (QR of a Gaussian matrix with the signs fixed: Mezzadri, math-ph/0609050)."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q if np.linalg.det(q) > 0.0 else -q)


def controller_rotation(positions: Sequence[float] | NDArray[np.float64]) -> Matrix:
    """*(3, 3)*: four retarders, positions 0 .. 1 of a turn, about z, x, z, x in the order of the light."""
    whole = np.eye(3)
    for number, position in enumerate(positions):
        axis = (1.0, 0.0, 0.0) if number % 2 else (0.0, 0.0, 1.0)
        whole = rotation(axis, 2.0 * math.pi * float(position)) @ whole
    return whole


@dataclass
class Weather:
    """The weather as it is now; the same seed gives the same weather whatever the steps are used for."""

    climate: Climate
    rng: Generator
    now_s: float = 0.0
    excess_db: float = 0.0
    fibre: Matrix = field(default_factory=lambda: np.eye(3))

    def __post_init__(self) -> None:
        self.excess_db = self.climate.fading_db * float(self.rng.standard_normal())
        if self.climate.random_polarisation:
            self.fibre = random_rotation(self.rng)

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        climate = self.climate
        self.now_s += seconds
        kept = math.exp(-seconds / climate.fading_time_s)
        step = climate.fading_db * math.sqrt(1.0 - kept * kept)
        self.excess_db = kept * self.excess_db + step * float(self.rng.standard_normal())
        if climate.polarisation_drift:
            axis = self.rng.standard_normal(3)
            # Three independent angles whose squares sum to drift^2 t on average.
            angle = climate.polarisation_drift * math.sqrt(seconds / 3.0) * float(np.linalg.norm(axis))
            self.fibre = rotation(axis / np.linalg.norm(axis), angle) @ self.fibre

    @property
    def light_on(self) -> bool:
        """False during an interruption."""
        return not any(start <= self.now_s < start + duration for start, duration in self.climate.outages_s)

    @property
    def transmittance(self) -> float:
        """Factor on the link's mean transmittance; never more light than a link without loss would give by itself."""
        return 10.0 ** (-self.excess_db / 10.0) if self.light_on else 0.0

    @property
    def background_cps(self) -> float:
        """Counts per second of all detectors together, darks not included."""
        phase = 2.0 * math.pi * self.now_s / self.climate.background_period_s
        return self.climate.background_cps * 0.5 * (1.0 - math.cos(phase))
