"""The twin behind the Protocols of real devices: a modulator that feeds the simulated fibre, a tagger at its end."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import Annotated, Any
from weakref import WeakValueDictionary

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.addresses import read_endpoint
from common.config import Config
from common.datatypes import Symbols, TimeTags
from common.errors import ConfigurationError, DeviceError
from common.planning.presets import PRESETS, LinkParameters
from common.units import PS_PER_S
from hardware.interfaces import NONE_HELD, DeviceInfo, SlotOrder
from hardware.registry import parse_parameters
from hardware.twin.axes import AxesTwin
from hardware.twin.eve import MOST_PHOTONS, Eve, Resend
from hardware.twin.fibre import FibreEntrance, FibreExit, Light
from hardware.twin.physics import CLOCK_WALK_PER_SQRT_S, CLOCK_WHITE_SQRT_S, Receiver, TaggerClock
from hardware.twin.real_time import LightClock, TagBuffer
from hardware.twin.weather import Climate, Weather


def _tcp(fibre: str) -> str:
    if read_endpoint(fibre) is None:
        raise ValueError("tcp://host:port is needed")
    return fibre


Fibre = Annotated[str, AfterValidator(_tcp)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
_MAX_OFFSET_PPM = 20.0
_MAX_START_S = 1000.0
#: Alice's light comes back (or starts anew) after so much darkness, at any phase of Bob's clock.
_PAUSE_S = 0.02
#: In real time the fibre is looked at so often for Alice.
_POLL_S = 0.1
#: Light is turned into at most about this many tags at once: what they take stays in the processor's cache.
_TAGS_AT_ONCE, _MOST_WORDS = 1 << 17, 1 << 16


class ModulatorParameters(BaseModel):
    """What a manifest says of `twin-modulator`."""

    model_config = ConfigDict(extra="forbid")
    fibre: Fibre


class WeatherParameters(BaseModel):
    """Table `weather` of `twin-time-tagger`: what changes with time, see :class:`~hardware.twin.weather.Climate`."""

    model_config = ConfigDict(extra="forbid")
    fading_db: float = Field(0.0, ge=0.0, le=10.0)
    fading_time_s: float = Field(1.0, gt=0.0)
    background_cps: float = Field(0.0, ge=0.0, le=1e7)
    background_period_s: float = Field(86_400.0, gt=0.0)
    outages_s: tuple[tuple[float, float], ...] = ()
    polarisation_drift: float = Field(0.0, ge=0.0, le=10.0)
    random_polarisation: bool = False


class EveParameters(BaseModel):
    """Table `eve` of `twin-time-tagger`: somebody measures in Z and resends, see :class:`~hardware.twin.eve.Resend`."""

    model_config = ConfigDict(extra="forbid")
    photons: int = Field(ge=1, le=MOST_PHOTONS)
    share: float = Field(1.0, gt=0.0, le=1.0)


class TaggerParameters(BaseModel):
    """Manifest of `twin-time-tagger`: a preset, its exceptions, and the tagger's clock."""

    model_config = ConfigDict(extra="forbid")
    fibre: Fibre
    preset: str = "field-14.6dB"
    seed: int | None = Field(None, ge=0)
    clock_offset_ppm: float | None = Field(None, ge=-50.0, le=50.0)
    """None: drawn from +-20 ppm."""
    clock_drift_per_s: float = 0.0
    clock_walk_per_sqrt_s: float = Field(CLOCK_WALK_PER_SQRT_S, ge=0.0)
    clock_white_sqrt_s: float = Field(CLOCK_WHITE_SQRT_S, ge=0.0)
    loss_db: float | None = Field(None, ge=0.0)
    mean_photon_number: float | None = Field(None, gt=0.0, le=1.0)
    g2: float | None = Field(None, ge=0.0)
    misalignment: float | None = Field(None, ge=0.0, le=0.5)
    dark_rate_cps: float | None = Field(None, ge=0.0)
    pulse_width_ps: float | None = Field(None, ge=0.0)
    jitter_ps: float | None = Field(None, ge=0.0)
    dead_time_ps: int | None = Field(None, ge=0)
    resolution_ps: float | None = Field(None, gt=0.0)
    reference_locked: bool | None = None
    """What it says of its reference clock; None: none is in use."""
    weather: WeatherParameters = WeatherParameters()
    efficiencies: tuple[Share, Share, Share, Share] = (1.0, 1.0, 1.0, 1.0)
    """Of the detectors H, V, R, L relative to the preset's: 0 is a dead one."""
    eve: EveParameters | None = None
    real_time: bool = False
    """The light comes at its clock rate, in real time."""
    buffer_tags: int = Field(1 << 23, ge=1 << 18)
    """In real time: tags that wait to be read, 9 bytes each; more are lost, and said to be."""

    def link(self, config: Config) -> LinkParameters:
        """The preset with this manifest's exceptions and the configuration's rates."""
        if self.preset not in PRESETS:
            raise ConfigurationError(f"unknown preset {self.preset!r}", remedy="Known presets: " + ", ".join(PRESETS))
        preset = PRESETS[self.preset]
        named = {name: getattr(self, name) for name in type(self).model_fields if hasattr(preset, name)}
        given = {name: value for name, value in named.items() if value is not None}
        return replace(preset, **given, clock_rate_hz=config.link.clock_rate_hz, p_z_bob=config.link.p_z_bob)


