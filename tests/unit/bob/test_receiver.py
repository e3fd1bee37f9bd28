"""The receiver against light with known truth: locks, holds, notices, recovers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bob.phases import ReceiverEvent
from bob.receiver import Receiver
from common.config_file import parse_config
from common.datatypes import Detections, TimeTags
from common.errors import ConfigurationError
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS
from tests.clicks import RATE_HZ, Link, batches, make, symbols_of

FIELD = Link(3.3e5, offset_ppm=17.3, first_slot=40 * EPOCH_SLOTS - 20_000_000)


def receiver(rng: np.random.Generator, **options: object) -> Receiver:
    return Receiver(RATE_HZ, lambda n: rng.integers(0, 2, n, dtype=np.uint8), **options)  # type: ignore[arg-type]


def run(bob: Receiver, tags: TimeTags, every_s: float = 0.1) -> tuple[list[Detections], list[ReceiverEvent]]:
    found: list[Detections] = []
    events: list[ReceiverEvent] = []
    for batch in batches(tags, every_s):
        found += bob.feed(batch)
        events += bob.take_events()
    return found, events


def errors(found: list[Detections], link: Link) -> float:
    """QBER of the sifted Z bits against what Alice prepared in the slots that Bob names."""
    slots, bases, bits = (np.concatenate([getattr(d, f) for d in found]) for f in ("slots", "bases", "bits"))
    alice_basis, alice_bit = symbols_of(slots, link)
    kept = (bases == 0) & (alice_basis == 0)
    return float((bits[kept] != alice_bit[kept]).mean())


def later(tags: TimeTags, by_ps: int) -> TimeTags:
    return TimeTags(tags.times_ps + by_ps, tags.channels, tags.until_ps + by_ps)


def joined(*parts: TimeTags) -> TimeTags:
    times = np.concatenate([p.times_ps for p in parts])
    return TimeTags(times, np.concatenate([p.channels for p in parts]), parts[-1].until_ps)


@pytest.mark.parametrize(
    ("link", "epochs"),
    [
        (FIELD, 1),
        (replace(FIELD, signal_cps=1.0e6, offset_ppm=-29.5, first_slot=5), 2),
        (replace(FIELD, offset_ppm=20.0, drift_per_s=2e-8, walk_per_s=1e-17), 1),
        (replace(FIELD, signal_cps=5e4, dark_cps=2e3, first_slot=70_000 * EPOCH_SLOTS - 20_000_000), 4),
    ],
    ids=["field", "bright and far off", "drifting", "weak, after 17 hours"],
)
def test_locks_and_names_the_right_slots(rng: np.random.Generator, link: Link, epochs: int) -> None:
    tags, truth = make(rng, link, 1.8 + 0.4 * epochs)
    found, events = run(receiver(rng), tags)
    assert [event.kind for event in events] == ["locked"]
    assert events[0].from_slot - link.first_slot < epochs * EPOCH_SLOTS
    slots = np.concatenate([d.slots for d in found])
    expected = truth[(truth >= found[0].from_slot) & (truth < found[-1].to_slot)]
    payload = expected[expected % EPOCH_SLOTS >= PREAMBLE_SLOTS]
    assert np.isin(slots, payload).mean() > 1 - 3 * link.dark_cps / link.signal_cps
    assert slots.size > 0.99 * payload.size
    assert errors(found, link) == pytest.approx(link.qber + 0.15 * link.dark_cps / link.signal_cps, abs=0.004)


def test_ranges_are_contiguous_ascending_and_without_preambles(rng: np.random.Generator) -> None:
    found, _ = run(receiver(rng), make(rng, FIELD, 2.5)[0], 0.037)
    assert all(a.to_slot == b.from_slot for a, b in pairwise(found))
    slots = np.concatenate([d.slots for d in found])
    assert np.all(np.diff(slots) > 0)
    assert np.all(slots % EPOCH_SLOTS >= PREAMBLE_SLOTS)
    assert all(d.from_slot <= d.slots[0] and d.slots[-1] < d.to_slot for d in found if len(d))


def test_ranges_are_contiguous_where_a_preamble_outlasts_a_measurement(rng: np.random.Generator) -> None:
    """At 3.8 MHz a preamble takes 34 ms: the clock is measured inside it, and batches may end there."""
    link = Link(1.5e5, walk_per_s=0.0, first_slot=40 * EPOCH_SLOTS - 5_000_000)
    tags, _ = make(rng, link, 1.1)
    slow = TimeTags(20 * tags.times_ps, tags.channels, 20 * tags.until_ps)
    bob = Receiver(RATE_HZ / 20, lambda n: np.zeros(n, np.uint8), gate_ps=60_000.0)
    found, events = run(bob, slow, 0.007)
    assert [event.kind for event in events] == ["locked"]
    assert found[0].from_slot < 41 * EPOCH_SLOTS < found[-1].to_slot, "another preamble has passed"
    assert all(a.to_slot == b.from_slot for a, b in pairwise(found))


def test_the_result_does_not_depend_on_how_tags_are_batched(rng: np.random.Generator) -> None:
    tags, _ = make(rng, replace(FIELD, signal_cps=1e5), 1.5)
    coarse, _ = run(receiver(rng), tags, 0.5)
    fine, _ = run(receiver(rng), tags, 0.003)
    one, other = (np.concatenate([d.slots for d in found]) for found in (coarse, fine))
    common = min(one[-1], other[-1])
    start = max(coarse[0].from_slot, fine[0].from_slot)
    assert np.array_equal(*([slots[(slots >= start) & (slots <= common)] for slots in (one, other)]))


def test_a_large_tagger_time_loses_no_precision(rng: np.random.Generator) -> None:
    tags, _ = make(rng, replace(FIELD, signal_cps=1e5), 1.6)
    bob = receiver(rng)
    found, _ = run(bob, later(tags, 10**18 - 10**18 % 10**12))
    assert errors(found, FIELD) < 0.03


def test_darkness_alone_never_locks(rng: np.random.Generator) -> None:
    bob = receiver(rng)
    found, events = run(bob, make(rng, Link(0.0, 2e5), 3.0)[0])
    assert (found, events, bob.state) == ([], [], "searching-frequency")


def test_light_without_a_preamble_never_locks(rng: np.random.Generator) -> None:
    link = replace(FIELD, first_slot=10 * EPOCH_SLOTS + PREAMBLE_SLOTS)
    bob = receiver(rng)
    found, events = run(bob, make(rng, link, 0.8)[0])
    assert (found, events, bob.state) == ([], [], "searching-slot")


def test_a_short_gap_is_bridged_without_a_new_search(rng: np.random.Generator) -> None:
    link = replace(FIELD, dark_spans=[(1.3, 1.6)])
    bob = receiver(rng)
    found, events = run(bob, make(rng, link, 2.6)[0])
    assert [event.kind for event in events] == ["locked"]
    assert bob.status().acquisitions == 1
    assert errors(found, link) < 0.03


def test_a_long_gap_is_noticed_and_recovered_from(rng: np.random.Generator) -> None:
    link = replace(FIELD, dark_spans=[(1.3, 4.0)])
    bob = receiver(rng)
    found, events = run(bob, make(rng, link, 6.0)[0])
    assert [event.kind for event in events] == ["locked", "lost", "locked"]
    assert errors(found, link) < 0.03
    assert found[-1].to_slot > link.first_slot + 5.8 * RATE_HZ


def test_a_restarted_alice_is_noticed_at_the_first_preamble(rng: np.random.Generator) -> None:
    before, _ = make(rng, FIELD, 1.5)
    again = replace(FIELD, first_slot=0)
    after, _ = make(rng, again, 3.0)
    bob = receiver(rng)
    found, events = run(bob, joined(before, later(after, 1_500_000_003_000)))
    kinds = [event.kind for event in events]
    assert kinds[0] == "locked"
    assert kinds[-1] == "locked"
    assert events[-1].from_slot < 3 * RATE_HZ
    assert "lost" in kinds
    assert (
        errors([d for d in found if d.from_slot >= events[-1].from_slot and d.to_slot < 10 * EPOCH_SLOTS], again) < 0.03
    )


def test_a_comb_that_moves_against_the_clock_ends_the_lock(rng: np.random.Generator) -> None:
    before, _ = make(rng, FIELD, 1.5)
    after, _ = make(rng, replace(FIELD, first_slot=FIELD.first_slot + int(1.5 * RATE_HZ)), 0.5)
    bob = receiver(rng)
    _, events = run(bob, joined(before, later(after, 1_500_000_000_000 + 1_300)), 0.05)
    assert [event.kind for event in events][:2] == ["locked", "lost"]


def test_detections_since_the_last_measurement_are_dropped_when_the_light_jumps(rng: np.random.Generator) -> None:
    """Alice's light came back 1000 slots late and a tenth of a slot off: what then fell into the gate is nobody's."""
    before, _ = make(rng, FIELD, 1.5)
    late_ps = round(1000.1 / RATE_HZ * 1e12)
    after, _ = make(rng, replace(FIELD, first_slot=FIELD.first_slot + int(1.5 * RATE_HZ)), 0.1)
    bob = receiver(rng)
    found, events = run(bob, joined(before, later(after, 1_500_000_000_000 + late_ps)), 0.003)
    assert [event.kind for event in events][:2] == ["locked", "lost"]
    before_jump = FIELD.first_slot + int(1.5 * RATE_HZ)
    assert found[-1].to_slot - before_jump < 0.012 * RATE_HZ, "a mean hides at most half a stretch of 20 ms"
    assert found[-1].to_slot > before_jump - 0.021 * RATE_HZ


@pytest.mark.parametrize("slots", [3, -3])
def test_a_slipped_slot_is_reported_with_its_range_and_corrected(rng: np.random.Generator, slots: int) -> None:
    steady = replace(FIELD, walk_per_s=0.0)
    before, _ = make(rng, steady, 1.4)
    moved = replace(steady, first_slot=FIELD.first_slot + int(1.4 * RATE_HZ) + slots)
    after, _ = make(rng, moved, 1.6)
    exact_ps = round(int(1.4 * RATE_HZ) / RATE_HZ * 1e12 * (1 + 17.3e-6))
    bob = receiver(rng)
    found, events = run(bob, joined(before, later(after, exact_ps)))
    assert [event.kind for event in events] == ["locked", "slip"]
    slip = events[1]
    assert slip.from_slot <= FIELD.first_slot + int(1.4 * RATE_HZ) < slip.to_slot
    good = [d for d in found if d.to_slot <= slip.from_slot or d.from_slot >= slip.to_slot]
    assert errors(good, FIELD) < 0.03
    bad = [d for d in found if slip.from_slot < d.from_slot < slip.to_slot]
    assert bad  # emitted at once, and disowned by the event


def test_an_overflow_is_reported_with_its_range(rng: np.random.Generator) -> None:
    bob = receiver(rng)
    made = batches(make(rng, FIELD, 1.5)[0], 0.1)
    for batch in made[:-1]:
        bob.feed(batch)
    bob.take_events()
    before = bob.status().next_slot
    bob.feed(replace(made[-1], overflow=True))
    (event,) = bob.take_events()
    assert (event.kind, event.from_slot) == ("overflow", before)
    assert event.to_slot > bob.status().next_slot


def test_channel_skew_is_taken_out(rng: np.random.Generator) -> None:
    skew = (0, 3_000, 1_500, 6_000)
    tags, _ = make(rng, replace(FIELD, signal_cps=1e5), 1.8)
    times = tags.times_ps + np.array(skew)[tags.channels]
    order = np.argsort(times, kind="stable")
    skewed = TimeTags(times[order], tags.channels[order], tags.until_ps)
    bob = receiver(rng, channel_skew_ps=skew)
    found, _ = run(bob, skewed)
    assert errors(found, FIELD) < 0.03
    counts = bob.status().counts
    assert counts.outside_gate < 0.01 * counts.in_gate


def test_dead_time_and_doubles_are_counted(rng: np.random.Generator) -> None:
    tags, _ = make(rng, replace(FIELD, signal_cps=2e5), 1.5)
    echo = TimeTags(tags.times_ps[::10] + 500, tags.channels[::10] ^ 1, tags.until_ps)  # same basis, same slot
    cross = TimeTags(tags.times_ps[1::10] + 500, tags.channels[1::10] ^ 2, tags.until_ps)
    times = np.concatenate([tags.times_ps, echo.times_ps, cross.times_ps])
    channels = np.concatenate([tags.channels, echo.channels, cross.channels])
    order = np.argsort(times, kind="stable")
    bob = receiver(rng, dead_time_ps=30_000)
    found, _ = run(bob, TimeTags(times[order], channels[order], tags.until_ps))
    kept = sum(len(d) for d in found)
    doubles, crossed = sum(d.double_slots.size for d in found), sum(d.cross_slots.size for d in found)
    assert doubles / kept == pytest.approx(1 / 9, rel=0.05)  # cross-basis slots (a tenth) are dropped
    assert crossed == pytest.approx(doubles, rel=0.05)
    assert bob.status().counts.double_clicks == doubles
    assert bob.status().counts.cross_basis_clicks == crossed
    for batch in found:
        assert np.isin(batch.double_slots, batch.slots).all()
        assert batch.discarded_slots.size == batch.cross_slots.size
        inside = np.concatenate([batch.double_slots, batch.cross_slots])
        assert np.all((inside >= batch.from_slot) & (inside < batch.to_slot) & (inside % EPOCH_SLOTS >= PREAMBLE_SLOTS))
    assert bob.status().counts.blanked > 0


def test_status_tells_the_clock(rng: np.random.Generator) -> None:
    bob = receiver(rng)
    run(bob, make(rng, FIELD, 1.5)[0])
    status = bob.status()
    assert status.state == "locked"
    assert status.frequency_offset_ppm == pytest.approx(-17.3, abs=0.05)
    assert status.sigma_slots < 0.01
    assert abs(status.offset_slots) < 0.02
    assert status.last_verified_epoch >= 40


def test_a_gate_wider_than_the_slot_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigurationError, match="gate_ps"):
        receiver(rng, gate_ps=13_000.0)


def test_a_restarted_tagger_is_followed(rng: np.random.Generator) -> None:
    tags, _ = make(rng, FIELD, 1.4)
    bob = receiver(rng)
    run(bob, later(tags, 100 * 10**12))
    found, events = run(bob, tags)
    assert [event.kind for event in events] == ["lost", "locked"]
    assert errors(found[1:], FIELD) < 0.03


def test_days_of_darkness_cost_nothing(rng: np.random.Generator) -> None:
    bob = receiver(rng)
    run(bob, make(rng, FIELD, 1.2)[0])
    nothing = TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), 10**18)
    bob.feed(nothing)
    assert [event.kind for event in bob.take_events()] == ["lost"]
    assert bob.state == "lost"
    found, _ = run(bob, later(make(rng, FIELD, 1.4)[0], 10**18))
    assert errors(found, FIELD) < 0.03


@pytest.mark.parametrize("seed", range(8))
def test_nonsense_never_breaks_the_receiver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bob = receiver(
        rng, dead_time_ps=int(rng.integers(0, 10**6)), channel_skew_ps=tuple(rng.integers(-(10**4), 10**4, 4))
    )
    now = 0
    for _ in range(40):
        n, span = int(rng.integers(0, 2000)), int(10 ** rng.uniform(3, 12))
        times = np.sort(now + rng.integers(0, span, n)) if n else np.zeros(0, np.int64)
        now += span
        bob.feed(TimeTags(times, rng.integers(0, 4, n, dtype=np.uint8), now, bool(rng.random() < 0.1)))
    assert bob.take_events() == []
    assert bob.status().acquisitions == 0


CLOUDY = replace(FIELD, dark_cps=1e5, dark_spans=[(1.0, 1.1)])
"""Strong background; for a tenth of a second nothing else."""


def in_span(slots: np.ndarray, link: Link) -> np.ndarray:
    """Which slots lie in the whole segments without light (10 ms each, so a little less than the span)."""
    ((begin, end),) = link.dark_spans
    margin = 0.011
    time_s = (slots - link.first_slot) / RATE_HZ
    return (time_s > begin + margin) & (time_s < end - margin)


def test_selection_drops_what_is_drowned_and_nothing_else(rng: np.random.Generator) -> None:
    tags, _ = make(rng, CLOUDY, 1.6)
    every, _ = run(receiver(np.random.default_rng(1)), tags, 0.037)
    bob = receiver(np.random.default_rng(1), selection="transmittance")
    chosen, events = run(bob, tags, 0.037)
    assert [event.kind for event in events] == ["locked"]
    assert chosen[0].from_slot == every[0].from_slot
    assert all(a.to_slot == b.from_slot for a, b in pairwise(chosen))
    all_slots, slots = (np.concatenate([d.slots for d in found]) for found in (every, chosen))
    assert in_span(all_slots, CLOUDY).sum() > 1000
    assert in_span(slots, CLOUDY).sum() == 0
    judged = all_slots[all_slots < chosen[-1].to_slot]
    dropped = np.setdiff1d(judged, slots)
    assert np.all(np.abs((dropped - FIELD.first_slot) / RATE_HZ - 1.05) < 0.061)
    counts = bob.status().selection
    assert counts.detections_dropped == judged.size - slots.size == dropped.size
    assert 8 <= counts.segments_dropped <= 11
    assert counts.segments == pytest.approx((chosen[-1].to_slot - chosen[0].from_slot) / RATE_HZ / 0.01, abs=2)
    assert errors(chosen, FIELD) < errors(every, FIELD) - 0.001


def test_selection_drops_nothing_from_steady_light(rng: np.random.Generator) -> None:
    for link in (FIELD, replace(FIELD, dark_cps=1e5), replace(FIELD, signal_cps=1e5, dark_cps=4e3)):
        tags, _ = make(rng, link, 1.4)
        bob = receiver(rng, selection="transmittance")
        run(bob, tags)
        counts = bob.status().selection
        assert counts.segments > 20
        assert counts.detections_dropped == 0


def test_the_selection_does_not_depend_on_how_tags_are_batched(rng: np.random.Generator) -> None:
    tags, _ = make(rng, replace(CLOUDY, signal_cps=2e5, dark_cps=5e4), 1.4)
    coarse, _ = run(receiver(np.random.default_rng(1), selection="transmittance"), tags, 0.5)
    fine, _ = run(receiver(np.random.default_rng(1), selection="transmittance"), tags, 0.003)
    one, other = (np.concatenate([d.slots for d in found]) for found in (coarse, fine))
    start, end = (pick(coarse[i].from_slot, fine[i].from_slot) for pick, i in ((max, 0), (min, -1)))
    assert end - start > 0.5 * RATE_HZ
    one, other = (slots[(slots >= start) & (slots < end)] for slots in (one, other))
    assert np.setxor1d(one, other).size < 1e-3 * one.size, "the clock's few ps decide about clicks at the gate's edge"


def test_selection_hands_over_all_it_holds_when_the_lock_is_lost(rng: np.random.Generator) -> None:
    tags, _ = make(rng, replace(FIELD, dark_spans=[(1.3, 4.0)]), 6.0)
    found = [run(receiver(np.random.default_rng(1), selection=rule), tags)[0] for rule in ("off", "transmittance")]
    jumps = [[(a.to_slot, b.from_slot) for a, b in pairwise(made) if a.to_slot != b.from_slot] for made in found]
    assert jumps[0] == jumps[1]
    assert len(jumps[0]) == 1
    lit = [np.concatenate([d.slots for d in made]) for made in found]
    light_ends = FIELD.first_slot + int(1.29 * RATE_HZ)
    assert np.array_equal(*(slots[slots < light_ends] for slots in lit))


def test_selection_hands_over_what_it_holds_as_soon_as_the_lock_is_lost(rng: np.random.Generator) -> None:
    tags, _ = make(rng, FIELD, 1.2)
    nothing = TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), 10**18)
    ends = []
    for rule in ("off", "transmittance"):
        bob = receiver(np.random.default_rng(1), selection=rule)
        found, _ = run(bob, tags)
        found += bob.feed(nothing)
        assert bob.state == "lost"
        ends.append((found[-1].to_slot, sum(map(len, found))))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(("p_z", "all_kept"), [(0.9, False), (0.5, True)])
def test_background_in_a_rare_check_basis_weighs_more(rng: np.random.Generator, p_z: float, all_kept: bool) -> None:
    """Seven clicks for one of background, which is equal in all detectors: at 9 to 1 that is too little for any key."""
    settings = f"role = 'bob'\n[link]\np_z_bob = {p_z}\n[receiver]\nselection = 'transmittance'"
    bob = Receiver.configured(parse_config(settings, Path()), lambda n: rng.integers(0, 2, n, dtype=np.uint8))
    link = replace(FIELD, signal_cps=156_000.0, dark_cps=1e5, q_z=p_z)
    run(bob, make(rng, link, 1.4)[0])
    counts = bob.status().selection
    assert counts.segments > 15
    assert counts.segments_dropped == 0 if all_kept else counts.segments_dropped > 0.8 * counts.segments
