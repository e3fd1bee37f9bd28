"""Bob's clock: the frequency of the light's comb, found and then tracked. Pure: clicks in, a clock model out.

The slot position of a time is ``x(t) = phase + (t - origin) * rate``; clicks of the light lie at whole ``x``.
Source: ours, decision 63.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.kernels import correlation, tags
from common.units import PS_PER_S

SEARCH_PPM = 30.0
"""Lines of a time digitiser's interpolator can outrank the light's: never look further from the nominal rate."""
FIRST_WINDOW_PS = 50_000_000_000
LONGEST_WINDOW_PS = 400_000_000_000
BIN_PS = 100_000_000
"""Down-mixing bins: 10 kHz of bandwidth holds +-30 ppm of 76 MHz (4.6 kHz)."""
MAX_SEARCH_CLICKS = 1 << 17
PEAK_POWER = 24.0
"""Noise power is exponential with mean 1: exp(-24) times about 1e4 independent lines is below 1e-6."""

WALK_PER_S = 1e-17
"""Random walk of the fractional frequency, variance a second: twice that of a free-running laser (2.4e-9 at 10 s)."""
SIGNIFICANT_POWER = 12.0
PHASE_FLOOR_SLOTS = 7e-4
MAX_JUMP_SLOTS = 0.25
SMALL_JUMP_SLOTS = 0.05
SMALL_JUMP_SIGMA = 8.0
"""No clock moves like this: another comb (a restarted Alice). Only the preamble can tell its slot numbers."""
MAX_SIGMA_SLOTS = 1.0 / 12.0
"""Holdover ends where three standard deviations of the phase reach a quarter slot."""


@dataclass(frozen=True, slots=True)
class CombLine:
    """The light's line: ``x(at_ps) = phase`` (slots, modulo 1), its rate in Hz and both standard deviations."""

    at_ps: int
    phase: float
    rate_hz: float
    sigma_phase: float
    sigma_rate_hz: float
    power: float


def find_comb(times_ps: NDArray[np.int64], start_ps: int, window_ps: int, nominal_hz: float) -> CombLine | None:
    """Find the line of the light within +-30 ppm of the nominal rate, or None if nothing stands out of the noise.

    Parameters
    ----------
    times_ps : *(n,) int64*, the clicks of the window, ascending.
    start_ps, window_ps : the window.

    Notes
    -----
    Cost: one sine and cosine a click (thinned to ``MAX_SEARCH_CLICKS``), one FFT of 8 window / 0.1 ms points.
    """
    clicks = np.ascontiguousarray(times_ps[:: max(1, math.ceil(times_ps.size / MAX_SEARCH_CLICKS))])
    if clicks.size < PEAK_POWER:
        return None
    bin_ps = min(BIN_PS, int(0.2 * PS_PER_S / (SEARCH_PPM * 1e-6 * nominal_hz)))
    bins = max(1, window_ps // bin_ps)
    re, im = np.zeros(bins), np.zeros(bins)
    correlation.down_mix(clicks, start_ps, nominal_hz / PS_PER_S, float(bin_ps), re, im)
    mixed = re + 1j * im
    size = 1 << (8 * bins - 1).bit_length()
    offsets_hz = np.fft.fftfreq(size, bin_ps / PS_PER_S)
    power = np.abs(np.fft.ifft(mixed, size) * size) ** 2 / clicks.size
    power[np.abs(offsets_hz) > SEARCH_PPM * 1e-6 * nominal_hz] = 0.0
    peak = int(np.argmax(power))
    if power[peak] < PEAK_POWER:
        return None
    return _line(mixed, power, peak, offsets_hz, start_ps, bin_ps, nominal_hz)


def _line(
    mixed: NDArray[np.complex128],
    power: NDArray[np.floating[Any]],
    peak: int,
    offsets_hz: NDArray[np.floating[Any]],
    start_ps: int,
    bin_ps: int,
    nominal_hz: float,
) -> CombLine:
    before, top, after = power[peak - 1], power[peak], power[(peak + 1) % power.size]
    bend = before - 2.0 * top + after
    offset_hz = float(offsets_hz[peak] + offsets_hz[1] * (0.5 * (before - after) / bend if bend < 0 else 0.0))
    window_s = mixed.size * bin_ps / PS_PER_S
    centre_s = 0.5 * window_s
    bin_s = (np.arange(mixed.size) + 0.5) * bin_ps / PS_PER_S
    total = complex(np.sum(mixed * np.exp(2j * np.pi * offset_hz * (bin_s - centre_s))))
    phase = nominal_hz * centre_s - np.angle(total) / (2.0 * np.pi)
    sigma = 1.0 / (2.0 * math.pi * math.sqrt(2.0 * top))
    return CombLine(
        at_ps=start_ps + round(centre_s * PS_PER_S),
        phase=float(phase % 1.0),
        rate_hz=nominal_hz + offset_hz,
        sigma_phase=max(sigma, 5e-3),
        sigma_rate_hz=math.sqrt(12.0) * max(sigma, 5e-3) / window_s,
        power=float(top),
    )


class FrequencySearch:
    """Collects clicks until the comb is found; doubles the window (50 .. 400 ms) while the light is too weak."""

    def __init__(self, nominal_hz: float, start_ps: int) -> None:
        self._nominal_hz = nominal_hz
        self._start_ps = start_ps
        self._window_ps = FIRST_WINDOW_PS
        self._parts: list[NDArray[np.int64]] = []

    @property
    def window_end_ps(self) -> int:
        """Clicks up to here are wanted next."""
        return self._start_ps + self._window_ps

    def add(self, times_ps: NDArray[np.int64]) -> None:
        """More clicks, all before ``window_end_ps``."""
        if times_ps.size:
            self._parts.append(times_ps)

    def skip_to(self, time_ps: int) -> None:
        """If nothing clicked so far, let the window start at a later time."""
        if not self._parts and time_ps > self._start_ps:
            self._start_ps, self._window_ps = time_ps, FIRST_WINDOW_PS

    def conclude(self) -> CombLine | None:
        """To be called once the window is complete; None asks for more (``window_end_ps`` has moved)."""
        clicks = np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=np.int64)
        line = find_comb(clicks, self._start_ps, self._window_ps, self._nominal_hz)
        if line is None and self._window_ps < LONGEST_WINDOW_PS and clicks.size < MAX_SEARCH_CLICKS:
            self._parts = [clicks]
            self._window_ps *= 2
        elif line is None:
            self._start_ps, self._window_ps, self._parts = self.window_end_ps, FIRST_WINDOW_PS, []
        return line