class TwinModulator:
    """Alice's modulator, source and fibre entrance, simulated.

    Parameters
    ----------
    parameters : ``fibre``, the address that Bob's twin connects to.
    """

    always_simulated = True

    unsent_from_slot = NONE_HELD

    model = ModulatorParameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(ModulatorParameters, parameters, "twin-modulator")
        self.info = DeviceInfo("modulator", "digital twin", simulated=True)
        self._fibre, self._order, self._closed = FibreEntrance(given.fibre), SlotOrder(), False

    def send(self, symbols: Symbols) -> None:
        """Send the next slots; waits while Bob is not there or is behind."""
        if self._closed:
            raise DeviceError("the simulated modulator is closed", remedy="Open the device again.")
        self._order.check(symbols)
        self._fibre.send(symbols)

    def close(self) -> None:
        """Send no more light."""
        self._closed = True
        self._fibre.close()


class TwinTimeTagger:
    """Bob's receiver and time tagger, simulated; its time starts with the first light.

    Time is the light's: it stands still while Alice is there and prepares her next slots, however long this machine
    takes for it. Only without Alice does it go on in darkness.

    With ``real_time`` the light keeps to this machine's clock instead, in a thread of its own: slots never arrive
    before they are due, however fast Alice prepares them, and they do not wait to be read. Clicks pile up in a buffer
    of ``buffer_tags``; what finds no room is lost, and the next batch says ``overflow``. Where Alice or this
    simulation is too slow, late light catches up; once it is a second behind, the link has stood still for that second
    and :attr:`counters` says so (``light_slowed_s``), as does a real-time factor below one.

    Parameters
    ----------
    parameters : see :class:`TaggerParameters`. config : gives slot rate, splitting ratio and intensities.
    """

    always_simulated = True

    can_wait: bool
    """Whether the light stops for a reader that is behind."""
    axes: AxesTwin | None
    """Retarders of a controller that stands before the receiver: the light follows within 55 ms."""

    model = TaggerParameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(TaggerParameters, parameters, "twin-time-tagger")
        self.info = DeviceInfo("time tagger", "digital twin", simulated=True)
        self.reference_locked = given.reference_locked
        link = given.link(config)
        seed = np.random.SeedSequence(given.seed)
        draws = np.random.default_rng(seed.spawn(1)[0])
        drawn_ppm = float(draws.uniform(-_MAX_OFFSET_PPM, _MAX_OFFSET_PPM))
        offset_ppm = drawn_ppm if given.clock_offset_ppm is None else given.clock_offset_ppm
        start_ps = int(draws.uniform(0.0, _MAX_START_S) * PS_PER_S)
        clock = TaggerClock(
            start_ps,
            offset_ppm * 1e-6,
            given.clock_drift_per_s,
            given.clock_walk_per_sqrt_s,
            draws,
            given.clock_white_sqrt_s,
        )
        climate = Climate(**given.weather.model_dump())
        weather = None
        self.axes = None
        if not climate.calm or "polarisation_controller" in config.devices:
            weather = Weather(climate, np.random.default_rng(seed.spawn(1)[0]))
        eve = None
        if given.eve is not None:
            eve = Eve(Resend(given.eve.photons, given.eve.share), np.random.default_rng(seed.spawn(1)[0]))
        self._receiver = Receiver(link, config.link.intensities, clock, seed, weather, eve, given.efficiencies)
        _taggers[given.fibre] = self
        self._fibre = FibreExit(given.fibre)
        self._resolution_ps, self._closed = link.resolution_ps, threading.Event()
        self._draws = draws
        words = int(_TAGS_AT_ONCE / (64 * max(link.detection_probability, 1e-9)))
        self._words_at_once = min(1 << (max(words, 1).bit_length() - 1), _MOST_WORDS)
        self._light: deque[Light] = deque()
        self._next_slot: int | None = None
        self._until_ps = self._receiver.clock.whole_ps
        self.can_wait = not given.real_time
        self._light_clock = LightClock(link.clock_rate_hz) if given.real_time else None
        self._buffer = TagBuffer(given.buffer_tags, self._until_ps)
        self._running: threading.Thread | None = None
        self._light_cpu_s = 0.0

    @property
    def counters(self) -> dict[str, float]:
        """In real time: tags lost for want of room, seconds for which the light stood still, and what it costs."""
        if self._light_clock is None:
            return {}
        slowed_s, cpu_s = round(self._light_clock.slowed_s, 3), round(self._light_cpu_s, 3)
        return {"tags_lost": self._buffer.tags_lost, "light_slowed_s": slowed_s, "light_cpu_s": cpu_s}

    @property
    def resolution_ps(self) -> float:
        """Width of a time bin in ps."""
        return self._resolution_ps

    def read(self, timeout_s: float) -> TimeTags | None:
        """The clicks of the next slots that Alice sends; nothing while she prepares them; without her, darkness."""
        if self._closed.is_set():
            raise DeviceError("the simulated time tagger is closed", remedy="Open the device again.")
        if self.can_wait:
            return self._next(timeout_s)
        if self._running is None:
            self._running = threading.Thread(target=self._run, name="simulated light", daemon=True)
            self._running.start()
        return self._buffer.get(timeout_s)

    def _run(self) -> None:
        """Light and darkness as they come, whoever reads."""
        try:
            while not self._closed.is_set():
                before_ps = self._until_ps
                tags = self._next(_POLL_S)
                if tags.until_ps > before_ps:
                    self._buffer.put(tags)
                self._light_cpu_s = time.thread_time()
        except Exception as error:
            self._buffer.fail(error)

    def _next(self, timeout_s: float) -> TimeTags:
        if not self._light:
            light = self._fibre.receive(timeout_s)
            self._light.extend([] if light is None else light.pieces(self._words_at_once))
        if self._light:
            return self._arrived(self._light.popleft())
        if self._next_slot is None or self._fibre.connected:
            return TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), self._until_ps)
        times, channels, self._until_ps = self._receiver.darkness(timeout_s * PS_PER_S)
        return TimeTags(times, channels, self._until_ps)

    def _arrived(self, light: Light) -> TimeTags:
        clock, pause = self._light_clock, None
        if self._next_slot is not None and (light.after_dark or light.first_slot != self._next_slot):
            pause = self._receiver.darkness((_PAUSE_S + float(self._draws.uniform(0.0, 1e-6))) * PS_PER_S)
            if clock is not None:
                clock.restart()
        if self.axes is not None:
            self._receiver.controller = np.array(self.axes.positions)
        self._next_slot = light.first_slot + 64 * int(light.basis.size)
        times, channels, self._until_ps = self._receiver.light(light.basis, light.bit, light.intensity)
        if pause is not None:
            times, channels = np.concatenate([pause[0], times]), np.concatenate([pause[1], channels])
        if clock is not None:
            self._closed.wait(clock.wait_s(light.first_slot, self._next_slot, time.monotonic()))
        return TimeTags(times, channels, self._until_ps)

    def close(self) -> None:
        """Let go of the fibre; may be called twice."""
        self._closed.set()
        self._fibre.close()
        if self._running is not None:
            self._running.join()
            self._fibre.close()  # it may have connected meanwhile


#: Bob's open taggers by their fibre: a polarisation controller stands before one of them.
_taggers: WeakValueDictionary[str, TwinTimeTagger] = WeakValueDictionary()


def tagger_at(fibre: str) -> TwinTimeTagger:
    """The open twin that listens to a fibre in this process."""
    if fibre not in _taggers:
        raise ConfigurationError(
            f"devices.polarisation_controller: no twin time tagger listens to {fibre!r} in this process",
            remedy="Give it the `fibre` of devices.time_tagger.",
        )
    return _taggers[fibre]
