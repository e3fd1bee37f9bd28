"""Decoders of one frame: they look for the error pattern of a syndrome, and keep their state from round to round.

:class:`LayeredDecoder` is the product's (kernel :func:`common.kernels.ldpc.decode`); :class:`ReferenceDecoder` is the
slow sum-product decoder of the PyPI package ``ldpc``, for comparison and as ``decoder = "reference"``. Both see the
same checks: a pair of rows is one check where its bit has not been revealed, and two where it has.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigurationError
from common.kernels import ldpc
from common.kernels.lanes import LANES
from common.postprocessing.ldpc_codes import Code

Bits = NDArray[np.uint8]
Words = NDArray[np.uint32]
DecoderName = Literal["fast", "reference"]

#: Log-likelihood units per nat, and the correction of the box-plus at 0: see decision 21.
UNITS_PER_NAT = 9.0
KNEE = 20
PATIENCE = 16
#: Unsatisfied checks up to which a decoder that is stuck is worth a rescue, its tries, and their iterations.
_FEW_CHECKS = 32
_RESCUES = 3
_RESCUE_ITERATIONS = 24
#: Posterior of a bit that is known, far above any sum of messages.
_KNOWN = 4000
_REFERENCE_ITERATIONS = 100
_CACHE_LINE = 64


class Decoder(Protocol):
    """What a frame needs of a decoder."""

    iterations: int

    def reveal(self, units: int, wanted: Words) -> None:
        """``units`` lane blocks of the pairs are split now; *(rows, lifting / 32) uint32*, checks as they now stand."""

    def run(self, limit: int) -> Bits | None:
        """*(payload_columns, lifting) uint8* error pattern that has the syndrome, or None."""


def split_lanes(code: Code, units: int) -> NDArray[np.int64]:
    """*(merged,) int64*: how many copies of each pair are split when ``units`` blocks of 64 copies are (in turn)."""
    each, rest = divmod(units, max(code.merged, 1))
    return LANES * (each + (np.arange(code.merged) < rest))


@cache
def scale_tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Scale (64 = 1) and cap of the messages by sqrt(2 * unsatisfied fraction) in 64 bins."""
    unsatisfied = (np.arange(64) / 63) ** 2 / 2
    scales = np.clip(np.rint(64 * (0.986 - 0.8 * unsatisfied)), 12, 64)
    caps = np.clip(np.rint(80 * np.exp(-0.6 * unsatisfied / 0.36)), 1, 127)
    nearly = unsatisfied < 0.004
    return np.where(nearly, 64, scales).astype(np.int64), np.where(nearly, 127, caps).astype(np.int64)


def _segments(code: Code, units: int) -> NDArray[np.int64]:
    """Checks as ranges of copies for :func:`common.kernels.ldpc.decode`, pairs merged where they are not split."""
    made = []
    start, lifting = code.row_start.tolist(), code.lifting
    for pair, split in enumerate(split_lanes(code, units).tolist()):
        first, second = 2 * pair, 2 * pair + 1
        whole = (start[first], start[second + 1] - start[first])
        if split:
            made.append((start[first], start[second], 0, split, first * lifting, *whole))
            made.append((start[second], start[second + 1], 0, split, second * lifting, *whole))
        if split < lifting:
            made.append((start[first], start[second + 1], split, lifting, first * lifting, *whole))
    for row in range(2 * code.merged, code.rows):
        whole = (start[row], start[row + 1] - start[row])
        made.append((start[row], start[row + 1], 0, lifting, row * lifting, *whole))
    return np.array(made, np.int64)


def _aligned(size: int, kind: type[np.int8] | type[np.int16]) -> NDArray[Any]:
    """*(size,)* zeros from the start of a cache line: no vector of 64 lanes lies across two."""
    room = np.zeros(size * np.dtype(kind).itemsize + _CACHE_LINE, np.uint8)
    return room[-room.ctypes.data % _CACHE_LINE :][: size * np.dtype(kind).itemsize].view(kind)