class ClockTracker:
    """A two-state Kalman filter: phase (slots) and rate (Hz) of the light in the tagger's time.

    Notes
    -----
    The state is moved to the end of each measured stretch, so that ``t - origin_ps`` stays small and float64 exact.
    Process noise is a random walk of the frequency; without light the variance grows until ``holding`` is False.
    """

    def __init__(self, line: CombLine, origin_slot: int = 0) -> None:
        self.origin_ps = line.at_ps
        self.origin_slot = origin_slot
        self.phase = line.phase
        self.rate_hz = line.rate_hz
        self._p00 = line.sigma_phase**2
        self._p01 = 0.0
        self._p11 = line.sigma_rate_hz**2
        self._walk = WALK_PER_S * line.rate_hz**2
        self.last_offset = 0.0
        """Offset of the light from the gate's centre when it was last measured, in slots."""

    @property
    def slots_per_ps(self) -> float:
        """The rate in slots per ps."""
        return self.rate_hz / PS_PER_S

    @property
    def sigma_slots(self) -> float:
        """Standard deviation of the phase at the origin, in slots."""
        return math.sqrt(self._p00)

    @property
    def holding(self) -> bool:
        """Whether the slot of a click is still certain."""
        return self.sigma_slots < MAX_SIGMA_SLOTS

    def positions(self, times_ps: NDArray[np.int64]) -> NDArray[np.float64]:
        """*(n,) float64*: times in slots after the centre of the origin's slot, as the kernel of the gate has them."""
        return self.phase + (times_ps - self.origin_ps).astype(np.float64) * self.slots_per_ps

    def slot_at(self, time_ps: int) -> int:
        """The slot that a time belongs to (slots are centred on the light)."""
        return self.origin_slot + math.floor(self.phase + (time_ps - self.origin_ps) * self.slots_per_ps + 0.5)

    def start_ps(self, slot: int) -> int:
        """The first whole ps of a slot."""
        return self.origin_ps + math.ceil((slot - self.origin_slot - 0.5 - self.phase) / self.slots_per_ps)

    def shift(self, slots: int) -> None:
        """Renumber: every slot number grows by ``slots``."""
        self.origin_slot += slots

    def advance(self, to_ps: int) -> None:
        """Move the origin forward without a measurement."""
        dt = (to_ps - self.origin_ps) / PS_PER_S
        self.phase += dt * self.rate_hz
        whole = math.floor(self.phase + 0.5)
        self.phase -= whole
        self.origin_slot += whole
        self.origin_ps = to_ps
        self._p00 += dt * (2.0 * self._p01 + dt * self._p11) + self._walk * dt**3 / 3.0
        self._p01 += dt * self._p11 + self._walk * dt**2 / 2.0
        self._p11 += self._walk * dt

    def measure(self, moments: NDArray[np.float64], outside: NDArray[np.int64], half_gate: float, to_ps: int) -> str:
        """Correct the clock by what the gate saw since the origin and move the origin to ``to_ps``.

        Parameters
        ----------
        moments, outside : from :func:`common.kernels.tags.gate`, gathered since the last call.

        Returns
        -------
        str : ``"light"`` (corrected), ``"dark"`` (no comb stands out; only advanced) or ``"jump"`` (the comb is there
            but not where the clock can have moved: the slot number is no longer certain).
        """
        seen = _offset(moments, outside, half_gate)
        if seen is None:
            self.advance(to_ps)
            return "dark"
        offset, variance, mean_position = seen
        self.last_offset = offset
        at_ps = self.origin_ps + round((mean_position - self.phase) / self.slots_per_ps)
        self.advance(min(max(at_ps, self.origin_ps), to_ps))
        total = self._p00 + variance
        surprising = abs(offset) > SMALL_JUMP_SLOTS and offset**2 > SMALL_JUMP_SIGMA**2 * total
        if abs(offset) > MAX_JUMP_SLOTS or surprising:
            self.advance(to_ps)
            return "jump"
        gain0, gain1 = self._p00 / total, self._p01 / total
        self.phase -= float(gain0 * offset)
        self.rate_hz -= float(gain1 * offset)
        self._p11 -= gain1 * self._p01
        self._p01 -= gain0 * self._p01
        self._p00 -= gain0 * self._p00
        self.advance(to_ps)
        return "light"


