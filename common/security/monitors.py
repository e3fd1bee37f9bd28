"""What a block's public counts say about the devices; a block out of tolerance gives no key. Pure arithmetic."""

from __future__ import annotations

from common.security.tallies import Monitor, ProtocolSettings, ReceiverBounds, Tallies

LEAK_BITS = 16
"""`Tallies.z_ones_steps` is a number of 16 bits about Bob's bits, published by him."""


def leak_monitor_bits(tallies: Tallies) -> int:
    """Bits about the key that the monitors disclose."""
    return 0 if tallies.z_ones_steps is None else LEAK_BITS


def monitors(
    tallies: Tallies, settings: ProtocolSettings, receiver: ReceiverBounds
) -> tuple[tuple[Monitor, ...], str | None]:
    """All that is watched, and why the block is refused, or None."""
    return (), None


def unwatched(tallies: Tallies) -> tuple[str, ...]:
    """What is not judged, since the link does not report it."""
    counts = {
        "cross-basis clicks are not counted: light of several photons is not bounded": tallies.cross_clicks,
        "same-basis double clicks are not counted": tallies.double_clicks,
        "the balance of the Z detectors is not watched": tallies.z_ones_steps,
    }
    return tuple(sentence for sentence, count in counts.items() if count is None)
