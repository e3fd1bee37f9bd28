"""Sifting and bit-string kernels: compare Bob's bases with Alice's symbols, pack what remains, count what is public.

Bits are packed least first: bit ``i`` is bit ``i % 8`` of byte ``i // 8``. Symbol codes: 0 = H, 1 = V, 2 = R, 3 = L.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Bytes8 = NDArray[np.uint8]
Words = NDArray[np.uint64]


@njit(cache=True, nogil=True)
def split_alice(
    bases: Bytes8, prepared_bases: Bytes8, prepared_bits: Bytes8, out_mask: Words, out_key: Words, out_symbols: Bytes8
) -> tuple[np.int64, np.int64]:
    """Alice's side: which Z detections came from a Z symbol, her key bits of those, and her symbols of X detections.

    Parameters
    ----------
    bases, prepared_bases, prepared_bits : *(n,) uint8*: Bob's basis (0 = Z, 1 = X), her basis and her bit.
    out_mask : *(>= n // 64 + 1,) uint64*: one bit per Z detection, 1 = kept; zero above.
    out_key : *(>= n // 64 + 1,) uint64*: Alice's bit of each kept detection; zero above.
    out_symbols : *(>= n + 1,) uint8*: symbol code of each X detection.

    Returns
    -------
    (int, int) : number of Z detections, number kept.
    """
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    mask, key = np.uint64(0), np.uint64(0)
    measured, kept, checked = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(bases.size):
        in_x = np.uint64(bases[i])
        in_z = one - in_x
        keep = in_z & (one - np.uint64(prepared_bases[i]))
        out_symbols[checked] = (prepared_bases[i] << np.uint8(1)) | prepared_bits[i]
        checked += in_x
        mask |= keep << (measured & low)
        out_mask[measured >> six] = mask
        measured += in_z
        key |= (keep & np.uint64(prepared_bits[i])) << (kept & low)
        out_key[kept >> six] = key
        kept += keep
        if in_z and measured & low == np.uint64(0):
            mask = np.uint64(0)
        if keep and kept & low == np.uint64(0):
            key = np.uint64(0)
    return np.int64(measured), np.int64(kept)


@njit(cache=True, nogil=True)
def split_bob(bases: Bytes8, bits: Bytes8, mask: Bytes8, out_key: Words, out_outcomes: Bytes8) -> np.int64:
    """Bob's side: his key bits of the Z detections whose mask bit is set, and the outcomes of his X detections.

    Parameters
    ----------
    bases, bits : *(n,) uint8*; mask : *(>= n // 8 + 1,) uint8*.
    out_key, out_outcomes : as in :func:`split_alice`.

    Returns
    -------
    int : number of bits kept.
    """
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    key = np.uint64(0)
    measured, kept, checked = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(bases.size):
        in_x = np.uint64(bases[i])
        in_z = one - in_x
        out_outcomes[checked] = bits[i]
        checked += in_x
        keep = in_z & (np.uint64(mask[measured >> np.uint64(3)]) >> (measured & np.uint64(7)))
        measured += in_z
        key |= (keep & np.uint64(bits[i])) << (kept & low)
        out_key[kept >> six] = key
        kept += keep
        if keep and kept & low == np.uint64(0):
            key = np.uint64(0)
    return np.int64(kept)


@njit(cache=True, nogil=True)
def count_x(symbols: Bytes8, outcomes: Bytes8, intensities: Bytes8, out_counts: Int64s) -> None:
    """Add X detections, *(m,) uint8* each, to ``out_counts`` *(intensities, 4 symbols, 2 outcomes) int64*."""
    for i in range(symbols.size):
        out_counts[intensities[i], symbols[i], outcomes[i]] += 1


@njit(cache=True, nogil=True)
def copy_bits(source: Bytes8, source_start: int, n_bits: int, target: Bytes8, target_start: int) -> None:
    """Copy a run of packed bits between byte arrays at any alignment.

    Parameters
    ----------
    source, target : *uint8*, not overlapping; target bits at and above ``target_start`` are zero on entry up to the
        end of the last byte written, and stay zero above the run.
    source_start, target_start, n_bits : bit positions and length.
    """
    done = 0
    while done < n_bits:
        at = target_start + done
        room = 8 - (at & 7)
        take = min(room, n_bits - done)
        position = source_start + done
        byte = position >> 3
        shift = position & 7
        value = np.int64(source[byte]) >> shift
        if shift + take > 8:
            value |= np.int64(source[byte + 1]) << (8 - shift)
        value &= (1 << take) - 1
        target[at >> 3] |= np.uint8(value << (at & 7))
        done += take
