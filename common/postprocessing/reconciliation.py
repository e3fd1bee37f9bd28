"""Error correction of one frame, without input or output: what the reference side sends and the correcting side does.

The reference side sends the syndrome of its bits with part of the checks merged in pairs, and a 32-bit check; the
correcting side looks for its error pattern. If it fails, merged checks are split: two steps in rounds 2 and 3, and what
is left in round 4, which fewer than one frame in a thousand needs.
Every disclosed bit is counted where its bytes are made. Either side may be the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305
from numpy.typing import NDArray

from common.errors import LocalProtocolError, RemoteProtocolError
from common.kernels import ldpc
from common.kernels.lanes import LANES
from common.postprocessing.ldpc_codes import Code, CodeTable, code_table
from common.postprocessing.ldpc_decoder import Decoder, DecoderName, make_decoder
from common.security.bounds import binary_entropy

__all__ = [
    "CHECK_BITS",
    "MAX_ROUNDS",
    "RESULT_BITS",
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
]

Bits = NDArray[np.uint8]
Words = NDArray[np.uint32]
Units = NDArray[np.uint64]
Efficiency = Literal["efficient", "balanced", "fast"]

MAX_ROUNDS = 4
CHECK_BITS = 32
#: What the correcting side says of a frame after every round (status, error rate) depends on the key: disclosed.
RESULT_BITS = 24
REVEAL_UNIT_BITS = LANES
LONGEST_FRAME_BITS = 1 << 20

#: The third message splits this many times as many checks as the second.
_THIRD_STEP = 2
_QBER_RANGE = (0.003, 0.11)


@dataclass(frozen=True)
class _Setting:
    """Bits to disclose, in units of n h: what half of the frames need times ``margin``, plus ``first`` deviations from
    frame to frame; the second message adds ``step`` deviations."""

    margin: float
    first: float
    step: float


_SETTINGS: dict[str, _Setting] = {
    "efficient": _Setting(1.0, 0.1, 1.15),
    "balanced": _Setting(1.006, 1.3, 1.3),
    "fast": _Setting(1.026, 2.0, 2.0),
}
#: Deviations (of the frame and of the expected rate together) that all messages together serve. Where the rate is
#: hardly known that would double what is disclosed at once: beyond this share of n h its deviation counts twice only.
_LAST, _LAST_UNSURE = 4.5, 0.12
#: Long frames decode from less on, and their number of errors varies less.
_LONG_BITS, _LONG = 1 << 19, 0.993
#: What all messages together serve more than that, and for short frames over the root of their length.
_MORE, _SHORT = 0.035, 8.0
#: Of the decoder, by round.
_ITERATIONS = (120, 120, 150, 200)


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
        ``REVEAL_UNIT_BITS``; the third splits twice as many more, the fourth all.
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
        """Half-open range of the merged checks that message 0 .. 3 splits."""
        most = self.code.merged_bits // REVEAL_UNIT_BITS
        third_units = min(most, self.second_units + _THIRD_STEP * (self.second_units - self.first_units))
        ends = (0, self.first_units, self.second_units, third_units, most)
        return ends[message] * REVEAL_UNIT_BITS, ends[message + 1] * REVEAL_UNIT_BITS

    @property
    def rounds(self) -> int:
        """Messages that carry something: a code without merged checks left has fewer than ``MAX_ROUNDS``."""
        return 1 + sum(low < high for low, high in map(self.revealed_bits, range(1, MAX_ROUNDS)))

    def disclosed_bits(self, message: int) -> int:
        """Bits in message 0 .. 3."""
        low, high = self.revealed_bits(message)
        base = self.code.syndrome_bits - self.code.merged_bits + CHECK_BITS if message == 0 else 0
        return base + high - low

    @property
    def expected_qber(self) -> float:
        """The error rate for which the first message is meant."""
        return _inverse_entropy(min(0.97, self.disclosed_bits(0) / self.payload_bits / 1.09))


def _median_efficiency(p: float) -> float:
    """0.012 above the f at which half of the frames of 2^18 bits decode (measured at 1 to 8 %): fewer rounds."""
    return 1.060 + 0.037 * (0.01 / p) ** 1.2


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
    setting = _SETTINGS[efficiency]
    p = min(max(qber, _QBER_RANGE[0]), _QBER_RANGE[1])
    entropy = binary_entropy(p)
    deviation = math.log2((1 - p) / p) * math.sqrt(p * (1 - p))
    spread = deviation / (entropy * math.sqrt(frame_length_bits))
    # d ln h / d ln p turns the uncertainty of the rate into one of f.
    unsure = uncertainty * p * math.log2((1 - p) / p) / entropy
    middle = _median_efficiency(p) * (_LONG if frame_length_bits > _LONG_BITS else 1.0)
    first = middle * (setting.margin + setting.first * spread) * entropy * frame_length_bits
    step = setting.step * math.hypot(spread, unsure) * entropy * frame_length_bits
    fitting = _fitting(frame_length_bits)
    # All messages together must serve nearly every frame; above that, the largest code that fits into the first message
    # splits fewest checks there, and has the most left for later.
    doubt = min(_LAST * unsure, max(_LAST_UNSURE, 2 * unsure))
    more = max(_MORE, _SHORT / math.sqrt(frame_length_bits))
    last = _median_efficiency(p) * (1 + more) + math.hypot(_LAST * spread, doubt)
    enough = [code for code in fitting if code.syndrome_bits >= last * entropy * frame_length_bits]
    within = [code for code in enough if code.syndrome_bits - code.merged_bits <= first]
    code = max(within, key=_size) if within else min(enough or fitting[-1:], key=_size)
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


def _syndrome(bits: Bits, spec: FrameSpec) -> Words:
    """*(rows, lifting / 32) uint32*: every check of the payload."""
    code = spec.code
    width = code.lifting // 32
    words = np.zeros((code.payload_columns, 2 * width + 1), "<u4")
    packed = np.packbits(_matrix(bits, spec), axis=1, bitorder="little").view("<u4")
    words[:, :width] = packed
    words[:, width : 2 * width] = packed
    out = np.empty((code.rows, width), np.uint32)
    ldpc.syndrome(words.astype(np.uint32, copy=False), code.columns, code.shifts, code.row_start, code.lifting, out)
    return out


def _merge(syndrome: Words, code: Code) -> Words:
    """*(rows - merged, lifting / 32) uint32*: each pair's sum, then the other rows."""
    pairs = 2 * code.merged
    return np.concatenate([syndrome[0:pairs:2] ^ syndrome[1:pairs:2], syndrome[pairs:]])


