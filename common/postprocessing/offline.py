"""Reconciliation of two sifted keys that lie on one machine: the frames of the protocol without the protocol.

The same frames, codes, rounds and accounting as on a link; both ends' work is done here, one frame after the other (or
a few at a time, as on a link with several under way).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.datatypes import ReconciledKey
from common.errors import InputError
from common.keybits import KeyBits
from common.postprocessing.ldpc_decoder import DecoderName
from common.postprocessing.reconciliation import (
    RESULT_BITS,
    CorrectingFrame,
    Efficiency,
    FrameOutcome,
    QberTracker,
    ReferenceFrame,
    choose_code,
    split_block,
)
from common.security.bounds import binary_entropy

Bits = NDArray[np.uint8]

#: Above this no code of the table has enough checks.
HIGHEST_QBER = 0.11
#: A short first frame, sized by a guess, tells the error rate to the others.
LEAD_FRAME_BITS = 1 << 12
LEAD_QBER = 0.05


@dataclass(frozen=True, repr=False)
class PairResult:
    """What became of two keys.

    Parameters
    ----------
    n_bits, errors : of the two keys.
    kept, alice, bob : bits in decoded frames, and the packed keys of both ends, *(ceil(kept / 8),) uint8*. Secret.
    kept_errors : errors corrected.
    leak_ec_bits, leak_kept_bits : every disclosed bit (a failed frame in full), and of the decoded frames alone.
    frames, frames_failed, rounds, rounds_max, iterations : counts, over all frames.
    """

    n_bits: int
    errors: int
    kept: int
    alice: Bits
    bob: Bits
    kept_errors: int
    leak_ec_bits: int
    leak_kept_bits: int
    frames: int
    frames_failed: int
    rounds: int
    rounds_max: int
    iterations: int

    def __repr__(self) -> str:
        return f"PairResult({self.n_bits} bits, {self.frames} frames, {self.frames_failed} failed)"

    @property
    def qber(self) -> float:
        """Error rate of the two keys."""
        return self.errors / self.n_bits

    @property
    def f_ec(self) -> float | None:
        """Every disclosed bit over n h(QBER); None without errors."""
        limit = self.n_bits * binary_entropy(self.qber)
        return self.leak_ec_bits / limit if limit else None

    @property
    def f_ec_kept(self) -> float | None:
        """The same of the decoded frames alone; None without errors."""
        limit = self.kept * binary_entropy(self.kept_errors / self.kept) if self.kept else 0.0
        return self.leak_kept_bits / limit if limit else None

    def reconciled(self, key: Bits) -> ReconciledKey:
        """A copy of one end's key as what verification takes."""
        kept_frames = self.frames - self.frames_failed
        return ReconciledKey(
            0, KeyBits(key.copy(), self.kept), self.leak_ec_bits, kept_frames, self.frames_failed, self.kept_errors
        )


