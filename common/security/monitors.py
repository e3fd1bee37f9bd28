"""What a block's public counts say about the devices; a block out of tolerance produces no key.

The bounds of the proof hold for the receiver and the source that are stated. Here the counts are asked whether those
are the ones in use: a weak or dead detector, a turned splitter, a modulator that draws another basis. Limits are what
the stated mismatch allows and eight standard deviations. Source: ours, `README.md`, section Monitors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from common.security.tallies import ONES_STEPS, H, L, Monitor, ProtocolSettings, R, ReceiverBounds, Tallies, V

LEAK_BITS = 16
"""`Tallies.z_ones_steps` is a number of 16 bits about Bob's bits, published by him."""
SIGMAS = 8.0
"""1e-15 for one limit that is not broken: less than one false alarm in the life of a link."""


class Watch(NamedTuple):
    """A row of the ledger, whether it is within its limits, and what it means if it is not."""

    row: Monitor
    good: bool
    meaning: str


def monitors(
    tallies: Tallies, settings: ProtocolSettings, receiver: ReceiverBounds
) -> tuple[tuple[Monitor, ...], str | None]:
    """All that is watched, and why the block is refused, or None."""
    watched = [
        *_balance_of_x(tallies, receiver),
        *_balance_of_z(tallies, receiver),
        *_share_of_x(tallies, receiver),
        *_basis_of_alice(tallies, settings, receiver),
    ]
    refusal = next((f"{one.meaning}: {_told(one.row)}" for one in watched if not one.good), None)
    return tuple(one.row for one in watched), refusal


def weakened(p: float, mismatch: float) -> float:
    """The share of a class of probability p whose detectors are the weakest and the other class's the strongest."""
    return p * (1.0 - mismatch) / (1.0 - p * mismatch)


def sigmas(p: float, n: int) -> float:
    """Eight standard deviations of the share of n independent events of probability p."""
    return SIGMAS * math.sqrt(p * (1.0 - p) / max(n, 1))


def _balance_of_x(tallies: Tallies, receiver: ReceiverBounds) -> list[Watch]:
    """H and V are sent equally often: turned light cancels in the sum of both, unequal detectors do not."""
    r = sum(level[H][0] + level[V][0] for level in tallies.x_counts)
    n = sum(sum(level[H]) + sum(level[V]) for level in tallies.x_counts)
    return _balance(("R", "L"), r / n, n, 0.0, receiver) if n else []


def _balance_of_z(tallies: Tallies, receiver: ReceiverBounds) -> list[Watch]:
    step = 1.0 / ONES_STEPS
    return _balance(("V", "H"), tallies.z_ones_steps * step, sum(tallies.n_z), step, receiver)


def _balance(pair: tuple[str, str], share: float, n: int, step: float, receiver: ReceiverBounds) -> list[Watch]:
    tolerance = 0.5 - weakened(0.5, receiver.mismatch) + sigmas(0.5, n) + step
    weak = pair[0] if share < 0.5 else pair[1]
    row = Monitor(f"share of {pair[0]} against {pair[1]} from Z pulses", share, 0.5, tolerance)
    return [Watch(row, abs(share - 0.5) <= tolerance, f"detector {weak} is too weak")]


def _share_of_x(tallies: Tallies, receiver: ReceiverBounds) -> list[Watch]:
    """Slots with clicks in both bases count for neither or for both; whichever helps the link.

    Background gives right and wrong outcomes alike: it is at most twice the X errors of X pulses.
    """
    crossed = tallies.cross_clicks
    kept = min(crossed, tallies.x_detections) if receiver.cross_basis == "random" else 0
    alone = max(tallies.z_detections + tallies.x_detections - kept, 1)
    shares = ((tallies.x_detections - kept) / alone, (tallies.x_detections + crossed) / (alone + 2 * crossed))
    sent_x = sum(sum(level[R]) + sum(level[L]) for level in tallies.x_counts)
    wrong = sum(level[R][1] + level[L][0] for level in tallies.x_counts)
    background = min(1.0, 2.0 * wrong / sent_x) if sent_x else 1.0
    least = weakened(1.0 - receiver.p_z_upper, receiver.mismatch)
    most = 1.0 - weakened(receiver.p_z_lower, receiver.mismatch)
    low = Monitor("share of X detections, at least", max(shares), least, sigmas(least, alone))
    high = Monitor("share of X detections, at most", (1.0 - background) * min(shares), most, sigmas(most, alone))
    return [
        Watch(low, low.observed >= low.expected - low.tolerance, "the X detectors are too weak"),
        Watch(high, high.observed <= high.expected + high.tolerance, "the Z detectors are too weak"),
    ]


def _basis_of_alice(tallies: Tallies, settings: ProtocolSettings, receiver: ReceiverBounds) -> list[Watch]:
    """What Alice really sent, among the detections in X, all of whose symbols are public."""
    n, p = tallies.x_detections, settings.p_z_alice
    if not n:
        return []
    share = sum(sum(level[H]) + sum(level[V]) for level in tallies.x_counts) / n
    unequal = max(p - weakened(p, receiver.mismatch), 1.0 - p - weakened(1.0 - p, receiver.mismatch))
    row = Monitor("share of Z pulses in X detections", share, p, unequal + sigmas(p, n))
    return [Watch(row, abs(share - p) <= row.tolerance, "Alice does not send the stated share of Z")]


def _told(row: Monitor) -> str:
    return f"{row.name} is {row.observed:.6g} instead of {row.expected:.6g}, tolerance {row.tolerance:.2g}"
