"""The light's part of `qkd doctor --hardware`: comb, delays, dark counts, which detector is which, contrast."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bob import survey
from bob.survey import Agreement, Delay, Folded
from bob.synchronisation import PEAK_POWER, SEARCH_PPM
from common.cli.doctor_bench import DETECTORS, Examination
from common.datatypes import TimeTags
from common.units import PS_PER_S

FEWEST_CLICKS = 100
SKEW_TOLERANCE = 0.05
"""Of the gate's width: what a delay may be off."""
SKEW_SIGMA = 5.0
NOISE_SHARE = 0.01
"""Of a basis's clicks in the gate that one detector's darks may be: half of it is error."""
HOT_CPS = 1000.0
HOT_RATIO = 5.0
DARK_PARITY = 0.05
"""Of the light: so little in every second slot is what leaks, not a pulse."""
UNEVEN_PARITY, UNEVEN_SIGMA = 0.02, 6.0
ENOUGH_SEEN = 0.5
"""Of the time asked for: with less, rates that take time (darks) are not judged."""
LIT = 0.9
MAX_ERROR = 0.05
MAX_IMBALANCE = 0.2


def light(found: Examination) -> None:
    """Everything that a recording of the four detectors tells."""
    if found.tags is None or found.config.role != "bob":
        return
    tags = without_skew(found.tags, np.array(found.config.receiver.channel_skew_ps, np.int64))
    if len(tags) < FEWEST_CLICKS:
        found.not_looked_at("comb", "light", f"only {len(tags)} clicks")
        return
    half_gate = 0.5 * found.config.receiver.gate_ps * found.config.link.clock_rate_hz / PS_PER_S
    folded = _comb(found, tags, half_gate)
    if folded is not None:
        measured = survey.delays(folded)
        reference = next((delay for delay in measured if delay.known), measured[0])
        by = np.array([delay.slots if delay.known else reference.slots for delay in measured])
        straight = folded.shifted(by)
        agreements = survey.find_preamble(straight, half_gate)
        _skew(found, folded, measured, agreements)
        if _enough(found, tags, straight.seconds, "between pulses"):
            _darks(found, straight, half_gate)
        _recovery(found, straight, half_gate)
        _preamble(found, straight, agreements, half_gate)
        if found.prepared is not None:
            _prepared(found, straight, found.prepared, half_gate)
    if found.dark_tags is not None:
        _behind_the_shutter(found, found.dark_tags)


def without_skew(tags: TimeTags, skew_ps: NDArray[np.int64]) -> TimeTags:
    """As the receiver sees them: the configured delays taken off, in order again."""
    times = tags.times_ps - skew_ps[tags.channels]
    order = np.argsort(times, kind="stable")
    return TimeTags(times[order], tags.channels[order], tags.until_ps)


# -- comb -------------------------------------------------------------------------------------------------------------


def _comb(found: Examination, tags: TimeTags, half_gate: float) -> Folded | None:
    nominal_hz = found.config.link.clock_rate_hz
    best = survey.strongest_line(tags, nominal_hz)
    if best is None:
        _no_comb(found, tags, nominal_hz)
        return None
    line, guide = best
    ppm, sigma = 1e6 * (line.rate_hz / nominal_hz - 1.0), math.sqrt(2.0 * line.power)
    found.measured |= {"clock_offset_ppm": ppm, "comb_sigma": sigma, "comb_rate_hz": line.rate_hz}
    text = (
        f"{line.rate_hz / 1e6:.6f} MHz ({ppm:+.2f} ppm of the tagger's clock), {sigma:.0f} sigma in {DETECTORS[guide]}"
    )
    folded = survey.follow(tags, line, guide, half_gate)
    weak, sigma_weak = survey.weaker_parity(folded, guide, half_gate)
    if weak < DARK_PARITY:
        remedy = f"Set link.clock_rate_hz = {0.5 * line.rate_hz:.0f} at both ends, or send light in every slot."
        found.to_fix("comb", "light", f"{text}, but only every second slot holds light", remedy)
        return None
    found.good("comb", "light", text)
    if 0.5 - weak > max(UNEVEN_PARITY, UNEVEN_SIGMA * sigma_weak):
        heights = f"{100 * weak:.0f}:{100 * (1 - weak):.0f}"
        remedy = "Level the pulses of even and odd slots: Eve could tell them apart, and the mean photon number is two."
        found.to_fix("pulse heights", "light", f"pulse heights alternate {heights}", remedy)
    return folded


