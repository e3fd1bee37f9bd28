"""What Alice's daemon decides from its configuration and devices before there is light."""

from __future__ import annotations

from typing import cast

import pytest

from alice.daemon import BATCH_S, LEAST_BATCH, MOST_BATCH, batch_slots, phase_bits
from common.config import Config
from hardware.interfaces import Modulator


@pytest.mark.parametrize("rate_hz", [1e3, 1e6, 50e6, 76.13e6, 1e9])
def test_a_batch_is_whole_words_and_short_at_any_rate(rate_hz: float) -> None:
    slots = batch_slots(rate_hz)
    assert slots % 64 == 0
    assert LEAST_BATCH <= slots <= MOST_BATCH
    assert slots <= max(1.5 * BATCH_S * rate_hz, LEAST_BATCH)


@pytest.mark.parametrize(("applies", "bits"), [(True, 4), (False, 0)])
def test_a_phase_is_drawn_for_a_modulator_that_applies_it(applies: bool, bits: int) -> None:
    modulator = cast(Modulator, type("Some", (), {"applies_phase": applies})())
    assert phase_bits(Config(role="alice"), modulator) == bits
    assert phase_bits(Config(role="alice"), cast(Modulator, object())) == 0