def reconcile_pair(
    alice: Bits,
    bob: Bits,
    n_bits: int,
    *,
    frame_length_bits: int = 1 << 18,
    efficiency: Efficiency = "efficient",
    decoder: DecoderName = "fast",
    qber: float | None = None,
    executor: Executor | None = None,
    under_way: int = 1,
    progress: Callable[[int], object] = lambda bits: None,
) -> PairResult:
    """Correct Bob's key to Alice's.

    Parameters
    ----------
    alice, bob : *(ceil(n_bits / 8),) uint8*, packed, bit i is bit ``i % 8`` of byte ``i // 8``, unused bits zero.
    qber : expected error rate; without it a short first frame finds out.
    executor, under_way : frames at work at the same time.
    progress : is told the bits of every finished frame.

    Raises
    ------
    InputError : empty keys, wrong sizes, or keys that differ too much.
    """
    size = (n_bits + 7) // 8
    if n_bits <= 0:
        raise InputError("the keys are empty")
    if alice.shape != (size,) or bob.shape != (size,) or alice.dtype != np.uint8 or bob.dtype != np.uint8:
        raise InputError(f"two packed keys of {n_bits} bits need {size} bytes each")
    errors = int(np.bitwise_count(alice ^ bob).sum())
    if errors / n_bits > HIGHEST_QBER:
        raise InputError(
            f"the keys differ in {100 * errors / n_bits:.1f} % of their bits; error correction ends at"
            f" {100 * HIGHEST_QBER:.0f} %",
            remedy="Check that both files are of the same run, in the same order, bit for bit, and none is inverted.",
        )
    tracker = QberTracker(LEAD_QBER if qber is None else qber)
    lead = LEAD_FRAME_BITS if qber is None and n_bits >= 8 * LEAD_FRAME_BITS else 0
    lengths = ([lead] if lead else []) + _whole_bytes(n_bits - lead, frame_length_bits)
    done: list[tuple[int, FrameOutcome]] = []
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    first = 0
    while first < len(lengths):
        last = first + 1 if lead and first == 0 else min(first + under_way, len(lengths))
        estimate = tracker.qber

        def work(i: int, estimate: float = estimate) -> FrameOutcome:
            low, high = starts[i] // 8, (starts[i + 1] + 7) // 8
            return _correct(alice[low:high], bob[low:high], lengths[i], estimate, efficiency, decoder)

        run: Iterable[FrameOutcome] = (executor.map if executor else map)(work, range(first, last))
        for i, outcome in zip(range(first, last), run, strict=True):
            done.append((lengths[i], outcome))
            if outcome.status == "decoded":
                tracker.decoded(lengths[i], outcome.errors)
            else:
                tracker.failed(choose_code(estimate, lengths[i], efficiency))
            progress(lengths[i])
        first = last
    return _summary(alice, n_bits, errors, starts, done)


def _whole_bytes(n_bits: int, frame_length_bits: int) -> list[int]:
    """Lengths of the frames, each but the last a multiple of 8."""
    lengths = split_block(n_bits, frame_length_bits)
    ends = [8 * round(end / 8) for end in np.cumsum(lengths)[:-1].tolist()] + [n_bits]
    return np.diff([0, *ends]).tolist() if n_bits else []


def _correct(
    alice: Bits, bob: Bits, n_bits: int, qber: float, efficiency: Efficiency, decoder: DecoderName
) -> FrameOutcome:
    spec = choose_code(qber, n_bits, efficiency)
    reference, correcting = ReferenceFrame(spec, alice), CorrectingFrame(spec, bob, decoder)
    outcome = correcting.receive(1, reference.first())
    while outcome.status == "more":
        number = outcome.rounds + 1
        outcome = correcting.receive(number, reference.more(number))
    return outcome


def _summary(
    alice: Bits, n_bits: int, errors: int, starts: list[int], done: list[tuple[int, FrameOutcome]]
) -> PairResult:
    kept = [(i, length, out) for i, (length, out) in enumerate(done) if out.bits is not None]
    disclosed = [out.disclosed_bits + RESULT_BITS * out.rounds for _, out in done]
    leak_kept = sum(disclosed[i] for i, _, _ in kept)
    failed = sum(max(disclosed[i], length) for i, (length, out) in enumerate(done) if out.bits is None)
    ours = [alice[starts[i] // 8 : (starts[i + 1] + 7) // 8] for i, _, _ in kept]
    theirs = [out.bits for _, _, out in kept if out.bits is not None]
    empty = np.zeros(0, np.uint8)
    return PairResult(
        n_bits=n_bits,
        errors=errors,
        kept=sum(length for _, length, _ in kept),
        alice=np.concatenate(ours) if ours else empty,
        bob=np.concatenate(theirs) if theirs else empty,
        kept_errors=sum(out.errors for _, _, out in kept),
        leak_ec_bits=leak_kept + failed,
        leak_kept_bits=leak_kept,
        frames=len(done),
        frames_failed=len(done) - len(kept),
        rounds=sum(out.rounds for _, out in done),
        rounds_max=max(out.rounds for _, out in done),
        iterations=sum(out.iterations for _, out in done),
    )
