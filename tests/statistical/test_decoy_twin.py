"""From random bits through the twin to the decoy bound, beside what the light really was.

The twin draws detected photons; the photons of a Poissonian pulse that were lost are Poissonian and independent of
those that were seen, so the emitted number of every detected pulse can be drawn afterwards.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alice.transmitter import Transmitter
from common.planning.presets import PRESETS
from common.preamble import PREAMBLE_SLOTS
from common.security import decoy
from common.security.bounds import binary_entropy
from common.security.finite_key import EpsilonBudget, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from common.units import PS_PER_S
from hardware.twin.physics import Receiver, TaggerClock

N_SLOTS = 1 << 21
LINK = replace(
    PRESETS["lab-0.17dB"],
    dark_rate_cps=0.0,
    dead_time_ps=0,
    pulse_width_ps=0.0,
    jitter_ps=0.0,
    resolution_ps=1.0,
    misalignment=0.03,
)
SETTINGS = ProtocolSettings("decoy-bb84", 0.75, 0.8, (0.36, 0.135, 0.0), (0.75, 0.22265625, 0.02734375))
SOURCE = SourceBounds(0.292, 0.007, phase_bits=4)
RECEIVER = ReceiverBounds(SETTINGS.p_z_bob, SETTINGS.p_z_bob)


def block(seed: int) -> tuple[Tallies, int, int]:
    """(tallies, true single-photon Z events, true single-photon X errors) of one run of light."""
    rng = np.random.default_rng(seed)
    transmitter = Transmitter(round(SETTINGS.p_z_alice * 65536), "decoy-bb84", 0, SETTINGS.p_intensities)
    sent = transmitter.prepare(PREAMBLE_SLOTS, N_SLOTS, lambda n: rng.integers(0, 256, n, dtype=np.uint8))
    basis, bit, low, high = (
        np.unpackbits(plane.view(np.uint8), bitorder="little") for plane in (sent.basis, sent.bit, *sent.intensity)
    )
    level = low + 2 * high
    clock = TaggerClock(0, 0.0, 0.0, 0.0, rng)
    receiver = Receiver(
        replace(LINK, p_z_bob=SETTINGS.p_z_bob), SETTINGS.intensities, clock, np.random.SeedSequence(seed)
    )
    times, channels, _ = receiver.light(sent.basis, sent.bit, sent.intensity)
    slots = np.rint((times + 0.5) / (PS_PER_S / LINK.clock_rate_hz)).astype(np.int64)
    seen = np.zeros((N_SLOTS, 4), np.int64)
    np.add.at(seen, (slots, channels), 1)
    crossed = int(np.count_nonzero((seen[:, :2].sum(axis=1) > 0) & (seen[:, 2:].sum(axis=1) > 0)))
    clicked = np.flatnonzero((seen[:, :2].sum(axis=1) > 0) != (seen[:, 2:].sum(axis=1) > 0))
    seen, basis, bit, level = seen[clicked], basis[clicked], bit[clicked], level[clicked]
    in_x = seen[:, 2:].sum(axis=1) > 0
    pair = np.where(in_x[:, None], seen[:, 2:], seen[:, :2])
    outcome = np.where(pair.all(axis=1), rng.integers(0, 2, len(pair)), pair[:, 1] > 0)
    photons = seen.sum(axis=1) + rng.poisson(np.asarray(SETTINGS.intensities)[level] * (1.0 - LINK.transmittance))
    both_z, x_counts = (basis == 0) & ~in_x, np.zeros((3, 4, 2), int)
    np.add.at(x_counts, (level[in_x], (2 * basis + bit)[in_x], outcome[in_x]), 1)
    n_z = np.bincount(level[both_z], minlength=3)
    wrong = (basis == 1) & in_x & (bit != outcome)
    cells = tuple(tuple((int(a), int(b)) for a, b in one) for one in x_counts)
    seen_in = int((~in_x).sum()), int(in_x.sum())
    tallies = Tallies(N_SLOTS, tuple(map(int, n_z)), int(n_z.sum()), cells, *seen_in, crossed, 0, 32_768)
    return tallies, int(np.count_nonzero(both_z & (photons == 1))), int(np.count_nonzero(wrong & (photons == 1)))


@pytest.mark.parametrize("seed", range(6))
def test_a_run_never_counts_more_single_photons_than_there_were(seed: int) -> None:
    tallies, single, wrong = block(seed)
    estimate = decoy.estimate(tallies, SETTINGS, SOURCE, RECEIVER, EpsilonBudget(eps_total=1e-3))
    terms = {term.name: term.value for term in estimate.terms}
    assert 0.6 * single < estimate.n_u_lower <= single
    assert wrong <= terms["X errors of one photon, upper"]
    ledger = key_length(
        tallies, SETTINGS, SOURCE, RECEIVER, EpsilonBudget(), round(1.16 * binary_entropy(0.03) * tallies.n_z_kept), 128
    )
    assert 0 < ledger.ell_bits < ledger.n_u_lower <= estimate.n_u_lower
