"""The devices' part of `qkd doctor --hardware`: open each, ask who it is, read it, record time tags, close it.

Nothing is set but what was asked for (`--darken`, `--bias`); closing puts every device into its safe state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from common import statements
from common.cli.doctor_bench import DETECTORS, Examination
from common.datatypes import TimeTags
from common.errors import AnotherDeviceError, ConfigurationError, DeviceError, QkdError
from common.randomness import USES
from common.units import PS_PER_S
from hardware.interfaces import RandomSource, TimeTagger
from hardware.randomness import TestedRandom, drawn_bytes_per_s
from hardware.registry import open_device

READ_TIMEOUT_S = 0.2
STANDSTILL_S = 5.0
"""A tagger whose time does not move for so long is given up,"""
SLOWEST = 5.0
"""and one that takes this many times the wanted time (a twin waits for its light)."""
BUFFERED_S = 0.5
"""Tags that were on their way when the shutter closed."""
MAX_CLICKS = 1 << 23
SATURATED = 0.2
"""Part of the time in which a detector may be blind."""
RANDOM_STEP_BYTES = 1 << 12
RANDOM_MAX_BYTES = 1 << 22
RANDOM_TIME_S = 0.2
RANDOM_SIGMA = 6.0


def devices(found: Examination) -> None:
    """Every device of the manifest; the tagger is opened first, as the daemon does, and read last."""
    opened: dict[str, Any] = {}
    if not found.config.devices:
        found.to_fix("manifest", "devices", "it names no device", "Write [devices.*] tables: docs/hardware.md, step 3.")
    try:
        for role in sorted(found.config.devices, key=lambda role: (not role.startswith("time_tagger"), role)):
            device = _open(found, role)
            if device is not None:
                opened[role] = device
        _statements(found, opened)
        for role, device in opened.items():
            if device.info.kind != "time tagger":
                _guarded(found, "reading", role, partial(_read, found, role, device))
        taggers = [role for role, device in opened.items() if device.info.kind == "time tagger"]
        if taggers:
            _guarded(found, "time tags", taggers[0], partial(_tags, found, taggers[0], opened))
        elif found.config.role == "bob" and "time_tagger" not in found.config.devices:
            found.not_looked_at("time tags", "time_tagger", "the manifest has none: no light is looked at")
    finally:
        for role, device in reversed(list(opened.items())):
            _guarded(found, "safe state", role, device.close)


def _statements(found: Examination, opened: dict[str, Any]) -> None:
    """What the configuration must state about the device that answered, if that is real."""
    config, role = found.config, statements.DEVICE_OF[found.config.role]
    if role not in opened:
        return
    simulated, source = opened[role].info.simulated, opened.get("random_source")
    uses = {"start": statements.start_secret(config)}
    if source is not None:
        uses |= {use: source.info.as_randomness() for use in USES[config.role] if use != "start"}
    checks: dict[str, Callable[[], None]] = {
        "statements": lambda: statements.require(config, simulated),
        "randomness": lambda: statements.require_randomness(config, simulated, uses),
    }
    for step, check in checks.items():
        try:
            check()
        except ConfigurationError as error:
            found.to_fix(step, role, str(error), error.remedy)


def _guarded(found: Examination, step: str, what: str, look: Callable[[], object]) -> None:
    try:
        look()
    except QkdError as error:
        found.to_fix(step, what, str(error), error.remedy)


def _open(found: Examination, role: str) -> Any:
    section = found.config.devices[role]
    try:
        device = open_device(role, section, found.config)
    except AnotherDeviceError as error:
        found.to_fix("identity", role, str(error), error.remedy)
        return None
    except DeviceError as error:
        found.to_fix("reachability", role, str(error), error.remedy)
        return None
    except QkdError as error:
        found.to_fix("manifest", role, str(error), error.remedy)
        return None
    info = device.info
    words = [info.model, info.serial and f"serial {info.serial}", info.firmware and f"firmware {info.firmware}"]
    named = ", ".join(word for word in words if word) + (" (simulated)" if info.simulated else "")
    found.good("identity", role, f"{section.driver}: {named}")
    return device


def _read(found: Examination, role: str, device: Any) -> None:
    """The reading of every kind that has one; a laboratory's own kind has none."""
    match device.info.kind:
        case "attenuator":
            found.good("reading", role, f"{device.attenuation_db():.2f} dB")
        case "power meter":
            power_w = device.power_w()
            if math.isfinite(power_w) and power_w >= 0.0:
                found.good("reading", role, f"{power_w:.3g} W")
            else:
                found.to_fix("reading", role, f"{power_w} W is no power", "Zero the meter; check range and wavelength.")
        case "polarisation controller":
            found.good("reading", role, f"{device.n_axes} axes")
        case "random source":
            _random(found, role, device)
        case "detector bias":
            _bias(found, role, device)


