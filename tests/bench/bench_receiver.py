"""Stage speeds of Bob's ingest on one core, at production size. Goal: gate + rule + varint + sift >= 100 M tags/s.

Run: python -m tests.bench.bench_receiver
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from bob.gating import Gate, Gated
from bob.receiver import Receiver
from bob.synchronisation import ClockTracker, CombLine, find_comb
from common.kernels import sift, tags
from common.kernels.click_rule import RULES
from common.postprocessing.sifting import alice_sift, bob_sift, decode_announcement, encode_announcement
from tests.clicks import RATE_HZ, Link, batches, make

RUNS = 7
GOAL_TAGS_PER_S = 100e6


def seconds(work: Callable[[], object]) -> float:
    """Median time of a few runs after one warm-up."""
    work()
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return median(times)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(1)
    made, _ = make(rng, Link(9e6, 100.0, first_slot=1 << 20), 0.3)
    n = 1 << 17
    times, channels = made.times_ps[:n].copy(), made.channels[:n].copy()
    gate = Gate(0.13, 0, lambda k: rng.integers(0, 2, k, dtype=np.uint8), "discard")
    clock = ClockTracker(CombLine(int(times[0]), 0.0, RATE_HZ, 1e-3, 1.0, 100.0), 1 << 20)

    def sort() -> Gated:
        gate.renumber(-1)
        return gate.sort(times, channels, clock)

    gated = sort()
    to_slot = int(gated.slots[-1]) + 1
    detections = gate.resolve(Gated(gated.slots.copy(), gated.masks, gated.multiple), 0, to_slot)
    slots, bases, bits = detections.slots, detections.bases, detections.bits
    announced = encode_announcement(detections)
    symbols = (bases[:] * 0).astype(np.uint8)
    out_mask, out_key = np.zeros(slots.size, np.uint8), np.zeros(slots.size, np.uint64)
    outcomes = np.zeros(slots.size + 1, np.uint8)
    reply, _ = alice_sift(bases, bits[bases == 1], symbols, symbols)
    random = np.zeros(1, np.uint8)
    scratch = gated.slots.copy(), *np.empty((2, n), np.uint8), *np.empty((2, n), np.int64)
    rule = RULES["discard"]

    def resolve() -> object:
        return tags.resolve(gated.slots, gated.masks, random, rule, *scratch)

    stages: dict[str, tuple[float, int]] = {
        "gate (clock, gate, dead time)": (seconds(sort), n),
        "double-click rule": (seconds(resolve), slots.size),
        "announcement, encode": (seconds(lambda: encode_announcement(detections)), slots.size),
        "sift, Bob": (seconds(lambda: sift.split_bob(bases, bits, out_mask, out_key, outcomes)), slots.size),
        "skew": (seconds(lambda: tags.correct_skew(times, channels, np.arange(4), times * 0, channels)), n),
        "announcement, decode": (seconds(lambda: decode_announcement(announced, 0, to_slot, "discard")), slots.size),
        "sift and reply, Alice": (
            seconds(lambda: alice_sift(bases, bits[bases == 1], symbols, symbols)),
            slots.size,
        ),
        "reply, Bob": (seconds(lambda: bob_sift(detections, reply)), slots.size),
        "frequency search, 50 ms": (seconds(lambda: find_comb(times, int(times[0]), 50_000_000_000, RATE_HZ)), n),
    }
    for name, (took, count) in stages.items():
        print(f"{name:32s} {count / took / 1e6:8.1f} M/s  {took * 1e3:8.3f} ms")
    chain = sum(stages[name][0] for name in list(stages)[:4])
    verdict = "reached" if n / chain >= GOAL_TAGS_PER_S else "missed"
    print(f"ingest chain (first four)        {n / chain / 1e6:8.1f} M tags/s: goal {verdict}")
    print(f"bytes a detection                {len(announced) / slots.size:8.2f}")
    for signal, duration in ((9e6, 3.0), (0.33e6, 20.0)):
        whole(rng, signal, duration)


def whole(rng: np.random.Generator, signal_cps: float, duration_s: float) -> None:
    """The whole receiver from first tag, acquisition included; and per tag once it is locked."""
    made, _ = make(rng, Link(signal_cps, 100.0, offset_ppm=12.0, first_slot=1 << 33), duration_s)
    receiver = Receiver(RATE_HZ, lambda k: np.zeros(k, np.uint8), dead_time_ps=10_000)
    found = spent = 0.0
    locked_tags, locked_s = 0, 0.0
    for batch in batches(made, 0.02):
        was_locked = receiver.state == "locked"
        begin = time.perf_counter()
        found += sum(map(len, receiver.feed(batch)))
        took = time.perf_counter() - begin
        spent += took
        if was_locked:
            locked_tags, locked_s = locked_tags + len(batch), locked_s + took
    print(
        f"receiver at {signal_cps / 1e6:.2f} Mcps: {len(made) / spent / 1e6:.1f} M tags/s with acquisition,"
        f" {locked_tags / locked_s / 1e6:.1f} locked; {spent / duration_s:.3f} core; {receiver.state}"
    )


if __name__ == "__main__":
    main()
