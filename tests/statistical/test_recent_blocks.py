"""Devices beyond the stated mismatch are found over many blocks, as stated never; repaired ones are believed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from bob.session import share_steps
from common.security.finite_key import EpsilonBudget, key_length
from common.security.monitors import monitors
from common.security.recent import BLOCKS_KEPT, PROOF_OF_REPAIR, WINDOW_DETECTIONS, RecentBlocks
from common.security.tallies import H, ProtocolSettings, R, ReceiverBounds, SourceBounds, Tallies, V

SETTINGS = ProtocolSettings("three-state", 0.9, 0.9)
RECEIVER = ReceiverBounds(0.899, 0.901, 0.01)
QBER = 0.02
EQUAL = (1.0, 1.0, 1.0, 1.0)
SEEN = {H: (1.0, 0.0, 0.5, 0.5), V: (0.0, 1.0, 0.5, 0.5), R: (0.5, 0.5, 1.0, 0.0)}
"""Probabilities of the outcomes H, V, R, L in their bases, by what was sent."""


def weak(detector: int, by: float) -> tuple[float, ...]:
    return tuple(1.0 - by if one == detector else 1.0 for one in range(4))


def blocks(
    rng: np.random.Generator, detections: int, efficiencies: tuple[float, ...] = EQUAL, p_z: float = 0.9
) -> Iterator[Tallies]:
    """Blocks of the field link's shares: three states through a passive receiver, 2 % of errors in both bases."""
    p = np.zeros((3, 4))
    for sent, right in SEEN.items():
        of_sent = (1.0 - SETTINGS.p_z_alice) if sent == R else SETTINGS.p_z_alice / 2
        for outcome, share in enumerate(right):
            way = p_z if outcome < 2 else 1.0 - p_z
            p[sent, outcome] = of_sent * way * (QBER + (1.0 - 2.0 * QBER) * share) * efficiencies[outcome]
    while True:
        n = rng.multinomial(detections, (p / p.sum()).ravel()).reshape(3, 4)
        n_z, in_x = int(n[:2, :2].sum()), int(n[:, 2:].sum())
        yield Tallies(
            slots_sent=50 * detections,
            n_z=(n_z,),
            n_z_kept=n_z,
            x_counts=(tuple((int(a), int(b)) for a, b in [*n[:, 2:], (0, 0)]),),
            z_detections=detections - in_x,
            x_detections=in_x,
            cross_clicks=0,
            double_clicks=0,
            z_ones_steps=share_steps(int(n[:2, 1].sum()), n_z),
        )


def verdicts(recent: RecentBlocks, some: Iterator[Tallies], count: int) -> list[str | None]:
    return [recent.enter(next(some)) for _ in range(count)]


def claimed(tallies: Tallies, mismatch: float) -> int:
    receiver = replace(RECEIVER, mismatch=mismatch)
    leak = int(0.16 * tallies.n_z_kept)
    return key_length(tallies, SETTINGS, SourceBounds(0.3, 0.01), receiver, EpsilonBudget(), leak, 128).ell_bits


@pytest.mark.parametrize(
    ("size", "by", "within"),
    [(10**6, 0.06, 2), (10**6, 0.03, 16), (10**6, 0.02, 64), (300_000, 0.06, 8), (300_000, 0.03, 64)],
)
@pytest.mark.parametrize("seed", range(5))
def test_a_detector_weaker_than_stated_is_named_and_no_key_is_made_of_it_any_more(
    size: int, by: float, within: int, seed: int
) -> None:
    some = blocks(np.random.default_rng(seed), size, weak(R, by))
    heard = verdicts(RecentBlocks(SETTINGS, RECEIVER), some, 3 * within)
    first = next(number for number, why in enumerate(heard) if why)
    assert first < within
    assert all(why is not None and "detector R is too weak" in why for why in heard[first:])


def test_each_of_these_blocks_passes_alone_and_would_give_more_key_than_its_detectors_allow() -> None:
    one = next(blocks(np.random.default_rng(1), 10**6, weak(R, 0.05)))
    assert monitors(one, SETTINGS, RECEIVER)[1] is None
    assert claimed(one, 0.01) > 1.05 * claimed(one, 0.05) > 0


