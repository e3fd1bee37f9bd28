"""Error correction of one frame, without input or output: what the reference side sends and the correcting side does.

The reference side sends the syndrome of its bits with part of the checks merged, and a 32-bit check; the correcting
side looks for its error pattern. If it fails, merged checks are split, at most twice: three rounds in all. Every
disclosed bit is counted where its bytes are made. Either side may be the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305
from numpy.typing import NDArray

from common.errors import LocalProtocolError, RemoteProtocolError
from common.kernels import ldpc
from common.kernels.lanes import LANES
from common.postprocessing.ldpc_codes import Code, CodeTable, code_table

__all__ = [
    "CHECK_BITS",
    "MAX_ROUNDS",
    "CodeTable",
    "CorrectingFrame",
    "Efficiency",
    "FrameOutcome",
    "FrameSpec",
    "QberTracker",
    "ReferenceFrame",
    "binary_entropy",
    "choose_code",
    "code_table",
    "split_block",
]

Bits = NDArray[np.uint8]
Efficiency = Literal["efficient", "balanced", "fast"]

MAX_ROUNDS = 3
CHECK_BITS = 32
REVEAL_UNIT_BITS = 32
SHORTEST_FRAME_BITS = 1 << 14
LONGEST_FRAME_BITS = 1 << 20

#: Posterior of a bit that is known, far above any sum of messages.
_KNOWN = 4000
#: Log-likelihood units per nat.
_UNITS_PER_NAT = 9.0
_QBER_RANGE = (0.003, 0.11)


@dataclass(frozen=True)
class _Setting:
    """Bits to disclose: f of the first message is ``gap * (1 + sigmas * spread)``; the next adds ``step * spread``."""

    gap: float
    sigmas: float
    step: float
    iterations: tuple[int, int, int]


_SETTINGS: dict[str, _Setting] = {
    "efficient": _Setting(1.062, 0.8, 1.8, (50, 50, 120)),
    "balanced": _Setting(1.075, 1.8, 2.0, (40, 40, 100)),
    "fast": _Setting(1.10, 2.5, 2.5, (20, 40, 100)),
}


def binary_entropy(p: float) -> float:
    """Entropy of a coin in bits; 0 at the ends."""
    if p <= 0 or p >= 1:
        return 0.0
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def _inverse_entropy(h: float) -> float:
    low, high = 1e-6, 0.5
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if binary_entropy(middle) < h else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """Everything that both ends must agree on about one frame: four small integers.

    Parameters
    ----------
    code_id : index into the code table.
    payload_bits : key bits in the frame; shorter payloads are filled up with zeros that both ends know.
    first_units, second_units : merged checks that are split in the first message, and after the second, in units of
        ``REVEAL_UNIT_BITS``; the third message splits all.
    """

    code_id: int
    payload_bits: int
    first_units: int
    second_units: int

    def __post_init__(self) -> None:
        if not 0 <= self.code_id < len(code_table()):
            raise RemoteProtocolError(f"frame names code {self.code_id}, of {len(code_table())} in the table")
        code = self.code
        if not 1 <= self.payload_bits <= code.capacity_bits:
            raise RemoteProtocolError(f"frame of {self.payload_bits} bits in a code of {code.capacity_bits}")
        if not 0 <= self.first_units <= self.second_units <= code.merged_bits // REVEAL_UNIT_BITS:
            raise RemoteProtocolError(f"frame splits {self.first_units}, then {self.second_units} units of checks")

    @property
    def code(self) -> Code:
        """The code itself."""
        return code_table().codes[self.code_id]

    def revealed_bits(self, message: int) -> tuple[int, int]:
        """Half-open range of the merged checks that message 0, 1 or 2 splits."""
        ends = (0, self.first_units, self.second_units, self.code.merged_bits // REVEAL_UNIT_BITS)
        return ends[message] * REVEAL_UNIT_BITS, ends[message + 1] * REVEAL_UNIT_BITS

    @property
    def rounds(self) -> int:
        """Messages that carry something: a code without merged checks left has fewer than ``MAX_ROUNDS``."""
        return 1 + sum(low < high for low, high in (self.revealed_bits(1), self.revealed_bits(2)))

    def disclosed_bits(self, message: int) -> int:
        """Bits in message 0, 1 or 2."""
        low, high = self.revealed_bits(message)
        base = self.code.syndrome_bits - self.code.merged_bits + CHECK_BITS if message == 0 else 0
        return base + high - low

    @property
    def expected_qber(self) -> float:
        """The error rate for which the first message is meant."""
        return _inverse_entropy(min(0.97, self.disclosed_bits(0) / self.payload_bits / 1.09))


def split_block(n_bits: int, frame_length_bits: int) -> list[int]:
    """Payload lengths, as equal as possible, of a block: none longer than 3/2 and, if it can be, none below 2/3."""
    frames = max(1, round(n_bits / frame_length_bits), -(-n_bits // LONGEST_FRAME_BITS))
    return [n_bits // frames + (i < n_bits % frames) for i in range(frames)] if n_bits else []


def choose_code(qber: float, frame_length_bits: int, efficiency: Efficiency) -> FrameSpec:
    """The code and the size of the messages for a payload of ``frame_length_bits`` at an expected error rate.

    Parameters
    ----------
    qber : expected error rate, a fraction; clipped to what the codes serve.
    frame_length_bits : payload, 1 .. 2^20.
    efficiency : fewest bits, a compromise, or least work.
    """
    if not 1 <= frame_length_bits <= LONGEST_FRAME_BITS:
        raise LocalProtocolError(f"no frame of {frame_length_bits} bits: 1 to {LONGEST_FRAME_BITS}")
    setting = _SETTINGS[efficiency]
    p = min(max(qber, _QBER_RANGE[0]), _QBER_RANGE[1])
    entropy = binary_entropy(p)
    deviation = math.log2((1 - p) / p) * math.sqrt(p * (1 - p))
    spread = deviation / (entropy * math.sqrt(frame_length_bits))
    first = setting.gap * (1 + setting.sigmas * spread) * entropy * frame_length_bits
    step = setting.step * spread * entropy * frame_length_bits
    codes = code_table().codes
    capacity = min(code.capacity_bits for code in codes if code.capacity_bits >= frame_length_bits)
    fitting = [code for code in codes if code.capacity_bits == capacity]
    enough = [code for code in fitting if code.syndrome_bits >= first + 2.5 * step]
    code = min(enough, key=lambda code: code.rows) if enough else max(fitting, key=lambda code: code.rows)
    most = code.merged_bits // REVEAL_UNIT_BITS
    base = code.syndrome_bits - code.merged_bits
    first_units = min(most, max(0, math.ceil((first - base) / REVEAL_UNIT_BITS)))
    second_units = min(most, first_units + max(1, math.ceil(step / REVEAL_UNIT_BITS)))
    return FrameSpec(code.code_id, frame_length_bits, first_units, second_units)


def _matrix(bits: Bits, spec: FrameSpec) -> Bits:
    """Payload as *(payload_columns, lifting) uint8*, one bit a byte: each column filled from its start, zeros after."""
    code = spec.code
    used = -(-spec.payload_bits // code.payload_columns)
    flat = np.zeros(code.payload_columns * used, np.uint8)
    flat[: spec.payload_bits] = np.unpackbits(bits, count=spec.payload_bits, bitorder="little")
    matrix = np.zeros((code.payload_columns, code.lifting), np.uint8)
    matrix[:, :used] = flat.reshape(code.payload_columns, used)
    return matrix


def _flatten(matrix: Bits, spec: FrameSpec) -> Bits:
    used = -(-spec.payload_bits // spec.code.payload_columns)
    flat = np.ascontiguousarray(matrix[:, :used]).reshape(-1)[: spec.payload_bits]
    return np.packbits(flat, bitorder="little")


def _syndrome(bits: Bits, spec: FrameSpec) -> NDArray[np.uint32]:
    """*(rows, lifting / 32) uint32*: every check of the payload, auxiliary columns left out."""
    code = spec.code
    width = code.lifting // 32
    words = np.zeros((code.payload_columns + code.merged, 2 * width + 1), "<u4")
    packed = np.packbits(_matrix(bits, spec), axis=1, bitorder="little").view("<u4")
    words[: code.payload_columns, :width] = packed
    words[: code.payload_columns, width : 2 * width] = packed
    out = np.empty((code.rows, width), np.uint32)
    ldpc.syndrome(words.astype(np.uint32, copy=False), code.columns, code.shifts, code.row_start, code.lifting, out)
    return out


def _hidden(syndrome: NDArray[np.uint32], code: Code) -> NDArray[np.uint32]:
    """The bits that split the merged checks: the odd rows of the pairs, in the order of revealing."""
    shifts = _auxiliary_shifts(code)
    rows = np.unpackbits(syndrome[1 : 2 * code.merged : 2].astype("<u4").view(np.uint8), axis=1, bitorder="little")
    at = (np.arange(code.lifting)[None, :] - shifts[1::2, None]) % code.lifting
    return np.packbits(np.take_along_axis(rows, at, axis=1).reshape(-1), bitorder="little").view("<u4")


def _auxiliary_shifts(code: Code) -> NDArray[np.int64]:
    """*(2 * merged,) int64*: shift of the auxiliary column in each row of the pairs (it is the row's last edge)."""
    return code.shifts[code.row_start[1 : 2 * code.merged + 1] - 1]


def _merge(syndrome: NDArray[np.uint32], code: Code) -> NDArray[np.uint32]:
    """*(rows - merged, lifting / 32) uint32*: each pair's sum, aligned on its auxiliary bit, then the other rows."""
    width = code.lifting // 32
    even = np.unpackbits(syndrome[0 : 2 * code.merged : 2].astype("<u4").view(np.uint8), axis=1, bitorder="little")
    shifts = _auxiliary_shifts(code)
    at = (np.arange(code.lifting)[None, :] - shifts[0::2, None]) % code.lifting
    aligned = np.packbits(np.take_along_axis(even, at, axis=1), axis=1, bitorder="little").view("<u4")
    hidden = _hidden(syndrome, code).reshape(code.merged, width)
    return np.concatenate([aligned ^ hidden, syndrome[2 * code.merged :]])


def _check(bits: Bits, spec: FrameSpec) -> bytes:
    """32 bits of a polynomial hash at a public point: it drops wrong frames early and carries no security bound."""
    point = b"qkd-node frame!!" + bytes(16)
    header = spec.payload_bits.to_bytes(4, "little")
    return Poly1305.generate_tag(point, header + bits.tobytes())[: CHECK_BITS // 8]


def _require(bits: Bits, spec: FrameSpec) -> None:
    if bits.dtype != np.uint8 or bits.shape != ((spec.payload_bits + 7) // 8,):
        raise LocalProtocolError(f"a frame of {spec.payload_bits} bits needs {(spec.payload_bits + 7) // 8} bytes")


class ReferenceFrame:
    """The side whose bits are right: makes the messages.

    Parameters
    ----------
    spec : what was agreed.
    bits : *(ceil(payload_bits / 8),) uint8*, packed, unused bits zero; read once, not kept.

    Attributes
    ----------
    disclosed_bits : bits in the messages made so far.
    """

    def __init__(self, spec: FrameSpec, bits: Bits) -> None:
        _require(bits, spec)
        self.spec = spec
        self.disclosed_bits = 0
        self._made = 0
        syndrome = _syndrome(bits, spec)
        self._merged = _merge(syndrome, spec.code).astype("<u4").tobytes()
        self._hidden = _hidden(syndrome, spec.code).astype("<u4").tobytes()
        self._check = _check(bits, spec)

    def first(self) -> bytes:
        """The first message: merged syndrome, the checks that are split from the start, 32-bit check."""
        return self._message(0)

    def more(self, round: int) -> bytes:
        """Message of round 2 or 3: the bits that split further checks; each is asked for once, in order."""
        return self._message(round - 1)

    def _message(self, number: int) -> bytes:
        if number != self._made or number >= MAX_ROUNDS:
            raise LocalProtocolError(f"message {number + 1} of a frame was asked for after {self._made}")
        self._made += 1
        self.disclosed_bits += self.spec.disclosed_bits(number)
        low, high = self.spec.revealed_bits(number)
        part = self._hidden[low // 8 : high // 8]
        return self._merged + part + self._check if number == 0 else part


@dataclass(frozen=True, slots=True, repr=False)
class FrameOutcome:
    """What the correcting side knows after a message.

    Parameters
    ----------
    status : decoded, more (send the next message), or failed (the frame is dropped; its bits count as disclosed).
    bits : *(ceil(payload_bits / 8),) uint8*, the corrected payload, if decoded. Secret.
    errors : bits corrected, if decoded.
    disclosed_bits : received so far; a failed frame discloses its payload in full instead.
    rounds : messages received.
    iterations : of the decoder, in all rounds.
    """

    status: Literal["decoded", "more", "failed"]
    bits: Bits | None
    errors: int
    disclosed_bits: int
    rounds: int
    iterations: int

    def __repr__(self) -> str:
        return f"FrameOutcome({self.status}, round {self.rounds}, {self.disclosed_bits} bits disclosed)"


class CorrectingFrame:
    """The side that corrects its bits.

    Parameters
    ----------
    spec : what was agreed.
    bits : *(ceil(payload_bits / 8),) uint8*, packed, unused bits zero; kept until the frame is decoded or failed.
    """

    def __init__(self, spec: FrameSpec, bits: Bits) -> None:
        _require(bits, spec)
        self.spec = spec
        self._bits: Bits | None = bits
        self._decoder: _Decoder | None = None
        self._rounds = 0
        self._disclosed = 0
        self._check = b""

    def receive(self, round: int, payload: bytes) -> FrameOutcome:
        """Take the message of round 1, 2 or 3 and decode (milliseconds to tens of them: use a worker thread)."""
        bits = self._bits
        if bits is None or round != self._rounds + 1:
            raise RemoteProtocolError(f"message of round {round} for a frame that is at round {self._rounds}")
        expected = self.spec.disclosed_bits(round - 1)
        if 8 * len(payload) != expected:
            raise RemoteProtocolError(f"message of round {round} has {8 * len(payload)} bits instead of {expected}")
        if self._decoder is None:
            self._check, syndrome = payload[-CHECK_BITS // 8 :], payload[: -CHECK_BITS // 8]
            self._decoder = _Decoder(self.spec, bits, syndrome)
        else:
            self._decoder.split(payload)
        self._rounds, self._disclosed = round, self._disclosed + expected
        corrected = self._decoder.run(round)
        decoded = corrected is not None and _check(corrected, self.spec) == self._check
        return self._outcome(corrected if decoded else None, bits)

    def _outcome(self, corrected: Bits | None, bits: Bits) -> FrameOutcome:
        assert self._decoder is not None
        iterations = self._decoder.iterations
        if corrected is not None:
            errors = int(np.bitwise_count(corrected ^ bits).sum())
            self._bits = self._decoder = None
            return FrameOutcome("decoded", corrected, errors, self._disclosed, self._rounds, iterations)
        if self._rounds < self.spec.rounds:
            return FrameOutcome("more", None, 0, self._disclosed, self._rounds, iterations)
        self._bits = self._decoder = None
        return FrameOutcome("failed", None, 0, self._disclosed, self._rounds, iterations)


class _Decoder:
    """The state of the iterative decoder of one frame between rounds (posteriors and messages stay: a warm start)."""

    def __init__(self, spec: FrameSpec, bits: Bits, payload: bytes) -> None:
        self.spec, self.code, self.iterations = spec, spec.code, 0
        self._own = bits
        code = self.code
        syndrome = _syndrome(bits, spec)
        self._own_hidden = _hidden(syndrome, code).astype("<u4").tobytes()
        width = code.lifting // 32
        received = np.frombuffer(payload, "<u4").astype(np.uint32)
        body = (code.rows - code.merged) * width
        difference = _merge(syndrome, code) ^ received[:body].reshape(-1, width)
        self._start(difference)
        self._known = 0
        self.split(received[body:].astype("<u4").tobytes())

    def _start(self, difference: NDArray[np.uint32]) -> None:
        code, p = self.code, self.spec.expected_qber
        wanted = np.zeros((code.rows, code.lifting // 32), np.uint32)
        aligned = np.unpackbits(difference[: code.merged].astype("<u4").view(np.uint8), axis=1, bitorder="little")
        shifts = _auxiliary_shifts(code)[0::2]
        at = (np.arange(code.lifting)[None, :] + shifts[:, None]) % code.lifting
        back = np.packbits(np.take_along_axis(aligned, at, axis=1), axis=1, bitorder="little").view("<u4")
        wanted[0 : 2 * code.merged : 2] = back
        wanted[2 * code.merged :] = difference[code.merged :]
        self._signs = np.empty(code.rows * code.lifting, np.int8)
        ldpc.expand_signs(wanted, code.lifting, self._signs)
        ratio = _UNITS_PER_NAT * math.log((1 - p) / p)
        values = np.zeros((code.payload_columns + code.merged, code.lifting), np.int16)
        used = -(-self.spec.payload_bits // code.payload_columns)
        filled = np.full(code.payload_columns * used, _KNOWN, np.int16)
        filled[: self.spec.payload_bits] = round(ratio)
        values[: code.payload_columns] = _KNOWN
        values[: code.payload_columns, :used] = filled.reshape(-1, used)
        self._posterior = np.empty(len(values) * (code.lifting + ldpc.ROOM), np.int16)
        ldpc.set_posteriors(values, code.lifting, self._posterior)
        self._messages = np.zeros(len(code.columns) * code.lifting, np.int8)
        self._scratch = np.empty(LANES * int(np.diff(code.row_start).max()), np.int16)
        self._scales, self._caps = _scale_tables()
        degree = len(code.columns) / code.rows
        first_cap = 2 * math.atanh((1 - 2 * p) ** (degree - 1)) * _UNITS_PER_NAT
        self._state = np.array([64, max(1, round(first_cap))], np.int64)

    def split(self, payload: bytes) -> None:
        """Learn further auxiliary bits."""
        code = self.code
        ours = np.frombuffer(self._own_hidden, np.uint8)[self._known // 8 :][: len(payload)]
        ones = np.unpackbits(ours ^ np.frombuffer(payload, np.uint8), bitorder="little")
        values = np.where(ones == 1, -_KNOWN, _KNOWN).astype(np.int16)
        done = 0
        while done < len(values):
            column, first = divmod(self._known + done, code.lifting)
            part = values[done : done + code.lifting - first]
            ldpc.add_to_posterior(self._posterior, code.payload_columns + column, first, part, code.lifting)
            done += len(part)
        self._known += len(values)

    def run(self, round: int) -> Bits | None:
        """Decode; the corrected payload, or None."""
        code = self.code
        limit = _ITERATIONS[round - 1]
        done = ldpc.decode(
            self._posterior, self._messages, self._scratch, self._signs, code.columns, code.shifts, code.row_start,
            code.lifting, self._scales, self._caps, _KNEE, self._state, limit,
        )  # fmt: skip
        self.iterations += abs(done)
        if done < 0:
            return None
        errors = np.empty((code.payload_columns, code.lifting), np.uint8)
        ldpc.hard_decisions(self._posterior, code.lifting, errors)
        return self._own ^ _flatten(errors, self.spec)


_ITERATIONS = (50, 50, 120)
_KNEE = 4


def _scale_tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Scale (64 = 1) and cap of the messages by sqrt(2 * unsatisfied fraction) in 64 bins."""
    unsatisfied = (np.arange(64) / 63) ** 2 / 2
    scales = np.clip(np.rint(64 * (0.986 - 0.99 * unsatisfied)), 12, 64)
    caps = np.clip(np.rint(80 * np.exp(-0.6 * unsatisfied / 0.36)), 1, 127)
    nearly = unsatisfied < 0.004
    return np.where(nearly, 64, scales).astype(np.int64), np.where(nearly, 100, caps).astype(np.int64)


class QberTracker:
    """Follows the error rate through decoded frames: an exponential average weighted by bits.

    Parameters
    ----------
    initial_qber : before any frame, a fraction.
    memory_bits : how far back it looks.
    """

    def __init__(self, initial_qber: float, memory_bits: int = 1 << 19) -> None:
        self.memory_bits = memory_bits
        self._errors = initial_qber * 8192
        self._bits = 8192.0

    @property
    def qber(self) -> float:
        """The present estimate."""
        return self._errors / self._bits

    def decoded(self, n_bits: int, errors: int) -> None:
        """A frame was decoded."""
        keep = max(0.0, 1 - n_bits / self.memory_bits)
        self._errors = keep * self._errors + errors
        self._bits = keep * self._bits + n_bits

    def failed(self, spec: FrameSpec) -> None:
        """A frame was not decoded: its error rate was above what everything disclosed could correct."""
        worst = _inverse_entropy(min(0.97, spec.code.syndrome_bits / spec.payload_bits / 1.05))
        if worst > self.qber:
            self.decoded(spec.payload_bits, round(worst * spec.payload_bits))
