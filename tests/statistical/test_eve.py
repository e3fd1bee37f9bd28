"""Attacks on the twin: what Eve does to the light follows her closed forms, and no key of hers is ever called secret.

Tallies are made as the daemons make them: light, gate, announcement, both ends' sifting. Blocks are short; their counts
are multiplied up to a block of ``BLOCK`` detections, at which every attack of this file once gave a long key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from bob.gating import Gate
from bob.session import share_steps
from common.planning.presets import PRESETS, LinkParameters
from common.postprocessing.sifting import SiftedChunk, alice_sift, bob_sift, decode_announcement, encode_announcement
from common.preamble import PREAMBLE_SLOTS
from common.security.bounds import binary_entropy
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from common.units import PS_PER_S
from hardware.twin.eve import Eve, Resend
from hardware.twin.physics import Receiver, TaggerClock

N_WORDS = 1 << 14
N_SLOTS = 64 * N_WORDS
SIGMAS = 5.0
BLOCK = 10**8
LINK = replace(PRESETS["field-14.6dB"], misalignment=0.0)
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


def coins(rng: np.random.Generator, p_one: float) -> np.ndarray:
    return np.packbits(rng.random(N_SLOTS) < p_one, bitorder="little").view(np.uint64)


@dataclass
class Attacked:
    """One run: the public tallies, and what only this test knows."""

    tallies: Tallies
    bit_errors: int
    unknown_bits: int
    """Sifted bits of pulses that Eve did not measure."""

    def ledger(self, settings: ProtocolSettings, policy: str = "discard") -> Ledger:
        """As if the block had ``BLOCK`` detections, with a perfect code."""
        scale = BLOCK / (self.tallies.z_detections + self.tallies.x_detections)
        kept = sum(self.tallies.n_z)
        leak = math.ceil(scale * kept * binary_entropy(self.bit_errors / kept))
        receiver = ReceiverBounds(settings.p_z_bob, settings.p_z_bob, cross_basis=policy)
        source = SourceBounds(LINK.mean_photon_number, LINK.g2)
        return key_length(
            times(self.tallies, scale), settings, source, receiver, EpsilonBudget(tails="anytime"), leak, 128
        )

    @property
    def unknown_share(self) -> float:
        return self.unknown_bits / sum(self.tallies.n_z)


def times(tallies: Tallies, scale: float) -> Tallies:
    x_counts = tuple(tuple((round(scale * a), round(scale * b)) for a, b in level) for level in tallies.x_counts)
    n_z = tuple(round(scale * count) for count in tallies.n_z)
    sent_x = sum(sum(map(sum, level)) for level in x_counts)
    return Tallies(
        slots_sent=math.ceil(scale * tallies.slots_sent),
        n_z=n_z,
        n_z_kept=sum(n_z),
        x_counts=x_counts,
        z_detections=max(round(scale * tallies.z_detections), sum(n_z)),
        x_detections=sent_x,
        cross_clicks=round(scale * (tallies.cross_clicks or 0)),
        double_clicks=round(scale * (tallies.double_clicks or 0)),
        z_ones_steps=tallies.z_ones_steps,
    )


def run(
    settings: ProtocolSettings,
    attack: Resend | None,
    policy: str = "discard",
    link: LinkParameters = LINK,
    efficiencies: tuple[float, ...] = (1.0,) * 4,
    seed: int = 1,
) -> Attacked:
    """One batch of light through Eve, the receiver's physics, the gate, and both ends' sifting."""
    rng = np.random.default_rng(seed)
    basis, bit = coins(rng, 1.0 - settings.p_z_alice), coins(rng, 0.5)
    if settings.protocol == "three-state":
        bit &= ~basis
    levels = rng.choice(max(len(settings.p_intensities), 1), N_SLOTS, p=settings.p_intensities or None)
    planes = [np.packbits((levels >> i & 1).astype(bool), bitorder="little").view(np.uint64) for i in (0, 1)]
    intensity = np.array(planes) if settings.intensities else np.zeros((0, N_WORDS), np.uint64)
    eve = None if attack is None else Watched(attack, np.random.default_rng(1000 + seed))
    clock = TaggerClock(0, 0.0, 0.0, 0.0, np.random.default_rng(1))
    light = Receiver(
        link, settings.intensities, clock, np.random.SeedSequence(seed), None, eve, efficiencies=efficiencies
    )
    clicks = light.light(basis, bit, intensity)
    half = 0.5 * link.gate_ps * link.clock_rate_hz / PS_PER_S
    gate = Gate(half, 0, lambda n: rng.integers(0, 2, n, dtype=np.uint8), policy)  # type: ignore[arg-type]
    gated = gate.sort(clicks[0], clicks[1], Slots(link.clock_rate_hz / PS_PER_S))  # type: ignore[arg-type]
    end = PREAMBLE_SLOTS + N_SLOTS
    found = gate.resolve(gated, PREAMBLE_SLOTS, end).between(PREAMBLE_SLOTS, end)
    heard = decode_announcement(encode_announcement(found), PREAMBLE_SLOTS, end, policy)
    at = heard.slots - PREAMBLE_SLOTS
    symbols = unpacked(basis)[at], unpacked(bit)[at]
    of_levels = levels[at].astype(np.uint8) if settings.intensities else None
    reply, alice = alice_sift(heard.bases, heard.x_bits, *symbols, of_levels)
    bob = bob_sift(found, reply, intensities=bool(settings.intensities))
    wrong = int(np.bitwise_count(alice.bits.view() ^ bob.bits.view()).sum())
    kept = (heard.bases == 0) & (symbols[0] == 0)
    measured = np.zeros(at.size, np.uint8) if eve is None else unpacked(eve.taken)[at]
    return Attacked(counted(bob, heard.slots.size, heard), wrong, int((kept & (measured == 0)).sum()))


def counted(share: SiftedChunk, detections: int, heard: object) -> Tallies:
    x_detections = int(share.x_counts.sum())
    return Tallies(
        slots_sent=N_SLOTS,
        n_z=tuple(share.n_z.tolist()),
        n_z_kept=int(share.n_z.sum()),
        x_counts=tuple(tuple((int(a), int(b)) for a, b in level) for level in share.x_counts),
        z_detections=detections - x_detections,
        x_detections=x_detections,
        cross_clicks=int(heard.cross_slots.size),  # type: ignore[attr-defined]
        double_clicks=heard.double_clicks,  # type: ignore[attr-defined]
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
    half = run(THREE, Resend(1, 0.02), link=replace(LINK, dark_rate_cps=0.0))
    assert half.bit_errors == 0
    assert 0.2 < half.unknown_share < 0.8
    untouched = run(THREE, None)
    assert untouched.unknown_bits == sum(untouched.tallies.n_z)


def test_without_her_the_tallies_give_key() -> None:
    """What refuses the attacks below does not refuse honest light."""
    for settings in (THREE, FOUR, DECOY):
        ledger = run(settings, None).ledger(settings)
        assert ledger.refusal is None
        assert ledger.ell_bits > 0.2 * ledger.tallies.n_z_kept