def test_a_weak_detector_of_z_a_turned_splitter_and_another_source_are_named_too() -> None:
    """Each by an amount that a block of 300 000 does not show."""
    rng = np.random.default_rng(2)
    cases = {
        "detector V is too weak": blocks(rng, 300_000, weak(V, 0.03)),
        "the X detectors are too weak": blocks(rng, 300_000, p_z=0.905),
        "the Z detectors are too weak": blocks(rng, 300_000, p_z=0.892),
    }
    for name, some in cases.items():
        heard = verdicts(RecentBlocks(SETTINGS, RECEIVER), some, 100)
        assert heard[0] is None
        assert name in str(heard[-1])


@pytest.mark.parametrize(("seed", "efficiencies"), [(0, EQUAL), (1, weak(R, 0.01)), (2, weak(V, 0.01))])
def test_devices_as_stated_are_never_refused(seed: int, efficiencies: tuple[float, ...]) -> None:
    some = blocks(np.random.default_rng(seed), 10**6, efficiencies)
    assert verdicts(RecentBlocks(SETTINGS, RECEIVER), some, 1000) == [None] * 1000


def test_a_detector_that_was_dead_is_believed_after_four_blocks() -> None:
    rng, recent = np.random.default_rng(3), RecentBlocks(SETTINGS, RECEIVER)
    good = blocks(rng, 10**6)
    assert verdicts(recent, good, 200) == [None] * 200
    assert all(verdicts(recent, blocks(rng, 10**6, weak(R, 1.0)), 10))
    heard = verdicts(recent, good, 100)
    assert [why is None for why in heard] == [False] * (PROOF_OF_REPAIR - 1) + [True] * (101 - PROOF_OF_REPAIR)
    assert "good again after 1000000 more detections" in str(heard[PROOF_OF_REPAIR - 2])


@pytest.mark.parametrize("seed", range(5))
def test_a_small_weakness_that_was_mended_is_forgotten_within_the_window(seed: int) -> None:
    rng, recent = np.random.default_rng(seed), RecentBlocks(SETTINGS, RECEIVER)
    assert any(verdicts(recent, blocks(rng, 10**6, weak(R, 0.02)), 64))
    heard = verdicts(recent, blocks(rng, 10**6), 300)
    assert heard[0] is not None
    assert heard[2 * WINDOW_DETECTIONS // 10**6 :] == [None] * 100


def test_the_window_forgets_what_is_older() -> None:
    recent = RecentBlocks(SETTINGS, RECEIVER)
    for size, kept in ((10**7, 10), (10**5, 1000), (10**4, BLOCKS_KEPT)):
        some = blocks(np.random.default_rng(4), size)
        verdicts(recent, some, 1100)
        assert len(recent._rows) == kept


def test_the_share_of_v_is_weighed_by_the_bits_and_off_by_one_step_at_most() -> None:
    rng, recent = np.random.default_rng(5), RecentBlocks(SETTINGS, replace(RECEIVER, mismatch=0.5))
    ones = sifted = 0
    for size in (1001, 300_007, 70_001, 12_345):
        one = next(blocks(rng, size))
        v = int(rng.integers(int(0.4 * one.n_z[0]), int(0.6 * one.n_z[0])))
        ones, sifted = ones + v, sifted + one.n_z[0]
        assert recent.enter(replace(one, z_ones_steps=share_steps(v, one.n_z[0]))) is None
    *_, (blocks_summed, total) = recent._ends(1)
    assert (blocks_summed, total.n_z) == (4, (sifted,))
    assert math.isclose(total.z_ones_steps / 2**16, ones / sifted, abs_tol=2.0**-16)
    assert total.fault() is None


def test_counts_that_cannot_be_do_not_enter() -> None:
    recent = RecentBlocks(SETTINGS, RECEIVER)
    one = next(blocks(np.random.default_rng(6), 10**6))
    assert recent.enter(replace(one, x_counts=(((0, 0),) * 4,))) is None
    assert not recent._rows


def test_a_receiver_without_any_x_accuses_the_x_detectors() -> None:
    """No key comes of such counts for another reason; the operator is to be told of the devices."""
    rng = np.random.default_rng(7)
    recent, blind = RecentBlocks(SETTINGS, RECEIVER), blocks(rng, 300_000, (1.0, 1.0, 0.0, 0.0))
    one = next(blind)
    assert one.fault() == "nothing was detected in the check basis"
    assert one.x_detections == 0
    assert str(recent.enter(one)).startswith("the X detectors are too weak: ")
    few = next(blocks(rng, 100, (1.0, 1.0, 0.0, 0.0)))
    assert RecentBlocks(SETTINGS, RECEIVER).enter(few) is None, "a hundred detections may be without X by chance"
