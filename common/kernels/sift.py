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
def gather_symbols(
    slots: Int64s,
    first_slot: int,
    basis_words: Words,
    bit_words: Words,
    intensity_planes: Words,
    out_symbols: Bytes8,
    out_intensities: Bytes8,
) -> None:
    """Look up Alice's symbols of the announced slots in her packed planes.

    Parameters
    ----------
    slots : *(n,) int64*, each in ``first_slot .. first_slot + 64 n_words - 1`` (the caller has checked).
    basis_words, bit_words : *(n_words,) uint64*; intensity_planes : *(planes, n_words) uint64*.
    out_symbols, out_intensities : *(n,) uint8*: symbol code 2 basis + bit, and intensity index.
    """
    planes = intensity_planes.shape[0]
    for i in range(slots.size):
        at = slots[i] - first_slot
        word = at >> 6
        shift = np.uint64(at & 63)
        one = np.uint64(1)
        basis = (basis_words[word] >> shift) & one
        bit = (bit_words[word] >> shift) & one
        out_symbols[i] = np.uint8(basis + basis + bit)
        level = np.uint64(0)
        for plane in range(planes):
            level |= ((intensity_planes[plane, word] >> shift) & one) << np.uint64(plane)
        out_intensities[i] = np.uint8(level)


@njit(cache=True, nogil=True)
def match_z(bases: Bytes8, symbols: Bytes8, out_mask: Bytes8, out_key: Bytes8) -> tuple[int, int]:
    """Alice's side: which Z detections came from a Z symbol, and her key bits of those.

    Parameters
    ----------
    bases, symbols : *(n,) uint8*: Bob's basis (0 = Z, 1 = X), Alice's symbol code.
    out_mask : *(>= ceil(n_z / 8),) uint8*, zeroed: one bit per Z detection, 1 = kept.
    out_key : *(>= ceil(n_z / 8),) uint8*, zeroed: Alice's bit of each kept detection.

    Returns
    -------
    (int, int) : number of Z detections, number kept.
    """
    measured = 0
    kept = 0
    for i in range(bases.size):
        if bases[i] == 0:
            if symbols[i] < 2:
                out_mask[measured >> 3] |= np.uint8(1 << (measured & 7))
                out_key[kept >> 3] |= np.uint8(symbols[i] << np.uint8(kept & 7))
                kept += 1
            measured += 1
    return measured, kept


@njit(cache=True, nogil=True)
def keep_z(bases: Bytes8, bits: Bytes8, mask: Bytes8, out_key: Bytes8) -> int:
    """Bob's side: his key bits of the Z detections whose mask bit is set.

    Parameters
    ----------
    bases, bits : *(n,) uint8*; mask : *(>= ceil(n_z / 8),) uint8*; out_key : as in :func:`match_z`.

    Returns
    -------
    int : number of bits kept.
    """
    measured = 0
    kept = 0
    for i in range(bases.size):
        if bases[i] == 0:
            if (mask[measured >> 3] >> np.uint8(measured & 7)) & np.uint8(1):
                out_key[kept >> 3] |= np.uint8(bits[i] << np.uint8(kept & 7))
                kept += 1
            measured += 1
    return kept


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
