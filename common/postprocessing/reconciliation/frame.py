"""Error correction of one frame, without input or output: what the reference side sends and the correcting side does.

The reference side sends the syndrome of its bits with part of the checks merged in pairs, and a 32-bit check; the
correcting side looks for its error pattern. If it fails, merged checks are split: two steps in rounds 2 and 3, and what
is left in round 4, which fewer than one frame in a thousand needs.
Either side may be the reference. The last functions are what jobs compute: of both sides, with nothing but arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305
from numpy.typing import NDArray

from common.errors import LocalProtocolError, RemoteProtocolError
from common.kernels import ldpc
from common.kernels.lanes import LANES
from common.postprocessing.ldpc_codes import Code, code_table
from common.postprocessing.ldpc_decoder import Decoder, DecoderName, make_decoder
from common.postprocessing.reconciliation.fitted import (
    EXPECTED_EFFICIENCY,
    ITERATIONS,
    MOST_CHECKS,
    THIRD_STEP,
    inverse_entropy,
)

Bits = NDArray[np.uint8]
Words = NDArray[np.uint32]
Units = NDArray[np.uint64]

MAX_ROUNDS = 4
CHECK_BITS = 32
REVEAL_UNIT_BITS = LANES
LONGEST_FRAME_BITS = 1 << 20


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
        """The code that the frame uses."""
        return code_table().codes[self.code_id]

    def revealed_bits(self, message: int) -> tuple[int, int]:
        """Half-open range of the merged checks that message 0 .. 3 splits."""
        most = self.code.merged_bits // REVEAL_UNIT_BITS
        third_units = min(most, self.second_units + THIRD_STEP * (self.second_units - self.first_units))
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
        return inverse_entropy(min(MOST_CHECKS, self.disclosed_bits(0) / self.payload_bits / EXPECTED_EFFICIENCY))


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
    """

    def __init__(self, spec: FrameSpec, bits: Bits) -> None:
        _require(bits, spec)
        self.spec = spec
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
    rounds : messages received.
    iterations : of the decoder, in all rounds.
    """

    status: Literal["decoded", "more", "failed"]
    bits: Bits | None
    errors: int
    rounds: int
    iterations: int

    def __repr__(self) -> str:
        return f"FrameOutcome({self.status}, round {self.rounds})"


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
        self._rounds = round
        pattern = decoder.run(ITERATIONS[round - 1])
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
            return FrameOutcome("decoded", corrected, errors, self._rounds, iterations)
        if self._rounds < self.spec.rounds:
            return FrameOutcome("more", None, 0, self._rounds, iterations)
        self.bits = self._decoder = None
        return FrameOutcome("failed", None, 0, self._rounds, iterations)


def first_syndrome(spec: FrameSpec, bits: Bits) -> tuple[ReferenceFrame, bytes]:
    """A frame of the end whose bits are right, and its first message."""
    frame = ReferenceFrame(spec, bits)
    return frame, frame.first()


def next_syndrome(frame: ReferenceFrame, number: int) -> tuple[ReferenceFrame, bytes]:
    """The frame after its message of round ``number``, and that message."""
    return frame, frame.more(number)


def correct(frame: CorrectingFrame, bits: Bits, number: int, payload: bytes) -> tuple[CorrectingFrame, FrameOutcome]:
    """The frame after it has decoded ``bits`` with the message of round ``number``, and what came of it.

    The frame comes back without the bits: of them nobody but their owner has a copy afterwards.
    """
    frame.bits = bits
    outcome = frame.receive(number, payload)
    frame.bits = None
    return frame, outcome
