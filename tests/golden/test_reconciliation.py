"""The words of error correction, frozen: the same bits, settings and rates give the same messages and the same leak."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from common.postprocessing.reconciliation.tracker import QberTracker
from common.protocol.transitions import Role
from tests.unit.protocol.test_frames import run_block

GOLDEN: dict[str, tuple[dict[str, Any], float, float, str]] = {
    "steady": ({"frame_length_bits": 1 << 14}, 0.025, 0.025, "7b010c51cceec16a"),
    "both ends decode, for one round": (
        {"frame_length_bits": 1 << 14, "decoding_side": "both", "efficiency": "fast"},
        0.02,
        0.02,
        "78f8858ea52920cf",
    ),
    "more errors than expected": (
        {"frame_length_bits": 1 << 15, "efficiency": "balanced"},
        0.015,
        0.04,
        "b30ef75395441216",
    ),
    "Alice decodes": (
        {"frame_length_bits": 1 << 16, "decoding_side": "alice", "efficiency": "efficient"},
        0.05,
        0.05,
        "75d3a2a59d1ad783",
    ),
}
"""Settings, expected and true error rate, and the digest of messages and counts."""


def digest(settings: dict[str, Any], expected: float, qber: float) -> str:
    # Bits of a hash, not of a generator whose numbers may change.
    raw = np.frombuffer(hashlib.shake_128(b"bits").digest(50_001), np.uint8)
    alice = np.unpackbits(raw, bitorder="little")[:400_003]
    chance = np.frombuffer(hashlib.shake_128(b"errors").digest(2 * alice.size), "<u2")
    bob = alice ^ (chance < qber * 65536).astype(np.uint8)
    ends, wire = run_block(alice, bob, {role: QberTracker(expected) for role in Role}, **settings)
    hashed = hashlib.sha256()
    for raw_message in wire:
        hashed.update(raw_message)
    for end in ends.values():
        assert end.complete
        hashed.update(repr((end.leak_ec_bits, end.kept_bits, end.frames_failed, end.rounds_max, end.errors)).encode())
    return hashed.hexdigest()[:16]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_words_are_the_same(name: str) -> None:
    settings, expected, qber, frozen = GOLDEN[name]
    assert digest(settings, expected, qber) == frozen
