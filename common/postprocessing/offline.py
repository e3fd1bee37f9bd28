"""Reconciliation of two sifted keys that lie on one machine: the frames of the protocol without the protocol.

The same frames, codes, rounds and accounting as on a link; both ends' work is done here, one frame after the other (or
a few at a time, as on a link with several under way). The whole key is at hand, so its bytes are spread over the
frames: an error rate that wanders inside the key is the same in every frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.datatypes import ReconciledKey
from common.errors import InputError
from common.keybits import KeyBits
from common.postprocessing.interleaving import frame_lengths, spread
from common.postprocessing.ldpc_decoder import DecoderName
from common.postprocessing.reconciliation.disclosed import DisclosedBits
from common.postprocessing.reconciliation.fitted import Efficiency
from common.postprocessing.reconciliation.frame import CorrectingFrame, FrameOutcome, FrameSpec, ReferenceFrame
from common.postprocessing.reconciliation.rates import choose_code
from common.postprocessing.reconciliation.tracker import QberTracker
from common.security.bounds import binary_entropy

Bits = NDArray[np.uint8]

#: Above this no code of the table has enough checks.
HIGHEST_QBER = 0.11
#: Short first frames, each at most an eighth of what is left, tell the error rate to the others; the first is sized by
#: a guess.
LEAD_FRAMES_BITS = (1 << 12, 1 << 14)
LEAD_QBER = 0.05
_LEAD_SHARE = 8
#: An error rate that the caller gives counts as if this many bits had shown it.
_TRUSTED_BITS = 1 << 20


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
        return ReconciledKey(0, KeyBits(key.copy(), self.kept), self.leak_ec_bits, kept_frames, self.frames_failed)


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
    qber : expected error rate; without it short first frames find out.
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
    tracker = QberTracker(LEAD_QBER) if qber is None else QberTracker(qber, _TRUSTED_BITS)
    leads = _leads(n_bits) if qber is None else []
    lengths = leads + frame_lengths(n_bits - sum(leads), frame_length_bits)
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    places = spread(n_bits)
    done: list[tuple[int, FrameOutcome]] = []
    disclosed = DisclosedBits()
    first = 0
    while first < len(lengths):
        last = first + 1 if first < len(leads) else min(first + under_way, len(lengths))
        size_of = [choose_code(tracker.qber, length, efficiency, tracker.uncertainty) for length in lengths[first:last]]

        def work(i: int, specs: list[FrameSpec] = size_of, first: int = first) -> FrameOutcome:
            at = places[starts[i] // 8 : (starts[i + 1] + 7) // 8]
            return _correct(alice[at], bob[at], specs[i - first], decoder, disclosed, i)

        run: Iterable[FrameOutcome] = (executor.map if executor else map)(work, range(first, last))
        for spec, outcome in zip(size_of, run, strict=True):
            done.append((spec.payload_bits, outcome))
            if outcome.status == "decoded":
                tracker.decoded(spec.payload_bits, outcome.errors)
            else:
                tracker.failed(spec)
            progress(spec.payload_bits)
        first = last
    of_frames = [places[a // 8 : (b + 7) // 8] for a, b in pairwise(starts)]
    return _summary(alice, n_bits, errors, of_frames, done, disclosed)


def _leads(n_bits: int) -> list[int]:
    """Lengths of the first frames of a key of unknown error rate."""
    leads: list[int] = []
    for length in LEAD_FRAMES_BITS:
        if _LEAD_SHARE * length <= n_bits - sum(leads):
            leads.append(length)
    return leads


def _correct(
    alice: Bits, bob: Bits, spec: FrameSpec, decoder: DecoderName, disclosed: DisclosedBits, frame: int
) -> FrameOutcome:
    reference, correcting = ReferenceFrame(spec, alice), CorrectingFrame(spec, bob, decoder)
    number, payload = 1, reference.first()
    while True:
        disclosed.parities(frame, payload)
        outcome = correcting.receive(number, payload)
        disclosed.result(frame)
        if outcome.status != "more":
            break
        number += 1
        payload = reference.more(number)
    if outcome.status == "failed":
        disclosed.dropped(frame, spec.payload_bits)
    return outcome


def _summary(
    alice: Bits,
    n_bits: int,
    errors: int,
    places: list[NDArray[np.int64]],
    done: list[tuple[int, FrameOutcome]],
    disclosed: DisclosedBits,
) -> PairResult:
    kept, corrected = np.zeros(alice.size, np.bool_), np.zeros(alice.size, np.uint8)
    for at, (_, outcome) in zip(places, done, strict=True):
        if outcome.bits is not None:
            kept[at], corrected[at] = True, outcome.bits
    decoded = [(length, outcome) for length, outcome in done if outcome.bits is not None]
    return PairResult(
        n_bits=n_bits,
        errors=errors,
        kept=sum(length for length, _ in decoded),
        alice=alice[kept],
        bob=corrected[kept],
        kept_errors=sum(outcome.errors for _, outcome in decoded),
        leak_ec_bits=disclosed.total,
        leak_kept_bits=sum(disclosed.of(i) for i, (_, outcome) in enumerate(done) if outcome.bits is not None),
        frames=len(done),
        frames_failed=len(done) - len(decoded),
        rounds=sum(outcome.rounds for _, outcome in done),
        rounds_max=max(outcome.rounds for _, outcome in done),
        iterations=sum(outcome.iterations for _, outcome in done),
    )
