"""Selection over the twin's light, by the ledger's own arithmetic: more key in deep fading, nothing dropped without."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from alice.transmitter import SymbolRing, Transmitter
from bob.receiver import Receiver
from common.config_file import parse_config
from common.datatypes import TimeTags
from common.planning.presets import PRESETS, LinkParameters
from common.postprocessing.estimation import estimate
from common.preamble import key_slots
from common.security.bounds import binary_entropy
from common.security.tallies import ONES_STEPS, Tallies
from hardware.twin import physics
from hardware.twin.weather import Climate, Weather

FIELD = PRESETS["field-14.6dB"]
CONFIG = parse_config("role = 'bob'", Path())
F_EC = 1.1
BATCH_SLOTS = 1 << 22


@dataclass
class Block:
    """What one receiver's detections are worth if they are one block."""

    receiver: Receiver
    n_z: int = 0
    wrong: int = 0
    x_counts: np.ndarray = field(default_factory=lambda: np.zeros((1, 4, 2), np.int64))
    z_detections: int = 0
    cross_clicks: int = 0
    double_clicks: int = 0
    ones: int = 0
    from_slot: int | None = None
    to_slot: int = 0

    def feed(self, tags: TimeTags, symbols: SymbolRing) -> None:
        for batch in self.receiver.feed(tags):
            self.from_slot = batch.from_slot if self.from_slot is None else self.from_slot
            assert batch.from_slot >= self.to_slot
            self.to_slot = batch.to_slot
            basis, bit, _ = symbols.lookup(batch.slots)
            z, x = (basis == 0) & (batch.bases == 0), batch.bases == 1
            self.n_z += int(z.sum())
            self.z_detections += int((~x).sum())
            self.ones += int(batch.bits[z].sum())
            self.cross_clicks += int(batch.cross_slots.size)
            self.double_clicks += int(batch.double_slots.size)
            self.wrong += int((bit[z] != batch.bits[z]).sum())
            np.add.at(self.x_counts[0], (2 * basis[x] + bit[x], batch.bits[x]), 1)

    def bits_per_pulse(self) -> float:
        """Every slot between the first and the last counts as sent, whatever was dropped."""
        assert self.from_slot is not None
        slots = key_slots(self.from_slot, self.to_slot)
        leak = int(F_EC * self.n_z * binary_entropy(self.wrong / self.n_z))
        tallies = Tallies(
            slots,
            (self.n_z,),
            self.n_z,
            (tuple((int(right), int(left)) for right, left in self.x_counts[0]),),
            self.z_detections,
            int(self.x_counts.sum()),
            self.cross_clicks,
            self.double_clicks,
            round(self.ones / self.n_z * ONES_STEPS),
        )
        return estimate(CONFIG, tallies, leak).ell_bits / slots


def over(link: LinkParameters, climate: Climate, seconds: float, **light_qber: float) -> tuple[Block, Block]:
    """The same light without and with selection."""
    rng = np.random.default_rng(1)
    clock = physics.TaggerClock(0, 5e-6, 0.0, physics.CLOCK_WALK_PER_SQRT_S, np.random.default_rng(2))
    weather = Weather(climate, np.random.default_rng(3))
    twin = physics.Receiver(link, (), clock, np.random.SeedSequence(4), weather)
    alice = Transmitter(CONFIG.link.p_z_numerator, "three-state", 0)
    symbols = SymbolRing(1 << 28)

    def bob(**options: object) -> Block:
        return Block(Receiver(link.clock_rate_hz, lambda n: rng.integers(0, 2, n, dtype=np.uint8), **options))  # type: ignore[arg-type]

    blocks = bob(), bob(selection="transmittance", **light_qber)
    for first_slot in range(0, int(seconds * link.clock_rate_hz), BATCH_SLOTS):
        light = alice.prepare(first_slot, BATCH_SLOTS, lambda n: np.frombuffer(rng.bytes(n), np.uint8))
        if symbols.full(BATCH_SLOTS):
            symbols.release_before(first_slot - symbols.capacity_slots // 2)
        symbols.append(light)
        times, channels, until_ps = twin.light(light.basis, light.bit, light.intensity)
        for block in blocks:
            block.feed(TimeTags(times, channels, until_ps), symbols)
    return blocks


def test_deep_fades_under_strong_background_cost_less_key() -> None:
    """10 dB of fading, 20.6 dB of mean loss, 50 kcps of background: a third of the segments holds noise alone."""
    link = replace(FIELD, loss_db=FIELD.loss_db + 6.0, dark_rate_cps=12_500.0)
    every, chosen = over(link, Climate(fading_db=10.0, fading_time_s=0.2), 8.0)
    counts = chosen.receiver.status().selection
    assert 0.2 < counts.segments_dropped / counts.segments < 0.7
    assert chosen.bits_per_pulse() > 1.05 * every.bits_per_pulse() > 0.0
    assert chosen.wrong / chosen.n_z < every.wrong / every.n_z


def test_the_fading_of_the_field_link_drops_nothing() -> None:
    every, chosen = over(FIELD, Climate(fading_db=1.1, fading_time_s=2.0), 4.0, light_qber=0.025)
    counts = chosen.receiver.status().selection
    assert counts.segments > 200
    assert counts.detections_dropped == 0
    assert every.n_z - chosen.n_z < 0.006 * every.n_z, "the last, open segment"
