"""The code of a frame and the size of its messages, by the error rate that is expected.

The first message discloses what half of the frames need, or somewhat more where time is short. Later ones add whole
deviations of what frames need, and all together serve nearly every frame.
"""

from __future__ import annotations

import math
from functools import lru_cache

from common.errors import LocalProtocolError
from common.postprocessing.ldpc_codes import Code, code_table
from common.postprocessing.reconciliation.fitted import (
    LAST,
    LAST_UNSURE,
    LONG,
    LONG_BITS,
    MORE,
    QBER_RANGE,
    SHORT,
    STARTS,
    Efficiency,
    median_efficiency,
)
from common.postprocessing.reconciliation.frame import LONGEST_FRAME_BITS, REVEAL_UNIT_BITS, FrameSpec
from common.security.bounds import binary_entropy


@lru_cache(maxsize=64)
def _fitting(frame_length_bits: int) -> tuple[Code, ...]:
    """The codes of the shortest payload that holds the frame (kept: it is asked for every frame, on the event loop)."""
    codes = code_table().codes
    capacity = min(code.capacity_bits for code in codes if code.capacity_bits >= frame_length_bits)
    return tuple(code for code in codes if code.capacity_bits == capacity)


def _size(code: Code) -> int:
    return code.syndrome_bits


def choose_code(qber: float, frame_length_bits: int, efficiency: Efficiency, uncertainty: float = 0.0) -> FrameSpec:
    """The code and the size of the messages for a payload of ``frame_length_bits`` at an expected error rate.

    Parameters
    ----------
    qber : expected error rate, a fraction; clipped to what the codes serve.
    frame_length_bits : payload, 1 .. 2^20.
    efficiency : fewest bits, a compromise, or least work.
    uncertainty : relative standard deviation of ``qber``: the first message stays, the steps to the next grow.
    """
    if not 1 <= frame_length_bits <= LONGEST_FRAME_BITS:
        raise LocalProtocolError(f"no frame of {frame_length_bits} bits: 1 to {LONGEST_FRAME_BITS}")
    start = STARTS[efficiency]
    p = min(max(qber, QBER_RANGE[0]), QBER_RANGE[1])
    entropy = binary_entropy(p)
    deviation = math.log2((1 - p) / p) * math.sqrt(p * (1 - p))
    spread = deviation / (entropy * math.sqrt(frame_length_bits))
    # d ln h / d ln p turns the uncertainty of the rate into one of f.
    unsure = uncertainty * p * math.log2((1 - p) / p) / entropy
    middle = median_efficiency(p) * (LONG if frame_length_bits > LONG_BITS else 1.0)
    first = middle * (start.margin + start.first * spread) * entropy * frame_length_bits
    step = start.step * math.hypot(spread, unsure) * entropy * frame_length_bits
    fitting = _fitting(frame_length_bits)
    # All messages together must serve nearly every frame; above that, the largest code that fits into the first message
    # splits fewest checks there, and has the most left for later.
    doubt = min(LAST * unsure, max(LAST_UNSURE, 2 * unsure))
    more = max(MORE, SHORT / math.sqrt(frame_length_bits))
    last = median_efficiency(p) * (1 + more) + math.hypot(LAST * spread, doubt)
    enough = [code for code in fitting if code.syndrome_bits >= last * entropy * frame_length_bits]
    within = [code for code in enough if code.syndrome_bits - code.merged_bits <= first]
    code = max(within, key=_size) if within else min(enough or fitting[-1:], key=_size)
    most = code.merged_bits // REVEAL_UNIT_BITS
    base = code.syndrome_bits - code.merged_bits
    first_units = min(most, max(0, math.ceil((first - base) / REVEAL_UNIT_BITS)))
    second_units = min(most, first_units + max(1, math.ceil(step / REVEAL_UNIT_BITS)))
    return FrameSpec(code.code_id, frame_length_bits, first_units, second_units)
