"""Codes, decoders, frames: against slow twins, against the package `ldpc`, and against the bytes on the wire."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import int8, njit

from common.errors import InputError, LocalProtocolError, RemoteProtocolError
from common.kernels import ldpc
from common.kernels.lanes import LANES, boxplus8, load8, splat8, store8
from common.postprocessing import ldpc_decoder
from common.postprocessing.interleaving import frame_lengths, spread, window_bits
from common.postprocessing.ldpc_codes import code_table
from common.postprocessing.ldpc_decoder import LayeredDecoder, ReferenceDecoder
from common.postprocessing.offline import HIGHEST_QBER, LEAD_FRAMES_BITS, reconcile_pair
from common.postprocessing.reconciliation import frame
from common.postprocessing.reconciliation.disclosed import RESULT_BITS, DisclosedBits
from common.postprocessing.reconciliation.frame import CorrectingFrame, FrameSpec, ReferenceFrame
from common.postprocessing.reconciliation.rates import choose_code
from common.postprocessing.reconciliation.tracker import QberTracker
from common.security.bounds import binary_entropy

SIZES = (1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 20)


def keys(rng: np.random.Generator, n_bits: int, errors: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    alice = rng.integers(0, 2, n_bits, dtype=np.uint8)
    flips = rng.random(n_bits) < errors
    return np.packbits(alice, bitorder="little"), np.packbits(alice ^ flips, bitorder="little")


def slow_syndrome(bits: np.ndarray, code: Any) -> np.ndarray:
    """One check at a time, from the definition."""
    matrix = bits.reshape(code.payload_columns, code.lifting)
    out = np.zeros((code.rows, code.lifting), np.uint8)
    for row in range(code.rows):
        for x in range(code.lifting):
            for e in range(code.row_start[row], code.row_start[row + 1]):
                out[row, x] ^= matrix[code.columns[e], (x + code.shifts[e]) % code.lifting]
    return out


def test_the_table_serves_every_size_and_rate() -> None:
    codes = code_table().codes
    assert sorted({code.capacity_bits for code in codes}) == list(SIZES)
    for size in SIZES:
        rates = [(c.syndrome_bits - c.merged_bits) / size for c in codes if c.capacity_bits == size]
        assert rates == sorted(rates)
        assert rates[0] < 1.3 * binary_entropy(0.003)
        assert rates[-1] > 1.1 * binary_entropy(0.1)
        assert max(b / a for a, b in itertools.pairwise(rates)) < 1.15


def test_no_column_meets_a_check_twice() -> None:
    """Not even a merged one: two edges of a circulant in one check would be a cycle of length two or four."""
    for code in code_table().codes:
        for pair in range(code.merged):
            columns = code.columns[code.row_start[2 * pair] : code.row_start[2 * pair + 2]]
            assert len(set(columns.tolist())) == len(columns)
        for row in range(2 * code.merged, code.rows):
            columns = code.columns[code.row_start[row] : code.row_start[row + 1]]
            assert len(set(columns.tolist())) == len(columns)
        degrees = np.bincount(code.columns, minlength=code.payload_columns)
        assert degrees.min() >= 2


def test_syndrome_equals_its_definition(rng: np.random.Generator) -> None:
    code = code_table().codes[30]
    bits = rng.integers(0, 2, code.capacity_bits, dtype=np.uint8)
    spec = FrameSpec(30, code.capacity_bits, 0, 0)
    words = frame._syndrome(np.packbits(bits, bitorder="little"), spec)
    fast = np.unpackbits(words.astype("<u4").view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(fast, slow_syndrome(bits, code))


def test_splitting_all_checks_gives_back_the_syndrome(rng: np.random.Generator) -> None:
    code = code_table().codes[40]
    syndrome = rng.integers(0, 2**32, (code.rows, code.lifting // 32), dtype=np.uint32)
    merged, hidden = frame._merge(syndrome, code), frame._hidden(syndrome, code)
    assert merged.size * 32 == code.syndrome_bits - code.merged_bits
    assert hidden.size * 64 == code.merged_bits
    np.testing.assert_array_equal(frame._split(merged, hidden, code), syndrome)


def slow_box_plus(left: int, right: int, knee: int) -> int:
    low, high = min(left, right), max(left, right)
    return low - (max(knee - (high - low), 0) - max(knee - (high + low), 0)) // 4


@pytest.mark.parametrize("lifting", [64, 128, 320])
def test_posteriors_have_copies_of_their_ends(rng: np.random.Generator, lifting: int) -> None:
    values = rng.integers(-4000, 4000, (3, lifting), np.int16)
    out = np.zeros(3 * (lifting + ldpc.ROOM), np.int16)
    ldpc.set_posteriors(values, lifting, out)
    places = np.arange(-ldpc.PAD, lifting + ldpc.ROOM - ldpc.PAD) % lifting
    np.testing.assert_array_equal(out.reshape(3, -1), values[:, places])


@njit(boundscheck=False)
def fast_box_plus(left, right, half_knee, out):  # type: ignore[no-untyped-def]
    for at in range(0, len(left), LANES):
        store8(out, at, boxplus8(load8(left, at), load8(right, at), splat8(int8(half_knee))))


@pytest.mark.parametrize("knee", [0, 2, ldpc_decoder.KNEE, 40])
def test_box_plus_equals_its_definition_for_all_magnitudes(knee: int) -> None:
    left, right = (a.reshape(-1) for a in np.meshgrid(np.arange(128), np.arange(129), indexing="ij"))
    assert len(left) % LANES == 0
    out = np.empty(len(left), np.int8)
    fast_box_plus(left.astype(np.int8), right.astype(np.uint8).view(np.int8), knee // 2, out)
    expected = [slow_box_plus(*pair, knee) for pair in zip(left.tolist(), right.tolist(), strict=True)]
    np.testing.assert_array_equal(out, expected)


def slow_iteration(decoder: LayeredDecoder, messages: np.ndarray, factor: int, cap: int, knee: int) -> int:
    """One layered iteration from the definition, lane by lane; unsatisfied checks.

    ``messages``: *(edges, lifting)*, in and out; the posteriors are the decoder's own.
    """
    code, posterior = decoder.code, decoder._posterior
    unsatisfied = 0
    for first, end, low, high, sign_base, *_ in decoder._segments.tolist():
        for x in range(low, high):
            places = [int(decoder._bases[e]) + (x + int(code.shifts[e])) % code.lifting for e in range(first, end)]
            heard = [int(messages[e, x]) for e in range(first, end)]
            wide = [int(posterior[p]) - message for p, message in zip(places, heard, strict=True)]
            odd = int(decoder._signs[sign_base + x] < 0)
            unsatisfied += (odd + sum(posterior[p] < 0 for p in places)) % 2
            narrow = [max(-128, min(127, value)) for value in wide]
            sizes = [abs(value) for value in narrow]
            negative = (odd + sum(value < 0 for value in narrow)) % 2
            least, rest = 127, 127
            for size in sizes:
                rest = slow_box_plus(rest, max(size, least), knee)
                least = min(least, size)
            others = min((slow_box_plus(least, rest, knee) * factor + 32) // 64, cap)
            at_least = min((rest * factor + 32) // 64, cap)
            for e, place, value, size, own in zip(range(first, end), places, wide, sizes, narrow, strict=True):
                message = at_least if size == least else others
                message = -message if (negative + (own < 0)) % 2 else message
                messages[e, x] = message
                column = int(code.columns[e])
                for copy in (-code.lifting, 0, code.lifting):
                    at = place + copy
                    start = column * (code.lifting + ldpc.ROOM)
                    if start <= at < start + code.lifting + ldpc.ROOM:
                        posterior[at] = value + message
    return unsatisfied


@pytest.mark.parametrize(("lifting", "units"), [(64, (0, 3)), (64, (3, 1000)), (128, (3, 7))])
def test_decoder_kernel_equals_its_slow_twin(rng: np.random.Generator, lifting: int, units: tuple[int, ...]) -> None:
    """Also where pairs are split between iterations: the messages of a pair stay what they are."""
    code = next(c for c in code_table().codes if c.lifting == lifting and c.merged > 4)
    wanted = rng.integers(0, 2**32, (code.rows, code.lifting // 32), dtype=np.uint32)
    fast, slow = (LayeredDecoder(code, code.capacity_bits - 77, 0.03) for _ in range(2))
    messages = np.zeros((len(code.columns), code.lifting), np.int64)
    stride = code.lifting + ldpc.ROOM
    inside = slice(ldpc.PAD, ldpc.PAD + code.lifting)
    for revealed in units:
        for decoder in (fast, slow):
            decoder.reveal(min(revealed, code.merged_bits // 64), wanted)
        factor, cap, _ = fast._state.tolist()
        assert not fast._decode(1)
        unsatisfied = slow_iteration(slow, messages, factor, cap, ldpc_decoder.KNEE)
        assert fast._state[2] == unsatisfied
        np.testing.assert_array_equal(
            fast._posterior.reshape(-1, stride)[:, inside], slow._posterior.reshape(-1, stride)[:, inside]
        )


def test_decoding_ends_with_the_iteration_that_corrects(rng: np.random.Generator) -> None:
    """Not one later: one iteration less leaves hard decisions of another syndrome."""
    spec = choose_code(0.025, 1 << 16, "fast")
    code = spec.code
    alice, bob = keys(rng, 1 << 16, 0.025)
    syndrome = frame._syndrome(alice ^ bob, spec)
    enough, fewer = (LayeredDecoder(code, spec.payload_bits, 0.025) for _ in range(2))
    for decoder in (enough, fewer):
        decoder.reveal(code.merged_bits // 64, syndrome)
    assert enough.run(100) is not None
    assert not fewer._decode(enough.iterations - 1)
    left = np.empty((code.payload_columns, code.lifting), np.uint8)
    ldpc.hard_decisions(fewer._posterior, code.lifting, left)
    wrong = frame._syndrome(frame._flatten(left, spec), spec) != syndrome
    assert wrong.any()


def chains_of_errors(code: Any, length: int) -> Iterator[np.ndarray]:
    """*(payload_columns, lifting) uint8*: a trapping set: wrong bits in two checks each, and only two odd checks."""
    for start in np.flatnonzero(np.bincount(code.columns)[code.columns] == 2):
        if (chain := chain_from(code, int(start), length)).sum() == length:
            yield chain


def chain_from(code: Any, edge: int, length: int) -> np.ndarray:
    """The chain that begins at an edge, shorter where it ends before."""
    rows = np.repeat(np.arange(code.rows), np.diff(code.row_start))
    degrees = np.bincount(code.columns)
    errors, place = np.zeros((code.payload_columns, code.lifting), np.uint8), 0
    for _ in range(length):
        column = int(code.columns[edge])
        errors[column, place] ^= 1
        out = next(int(e) for e in np.flatnonzero(code.columns == column) if e != edge)
        check = (place - int(code.shifts[out])) % code.lifting
        following = [
            int(e)
            for e in np.flatnonzero(rows == rows[out])
            if e != out
            and degrees[code.columns[e]] == 2
            and not errors[code.columns[e], (check + int(code.shifts[e])) % code.lifting]
        ]
        if not following:
            break
        edge = following[0]
        place = (check + int(code.shifts[edge])) % code.lifting
    return errors


def test_most_chains_of_errors_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven outweigh the two messages at the ends: seen once in some hundred frames, as frames that never decoded."""
    code = next(c for c in code_table().codes if c.capacity_bits == 1 << 14 and c.syndrome_bits > 3500)
    spec = FrameSpec(code.code_id, code.capacity_bits, 0, 0)
    decoded = {3: 0, 0: 0}
    for errors in itertools.islice(chains_of_errors(code, 7), 12):
        syndrome = frame._syndrome(frame._flatten(errors, spec), spec)
        for rescues in decoded:
            monkeypatch.setattr(ldpc_decoder, "_RESCUES", rescues)
            decoder = LayeredDecoder(code, code.capacity_bits, 0.025)
            decoder.reveal(code.merged_bits // 64, syndrome)
            if (found := decoder.run(100)) is not None:
                np.testing.assert_array_equal(found, errors)
                decoded[rescues] += 1
    assert decoded[3] >= 6
    assert decoded[0] == 0


def test_both_decoders_find_the_same_errors(rng: np.random.Generator) -> None:
    """The PyPI package `ldpc` is the oracle: floating-point sum-product on the same checks."""
    n_bits = (1 << 14) - 100
    spec = choose_code(0.025, n_bits, "fast")
    alice, bob = keys(rng, n_bits, 0.022)
    message = ReferenceFrame(spec, alice).first()
    for name in ("fast", "reference"):
        outcome = CorrectingFrame(spec, bob, name).receive(1, message)  # type: ignore[arg-type]
        assert outcome.status == "decoded"
        np.testing.assert_array_equal(outcome.bits, alice)


def test_reference_decoder_sees_merged_and_split_checks(rng: np.random.Generator) -> None:
    code = code_table().codes[50]
    bits = rng.integers(0, 2, code.capacity_bits, dtype=np.uint8)
    spec = FrameSpec(50, code.capacity_bits, 0, 0)
    syndrome = frame._syndrome(np.packbits(bits, bitorder="little"), spec)
    for units in (0, 5, code.merged_bits // 64):
        decoder = ReferenceDecoder(code, code.capacity_bits, 0.02)
        merged, hidden = frame._merge(syndrome, code), frame._hidden(syndrome, code)
        decoder.reveal(units, frame._split(merged, hidden[:units], code))
        parity = np.concatenate([bits[checks].sum(axis=1) % 2 for checks in decoder._checks])
        np.testing.assert_array_equal(parity, decoder._wanted)


@pytest.mark.parametrize("n_bits", [1, 63, 1024, 5000, (1 << 14) + 1, 1 << 16, 100_001])
@pytest.mark.parametrize("efficiency", ["efficient", "balanced", "fast"])
def test_frames_decode_to_the_reference_bits(rng: np.random.Generator, n_bits: int, efficiency: Any) -> None:
    alice, bob = keys(rng, n_bits, 0.02)
    spec = choose_code(0.02, n_bits, efficiency)
    reference, correcting = ReferenceFrame(spec, alice), CorrectingFrame(spec, bob)
    sent = reference.first()
    wire = 8 * len(sent)
    outcome = correcting.receive(1, sent)
    while outcome.status == "more":
        sent = reference.more(outcome.rounds + 1)
        wire += 8 * len(sent)
        outcome = correcting.receive(outcome.rounds + 1, sent)
    assert outcome.rounds <= spec.rounds <= 4
    assert wire == sum(spec.disclosed_bits(message) for message in range(outcome.rounds))
    if outcome.status == "decoded":
        np.testing.assert_array_equal(outcome.bits, alice)
        assert outcome.errors == int(np.bitwise_count(alice ^ bob).sum())


def test_a_frame_beyond_repair_fails_and_says_so(rng: np.random.Generator) -> None:
    alice, bob = keys(rng, 1 << 14, 0.2)
    spec = choose_code(0.02, 1 << 14, "fast")
    reference, correcting = ReferenceFrame(spec, alice), CorrectingFrame(spec, bob)
    outcome = correcting.receive(1, reference.first())
    for number in range(2, spec.rounds + 1):
        assert outcome.status == "more"
        outcome = correcting.receive(number, reference.more(number))
    assert outcome.status == "failed"
    assert outcome.bits is None
    with pytest.raises(RemoteProtocolError):
        correcting.receive(5, b"")


def test_wrong_messages_are_refused(rng: np.random.Generator) -> None:
    alice, bob = keys(rng, 1 << 14, 0.02)
    spec = choose_code(0.02, 1 << 14, "fast")
    reference = ReferenceFrame(spec, alice)
    first = reference.first()
    with pytest.raises(LocalProtocolError):
        reference.first()
    with pytest.raises(LocalProtocolError):
        reference.more(3)
    with pytest.raises(RemoteProtocolError, match="bits instead of"):
        CorrectingFrame(spec, bob).receive(1, first[:-1])
    with pytest.raises(RemoteProtocolError):
        CorrectingFrame(spec, bob).receive(2, first)
    with pytest.raises(LocalProtocolError):
        ReferenceFrame(spec, alice[:-1])
    with pytest.raises(RemoteProtocolError):
        FrameSpec(len(code_table()), 100, 0, 0)
    with pytest.raises(RemoteProtocolError):
        FrameSpec(0, 1 << 15, 0, 0)
    with pytest.raises(RemoteProtocolError):
        FrameSpec(0, 100, 5, 4)
    with pytest.raises(LocalProtocolError):
        choose_code(0.02, (1 << 20) + 1, "fast")


def test_a_flipped_message_never_gives_a_wrong_key(rng: np.random.Generator) -> None:
    """The 32-bit check drops a frame that decodes to something else."""
    alice, bob = keys(rng, 1 << 14, 0.02)
    spec = choose_code(0.025, 1 << 14, "fast")
    message = bytearray(ReferenceFrame(spec, alice).first())
    message[-1] ^= 1
    assert CorrectingFrame(spec, bob).receive(1, bytes(message)).status == "more"


@given(st.floats(0.0001, 0.3), st.integers(1, 1 << 20), st.sampled_from(["efficient", "balanced", "fast"]))
def test_every_choice_is_a_valid_frame(qber: float, n_bits: int, efficiency: Any) -> None:
    spec = choose_code(qber, n_bits, efficiency)
    assert spec.code.capacity_bits >= n_bits
    assert sum(spec.disclosed_bits(i) for i in range(4)) == spec.code.syndrome_bits + 32


def test_tracker_averages_long_and_forgets_fast() -> None:
    tracker = QberTracker(0.05)
    for _ in range(40):
        tracker.decoded(1 << 16, round(0.02 * (1 << 16)))
    assert tracker.qber == pytest.approx(0.02, rel=0.02)
    assert tracker.uncertainty < 0.006
    assert tracker.uncertainty_of_next < 0.01
    tracker.decoded(1 << 16, round(0.0207 * (1 << 16)))
    assert tracker.qber < 0.0202, "within the noise of one frame"
    tracker.decoded(1 << 16, round(0.03 * (1 << 16)))
    assert tracker.qber > 0.0299
    assert tracker.uncertainty > 0.02
    assert tracker.uncertainty_of_next > 0.4, "a rate that has jumped may jump again"
    before = tracker.qber
    tracker.failed(choose_code(tracker.qber, 1 << 16, "fast"))
    assert tracker.qber > before


def test_pair_counts_everything(rng: np.random.Generator) -> None:
    n_bits = (1 << 17) + 4321
    alice, bob = keys(rng, n_bits, 0.025)
    result = reconcile_pair(alice, bob, n_bits, frame_length_bits=1 << 15)
    assert result.frames == 2 + len(frame_lengths(n_bits - sum(LEAD_FRAMES_BITS), 1 << 15))
    assert result.frames_failed == 0
    assert result.kept == n_bits
    np.testing.assert_array_equal(result.alice, alice)
    np.testing.assert_array_equal(result.bob, alice)
    assert result.f_ec is not None
    assert 1.0 < result.f_ec < 1.35
    assert result.f_ec == result.f_ec_kept


def test_a_failed_frame_counts_in_full(rng: np.random.Generator) -> None:
    n_bits = 1 << 16
    alice = rng.integers(0, 256, n_bits // 8, dtype=np.uint8)
    errors = np.full(n_bits, 0.02).reshape(-1, 8)
    errors[spread(n_bits)[1 << 12 :]] = 0.15
    bob = alice ^ np.packbits(rng.random(errors.shape) < errors, axis=1, bitorder="little").reshape(-1)
    result = reconcile_pair(alice, bob, n_bits, frame_length_bits=1 << 15, qber=0.02)
    assert (result.frames, result.frames_failed) == (2, 1)
    assert result.kept == 1 << 15
    assert result.leak_ec_bits == result.leak_kept_bits + (1 << 15)
    np.testing.assert_array_equal(result.bob, result.alice)


def disclosed_over_limit(rng: np.random.Generator, kind: str) -> float:
    """Disclosed bits over what the mutual information demands: the mean of h over the rates that rule each bit."""
    n_bits = 1 << 20
    alice = rng.integers(0, 2, n_bits, dtype=np.uint8)
    chance = {
        "alike": np.full(n_bits, 0.026),
        "asymmetric": np.where(alice == 1, 0.033, 0.019),
        "wandering": 0.026 * (1 + 0.3 * np.sin(np.arange(n_bits) / n_bits * 2 * np.pi)),
    }[kind]
    bob = alice ^ (rng.random(n_bits) < chance)
    packed = [np.packbits(bits, bitorder="little") for bits in (alice, bob)]
    result = reconcile_pair(packed[0], packed[1], n_bits, frame_length_bits=1 << 17)
    np.testing.assert_array_equal(result.bob, packed[0])
    # As many errors as there were: the frames cannot know that there would be fewer or more on another day.
    chance = chance * result.qber / chance.mean()
    limit = float(np.mean(-chance * np.log2(chance) - (1 - chance) * np.log2(1 - chance)))
    return result.leak_ec_bits / n_bits / limit


def test_errors_that_are_not_alike_cost_what_they_must(rng: np.random.Generator) -> None:
    """One direction likelier than the other, or a rate that wanders by 30 %: at most 3 % above independent errors."""
    alike = disclosed_over_limit(rng, "alike")
    assert alike < 1.13
    assert disclosed_over_limit(rng, "asymmetric") < 1.03 * alike
    assert disclosed_over_limit(rng, "wandering") < 1.03 * alike


@pytest.mark.parametrize("frame_length_bits", [1 << 14, 1 << 18])
def test_a_key_with_bursts_ends_right_or_is_refused(rng: np.random.Generator, frame_length_bits: int) -> None:
    n_bits = 75_000
    alice = rng.integers(0, 2, n_bits, dtype=np.uint8)
    bob = alice ^ (rng.random(n_bits) < np.where(np.arange(n_bits) // 5000 % 3 == 1, 0.08, 0.01))
    packed = [np.packbits(bits, bitorder="little") for bits in (alice, bob)]
    result = reconcile_pair(packed[0], packed[1], n_bits, frame_length_bits=frame_length_bits)
    assert result.kept > 0
    np.testing.assert_array_equal(result.alice, result.bob)


def test_failed_frames_leave_the_rest_in_order(rng: np.random.Generator) -> None:
    """Bytes are spread over frames for decoding; the key that is left keeps the order of the detections."""
    n_bits = 40_003
    alice, bob = keys(rng, n_bits, 0.02)
    result = reconcile_pair(alice, bob, n_bits, frame_length_bits=1 << 13, qber=0.02)
    np.testing.assert_array_equal(result.alice, alice)
    np.testing.assert_array_equal(result.bob, alice)
    lost = np.zeros(alice.size, np.bool_)
    lost[spread(n_bits)[1024:2048]] = True
    bob[lost] ^= np.packbits(rng.random((int(lost.sum()), 8)) < 0.2, axis=1).reshape(-1)
    result = reconcile_pair(alice, bob, n_bits, frame_length_bits=1 << 13, qber=0.02)
    assert result.frames_failed >= 1
    assert result.kept < n_bits
    np.testing.assert_array_equal(result.alice, result.bob)
    # What is left is the reference key without some of its bytes.
    whole = iter(alice.tolist())
    assert all(byte in whole for byte in result.alice.tolist())


@given(st.integers(1, 100_000))
def test_every_byte_has_one_place(n_bits: int) -> None:
    places = spread(n_bits)
    np.testing.assert_array_equal(np.sort(places), np.arange((n_bits + 7) // 8))
    if n_bits % 8:
        assert places[-1] == n_bits // 8


@given(st.integers(1 << 12, 1 << 20))
def test_windows_hold_whole_frames_of_the_length_wished(frame_length_bits: int) -> None:
    lengths = frame_lengths(window_bits(frame_length_bits), frame_length_bits)
    assert all(length % 8 == 0 for length in lengths)
    assert all(abs(length - frame_length_bits) <= 16 for length in lengths)
    assert len(lengths) >= 4


@given(st.integers(1, 6 << 18), st.integers(1 << 9, 1 << 17).map(lambda n: 8 * n))
def test_no_frame_needs_a_larger_code_than_asked_for(n_bits: int, frame_length_bits: int) -> None:
    lengths = frame_lengths(n_bits, frame_length_bits)
    assert sum(lengths) == n_bits
    assert all(length % 8 == 0 for length in lengths[:-1])
    assert max(lengths) <= frame_length_bits
    assert min(lengths) >= min(n_bits, frame_length_bits // 2 - 8 * len(lengths))


def test_bad_pairs_are_refused(rng: np.random.Generator) -> None:
    alice, bob = keys(rng, 10_000, 0.5)
    with pytest.raises(InputError, match="differ in") as caught:
        reconcile_pair(alice, bob, 10_000)
    assert "inverted" in caught.value.remedy
    with pytest.raises(InputError, match="empty"):
        reconcile_pair(alice[:0], bob[:0], 0)
    with pytest.raises(InputError, match="bytes each"):
        reconcile_pair(alice, bob[:-1], 10_000)
    assert HIGHEST_QBER < 0.5


def test_outcomes_do_not_show_bits(rng: np.random.Generator) -> None:
    alice, bob = keys(rng, 4096, 0.02)
    result = reconcile_pair(alice, bob, 4096, qber=0.02)
    assert "array" not in repr(result)


def test_frames_without_errors_leave_a_rate_that_can_still_be_learned() -> None:
    """A perfect channel, or a peer that says so: the estimate stays above 0, and the next frame is not a fault."""
    tracker = QberTracker(0.03)
    for _ in range(3):
        tracker.decoded(1 << 18, 0)
    assert 0.0 < tracker.qber < 1e-4
    tracker.decoded(1 << 18, 5000)
    assert tracker.qber == pytest.approx(5000 / (1 << 18), rel=0.01)


def test_every_bit_is_counted_and_a_dropped_frame_in_full() -> None:
    disclosed = DisclosedBits()
    for number, payload in ((0, b"12345"), (1, b"1"), (0, b"")):
        disclosed.parities(number, payload)
        disclosed.result(number)
    assert (disclosed.of(0), disclosed.of(1), disclosed.of(2)) == (40 + 2 * RESULT_BITS, 8 + RESULT_BITS, 0)
    disclosed.dropped(0, 40)
    assert disclosed.total == 48 + 3 * RESULT_BITS, "more was said of it than it has bits"
    disclosed.dropped(1, 1000)
    assert disclosed.total == 40 + 2 * RESULT_BITS + 1000
