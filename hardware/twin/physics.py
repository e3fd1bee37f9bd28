"""What simulated light does between Alice's modulator and Bob's time bins. Pure: arithmetic and an explicit generator.

Only what happens is sampled: the next slot with a detected photon is drawn, the slots between are skipped.
Source model: photon number 0, 1, 2 with p2 = g2 <n>^2 / 2 and p1 = <n> - 2 p2 (arXiv:2406.02045), or Poissonian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigurationError, DeviceError
from common.planning.presets import LinkParameters
from common.units import PS_PER_S
from hardware.twin import draws
from hardware.twin.clicks import put_on_clock, record, sample_photons
from hardware.twin.eve import Eve
from hardware.twin.weather import BLOCH, N_AXES, Matrix, Weather, controller_rotation

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
#: Tags this near to the end of a batch wait for the next one: jitter may still put a tag before them.
HOLD_BACK_PS = 5_000
#: Random-walk frequency noise whose Allan deviation is 2.4e-9 at 10 s: K sqrt(tau / 3).
CLOCK_WALK_PER_SQRT_S = 2.4e-9 * math.sqrt(3.0 / 10.0)
#: White frequency noise that makes up the rest of 4e-10 at 0.1 s: N / sqrt(tau); a phase step of N sqrt(dt) seconds.
CLOCK_WHITE_SQRT_S = math.sqrt(0.1 * ((4e-10) ** 2 - CLOCK_WALK_PER_SQRT_S**2 * 0.1 / 3.0))
_N_DETECTORS = 4
#: The weather is looked at so often: 55 ms at 76 MHz.
WEATHER_SLOTS = 1 << 22

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


def channel_table(misalignment: float, p_x_bob: float, turned: Matrix | None = None) -> NDArray[np.float64]:
    """*(4, 4) float64*: probability of each detector (H, V, R, L) for one photon of each symbol (H, V, R, L).

    Parameters
    ----------
    misalignment : wrong outcome in the prepared basis (a depolarisation); in the other basis either has 1/2.
    p_x_bob : probability of measuring X. turned : *(3, 3)*, what happens to Bloch vectors on the way; None: nothing.

    Notes
    -----
    (1 + (1 - 2 e) b . T a) / 2 for the outcome b of a symbol a.
    """
    overlap = BLOCH @ (np.eye(3) if turned is None else turned).T @ BLOCH.T
    p_basis = np.array([1.0 - p_x_bob, 1.0 - p_x_bob, p_x_bob, p_x_bob])
    return np.asarray(0.5 * (1.0 + (1.0 - 2.0 * misalignment) * overlap) * p_basis)


class Sampler:
    """Detected photons of a stream of symbols; only slots with a candidate photon are visited.

    Parameters
    ----------
    numbers : *(levels, >= 3)*, see :func:`poisson_table`. channels : *(4, 4)*, see :func:`channel_table`.
    slot_ps, sigma_ps : slot period and standard deviation of a click's time. seed : of the stream.
    """

    def __init__(
        self,
        numbers: NDArray[np.float64],
        channels: NDArray[np.float64],
        slot_ps: float,
        sigma_ps: float,
        seed: np.random.SeedSequence,
    ) -> None:
        self._slot_ps, self._sigma_ps = slot_ps, sigma_ps
        self._counter = seed.generate_state(1, np.uint64)
        self._normal = draws.normal_tables()
        self.set_light(numbers, channels)

    def set_light(self, numbers: NDArray[np.float64], channels: NDArray[np.float64]) -> None:
        """Other probabilities hold from now on."""
        most = float(numbers[:, 0].max())
        self._photons_per_slot = float(numbers.sum(axis=1).max())
        self._gaps = draws.gap_tables(most)
        shares = numbers / most if most > 0.0 else numbers
        self._numbers = np.array([[draws.threshold(p) for p in row] for row in shares], np.uint64)
        sums = np.cumsum(channels, axis=1)[:, :3]
        self._channels = np.array([[draws.threshold(p) for p in row] for row in sums], np.uint64)
        self.restart()

    def restart(self) -> None:
        """The next slot is the first after darkness: the next candidate is drawn from there."""
        self._next_slot = -1

    def sample(
        self, basis: NDArray[np.uint64], bit: NDArray[np.uint64], intensity: NDArray[np.uint64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Times in ps since the first slot, nearly ascending, and detectors of the photons of the next slots."""
        mean = 64 * basis.size * self._photons_per_slot
        room = int(mean + 12.0 * math.sqrt(mean)) + 64
        times, channels = np.empty(room), np.empty(room, np.uint8)
        n, self._next_slot = sample_photons(
            self._counter,
            *self._gaps,
            self._numbers,
            self._channels,
            *self._normal,
            basis,
            bit,
            intensity,
            self._slot_ps,
            self._sigma_ps,
            self._next_slot,
            times,
            channels,
        )
        if n < 0:
            raise DeviceError("the simulated receiver ran out of room for clicks")
        return times[:n], channels[:n]