class LayeredDecoder:
    """The vectorised decoder. Messages and posteriors stay between rounds: a warm start.

    Parameters
    ----------
    code, payload_bits : the payload fills each column from its start, ``ceil(payload_bits / columns)`` copies of each.
    qber : error rate that is expected.
    """

    def __init__(self, code: Code, payload_bits: int, qber: float) -> None:
        self.code, self.iterations = code, 0
        stride = code.lifting + ldpc.ROOM
        self._bases = code.columns * stride + ldpc.PAD
        level = round(UNITS_PER_NAT * math.log((1 - qber) / qber))
        used = -(-payload_bits // code.payload_columns)
        values = np.full((code.payload_columns, code.lifting), _KNOWN, np.int16)
        values[:, :used] = level
        for column in range(payload_bits // used, code.payload_columns):
            values[column, max(0, payload_bits - column * used) : used] = _KNOWN
        self._posterior = _aligned(code.payload_columns * stride, np.int16)
        ldpc.set_posteriors(values, code.lifting, self._posterior)
        self._messages = _aligned(len(code.columns) * code.lifting, np.int8)
        most = max(int((code.row_start[1:] - code.row_start[:-1])[2 * code.merged :].max(initial=0)), 1)
        pairs = code.row_start[2 : 2 * code.merged + 1 : 2] - code.row_start[0 : 2 * code.merged : 2]
        largest = LANES * max(most, int(pairs.max(initial=1)))
        self._scratch, self._inputs = _aligned(largest, np.int16), _aligned(largest + 2 * LANES, np.int8)
        self._signs = _aligned(code.rows * code.lifting, np.int8)
        degree = len(code.columns) / (code.rows - code.merged)
        first_cap = 2 * math.atanh((1 - 2 * qber) ** (degree - 1)) * UNITS_PER_NAT
        self._state = np.array([64, max(1, round(first_cap)), 0], np.int64)
        self._doubt = np.int16(level // (_RESCUES + 1))
        self._segments = np.empty((0, 7), np.int64)

    def reveal(self, units: int, wanted: Words) -> None:
        """Take bits that were disclosed later, as :class:`Decoder` says."""
        self._segments = _segments(self.code, units)
        ldpc.expand_signs(wanted, self.code.lifting, self._signs)

    def run(self, limit: int) -> Bits | None:
        """See :class:`Decoder`; milliseconds to tens of them."""
        found, rescues = self._decode(limit), 0
        while not found and self._state[2] <= _FEW_CHECKS and rescues < _RESCUES:
            # A chain of wrong bits in two checks each outweighs the two capped messages at its ends. Trust in what was
            # measured is lowered for all bits; only those that little speaks for turn.
            self._posterior -= self._doubt
            rescues += 1
            found = self._decode(_RESCUE_ITERATIONS)
        if not found:
            self._posterior += np.int16(rescues) * self._doubt
            return None
        errors = np.empty((self.code.payload_columns, self.code.lifting), np.uint8)
        ldpc.hard_decisions(self._posterior, self.code.lifting, errors)
        return errors

    def _decode(self, limit: int) -> bool:
        code = self.code
        scales, caps = scale_tables()
        done = ldpc.decode(
            self._posterior, self._messages, self._scratch, self._inputs, self._inputs, self._signs, self._bases,
            code.shifts, self._segments, code.lifting, scales, caps, KNEE, self._state, limit, PATIENCE,
        )  # fmt: skip
        self.iterations += abs(done)
        return bool(done > 0)


class ReferenceDecoder:
    """Sum-product by the package ``ldpc``: floating point, flooding schedule, about a thousand times slower."""

    def __init__(self, code: Code, payload_bits: int, qber: float) -> None:
        self.code, self.iterations, self._qber, self._payload_bits = code, 0, qber, payload_bits
        self._checks: list[NDArray[np.int64]] = []
        self._wanted = np.zeros(0, np.uint8)

    def reveal(self, units: int, wanted: Words) -> None:
        """Take bits that were disclosed later, as :class:`Decoder` says."""
        code, bits = self.code, np.unpackbits(wanted.astype("<u4").view(np.uint8), axis=1, bitorder="little")
        self._checks, values = [], []
        for first, end, low, high, sign, *_ in _segments(code, units).tolist():
            copies = np.arange(low, high)
            at = (copies[:, None] + code.shifts[None, first:end]) % code.lifting
            self._checks.append(code.columns[None, first:end] * code.lifting + at)
            values.append(bits[sign // code.lifting, low:high])
        self._wanted = np.concatenate(values)

    def run(self, limit: int) -> Bits | None:
        """See :class:`Decoder`; the limit counts for the fast decoder, this one takes its own."""
        try:
            from ldpc.bp_decoder import BpDecoder
            from scipy.sparse import csr_matrix
        except ImportError as error:
            raise ConfigurationError('decoder = "reference" needs the package ldpc: pip install ldpc') from error
        code = self.code
        size = code.capacity_bits
        columns = np.concatenate([checks.reshape(-1) for checks in self._checks])
        degrees = np.concatenate([np.full(len(checks), checks.shape[1]) for checks in self._checks])
        matrix = csr_matrix(
            (np.ones(len(columns), np.uint8), columns, np.concatenate([[0], np.cumsum(degrees)])),
            shape=(len(degrees), size),
        )
        used = -(-self._payload_bits // code.payload_columns)
        flat = np.arange(size)
        known = (flat % code.lifting >= used) | (
            flat // code.lifting * used + flat % code.lifting >= self._payload_bits
        )
        decoder = BpDecoder(
            matrix, error_channel=np.where(known, 1e-9, self._qber).tolist(), bp_method="product_sum",
            schedule="parallel", max_iter=_REFERENCE_ITERATIONS,
        )  # fmt: skip
        found = np.asarray(decoder.decode(self._wanted), np.uint8)
        self.iterations += int(decoder.iter)
        return found.reshape(code.payload_columns, code.lifting) if decoder.converge else None


def make_decoder(name: DecoderName, code: Code, payload_bits: int, qber: float) -> Decoder:
    """The decoder that a configuration names."""
    return LayeredDecoder(code, payload_bits, qber) if name == "fast" else ReferenceDecoder(code, payload_bits, qber)
