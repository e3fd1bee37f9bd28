"""A small generator of clicks for the receiver's tests, independent of the twin: sparse, exact slots, known truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from common.datatypes import TimeTags
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS, preamble

RATE_HZ = 76.13e6


@dataclass
class Link:
    """Light and receiver; times in s, rates in counts per second."""

    signal_cps: float
    dark_cps: float = 50.0
    offset_ppm: float = 0.0
    drift_per_s: float = 0.0
    walk_per_s: float = 5e-18
    first_slot: int = 0
    jitter_ps: float = 80.0
    qber: float = 0.025
    q_z: float = 0.9
    p_z: float = 0.9
    dark_spans: list[tuple[float, float]] = field(default_factory=list)


def symbols_of(slots: np.ndarray, link: Link, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Alice's (basis, bit) of slots: the preamble's, else a hash of the slot number."""
    mixed = (slots.astype(np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    basis = ((mixed & np.uint64(0xFFFF)) >= int(link.p_z * 65536)).astype(np.uint8)
    bit = ((mixed >> np.uint64(20)) & np.uint64(1)).astype(np.uint8) * (basis == 0)
    for epoch in np.unique(slots // EPOCH_SLOTS):
        inside = (slots // EPOCH_SLOTS == epoch) & (slots % EPOCH_SLOTS < PREAMBLE_SLOTS)
        bits = np.unpackbits(preamble(int(epoch)).view(np.uint8), bitorder="little")
        basis[inside], bit[inside] = 0, bits[slots[inside] % EPOCH_SLOTS]
    return basis, bit


def make(rng: np.random.Generator, link: Link, duration_s: float, start_s: float = 0.0) -> tuple[TimeTags, np.ndarray]:
    """Tags of ``duration_s`` and, per tag, Alice's slot (-1 for darks)."""
    n = rng.poisson(link.signal_cps * duration_s)
    slots = np.unique((rng.random(n) * duration_s * RATE_HZ).astype(np.int64))
    for begin, end in link.dark_spans:
        slots = slots[(slots < begin * RATE_HZ) | (slots >= end * RATE_HZ)]
    true_s = slots / RATE_HZ
    slots += link.first_slot
    basis, bit = symbols_of(slots, link)
    measured = (rng.random(slots.size) >= link.q_z).astype(np.uint8)
    right = np.where(basis == measured, bit, rng.integers(0, 2, slots.size))
    outcome = right ^ (rng.random(slots.size) < link.qber)
    dark_s = np.sort(rng.random(rng.poisson(link.dark_cps * duration_s)) * duration_s)
    all_s = np.concatenate([true_s, dark_s])
    channels = np.concatenate([2 * measured + outcome, rng.integers(0, 4, dark_s.size)]).astype(np.uint8)
    truth = np.concatenate([slots, np.full(dark_s.size, -1)])
    grid = np.arange(0.0, duration_s + 0.02, 0.01)
    walk = np.cumsum(rng.normal(0.0, np.sqrt(link.walk_per_s * 0.01), grid.size))
    frequency = link.offset_ppm * 1e-6 + link.drift_per_s * grid + walk
    extra_s = np.interp(all_s, grid, np.concatenate([[0.0], np.cumsum(frequency[:-1]) * 0.01]))
    base_ps = np.floor(all_s * 1e12)  # whole ps below 1e4 s are exact in float64
    jitter = np.concatenate([rng.normal(0.0, link.jitter_ps, slots.size), np.zeros(dark_s.size)])
    times = base_ps.astype(np.int64) + np.floor(extra_s * 1e12 + jitter).astype(np.int64) + int(start_s * 1e12) + 10_000
    times = times // 42 * 42
    order = np.argsort(times, kind="stable")
    until = int((start_s + duration_s) * 1e12)
    return TimeTags(times[order], channels[order], until), truth[order]


def batches(tags: TimeTags, every_s: float) -> list[TimeTags]:
    """Cut into batches of equal duration."""
    step = int(every_s * 1e12)
    first = int(tags.times_ps[0]) // step * step
    edges = np.arange(first + step, tags.until_ps + step, step)
    cut = np.searchsorted(tags.times_ps, edges)
    made, at = [], 0
    for edge, stop in zip(edges, cut, strict=True):
        made.append(TimeTags(tags.times_ps[at:stop], tags.channels[at:stop], int(edge)))
        at = stop
    return made