def _no_comb(found: Examination, tags: TimeTags, nominal_hz: float) -> None:
    text = f"no line within {SEARCH_PPM:.0f} ppm of {nominal_hz / 1e6:g} MHz among {len(tags)} clicks"
    other_hz = survey.rate_elsewhere(tags, nominal_hz)
    why = "there is no comb"
    if other_hz is not None:
        ppm = 1e6 * (other_hz / nominal_hz - 1.0)
        remedy = (
            f"Set link.clock_rate_hz = {other_hz:.0f} at both ends; or if that is right, the tagger's clock is wrong."
        )
        found.to_fix("comb", "light", f"{text}, but one at {other_hz / 1e6:.6f} MHz ({ppm:+.0f} ppm)", remedy)
    else:
        remedy = (
            "Is Alice sending? Are shutter and attenuator open, the fibre connected, the polarisation not lost? "
            "Weak light needs longer: --seconds 10."
        )
        found.to_fix("comb", "light", f"{text}: no light", remedy)
        why = "there is no light"
        _judge_darks(found, "all clicks", _rates(tags))
    for step in ("skew", "recovery", "basis contrast"):
        found.not_looked_at(step, "detectors", why)


def _rates(tags: TimeTags) -> NDArray[np.float64]:
    seconds = (tags.until_ps - int(tags.times_ps[0])) / PS_PER_S if len(tags) else math.inf
    return np.bincount(tags.channels, minlength=len(DETECTORS)) / seconds


def _enough(found: Examination, tags: TimeTags, seconds: float, what: str) -> bool:
    """Whether enough of the time asked for was seen; tells what was lacking."""
    found.measured |= {"light_seconds": seconds, "lit_share": (lit := survey.lit_share(tags))}
    if seconds >= ENOUGH_SEEN * found.seconds and lit >= LIT:
        return True
    seen = f"{seconds:.3g} s of light followed of {found.seconds:g} s asked for; it shone {100 * lit:.0f} % of the time"
    remedy = "Send light all the time (shutter, trigger, laser); everything below rests on what little was seen."
    found.to_fix("light", "light", seen, remedy)
    found.not_looked_at("dark counts", what, f"too little seen: {seen}")
    return False


# -- delays -----------------------------------------------------------------------------------------------------------


def _skew(found: Examination, folded: Folded, measured: list[Delay], agreements: list[Agreement] | None) -> None:
    """Residual delays after the configured ones, relative to the first detector that has a comb."""
    receiver, period_ps = found.config.receiver, PS_PER_S / folded.rate_hz
    first = next(c for c, delay in enumerate(measured) if delay.known)
    wanted, off, unknown = list(receiver.channel_skew_ps), [], []
    lags = _lags(agreements, first)
    for c, delay in enumerate(measured):
        if not delay.known:
            unknown.append(DETECTORS[c])
            continue
        slots = (delay.slots - measured[first].slots + 0.5) % 1.0 - 0.5 + lags[c]
        sigma_ps = period_ps * math.hypot(delay.sigma_slots, measured[first].sigma_slots)
        if abs(slots) * period_ps > max(SKEW_TOLERANCE * receiver.gate_ps, SKEW_SIGMA * sigma_ps):
            off.append(f"{DETECTORS[c]} {slots * period_ps:+.0f} ps (+-{sigma_ps:.0f})")
        wanted[c] += round(slots * period_ps)
    base = wanted[0]
    wanted = [value - base for value in wanted]
    found.measured["channel_skew_ps"] = wanted
    unseen = f"; too little light in {', '.join(unknown)}" if unknown else ""
    modulo = f", modulo one slot of {period_ps:.0f} ps where no preamble tells"
    if off:
        remedy = f"Write into Bob's configuration: [receiver] channel_skew_ps = {wanted}"
        found.to_fix("skew", "detectors", f"later than {DETECTORS[first]}: {', '.join(off)}{modulo}{unseen}", remedy)
    else:
        text = f"all within {SKEW_TOLERANCE * receiver.gate_ps:.0f} ps as configured{modulo}{unseen}"
        found.good("skew", "detectors", text)


def _lags(agreements: list[Agreement] | None, first: int) -> list[int]:
    """Whole slots of each detector after the first one, 0 where the preamble does not tell."""
    if agreements is None or not agreements[first].known:
        return [0] * len(DETECTORS)
    return [one.lag - agreements[first].lag if one.known else 0 for one in agreements]