@dataclass
class TaggerClock:
    """Bob's free-running clock beside Alice's: offset, drift, random walk and white noise of the frequency.

    Parameters
    ----------
    start_ps : reading when the light starts. offset, drift_per_s : fractional frequency and its change.
    walk : size of the random walk, per square root of a second. white : Allan deviation at 1 s of the white part.
    """

    start_ps: int
    offset: float
    drift_per_s: float
    walk: float
    rng: Generator
    white: float = 0.0
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
        seconds = duration_ps / PS_PER_S
        part = self._part_ps + duration_ps * self.rate
        if self.white:
            step_ps = self.white * math.sqrt(seconds) * PS_PER_S * self.rng.standard_normal()
            part += max(step_ps, -0.5 * duration_ps)
        whole = math.floor(part)
        self._whole_ps += whole
        self._part_ps = part - whole
        self.offset += self.drift_per_s * seconds
        if self.walk:
            self.offset += self.walk * math.sqrt(seconds) * self.rng.standard_normal()


class Receiver:
    """Everything between the fibre and the time tags: loss, splitter, detectors, darks, jitter, recovery, bins.

    Parameters
    ----------
    link : the link's physics. intensities : mean photon numbers of weak coherent pulses; empty for the single-photon
        source of ``link``. clock : the tagger's clock. seed : makes the light reproducible, whatever the batches.
    weather : what changes with time; None: nothing. eve : who listens; None: nobody.
    efficiencies : of the detectors H, V, R, L relative to the link's; a dead one (0) has no darks either.
    """

    def __init__(
        self,
        link: LinkParameters,
        intensities: tuple[float, ...],
        clock: TaggerClock,
        seed: np.random.SeedSequence,
        weather: Weather | None = None,
        eve: Eve | None = None,
        efficiencies: tuple[float, ...] = (1.0,) * _N_DETECTORS,
    ) -> None:
        self._link, self._intensities, self.clock, self.weather = link, intensities, clock, weather
        self._eve, self._efficiencies = eve, np.array(efficiencies)
        self._all_alike = min(efficiencies) == 1.0
        self.controller = np.zeros(N_AXES)
        self._weather_left = 0
        light_seed, dark_seed, weak_seed = seed.spawn(3)
        self._dark, self._weak = np.random.default_rng(dark_seed), np.random.default_rng(weak_seed)
        self._slot_ps = PS_PER_S / link.clock_rate_hz
        self._sampler = Sampler(
            *self._light_tables(),
            self._slot_ps,
            math.hypot(link.pulse_width_ps / FWHM_PER_SIGMA, link.jitter_ps),
            light_seed,
        )
        self._dark_left = float(self._dark.standard_exponential())
        self._last = np.full(_N_DETECTORS, -(1 << 62), np.int64)
        self._waiting = _no_clicks()

    def light(
        self, basis: NDArray[np.uint64], bit: NDArray[np.uint64], intensity: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
        """The next slots arrive: (times in ps, channels, until when nothing is missing)."""
        if self._eve is not None:
            basis, bit, intensity = self._eve.intercept(basis, bit, intensity)
        if self.weather is None:
            return self._batch(*self._sampler.sample(basis, bit, intensity), 64 * basis.size * self._slot_ps)
        parts, done = [], 0
        while done < basis.size:
            words = slice(done, min(basis.size, done + self._words_of_this_weather()))
            planes = (basis[words], bit[words], intensity[:, words])
            parts.append(self._batch(*self._sampler.sample(*planes), 64 * planes[0].size * self._slot_ps))
            self._weather_left -= planes[0].size
            done = words.stop
        return _join(parts)

    def _words_of_this_weather(self) -> int:
        """Words until the weather changes; it changes now if there are none left."""
        assert self.weather is not None
        if self._weather_left == 0:
            self.weather.advance(WEATHER_SLOTS * self._slot_ps / PS_PER_S)
            self._sampler.set_light(*self._light_tables())
            self._weather_left = WEATHER_SLOTS // 64
        return self._weather_left

    def _light_tables(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Photon numbers and detectors as the link and its weather are now."""
        link, weather = self._link, self.weather
        transmittance, turned = link.transmittance, None
        if weather is not None:
            transmittance = min(transmittance * weather.transmittance, 1.0)
            turned = controller_rotation(self.controller) @ weather.fibre
        if self._intensities:
            numbers = poisson_table(self._intensities, transmittance)
        else:
            numbers = single_photon_table(link.mean_photon_number, link.g2, transmittance)
        if self._eve is not None:
            behind_the_fibre = link.receiver_efficiency * link.detector_efficiency
            numbers = self._eve.numbers(numbers, self._pulses_with_light(), behind_the_fibre)
        return numbers, channel_table(link.misalignment, 1.0 - link.p_z_bob, turned)

    def _pulses_with_light(self) -> NDArray[np.float64]:
        """*(levels,) float64*: probability that a pulse holds a photon at Alice's exit."""
        if self._intensities:
            return poisson_table(self._intensities, 1.0)[:, 0]
        return single_photon_table(self._link.mean_photon_number, self._link.g2, 1.0)[:, 0]

    def _seen(
        self, times: NDArray[np.float64], channels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """What weak detectors leave of what arrives."""
        if self._all_alike:
            return times, channels
        kept = self._weak.random(times.size) < self._efficiencies[channels]
        return times[kept], channels[kept]

    def darkness(self, duration_ps: float) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
        """No light arrives for a while."""
        self._sampler.restart()
        return self._batch(np.zeros(0), np.zeros(0, np.uint8), duration_ps)

    def _darks(self, duration_ps: float) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Darks and background: ``_dark_left`` is how many more are expected before the next one comes."""
        rate = self._link.dark_rate_cps + (self.weather.background_cps if self.weather is not None else 0.0)
        expected = rate * duration_ps / PS_PER_S
        times, channels, done = [], [], 0.0
        while done + self._dark_left < expected:
            done += self._dark_left
            times.append(done / expected * duration_ps)
            channels.append(int(self._dark.integers(_N_DETECTORS)))
            self._dark_left = float(self._dark.standard_exponential())
        self._dark_left -= expected - done
        made = np.array(channels, np.uint8)
        alive = self._efficiencies[made] > 0.0
        return np.array(times, np.float64)[alive], made[alive]

    def _batch(
        self, times: NDArray[np.float64], channels: NDArray[np.uint8], duration_ps: float
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
        """Put clicks on Bob's clock, merge, blank, bin; the last few ns wait for the next batch."""
        times, channels = self._seen(times, channels)
        dark_times, dark_channels = self._darks(duration_ps)
        clock, held = self.clock, self._waiting[0].size
        n = held + times.size + dark_times.size
        ticks, where = np.empty(n, np.int64), np.empty(n, np.uint8)
        ticks[:held], where[:held] = self._waiting
        put_on_clock(
            times, channels, dark_times, dark_channels, clock.now_ps, clock.rate, clock.whole_ps, held, ticks, where
        )
        clock.advance(duration_ps)
        until_ps = self._to_bin(clock.whole_ps - HOLD_BACK_PS)
        ready = int(np.searchsorted(ticks, until_ps))
        self._waiting = (ticks[ready:].copy(), where[ready:].copy())
        binned, clicked = np.empty(ready, np.int64), np.empty(ready, np.uint8)
        grid_ps = self._to_bin(int(ticks[0])) if ready else 0
        resolution_ps = self._link.resolution_ps
        kept = record(
            ticks[:ready],
            where[:ready],
            self._link.dead_time_ps,
            self._last,
            grid_ps,
            resolution_ps,
            binned,
            clicked,
        )
        return binned[:kept], clicked[:kept], until_ps

    def _to_bin(self, time_ps: int) -> int:
        """The bin's edge at or before a time, on the grid of 1000 bins that are a whole number of ps long."""
        femtoseconds = round(1000.0 * self._link.resolution_ps)
        turns, rest_ps = divmod(time_ps, femtoseconds)
        return turns * femtoseconds + rest_ps * 1000 // femtoseconds * femtoseconds // 1000


def _no_clicks() -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return np.zeros(0, np.int64), np.zeros(0, np.uint8)


def _join(
    parts: list[tuple[NDArray[np.int64], NDArray[np.uint8], int]],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
    times, channels, untils = zip(*parts, strict=True)
    return np.concatenate(times), np.concatenate(channels), untils[-1]