_PHASORS = np.exp(2j * np.pi * ((np.arange(tags.OUTSIDE_BINS) + 0.5) / tags.OUTSIDE_BINS - 0.5))
"""The unit vector of each bin of clicks outside the gate."""


def light_power(moments: NDArray[np.float64], outside: NDArray[np.int64]) -> float:
    """How far the comb stands out: |sum of exp(2 pi i d)|^2 / n; noise alone has mean 1."""
    return _power(_resultant(moments, outside), moments[tags.IN_GATE] + outside.sum())


def _power(resultant: complex, clicks: float) -> float:
    return float(abs(resultant) ** 2 / clicks) if clicks else 0.0


def _resultant(moments: NDArray[np.float64], outside: NDArray[np.int64]) -> complex:
    re = moments[tags.IN_GATE] - 2.0 * math.pi**2 * moments[tags.SUM_OFFSET_SQUARED]
    im = 2.0 * math.pi * moments[tags.SUM_OFFSET]
    return complex(re, im) + complex(np.dot(outside, _PHASORS))


def _offset(
    moments: NDArray[np.float64], outside: NDArray[np.int64], half_gate: float
) -> tuple[float, float, float] | None:
    """Offset of the light from the gate's centre (slots), its variance, and the mean position it belongs to."""
    n, n_outside = float(moments[tags.IN_GATE]), float(outside.sum())
    resultant = _resultant(moments, outside)
    power = _power(resultant, n + n_outside)
    if power < SIGNIFICANT_POWER:
        return None
    angle = float(np.angle(resultant) / (2.0 * np.pi))
    background = n_outside * 2.0 * half_gate / (1.0 - 2.0 * half_gate)
    if n == 0 or abs(angle) > 0.6 * half_gate or background > 0.8 * n:
        position = moments[tags.SUM_POSITION] / n if n else 0.0
        return angle, 1.0 / (8.0 * math.pi**2 * power) + PHASE_FLOOR_SLOTS**2, position
    mean = moments[tags.SUM_OFFSET] / n
    spread = max(moments[tags.SUM_OFFSET_SQUARED] / n - mean * mean, 0.0)
    of_light = 1.0 - background / n
    return mean / of_light, spread / n / of_light**2 + PHASE_FLOOR_SLOTS**2, moments[tags.SUM_POSITION] / n