def _bias(found: Examination, role: str, device: Any) -> None:
    rates = device.count_rates_cps()
    if found.bias:
        for channel in range(rates.size):
            device.set_bias(channel, True)
        rates = device.count_rates_cps()
    text = ", ".join(f"{rate:.4g}" for rate in rates) + " counts/s"
    if rates.any() or found.bias:
        silent = [str(channel) for channel in np.flatnonzero(rates == 0.0)]
        if silent:
            remedy = "Raise that detector's bias current; check its cable and its temperature."
            found.to_fix("reading", role, f"{text}: nothing from {', '.join(silent)} with bias on", remedy)
        else:
            found.good("reading", role, text)
    else:
        found.not_looked_at("reading", role, "no counts: the bias may be off (--bias switches it on, and off again)")


def _random(found: Examination, role: str, source: RandomSource) -> None:
    """Class, rate, and that the bits are alive; the few bytes drawn for it are thrown away."""
    needed_bps = 8.0 * drawn_bytes_per_s(found.config)
    source, grade = TestedRandom(source, needed_bps / 8.0), source.info.as_randomness().grade
    source.read(RANDOM_STEP_BYTES)  # the first bytes may wait for more than the device
    size, taken_s = RANDOM_STEP_BYTES, 0.0
    while True:
        start_s = time.perf_counter()
        data = source.read(size)
        taken_s = time.perf_counter() - start_s
        if taken_s > RANDOM_TIME_S / 4.0 or size >= RANDOM_MAX_BYTES:
            break
        size *= 4
    bits = 8 * data.size
    ones = int(np.unpackbits(data).sum())
    if data.size != size or abs(2 * ones - bits) > RANDOM_SIGMA * math.sqrt(bits):
        found.to_fix("reading", role, f"{ones} of {bits} bits are 1", "Do not use this source: look for its fault.")
        return
    rate_bps = bits / max(taken_s, 1e-9)
    text = f"{grade} randomness, {rate_bps / 1e6:.4g} Mbit/s, {needed_bps / 1e6:.4g} are needed at this slot rate"
    if rate_bps >= needed_bps:
        found.good("reading", role, text)
    else:
        remedy = 'Set transmitter.random_bits = "scarce", take a faster source, or expand it with drbg-expansion.'
        found.to_fix("reading", role, text, remedy)


# -- time tags --------------------------------------------------------------------------------------------------------


def _tags(found: Examination, role: str, opened: dict[str, Any]) -> None:
    tagger = opened[role]
    found.tags, found.simulated = record(tagger, found.seconds), tagger.info.simulated
    locked = getattr(tagger, "reference_locked", None)
    if locked is None:
        found.not_looked_at("clock lock", role, "no reference in use, or this driver cannot tell; none is needed")
    elif locked:
        found.good("clock lock", role, "locked to its reference")
    else:
        remedy = "Connect the 10 MHz reference, check its level, or switch the tagger to its own clock."
        found.to_fix("clock lock", role, "not locked to its reference: its times are not valid", remedy)
    if found.tags.overflow:
        remedy = "Fewer counts (attenuate), a faster connection, a free core; a reference that stays locked."
        found.to_fix("time tags", role, "some were lost or are not valid: every block that they touch is void", remedy)
    else:
        found.good("time tags", role, f"{len(found.tags)} in {duration_s(found.tags):.3g} s, none lost")
    _rates(found, role, found.tags)
    if found.darken:
        _darken(found, tagger, opened)


