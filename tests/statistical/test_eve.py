"""Attacks on the twin: what Eve does to the light follows her closed forms, and no key of hers is ever called secret.

Tallies are made as the daemons make them: light, gate, announcement, both ends' sifting. Blocks are long enough for
honest light to produce key, and for the attacks, had nobody counted clicks in both bases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from bob.gating import Gate
from bob.session import share_steps
from common.planning.presets import PRESETS, LinkParameters
from common.postprocessing.sifting import (
    Announcement,
    SiftedChunk,
    alice_sift,
    bob_sift,
    decode_announcement,
    encode_announcement,
)
from common.preamble import PREAMBLE_SLOTS
from common.security.bounds import binary_entropy
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.monitors import monitors
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from common.units import PS_PER_S
from hardware.twin.eve import MOST_PHOTONS, Eve, Resend
from hardware.twin.physics import Receiver, TaggerClock
from hardware.twin.weather import Climate, Weather, rotation

N_SLOTS = 1 << 20
SIGMAS = 5.0
LINK = replace(PRESETS["lab-0.17dB"], misalignment=0.0)
THREE = ProtocolSettings("three-state", 0.79, 0.9)
FOUR = ProtocolSettings("bb84", 0.79, 0.9)
DECOY = ProtocolSettings("decoy-bb84", 0.79, 0.9, (0.5, 0.15, 0.0), (0.5, 0.25, 0.25))


@dataclass
class Slots:
    """Alice's clock without a search for it: slot ``first`` begins at time 0."""

    slots_per_ps: float
    first: int = PREAMBLE_SLOTS
    origin_ps = 0
    phase = 0.0

    @property
    def origin_slot(self) -> int:
        return self.first


def unpacked(plane: np.ndarray) -> np.ndarray:
    return np.unpackbits(plane.view(np.uint8), bitorder="little")


