"""Bob's double-click rule as data: what each of the 16 patterns of clicks in one slot becomes.

A pattern has a bit for each detector: 1 = H, 2 = V, 4 = R, 8 = L. What it becomes is a basis (Z = 0, X = 1) and a bit;
either may be a coin, a fair bit of the random source. Kernel, slow twin, planner, and the choices of the configuration
are made from this table: a further rule is a further row of ``RULES``, and of the proof (assumption A3, decision 60).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

CrossBasis = Literal["discard", "random"]
"""What becomes of a slot in which detectors of both bases clicked: no detection, or a random one."""

Z, X = 0, 1
COIN = 2
"""In the place of a basis or a bit: the next fair bit decides."""
DROP = (3, 3)
"""The pattern is no detection."""
NOTHING, ONE, DOUBLE, CROSS = range(4)
"""Kinds of patterns: which detectors clicked, whatever the rule makes of it."""

Row = tuple[int, int]

_OF_ONE_BASIS: dict[int, Row] = {
    0b0001: (Z, 0),
    0b0010: (Z, 1),
    0b0011: (Z, COIN),
    0b0100: (X, 0),
    0b1000: (X, 1),
    0b1100: (X, COIN),
}
_OF_BOTH: dict[CrossBasis, Row] = {"discard": DROP, "random": (COIN, COIN)}


def _kind(pattern: int) -> int:
    if pattern & 0b0011 and pattern & 0b1100:
        return CROSS
    return min(pattern.bit_count(), DOUBLE)


KINDS = np.array([_kind(pattern) for pattern in range(16)], np.uint8)
"""*(16,) uint8*: the kind of each pattern."""
RULES = {
    policy: np.array(
        [_OF_BOTH[policy] if kind == CROSS else _OF_ONE_BASIS.get(pattern, DROP) for pattern, kind in enumerate(KINDS)],
        np.uint8,
    )
    for policy in get_args(CrossBasis)
}
"""Policy -> *(16, 2) uint8*: basis and bit of each pattern."""


def keeps_cross(policy: CrossBasis) -> bool:
    """Whether a slot in which detectors of both bases clicked is a detection."""
    return _OF_BOTH[policy] != DROP


def shares(policy: CrossBasis) -> list[list[float]]:
    """*(16, 4)*: with which probability each pattern counts as H, V, R, L."""
    rows = [[0.0] * 4 for _ in range(16)]
    for pattern, (basis, bit) in enumerate(RULES[policy].tolist()):
        if (basis, bit) != DROP:
            outcomes = [2 * b + v for b in _sides(basis) for v in _sides(bit)]
            for outcome in outcomes:
                rows[pattern][outcome] = 1.0 / len(outcomes)
    return rows


def _sides(value: int) -> tuple[int, ...]:
    return (0, 1) if value == COIN else (value,)
