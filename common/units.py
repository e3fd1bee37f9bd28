"""The only unit conversions. Names carry their unit as a suffix: ``_ps _ns _s _hz _db _bits _bytes _cps``."""

from __future__ import annotations

PS_PER_S = 1_000_000_000_000
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def transmittance_from_db(loss_db: float) -> float:
    """Power transmittance (0..1] of a loss in dB (>= 0)."""
    return float(10.0 ** (-loss_db / 10.0))


def period_ps(rate_hz: float) -> float:
    """Period in ps of a rate in Hz."""
    return PS_PER_S / rate_hz


def block_name(block_id: int) -> str:
    """A block's number as people read it, session.block: the session in the upper 32 bits counts Bob's starts."""
    return f"{block_id >> 32}.{block_id & 0xFFFF_FFFF}"


def block_number(text: str) -> int:
    """The number of a block from its name, or from the number itself. Raises ValueError."""
    session, dot, block = text.partition(".")
    return (int(session) << 32) + int(block) if dot else int(text)


def seconds_from_ns(duration_ns: int) -> float:
    """Seconds of a duration in ns."""
    return duration_ns / NS_PER_S


def ns_from_seconds(duration_s: float) -> int:
    """Whole ns of a duration in s."""
    return round(duration_s * NS_PER_S)