@lru_cache(1)
def prepared(settings: ProtocolSettings, n_slots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Alice's basis, bit and level of each slot, one a byte."""
    rng = np.random.default_rng(7)
    basis = (rng.random(n_slots, np.float32) >= settings.p_z_alice).astype(np.uint8)
    bit = rng.integers(0, 2, n_slots, dtype=np.uint8)
    if settings.protocol == "three-state":
        bit &= 1 - basis
    edges = np.cumsum(settings.p_intensities[:-1])
    return basis, bit, np.searchsorted(edges, rng.random(n_slots)).astype(np.uint8)


def plane(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits, bitorder="little").view(np.uint64)


@dataclass
class Attacked:
    """One run: the public tallies, and what only this test knows."""

    tallies: Tallies
    bit_errors: int
    unknown_bits: int
    """Sifted bits of pulses that Eve did not measure."""

    def ledger(self, settings: ProtocolSettings, policy: str = "discard", mismatch: float = 0.0) -> Ledger:
        """With a perfect code, and nothing lost in frames."""
        leak = math.ceil(self.tallies.n_z_kept * binary_entropy(self.bit_errors / self.tallies.n_z_kept))
        receiver = ReceiverBounds(settings.p_z_bob, settings.p_z_bob, mismatch, cross_basis=policy)
        source = SourceBounds(LINK.mean_photon_number, LINK.g2, phase_bits=4)
        return key_length(self.tallies, settings, source, receiver, EpsilonBudget(tails="anytime"), leak, 128)


def run(
    settings: ProtocolSettings,
    attack: Resend | None,
    policy: str = "discard",
    link: LinkParameters = LINK,
    efficiencies: tuple[float, ...] = (1.0,) * 4,
    fibre: np.ndarray | None = None,
    n_slots: int = N_SLOTS,
) -> Attacked:
    """Light through Eve, the receiver's physics, the gate, and both ends' sifting."""
    rng = np.random.default_rng(1)
    basis, bit, levels = prepared(settings, n_slots)
    eve = None if attack is None else Watched(attack, np.random.default_rng(2))
    clock = TaggerClock(0, 0.0, 0.0, 0.0, np.random.default_rng(3))
    seed = np.random.SeedSequence(4)
    weather = None if fibre is None else Weather(Climate(), np.random.default_rng(5), fibre=fibre)
    light = Receiver(link, settings.intensities, clock, seed, weather, eve, efficiencies)
    planes = [plane(levels & 1), plane(levels >> 1)] if settings.intensities else np.zeros((0, n_slots // 64))
    times, channels, _ = light.light(plane(basis), plane(bit), np.array(planes, np.uint64))
    half = 0.5 * link.gate_ps * link.clock_rate_hz / PS_PER_S
    gate = Gate(half, 0, lambda n: rng.integers(0, 2, n, dtype=np.uint8), policy)  # type: ignore[arg-type]
    gated = gate.sort(times, channels, Slots(link.clock_rate_hz / PS_PER_S))  # type: ignore[arg-type]
    end = PREAMBLE_SLOTS + n_slots
    found = gate.resolve(gated, PREAMBLE_SLOTS, end).between(PREAMBLE_SLOTS, end)
    heard = decode_announcement(encode_announcement(found), PREAMBLE_SLOTS, end, policy)
    at = heard.slots - PREAMBLE_SLOTS
    of_levels = levels[at] if settings.intensities else None
    reply, alice = alice_sift(heard.bases, heard.x_bits, basis[at], bit[at], of_levels)
    bob = bob_sift(found, reply, intensities=bool(settings.intensities))
    wrong = int(np.bitwise_count(alice.bits.view() ^ bob.bits.view()).sum())
    kept = (heard.bases == 0) & (basis[at] == 0)
    measured = np.zeros(at.size, np.uint8) if eve is None else unpacked(eve.taken)[at]
    return Attacked(counted(bob, heard, n_slots), wrong, int((kept & (measured == 0)).sum()))


def counted(share: SiftedChunk, heard: Announcement, n_slots: int) -> Tallies:
    x_detections = int(share.x_counts.sum())
    return Tallies(
        slots_sent=n_slots,
        n_z=tuple(share.n_z.tolist()),
        n_z_kept=int(share.n_z.sum()),
        x_counts=tuple(tuple((int(a), int(b)) for a, b in level) for level in share.x_counts),
        z_detections=heard.slots.size - x_detections,
        x_detections=x_detections,
        cross_clicks=int(heard.cross_slots.size),
        double_clicks=heard.double_clicks,
        z_ones_steps=share_steps(share.ones(), int(share.n_z.sum())),
    )


class Watched(Eve):
    """Eve, with what she measured written down."""

    taken: np.ndarray

    def intercept(self, basis: np.ndarray, bit: np.ndarray, intensity: np.ndarray) -> tuple:
        made = super().intercept(basis, bit, intensity)
        self.taken = made[2][-1]
        return made


def close(found: float, mean: float, n: float) -> None:
    sigma = math.sqrt(max(mean, 0.0) * (1.0 - mean / n))
    assert abs(found - mean) <= SIGMAS * sigma + 1.0, f"{found} instead of {mean:.1f} +- {sigma:.1f}"


@pytest.mark.parametrize("photons", [1, 2, 3, 6, 15])
@pytest.mark.parametrize("settings", [THREE, FOUR, DECOY], ids=["three-state", "bb84", "decoy-bb84"])
def test_bright_pulses_choose_the_basis_as_often_as_the_splitter_lets_them(
    settings: ProtocolSettings, photons: int
) -> None:
    """Each photon of Eve's is detected in Z with eta q, in X with eta (1 - q): closed forms of all counts."""
    link = replace(LINK, dark_rate_cps=0.0)
    seen = run(settings, Resend(photons), link=link).tallies
    eta, q = link.receiver_efficiency * link.detector_efficiency, settings.p_z_bob
    dark_z, dark_x = (1.0 - eta * q) ** photons, (1.0 - eta * (1.0 - q)) ** photons
    dark = (1.0 - eta) ** photons
    means = settings.intensities or (link.mean_photon_number,)
    shares = settings.p_intensities or (1.0,)
    lit = sum(
        p * (-math.expm1(-mean) if settings.intensities else mean - 0.5 * link.g2 * mean**2)
        for p, mean in zip(shares, means, strict=True)
    )
    close(seen.z_detections, N_SLOTS * lit * (dark_x - dark), N_SLOTS)
    close(seen.x_detections, N_SLOTS * lit * (dark_z - dark), N_SLOTS)
    close(seen.cross_clicks or 0, N_SLOTS * lit * (1.0 - dark_z - dark_x + dark), N_SLOTS)


def test_eve_sends_on_what_she_saw() -> None:
    """Z pulses arrive as they were; X pulses arrive as one of H and V, by her coin."""
    attacked = run(THREE, Resend(3), link=replace(LINK, dark_rate_cps=0.0))
    assert attacked.bit_errors == 0
    assert attacked.unknown_bits == 0
    some = run(THREE, Resend(1, 0.5), link=replace(LINK, dark_rate_cps=0.0))
    assert some.bit_errors == 0
    assert 0.4 < some.unknown_bits / some.tallies.n_z_kept < 0.6
    untouched = run(THREE, None)
    assert untouched.unknown_bits == untouched.tallies.n_z_kept


LONG = {"three-state": 1 << 21, "bb84": 1 << 21, "decoy-bb84": 1 << 22}
"""Slots of a block that produces key at all."""


@pytest.mark.parametrize("policy", ["discard", "random"])
@pytest.mark.parametrize("settings", [THREE, FOUR, DECOY], ids=["three-state", "bb84", "decoy-bb84"])
def test_without_her_the_tallies_give_key(settings: ProtocolSettings, policy: str) -> None:
    """What refuses the attacks below does not refuse honest light."""
    ledger = run(settings, None, policy, n_slots=LONG[settings.protocol]).ledger(settings, policy)
    assert ledger.refusal is None
    assert ledger.ell_bits > 0.1 * ledger.tallies.n_z_kept


def cases() -> list[Any]:
    made = [(settings, Resend(photons)) for settings in (THREE, FOUR) for photons in range(1, MOST_PHOTONS + 1)]
    made += [(settings, Resend(k, share)) for settings in (THREE, FOUR) for k in (2, 6, 15) for share in (0.3, 0.03)]
    made += [(DECOY, Resend(k, share)) for k, share in ((1, 1.0), (2, 1.0), (3, 0.3), (15, 0.3), (15, 1.0))]
    return [pytest.param(*one, id=f"{one[0].protocol}, {one[1].photons} photons, {one[1].share:g}") for one in made]


@pytest.mark.parametrize("policy", ["discard", "random"])
@pytest.mark.parametrize(("settings", "attack"), cases())
def test_no_key_is_longer_than_what_eve_does_not_know(
    settings: ProtocolSettings, attack: Resend, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds alone see to it, whatever the monitors notice."""
    attacked = run(settings, attack, policy, n_slots=LONG[settings.protocol])
    assert attacked.ledger(settings, policy).ell_bits <= attacked.unknown_bits
    monkeypatch.setattr("common.security.monitors.monitors", lambda *_: ((), None))
    assert attacked.ledger(settings, policy).ell_bits <= attacked.unknown_bits

@pytest.mark.parametrize("efficiency", [0.0, 0.5])
@pytest.mark.parametrize("detector", range(4))
@pytest.mark.parametrize("settings", [THREE, FOUR, DECOY], ids=["three-state", "bb84", "decoy-bb84"])
def test_a_dead_or_weak_detector_refuses_the_block_and_is_named(
    settings: ProtocolSettings, detector: int, efficiency: float
) -> None:
    """With L dead, errors of X pulses are seen in R alone: without the balance, more key than with all four."""
    efficiencies = tuple(efficiency if one == detector else 1.0 for one in range(4))
    ledger = run(settings, None, efficiencies=efficiencies).ledger(settings)
    assert ledger.ell_bits == 0
    assert ledger.refusal is not None
    assert ledger.refusal.startswith(f"detector {'HVRL'[detector]} is too weak: ")


@pytest.mark.parametrize(("mismatch", "refused"), [(0.02, True), (0.15, False)])
def test_the_mismatch_that_is_allowed_is_the_one_that_is_paid_for(mismatch: float, refused: bool) -> None:
    spoiled = run(THREE, None, efficiencies=(1.0, 0.9, 1.0, 1.0), n_slots=1 << 21).ledger(THREE, mismatch=mismatch)
    assert (spoiled.refusal is not None and spoiled.refusal.startswith("detector V")) is refused


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_turned_polarisation_alone_accuses_no_detector(axis: tuple[float, float, float]) -> None:
    """Errors, yes: H and V, sent equally often, are turned into opposite directions, and cancel."""
    for angle in (0.3, 1.2):
        turned = run(THREE, None, fibre=rotation(axis, angle))
        watched, alarm = monitors(turned.tallies, THREE, ReceiverBounds(THREE.p_z_bob, THREE.p_z_bob))
        assert alarm is None
        assert watched
