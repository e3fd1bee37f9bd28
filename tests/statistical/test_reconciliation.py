"""The decoder is as strong as it was: points of the stored frame-error curves, simulated again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from common.postprocessing.ldpc_codes import code_table
from tests.statistical.frame_error_curves import FILE, decoded

STORED: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
FRAMES = {14: 60, 16: 20, 18: 6}


def test_the_curves_are_of_these_codes() -> None:
    assert STORED["fingerprint"] == code_table().fingerprint(), "run python -m tests.statistical.frame_error_curves"


CURVES = [(14, 0.01), (14, 0.025), (14, 0.08), (16, 0.025), (16, 0.05), (18, 0.025)]


@pytest.mark.parametrize(("log2_n", "qber"), CURVES)
def test_points_of_the_curves(rng: np.random.Generator, log2_n: int, qber: float) -> None:
    """All points of one curve together, against the stored ones: within five standard deviations."""
    frames, difference, variance = FRAMES[log2_n], 0.0, 0.0
    for point in STORED["points"]:
        if (point["log2_n"], point["qber"]) != (log2_n, qber):
            continue
        good = decoded(rng, qber, 1 << log2_n, point["f_ec"], frames)
        share = (good + point["decoded"]) / (frames + point["frames"])
        difference += good / frames - point["decoded"] / point["frames"]
        # Half a frame, so that points where all or none decode still allow for one that does not.
        variance += max(share * (1 - share), 0.5 / frames) * (1 / frames + 1 / point["frames"])
    assert abs(difference) < 5 * variance**0.5


def test_every_curve_falls_to_few_failures() -> None:
    """At f = 1.20 frames of 2^16 bits and more decode; at 1.04, at or below the threshold of every code, few do."""
    for point in STORED["points"]:
        share = point["decoded"] / point["frames"]
        if point["f_ec"] == 1.20 and point["log2_n"] >= 16:
            assert share > 0.95, point
        if point["f_ec"] == 1.04:
            assert share < 0.5, point
