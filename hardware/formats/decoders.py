"""Decoders and encoders of binary time-tag records: numba kernels; the slow twins are in `reference_decoders.py`.

Sources: PicoQuant, TTTR record layouts ("Time-Tagged-File-Format-Demos"); S-Fifteen Instruments, timestamp7 "a1" events
as read by fpfind: a word counts 1/256 ns in its upper 54 bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Bytes8 = NDArray[np.uint8]
Words = NDArray[np.uint32]

# Indices into the running state of a T2 decoder, one int64 array carried from chunk to chunk.
WRAPPED = 0
OVERFLOWS = 1
MARKERS = 2
ILLEGAL = 3
FIRST_ILLEGAL = 4
T2_STATE_SIZE = 5

TIME_BITS = 25
TIME_MASK = (1 << TIME_BITS) - 1
PICOHARP_TIME_MASK = (1 << 28) - 1
OVERFLOW_CHANNEL = 63
RUN = 16
"""Records looked at together."""
LAST_MARKER = 15
PICOHARP_SPECIAL = 15
PICOHARP_LAST_CHANNEL = 4
PICOHARP_WRAP = 210_698_240

# Indices into the running state of the a1 decoder.
A1_TURNS = 0
A1_LAST = 1
A1_DUMMIES = 2
A1_STATE_SIZE = 3
A1_TURN = 1 << 54
A1_MOST_TURNS = 100
"""81 days; more would leave int64."""
A1_DUMMY_BIT = 16


@njit(cache=True, nogil=True)
def first_descent(times_ps: Int64s, floor_ps: int) -> int:
    """Index of the first time below its predecessor (``floor_ps`` before the first), or -1."""
    if times_ps.size == 0:
        return -1
    if times_ps[0] < floor_ps:
        return 0
    start = 1
    while start < times_ps.size:
        end = min(start + 512, times_ps.size)
        descents = 0
        for i in range(start, end):
            descents += times_ps[i] < times_ps[i - 1]
        if descents:
            for i in range(start, end):
                if times_ps[i] < times_ps[i - 1]:
                    return i
        start = end
    return -1


@njit(cache=True, nogil=True)
def keep_ascending(
    times_ps: Int64s, channels: Bytes8, floor_ps: int, out_times_ps: Int64s, out_channels: Bytes8
) -> int:
    """Drop every tag below the latest time so far; returns how many are kept."""
    kept = 0
    latest = floor_ps
    for i in range(times_ps.size):
        if times_ps[i] >= latest:
            latest = times_ps[i]
            out_times_ps[kept] = times_ps[i]
            out_channels[kept] = channels[i]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def decode_hydraharp_t2(
    records: Words, wrap: int, counted: bool, scale_ps: int, limit: int, state: Int64s, out_times: Int64s, out: Bytes8
) -> int:
    """T2 records of the HydraHarp family: bit 31 special, bits 30..25 channel, bits 24..0 time.

    Not special: input ``channel + 1``. Special: channel 0 sync (given as 0), 1..15 marker (counted, not given), 63
    overflow by ``wrap``, times the record's time where ``counted`` and not 0; anything else is illegal.

    Parameters
    ----------
    records : *(n,) uint32*; wrap : units; scale_ps : ps a unit; limit : units that the running overflow must not pass.
    state : *(T2_STATE_SIZE,) int64*, carried from call to call; ``FIRST_ILLEGAL`` is -1 while there is none.
    out_times, out : *(>= n,) int64, uint8*, ps and channels.

    Returns
    -------
    int : tags written.
    """
    written = 0
    wrapped = state[WRAPPED]
    i = 0
    while i < records.size:
        if i + RUN <= records.size:  # nearly always a run of plain inputs: no branch inside, so it becomes vector code
            special = np.uint32(0)
            for k in range(RUN):
                special |= records[i + k]
            if special >> 31 == 0:
                for k in range(RUN):
                    record = records[i + k]
                    out_times[written + k] = (wrapped + np.int64(record & TIME_MASK)) * scale_ps
                    out[written + k] = (record >> TIME_BITS) + 1
                written += RUN
                i += RUN
                continue
        for j in range(i, min(i + RUN, records.size)):
            word = np.int64(records[j])
            channel = word >> TIME_BITS
            time = word & TIME_MASK
            if channel <= 64:  # an input, or sync (64: the special bit above channel 0)
                out_times[written] = (wrapped + time) * scale_ps
                out[written] = channel + 1 if channel < 64 else 0
                written += 1
            elif channel == 64 + OVERFLOW_CHANNEL:
                turns = time if counted and time > 0 else np.int64(1)
                state[OVERFLOWS] += turns
                wrapped += wrap * turns
                if wrapped > limit:
                    wrapped = limit
                    state[ILLEGAL] += 1
                    if state[FIRST_ILLEGAL] < 0:
                        state[FIRST_ILLEGAL] = j
            elif channel <= 64 + LAST_MARKER:
                state[MARKERS] += 1
            else:
                state[ILLEGAL] += 1
                if state[FIRST_ILLEGAL] < 0:
                    state[FIRST_ILLEGAL] = j
        i += RUN
    state[WRAPPED] = wrapped
    return written


@njit(cache=True, nogil=True)
def decode_picoharp_t2(records: Words, scale_ps: int, limit: int, state: Int64s, out_times: Int64s, out: Bytes8) -> int:
    """T2 records of the PicoHarp 300: bits 31..28 channel (0..4), bits 27..0 time; channel 15 marker or overflow.

    Parameters and result as in :func:`decode_hydraharp_t2`; channels are given as they are.
    """
    written = 0
    wrapped = state[WRAPPED]
    for i in range(records.size):
        record = np.int64(records[i])
        channel = record >> 28
        time = record & PICOHARP_TIME_MASK
        if channel <= PICOHARP_LAST_CHANNEL:
            out_times[written] = (wrapped + time) * scale_ps
            out[written] = channel
            written += 1
        elif channel == PICOHARP_SPECIAL and time & 15 != 0:
            state[MARKERS] += 1
        else:
            bad = channel != PICOHARP_SPECIAL
            if not bad:
                state[OVERFLOWS] += 1
                wrapped += PICOHARP_WRAP
                bad = wrapped > limit
                wrapped = min(wrapped, limit)
            if bad:
                state[ILLEGAL] += 1
                if state[FIRST_ILLEGAL] < 0:
                    state[FIRST_ILLEGAL] = i
    state[WRAPPED] = wrapped
    return written


@njit(cache=True, nogil=True)
def encode_hydraharp_t2(times: Int64s, channels: Bytes8, wrapped: int, out: Words) -> tuple[int, int]:
    """The inverse of :func:`decode_hydraharp_t2` with counted overflows and a unit of 1 ps.

    Parameters
    ----------
    times : *(n,) int64*, ascending; channels : *(n,) uint8*, 0..64; wrapped : ps of all overflow records so far.
    out : uint32, room for :func:`records_needed`.

    Returns
    -------
    (int, int) : records written, ``wrapped`` for the next call.
    """
    written = 0
    for i in range(times.size):
        missing = (times[i] - wrapped) >> TIME_BITS
        while missing > 0:
            step = min(missing, np.int64(TIME_MASK))
            out[written] = np.uint32((64 + OVERFLOW_CHANNEL) << TIME_BITS | step)
            written += 1
            wrapped += step << TIME_BITS
            missing -= step
        channel = np.int64(channels[i])
        head = channel - 1 if channel > 0 else np.int64(64)
        out[written] = np.uint32(head << TIME_BITS | (times[i] - wrapped))
        written += 1
    return written, wrapped


@njit(cache=True, nogil=True)
def records_needed(times: Int64s, wrapped: int) -> int:
    """Records that :func:`encode_hydraharp_t2` will write."""
    needed = times.size
    for i in range(times.size):
        missing = (times[i] - wrapped) >> TIME_BITS
        if missing > 0:
            needed += int(missing + TIME_MASK - 1) // TIME_MASK
            wrapped += int(missing) << TIME_BITS
    return needed


@njit(cache=True, nogil=True)
def decode_a1(words: Words, high_first: bool, state: Int64s, out_times: Int64s, out: Bytes8) -> int:
    """S-Fifteen events: one tag for every detector bit of an event; times in ps from units of 1/256 ns, rounded.

    Bit 4 marks a dummy event (no click). The counter turns over after 2^54 units (19.5 h) and is followed.

    Parameters
    ----------
    words : *(2 n,) uint32*, two an event; high_first : the upper word comes first ("legacy").
    state : *(A1_STATE_SIZE,) int64*, carried from call to call.
    out_times, out : *(>= 4 n,) int64, uint8*, ps and detector 0..3.

    Returns
    -------
    int : tags written.
    """
    written = 0
    turns = state[A1_TURNS]
    last = state[A1_LAST]
    high_at = 0 if high_first else 1
    for i in range(words.size // 2):
        high = np.int64(words[2 * i + high_at])
        low = np.int64(words[2 * i + 1 - high_at])
        if low & A1_DUMMY_BIT:
            state[A1_DUMMIES] += 1
            continue
        units = high << 22 | low >> 10
        if last - units > A1_TURN // 2:
            turns = min(turns + 1, A1_MOST_TURNS)
        last = units
        # 1/256 ns = 125/32 ps; whole turns are 125 * 2^49 ps.
        time = turns * (125 << 49) + ((units * 125 + 16) >> 5)
        for detector in range(4):  # without a branch: a tag that is not one is overwritten by the next
            out_times[written] = time
            out[written] = detector
            written += int(low >> detector & 1)
    state[A1_TURNS] = turns
    state[A1_LAST] = last
    return written