def _hidden(syndrome: Words, code: Code) -> Units:
    """*(merged_bits / 64,) uint64*: what splits the pairs, their second rows, in the order of revealing (in turn)."""
    second = np.ascontiguousarray(syndrome[1 : 2 * code.merged : 2]).view(np.uint64)
    return np.ascontiguousarray(second.T).reshape(-1)


def _split(merged: Words, hidden: Units, code: Code) -> Words:
    """*(rows, lifting / 32) uint32*: the checks as they stand when the first units of ``hidden`` are known."""
    width, pairs = code.lifting // 32, 2 * code.merged
    second = np.zeros(code.merged_bits // 64, np.uint64)
    second[: len(hidden)] = hidden
    wanted = np.empty((code.rows, width), np.uint32)
    wanted[1:pairs:2] = np.ascontiguousarray(second.reshape(-1, code.merged).T).view(np.uint32)
    wanted[0:pairs:2] = merged[: code.merged] ^ wanted[1:pairs:2]
    wanted[pairs:] = merged[code.merged :]
    return wanted


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
        self._hidden = _hidden(syndrome, spec.code).astype("<u8").tobytes()
        self._check = _check(bits, spec)

    def first(self) -> bytes:
        """The first message: merged syndrome, the checks that are split from the start, 32-bit check."""
        return self._message(0)

    def more(self, round: int) -> bytes:
        """Message of round 2, 3 or 4: the bits that split further checks; each is asked for once, in order."""
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
    decoder : fast, or the slow reference.

    Attributes
    ----------
    bits : as given, or None; whoever keeps the frame between two messages may take them away and give them back.
    """

    def __init__(self, spec: FrameSpec, bits: Bits, decoder: DecoderName = "fast") -> None:
        _require(bits, spec)
        self.spec = spec
        self.bits: Bits | None = bits
        self._name: DecoderName = decoder
        self._decoder: Decoder | None = None
        self._difference = np.zeros(0, np.uint32)
        self._own_hidden = self._hidden = np.zeros(0, np.uint64)
        self._rounds = 0
        self._disclosed = 0
        self._check = b""

    def receive(self, round: int, payload: bytes) -> FrameOutcome:
        """Take the message of round 1 .. 4 and decode (milliseconds to tens of them: use a worker thread)."""
        bits, spec = self.bits, self.spec
        if bits is None or round != self._rounds + 1:
            raise RemoteProtocolError(f"message of round {round} for a frame that is at round {self._rounds}")
        expected = spec.disclosed_bits(round - 1)
        if 8 * len(payload) != expected:
            raise RemoteProtocolError(f"message of round {round} has {8 * len(payload)} bits instead of {expected}")
        if self._decoder is None:
            self._check, payload = payload[-CHECK_BITS // 8 :], payload[: -CHECK_BITS // 8]
            payload = self._begin(bits, payload)
        units = np.frombuffer(payload, "<u8").astype(np.uint64)
        known = len(self._hidden)
        self._hidden = np.concatenate([self._hidden, units ^ self._own_hidden[known : known + len(units)]])
        decoder = self._decoder
        assert decoder is not None
        decoder.reveal(len(self._hidden), _split(self._difference, self._hidden, spec.code))
        self._rounds, self._disclosed = round, self._disclosed + expected
        pattern = decoder.run(_ITERATIONS[round - 1])
        corrected = None if pattern is None else bits ^ _flatten(pattern, spec)
        if corrected is not None and _check(corrected, spec) != self._check:
            corrected = None
        return self._outcome(corrected, bits, decoder.iterations)

    def _begin(self, bits: Bits, payload: bytes) -> bytes:
        """Take the merged syndrome; what follows it in the message is returned."""
        code = self.spec.code
        syndrome = _syndrome(bits, self.spec)
        self._own_hidden = _hidden(syndrome, code)
        merged = _merge(syndrome, code)
        received = np.frombuffer(payload[: 4 * merged.size], "<u4").astype(np.uint32)
        self._difference = merged ^ received.reshape(merged.shape)
        self._decoder = make_decoder(self._name, code, self.spec.payload_bits, self.spec.expected_qber)
        return payload[4 * merged.size :]

    def _outcome(self, corrected: Bits | None, bits: Bits, iterations: int) -> FrameOutcome:
        if corrected is not None:
            errors = int(np.bitwise_count(corrected ^ bits).sum())
            self.bits = self._decoder = None
            return FrameOutcome("decoded", corrected, errors, self._disclosed, self._rounds, iterations)
        if self._rounds < self.spec.rounds:
            return FrameOutcome("more", None, 0, self._disclosed, self._rounds, iterations)
        self.bits = self._decoder = None
        return FrameOutcome("failed", None, 0, self._disclosed, self._rounds, iterations)


class QberTracker:
    """Follows the error rate through decoded frames: an average that starts again when a frame contradicts it.

    Parameters
    ----------
    initial_qber : before any frame, a fraction.
    initial_bits : how many bits that is worth.
    memory_bits : how far back it looks while nothing changes.
    """

    def __init__(self, initial_qber: float, initial_bits: int = 1 << 11, memory_bits: int = 1 << 22) -> None:
        self._long = _Average(memory_bits, initial_bits, initial_bits * initial_qber)
        self._short = _Average(_SHORT_MEMORY_BITS, initial_bits, initial_bits * initial_qber)
        self._learned = False
        self._wander = 0.0

    @property
    def qber(self) -> float:
        """The present estimate."""
        return self._long.mean

    @property
    def uncertainty(self) -> float:
        """Relative standard deviation of the estimate, by the errors that it rests on."""
        return 1 / math.sqrt(max(self._long.errors, 1.0))

    @property
    def uncertainty_of_next(self) -> float:
        """The same for bits that come later: also by how much the rate has jumped lately."""
        return math.hypot(self.uncertainty, self._wander)

    def decoded(self, n_bits: int, errors: float) -> None:
        """A frame was decoded; without a single error it tells no rate of 0, but one that gives half an error."""
        errors = max(errors, 0.5)
        before, p = self._long.bits, self._long.mean
        jump = errors / n_bits - p
        if abs(jump) > _SURPRISE * math.sqrt(p * (1 - p) * (1 / n_bits + 1 / before)):
            self._wander = max(self._wander, abs(jump) / p) if self._learned else 0.0
            self._long = _Average(self._long.memory_bits, n_bits, errors)
            self._short = _Average(_SHORT_MEMORY_BITS, n_bits, errors)
        else:
            self._wander *= max(0.0, 1 - n_bits / self._long.memory_bits)
            self._add(n_bits, errors)
        self._learned = True

    def failed(self, spec: FrameSpec) -> None:
        """A frame was not decoded: its error rate was probably above what everything disclosed could correct."""
        worst = _inverse_entropy(min(0.97, spec.code.syndrome_bits / spec.payload_bits / 1.05))
        self._learned = True
        if worst > self.qber:
            self._wander = max(self._wander, worst / self.qber - 1)
            self._add(spec.payload_bits, round(worst * spec.payload_bits))

    def _add(self, n_bits: int, errors: float) -> None:
        self._long.add(n_bits, errors)
        self._short.add(n_bits, errors)
        p = self._long.mean
        if abs(self._short.mean - p) > _SURPRISE * math.sqrt(p * (1 - p) / self._short.bits):
            self._long = replace(self._short, memory_bits=self._long.memory_bits)


_SHORT_MEMORY_BITS = 1 << 17
#: Standard deviations, of a frame or of the short average, at which the long average starts again.
_SURPRISE = 3.5


@dataclass
class _Average:
    """Exponential average weighted by bits."""

    memory_bits: int
    bits: float
    errors: float

    @property
    def mean(self) -> float:
        return self.errors / self.bits

    def add(self, n_bits: int, errors: float) -> None:
        keep = max(0.0, 1 - n_bits / self.memory_bits)
        self.errors = keep * self.errors + errors
        self.bits = keep * self.bits + n_bits