# -- dark counts ------------------------------------------------------------------------------------------------------


def _darks(found: Examination, straight: Folded, half_gate: float) -> None:
    darks = straight.darks_cps()
    in_gate = straight.counts(np.abs(straight.offsets) <= half_gate) / straight.seconds
    of_basis = np.repeat(in_gate.reshape(2, 2).sum(axis=1), 2)
    share = darks * 2.0 * half_gate / np.maximum(of_basis, 1.0)
    _judge_darks(found, "between pulses", darks, share)


def _judge_darks(
    found: Examination, what: str, darks: NDArray[np.float64], share: NDArray[np.float64] | None = None
) -> None:
    found.measured["dark_counts_cps"] = [float(dark) for dark in darks]
    text = ", ".join(f"{name} {dark:.3g}" for name, dark in zip(DETECTORS, darks, strict=True)) + " counts/s"
    bad = []
    for c, name in enumerate(DETECTORS):
        others = float(np.median(np.delete(darks, c)))
        if darks[c] > max(HOT_CPS, HOT_RATIO * others):
            bad.append(f"{name} has {darks[c] / max(others, 1.0):.0f} times the others'")
        elif share is not None and share[c] > NOISE_SHARE:
            bad.append(f"{name}'s are {100.0 * share[c]:.1f} % of its basis's clicks in the gate")
    if bad:
        remedy = (
            "Stray light? Cover it, filter it. Else lower that detector's bias or its temperature, raise its trigger "
            "level (noise, echoes); if all are high, it is daylight or too little signal."
        )
        found.to_fix("dark counts", what, f"{text}: {', '.join(bad)}", remedy)
    else:
        found.good("dark counts", what, text)


def _behind_the_shutter(found: Examination, tags: TimeTags) -> None:
    if len(tags) >= PEAK_POWER and survey.strongest_line(tags, found.config.link.clock_rate_hz) is not None:
        remedy = "That attenuator is not in this light's path, or its shutter does not close."
        found.to_fix("dark counts", "shutter", "light passes the closed shutter", remedy)
        return
    seconds = (tags.until_ps - int(tags.times_ps[0])) / PS_PER_S if len(tags) else found.seconds
    if seconds < ENOUGH_SEEN * found.seconds:
        why = f"only {seconds:.3g} s of darkness recorded of {found.seconds:g} s asked for"
        found.not_looked_at("dark counts", "shutter closed", why)
    else:
        _judge_darks(found, "shutter closed", _rates(tags))


# -- recovery ---------------------------------------------------------------------------------------------------------


def _recovery(found: Examination, straight: Folded, half_gate: float) -> None:
    """For how long a detector remembers its click, beside the configured dead time."""
    slot_ps, configured = PS_PER_S / straight.rate_hz, found.config.receiver.dead_time_ps
    seen = [one.gap_slots for one in survey.memories(straight, half_gate)]
    known = {name: gap for name, gap in zip(DETECTORS, seen, strict=True) if gap is not None}
    unknown = [name for name in DETECTORS if name not in known]
    if not known:
        why = "too few pairs of clicks, or a recovery beyond 0.1 ms: brighter light, or --seconds longer"
        found.not_looked_at("recovery", "detectors", why)
        return
    longest = max(known.values())
    needed_ps = 1000 * math.ceil((longest - 0.5) * slot_ps / 1000.0) if longest > 1 else 0
    found.measured |= {"recovery_slots": [None if gap is None else gap - 1 for gap in seen], "dead_time_ps": needed_ps}
    text = ", ".join(f"{name} {(gap - 1) * slot_ps / 1000.0:.0f} ns" for name, gap in known.items())
    text += f"; too few pairs of clicks in {', '.join(unknown)}" if unknown else ""
    remedy = f"Write into Bob's configuration: [receiver] dead_time_ps = {needed_ps}"
    if configured is None and not found.simulated:
        text += "; no dead time is configured, and real detectors need one"
        found.to_fix("recovery", "detectors", text, remedy)
        return
    text += f"; the dead time is {(configured or 0) / 1000.0:.0f} ns"
    if (longest - 1) * slot_ps > (configured or 0) + 0.5 * slot_ps:
        found.to_fix("recovery", "detectors", text, remedy)
    else:
        found.good("recovery", "detectors", text)


# -- which detector is which, and how well --------------------------------------------------------------------------


