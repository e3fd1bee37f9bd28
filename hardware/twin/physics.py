"""What simulated light does between Alice's modulator and Bob's time bins. Pure: arithmetic and an explicit generator.

Only what happens is sampled: the next slot with a detected photon is drawn, the slots between are skipped.
Source model: photon number 0, 1, 2 with p2 = g2 <n>^2 / 2 and p1 = <n> - 2 p2 (arXiv:2406.02045), or Poissonian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import ConfigurationError, DeviceError
from common.planning.presets import LinkParameters
from common.units import PS_PER_S

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
#: Tags this near to the end of a batch wait for the next one: jitter may still put a tag before them.
HOLD_BACK_PS = 5_000
#: Random-walk frequency noise whose Allan deviation is 2.4e-9 at 10 s: K sqrt(tau / 3).
CLOCK_WALK_PER_SQRT_S = 2.4e-9 * math.sqrt(3.0 / 10.0)
_N_DETECTORS = 4

Generator = np.random.Generator


def single_photon_table(mean_photon_number: float, g2: float, transmittance: float) -> NDArray[np.float64]:
    """*(1, 3) float64*: probability that at least 1, 2, 3 photons of a pulse are detected, for a source with g2."""
    p2 = 0.5 * g2 * mean_photon_number**2
    p1 = mean_photon_number - 2.0 * p2
    if p1 < 0.0 or p1 + p2 > 1.0:
        raise ConfigurationError(
            f"<n> = {mean_photon_number} with g2 = {g2} is not a distribution over 0, 1, 2 photons"
        )
    one = p1 * transmittance + p2 * (1.0 - (1.0 - transmittance) ** 2)
    return np.array([[one, p2 * transmittance**2, 0.0]])


def poisson_table(mean_photon_numbers: tuple[float, ...], transmittance: float) -> NDArray[np.float64]:
    """*(k, 3) float64*: the same for weak coherent pulses of each intensity; more than three count as three."""
    rows = []
    for mean in mean_photon_numbers:
        detected = mean * transmittance
        none = math.exp(-detected)
        rows.append(
            [-math.expm1(-detected), 1.0 - none * (1.0 + detected), 1.0 - none * (1.0 + detected + detected**2 / 2)]
        )
    return np.array(rows)


@njit(cache=True, nogil=True)
def sample_photons(
    rng: Any,
    table: NDArray[np.float64],
    basis: NDArray[np.uint64],
    bit: NDArray[np.uint64],
    intensity: NDArray[np.uint64],
    slot_ps: float,
    sigma_ps: float,
    error: float,
    p_x_bob: float,
    next_slot: int,
    times: NDArray[np.float64],
    channels: NDArray[np.uint8],
) -> tuple[int, int]:  # pragma: no cover - compiled
    """Detected photons of one batch of slots: times in ps since its first slot, nearly ascending.

    Parameters
    ----------
    table : *(levels, 3)*, see :func:`poisson_table`.
    basis, bit : *(n_words,) uint64* planes; intensity : *(planes, n_words) uint64*.
    error : probability of the wrong outcome in the prepared basis; p_x_bob : probability that Bob's splitter chooses X.
    next_slot : slot of the next candidate, counted from the batch's start.
    times, channels : room for the result.

    Returns
    -------
    (number of photons, next candidate counted from the next batch's start); -1 photons if there was no room.
    """
    n_slots = 64 * basis.size
    most = table[:, 0].max()
    if most <= 0.0:
        return 0, max(next_slot - n_slots, 0)
    rate = -math.log1p(-most) if most < 1.0 else math.inf
    one = np.uint64(1)
    n, slot = 0, next_slot
    while slot < n_slots:
        if n + 3 > times.size:
            return -1, 0
        word, shift = slot >> 6, np.uint64(slot & 63)
        level = 0
        for plane in range(intensity.shape[0]):
            level |= int((intensity[plane, word] >> shift) & one) << plane
        any_photon = table[level, 0] if level < table.shape[0] else 0.0
        draw = rng.random() * most
        if draw < any_photon:
            photons = 1 + int(draw < table[level, 1]) + int(draw < table[level, 2])
            in_x = int((basis[word] >> shift) & one)
            value = int((bit[word] >> shift) & one)
            for _ in range(photons):
                measured_x = int(rng.random() < p_x_bob)
                flip = error if measured_x == in_x else 0.5
                outcome = value ^ int(rng.random() < flip)
                times[n] = slot * slot_ps + rng.standard_normal() * sigma_ps
                channels[n] = 2 * measured_x + outcome
                n += 1
        slot += 1 + int(rng.standard_exponential() / rate)
    return n, slot - n_slots


@njit(cache=True, nogil=True)
def drop_in_recovery(
    times: NDArray[np.int64], channels: NDArray[np.uint8], recovery_ps: int, last: NDArray[np.int64]
) -> int:  # pragma: no cover - compiled
    """Drop clicks of a detector that has not recovered (non-paralysable), in place; the number that stay.

    ``last`` *(4,) int64*: each detector's last click, kept from batch to batch.
    """
    n = 0
    for i in range(times.size):
        channel = channels[i]
        if times[i] - last[channel] >= recovery_ps:
            last[channel] = times[i]
            times[n], channels[n] = times[i], channel
            n += 1
    return n


@dataclass
class TaggerClock:
    """Bob's free-running clock beside Alice's: offset, drift and a random walk of the frequency.

    Parameters
    ----------
    start_ps : reading when the light starts. offset, drift_per_s : fractional frequency and its change.
    walk : size of the random walk, per square root of a second.
    """

    start_ps: int
    offset: float
    drift_per_s: float
    walk: float
    rng: Generator
    _whole_ps: int = field(init=False)
    _part_ps: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._whole_ps = self.start_ps

    @property
    def now_ps(self) -> float:
        """Part of a ps beyond :attr:`whole_ps`."""
        return self._part_ps

    @property
    def whole_ps(self) -> int:
        """The reading, rounded down."""
        return self._whole_ps

    @property
    def rate(self) -> float:
        """Bob's ps for one ps of Alice."""
        return 1.0 + self.offset

    def advance(self, duration_ps: float) -> None:
        """Let Alice's time go on; the frequency is constant within one call."""
        part = self._part_ps + duration_ps * self.rate
        whole = math.floor(part)
        self._whole_ps += whole
        self._part_ps = part - whole
        seconds = duration_ps / PS_PER_S
        self.offset += self.drift_per_s * seconds
        if self.walk:
            self.offset += self.walk * math.sqrt(seconds) * self.rng.standard_normal()


class Receiver:
    """Everything between the fibre and the time tags: loss, splitter, detectors, darks, jitter, recovery, bins.

    Parameters
    ----------
    link : the link's physics. intensities : mean photon numbers of weak coherent pulses; empty for the single-photon
        source of ``link``. clock : the tagger's clock. seed : makes the light reproducible, whatever the batches.
    """

    def __init__(
        self, link: LinkParameters, intensities: tuple[float, ...], clock: TaggerClock, seed: np.random.SeedSequence
    ) -> None:
        self._link, self.clock = link, clock
        self._light, self._dark = (np.random.default_rng(child) for child in seed.spawn(2))
        self._slot_ps = PS_PER_S / link.clock_rate_hz
        self._sigma_ps = math.hypot(link.pulse_width_ps / FWHM_PER_SIGMA, link.jitter_ps)
        if intensities:
            self._table = poisson_table(intensities, link.transmittance)
        else:
            self._table = single_photon_table(link.mean_photon_number, link.g2, link.transmittance)
        self._next_slot = 0
        self._next_dark_ps = self._dark_gap()
        self._last = np.full(_N_DETECTORS, -(1 << 62), np.int64)
        self._waiting = (np.zeros(0, np.int64), np.zeros(0, np.uint8))

    def light(
        self, basis: NDArray[np.uint64], bit: NDArray[np.uint64], intensity: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
        """The next slots arrive: (times in ps, channels, until when nothing is missing)."""
        n_slots = 64 * basis.size
        mean = n_slots * float(self._table.max()) * 1.5
        room = int(mean + 12.0 * math.sqrt(mean)) + 64
        times, channels = np.empty(room), np.empty(room, np.uint8)
        link = self._link
        n, self._next_slot = sample_photons(
            self._light,
            self._table,
            basis,
            bit,
            intensity,
            self._slot_ps,
            self._sigma_ps,
            link.misalignment,
            1.0 - link.p_z_bob,
            self._next_slot,
            times,
            channels,
        )
        if n < 0:
            raise DeviceError("the simulated receiver ran out of room for clicks")
        return self._batch(times[:n], channels[:n], n_slots * self._slot_ps)

    def darkness(self, duration_ps: float) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
        """No light arrives for a while."""
        self._next_slot = 0
        return self._batch(np.zeros(0), np.zeros(0, np.uint8), duration_ps)

    def _dark_gap(self) -> float:
        rate = self._link.dark_rate_cps
        return float(self._dark.standard_exponential()) * PS_PER_S / rate if rate > 0.0 else math.inf

    def _darks(self, duration_ps: float) -> tuple[list[float], list[int]]:
        times, channels = [], []
        while self._next_dark_ps < duration_ps:
            times.append(self._next_dark_ps)
            channels.append(int(self._dark.integers(_N_DETECTORS)))
            self._next_dark_ps += self._dark_gap()
        self._next_dark_ps -= duration_ps
        return times, channels

    def _batch(
        self, times: NDArray[np.float64], channels: NDArray[np.uint8], duration_ps: float
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
        """Put clicks on Bob's clock, merge, blank, bin; the last few ns wait for the next batch."""
        dark_times, dark_channels = self._darks(duration_ps)
        if dark_times:
            times = np.concatenate([times, dark_times])
            channels = np.concatenate([channels, np.array(dark_channels, np.uint8)])
        start_ps = self.clock.whole_ps
        ticks = np.floor(self.clock.now_ps + times * self.clock.rate).astype(np.int64) + start_ps
        self.clock.advance(duration_ps)
        ticks = np.concatenate([self._waiting[0], ticks])
        channels = np.concatenate([self._waiting[1], channels])
        order = np.argsort(ticks, kind="stable")
        ticks, channels = ticks[order], channels[order]
        until_ps = self._to_bin(self.clock.whole_ps - HOLD_BACK_PS)
        ready = int(np.searchsorted(ticks, until_ps))
        self._waiting = (ticks[ready:].copy(), channels[ready:].copy())
        ticks, channels = ticks[:ready], channels[:ready]
        kept = drop_in_recovery(ticks, channels, self._link.dead_time_ps, self._last)
        resolution = self._link.resolution_ps
        binned = np.floor(np.floor(ticks[:kept] / resolution) * resolution).astype(np.int64)
        return binned, channels[:kept].copy(), until_ps

    def _to_bin(self, time_ps: int) -> int:
        resolution = self._link.resolution_ps
        return math.floor(math.floor(time_ps / resolution) * resolution)
