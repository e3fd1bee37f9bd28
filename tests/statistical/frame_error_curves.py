"""Frame-error curves of the first message alone, the number of errors being exact: what the stored file holds.

``python -m tests.statistical.frame_error_curves`` writes the file again (two minutes); see ``test_reconciliation.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.postprocessing.ldpc_codes import code_table
from common.postprocessing.reconciliation.frame import CorrectingFrame, FrameSpec, ReferenceFrame
from common.security.bounds import binary_entropy

FILE = Path(__file__).with_name("frame_error_curves.json")
#: (log2 of the frame length, frames): as many as give a curve in reasonable time.
SIZES = ((14, 200), (16, 80), (18, 24))
QBERS = (0.01, 0.025, 0.05, 0.08)
EFFICIENCIES = (1.04, 1.06, 1.08, 1.10, 1.12, 1.20)


def spec_of(qber: float, n_bits: int, f_ec: float) -> FrameSpec:
    """A frame whose first message discloses ``f_ec`` times n h(qber), by the largest code that is not larger."""
    wished = f_ec * binary_entropy(qber) * n_bits
    codes = [c for c in code_table().codes if c.capacity_bits == n_bits and c.syndrome_bits - c.merged_bits <= wished]
    code = max(codes, key=lambda c: c.syndrome_bits)
    units = min(round((wished - code.syndrome_bits + code.merged_bits) / 64), code.merged_bits // 64)
    return FrameSpec(code.code_id, n_bits, units, units)


def decoded(rng: np.random.Generator, qber: float, n_bits: int, f_ec: float, frames: int) -> int:
    """How many of the frames decode by their first message."""
    spec, good = spec_of(qber, n_bits, f_ec), 0
    for _ in range(frames):
        errors = np.zeros(n_bits, np.uint8)
        errors[rng.choice(n_bits, round(qber * n_bits), replace=False)] = 1
        alice = rng.integers(0, 256, n_bits // 8, dtype=np.uint8)
        bob = alice ^ np.packbits(errors, bitorder="little")
        outcome = CorrectingFrame(spec, bob).receive(1, ReferenceFrame(spec, alice).first())
        good += outcome.status == "decoded"
    return good


def main() -> None:
    """Write the file."""
    rng, points = np.random.default_rng(20261124), []
    for size, frames in SIZES:
        for qber in QBERS:
            for f_ec in EFFICIENCIES:
                point: dict[str, Any] = {"qber": qber, "log2_n": size, "f_ec": f_ec, "frames": frames}
                points.append(point | {"decoded": decoded(rng, qber, 1 << size, f_ec, frames)})
    lines = ",\n ".join(json.dumps(point) for point in points)
    document = f'{{"fingerprint": "{code_table().fingerprint()}", "points": [\n {lines}\n]}}\n'
    FILE.write_text(document, "utf-8")


if __name__ == "__main__":
    main()