def _preamble(found: Examination, straight: Folded, agreements: list[Agreement] | None, half_gate: float) -> None:
    if agreements is None:
        if found.prepared is None:
            why = "no preamble seen: Alice does not run this software, or --seconds is too short for so little light"
            found.not_looked_at("basis contrast", "Z (H, V)", why)
            found.not_looked_at("basis contrast", "X (R, L)", "as above; or let Alice hold one state: --prepared R")
        return
    contrasts = np.array([one.contrast if one.known else 0.0 for one in agreements])
    zero, one = int(np.argmax(contrasts)), int(np.argmin(contrasts))
    if contrasts[zero] <= 0.0 or contrasts[one] >= 0.0:
        found.not_looked_at("basis contrast", "Z (H, V)", "only one detector shows the preamble: see count rates")
    elif (zero, one) != (0, 1):
        rest = [c for c in range(len(DETECTORS)) if c not in (zero, one)]
        order = ", ".join(DETECTORS[c] for c in (zero, one, *rest))
        remedy = (
            f"Give the inputs of `channels` in the order of the present {order} (or swap the cables); "
            "which of the last two is R only X light tells: --prepared R."
        )
        text = f"swapped: what is named {DETECTORS[zero]} shows H, what is named {DETECTORS[one]} shows V"
        found.to_fix("channels", "detectors", text, remedy)
    else:
        found.good("channels", "detectors", "H and V are what they are named, by the preamble")
    clicks = np.array([agreement.clicks for agreement in agreements], float)
    seen = [c for c in (zero, one) if contrasts[c]]
    if seen:
        error = float(np.sum(clicks[seen] * (1.0 - np.abs(contrasts[seen])) / 2.0) / clicks[seen].sum())
        _judge_error(found, "Z (H, V)", error, int(clicks[seen].sum()), "by the preamble")
    if found.prepared is None:
        _balance(found, clicks[[c for c in range(len(DETECTORS)) if c not in (zero, one)]])


def _balance(found: Examination, x_clicks: NDArray[np.float64]) -> None:
    """On the preamble's Z light both X detectors must click equally often."""
    n = float(x_clicks.sum())
    imbalance = abs(float(x_clicks[0] - x_clicks[1])) / max(n, 1.0)
    if n >= FEWEST_CLICKS and imbalance > MAX_IMBALANCE + 4.0 / math.sqrt(n):
        remedy = "Turn the X analyser (or the controller before it) until both click equally often on Z light."
        found.to_fix("basis contrast", "X (R, L)", f"{100 * imbalance:.0f} % imbalance on Z light", remedy)
    else:
        why = "only X light tells: --prepared R, or the error rates of running daemons"
        found.not_looked_at("basis contrast", "X (R, L)", why)


def _judge_error(found: Examination, what: str, error: float, n: int, how: str) -> None:
    found.measured[f"error_{what[0].lower()}"] = error
    sigma = math.sqrt(max(error * (1.0 - error), 1.0 / max(n, 1)) / max(n, 1))
    text = f"contrast {1.0 - 2.0 * error:.3f}, error {100 * error:.2f} % (+-{100 * sigma:.2f}) {how}, {n} clicks"
    if error - 3.0 * sigma > MAX_ERROR:
        remedy = "Turn the polarisation (controller, wave plates) for least error; check the modulator and dark counts."
        found.to_fix("basis contrast", what, text, remedy)
    else:
        found.good("basis contrast", what, text)


def _prepared(found: Examination, straight: Folded, prepared: str, half_gate: float) -> None:
    """Alice holds one state: one detector of its basis must have it all."""
    in_gate = straight.counts(np.abs(straight.offsets) <= half_gate)
    signal = np.maximum(in_gate - straight.darks_cps() * 2.0 * half_gate * straight.seconds, 0.0)
    right = DETECTORS.index(prepared)
    wrong = right ^ 1
    total = float(signal[right] + signal[wrong])
    what = "Z (H, V)" if right < 2 else "X (R, L)"
    if total < FEWEST_CLICKS:
        found.to_fix("basis contrast", what, f"{total:.0f} clicks", "More light, or --seconds longer.")
        return
    error = float(signal[wrong]) / total
    if error > 0.5:
        remedy = (
            f"Swap the inputs of {DETECTORS[right]} and {DETECTORS[wrong]} in `channels`, or turn the polarisation."
        )
        text = f"swapped: {prepared} is sent, {DETECTORS[wrong]} gets {100 * error:.1f} % of it"
        found.to_fix("channels", "detectors", text, remedy)
    _judge_error(found, what, error, int(total), f"with {prepared} prepared")