def _rates(found: Examination, role: str, tags: TimeTags) -> None:
    seconds = duration_s(tags)
    counts = np.bincount(tags.channels, minlength=len(DETECTORS))
    if seconds <= 0.0:
        remedy = "Is the bias on (--bias)? Is Alice sending? Check `channels` and the trigger level."
        found.to_fix("count rates", role, "no clicks at all, and the tagger's time stands still", remedy)
        return
    rates = counts / seconds
    found.measured["count_rates_cps"] = [float(rate) for rate in rates]
    text = ", ".join(f"{name} {rate:.4g}" for name, rate in zip(DETECTORS, rates, strict=True)) + " counts/s"
    dead = [name for name, count in zip(DETECTORS, counts, strict=True) if not count]
    blind = rates * (found.config.receiver.dead_time_ps or 0) / PS_PER_S
    crowded = [name for name, part in zip(DETECTORS, blind, strict=True) if part > SATURATED]
    if dead:
        remedy = (
            f"Detector {', '.join(dead)}: bias on? fibre and cable connected? input number right? Correct `channels`."
        )
        found.to_fix("count rates", role, f"{text}: none from {', '.join(dead)}", remedy)
    elif crowded:
        remedy = "Attenuate the light until a detector is blind for less than a fifth of the time."
        found.to_fix("count rates", role, f"{text}: {', '.join(crowded)} saturated", remedy)
    else:
        found.good("count rates", role, text)


def _darken(found: Examination, tagger: TimeTagger, opened: dict[str, Any]) -> None:
    attenuators = [role for role, device in opened.items() if device.info.kind == "attenuator"]
    if not attenuators:
        why = "--darken needs an attenuator in this manifest; or stop Alice's light and look again"
        found.not_looked_at("dark counts", "shutter", why)
        return
    for role in attenuators:
        opened[role].close()
    record(tagger, BUFFERED_S)
    found.dark_tags = record(tagger, found.seconds)


def record(tagger: TimeTagger, seconds: float) -> TimeTags:
    """About this many seconds of the tagger's own time as one batch; less where it stands still or ends."""
    parts: list[TimeTags] = []
    begin_s = moved_s = time.monotonic()
    start_ps: int | None = None
    clicks = 0
    while True:
        batch = tagger.read(READ_TIMEOUT_S)
        now_s = time.monotonic()
        if batch is None:
            break
        if start_ps is None:
            start_ps = int(batch.times_ps[0]) if len(batch) else batch.until_ps
        if len(batch) or (parts and batch.until_ps > parts[-1].until_ps):
            moved_s = now_s
        parts.append(batch)
        clicks += len(batch)
        late = now_s - moved_s > STANDSTILL_S or now_s - begin_s > STANDSTILL_S + SLOWEST * seconds
        if batch.until_ps - start_ps >= seconds * PS_PER_S or clicks > MAX_CLICKS or late:
            break
    if not parts:
        return TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), 0)
    times = np.concatenate([part.times_ps for part in parts])
    if bool((np.diff(times) < 0).any()):
        raise DeviceError("the tagger's times went back", remedy="Open it again; look for a second program on it.")
    channels = np.concatenate([part.channels for part in parts])
    # One batch may hold much more than was asked for, of a time when the shutter had moved already.
    end_ps = min(parts[-1].until_ps, (start_ps or 0) + round(seconds * PS_PER_S))
    count = int(np.searchsorted(times, end_ps))
    return TimeTags(times[:count], channels[:count], end_ps, any(part.overflow for part in parts))


def duration_s(tags: TimeTags) -> float:
    """Length of a recording: from its first click to its end."""
    return (tags.until_ps - int(tags.times_ps[0])) / PS_PER_S if len(tags) else 0.0
