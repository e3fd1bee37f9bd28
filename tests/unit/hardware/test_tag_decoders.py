"""Time-tag decoders against their slow twins, whole and in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.formats import decoders, reference_decoders

LIMIT = 1 << 61
CUTS = st.integers(1, 4)


def hydraharp_records() -> st.SearchStrategy[list[int]]:
    time = st.integers(0, (1 << 25) - 1)
    kinds = st.one_of(st.integers(0, 63), st.just(64), st.just(127), st.integers(65, 79), st.integers(80, 126))
    return st.lists(st.builds(lambda kind, time: kind << 25 | time, kinds, time), max_size=60)


def in_pieces(records: list[int], cuts: int, decode) -> tuple[list[tuple[int, int]], np.ndarray, int | None]:
    state = np.zeros(decoders.T2_STATE_SIZE, np.int64)
    tags: list[tuple[int, int]] = []
    first_illegal = None
    done = 0
    for part in np.array_split(np.array(records, np.uint32), cuts):
        times, channels = np.empty(part.size, np.int64), np.empty(part.size, np.uint8)
        state[decoders.FIRST_ILLEGAL] = -1
        n = decode(part, state, times, channels)
        tags += zip(times[:n].tolist(), channels[:n].tolist(), strict=True)
        if first_illegal is None and state[decoders.FIRST_ILLEGAL] >= 0:
            first_illegal = done + int(state[decoders.FIRST_ILLEGAL])
        done += part.size
    return tags, state, first_illegal


@given(hydraharp_records(), CUTS, st.sampled_from([1, 5, 25]), st.booleans())
def test_hydraharp_is_its_slow_twin(records: list[int], cuts: int, scale_ps: int, counted: bool) -> None:
    wrap = 1 << 25 if counted else 33_552_000

    def decode(*arrays):
        return decoders.decode_hydraharp_t2(arrays[0], wrap, counted, scale_ps, LIMIT, *arrays[1:])

    tags, state, first_illegal = in_pieces(records, cuts, decode)
    expected, overflows, markers, illegal = reference_decoders.decode_hydraharp_t2(records, wrap, counted, scale_ps)
    assert tags == expected
    assert (state[decoders.OVERFLOWS], state[decoders.MARKERS]) == (overflows, markers)
    assert state[decoders.WRAPPED] == overflows * wrap
    assert (state[decoders.ILLEGAL], first_illegal) == (len(illegal), illegal[0] if illegal else None)


@given(st.lists(st.integers(0, 2**32 - 1) | st.just(15 << 28), max_size=60), CUTS)
def test_picoharp_is_its_slow_twin(records: list[int], cuts: int) -> None:
    def decode(*arrays):
        return decoders.decode_picoharp_t2(arrays[0], 4, LIMIT, *arrays[1:])

    tags, state, first_illegal = in_pieces(records, cuts, decode)
    expected, overflows, markers, illegal = reference_decoders.decode_picoharp_t2(records, 4)
    assert tags == expected
    assert (state[decoders.OVERFLOWS], state[decoders.MARKERS]) == (overflows, markers)
    assert (state[decoders.ILLEGAL], first_illegal) == (len(illegal), illegal[0] if illegal else None)


def test_overflows_beyond_measure_are_an_illegal_record_and_do_not_wrap_around() -> None:
    records = [127 << 25 | (1 << 25) - 1] * 5 + [0]

    def decode(*arrays):
        return decoders.decode_hydraharp_t2(arrays[0], 1 << 25, True, 1, 1 << 51, *arrays[1:])

    tags, state, first_illegal = in_pieces(records, 1, decode)
    assert first_illegal == 2
    assert tags == [(1 << 51, 1)]
    assert state[decoders.ILLEGAL] == 3


@given(
    st.lists(st.tuples(st.integers(0, 1 << 60), st.integers(0, 64)), max_size=40),
    CUTS,
)
def test_encoding_is_the_inverse_of_decoding(tags: list[tuple[int, int]], cuts: int) -> None:
    tags = sorted(tags, key=lambda tag: tag[0])
    times, channels = np.array([t for t, _ in tags], np.int64), np.array([c for _, c in tags], np.uint8)
    wrapped, records = 0, []
    for part in np.array_split(np.arange(times.size), cuts):
        out = np.empty(decoders.records_needed(times[part], wrapped), np.uint32)
        n, wrapped = decoders.encode_hydraharp_t2(times[part], channels[part], wrapped, out)
        assert n == out.size
        records += out.tolist()
    assert reference_decoders.decode_hydraharp_t2(records, 1 << 25, True, 1)[0] == tags


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.booleans(), CUTS)
def test_a1_is_its_slow_twin(events: list[int], high_first: bool, cuts: int) -> None:
    state = np.zeros(decoders.A1_STATE_SIZE, np.int64)
    tags: list[tuple[int, int]] = []
    for part in np.array_split(np.array(events, np.uint64), cuts):
        words = part.view(np.uint32).reshape(-1, 2)
        words = np.ascontiguousarray(words[:, ::-1] if high_first else words).ravel()
        times, channels = np.empty(4 * part.size + 4, np.int64), np.empty(4 * part.size + 4, np.uint8)
        n = decoders.decode_a1(words, high_first, state, times, channels)
        tags += zip(times[:n].tolist(), channels[:n].tolist(), strict=True)
    assert tags == reference_decoders.decode_a1(events)
    assert state[decoders.A1_DUMMIES] == sum(event >> 4 & 1 for event in events)


@pytest.mark.parametrize("size", [0, 1, 2, 511, 512, 513, 514, 1500])
def test_first_descent_at_every_place(size: int) -> None:
    times = np.arange(size, dtype=np.int64)
    assert decoders.first_descent(times, 0) == -1
    for at in range(0, size, 97):
        bent = times.copy()
        bent[at] = -1
        assert decoders.first_descent(bent, 0) == reference_decoders.first_descent(bent.tolist(), 0) == at


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 20))
def test_keeping_the_order_drops_what_came_late(times: list[int], floor_ps: int) -> None:
    channels = [i % 4 for i in range(len(times))]
    out = np.empty(len(times), np.int64), np.empty(len(times), np.uint8)
    n = decoders.keep_ascending(np.array(times, np.int64), np.array(channels, np.uint8), floor_ps, *out)
    kept = list(zip(out[0][:n].tolist(), out[1][:n].tolist(), strict=True))
    assert kept == reference_decoders.keep_ascending(times, channels, floor_ps)
