"""What the jobs of a block compute: pure functions of arrays and plain values. Those of frames stand in `frame.py`.

Each has a name in this module and takes nothing but its arguments, so a job can be pickled, timed, repeated, and done
in another process. Secret bits are bare packed arrays here, since :class:`common.keybits.KeyBits` refuses to be copied:
the story that made the job owns them, and overwrites them.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from common.datatypes import Bytes8, Detections
from common.errors import RemoteProtocolError
from common.keybits import KeyBits
from common.postprocessing.amplification import seed_fault, universal_hash
from common.postprocessing.sifting import Announcement, SiftedChunk, alice_sift, bob_sift, encode_announcement
from common.postprocessing.verification import verification_tag

Packed = NDArray[np.uint8]
Seed8 = Packed | tuple[bytes, ...]
"""A packed seed, whole or in the parts in which it came."""
Share = tuple[Packed, int, NDArray[np.int64], NDArray[np.int64]]
"""A :class:`SiftedChunk` as arrays: packed bits, their number, ``n_z``, ``x_counts``."""


def nothing() -> None:
    """Take a turn in a lane: others may speak in between."""


# -- 7 sift -----------------------------------------------------------------------------------------------------------


def announcement(batches: tuple[Detections, ...]) -> tuple[Detections, bytes]:
    """Contiguous batches as one chunk, and what Alice is told of it."""
    chunk = Detections.join(batches)
    return chunk, encode_announcement(chunk)


def sift_at_alice(
    heard: Announcement, bases: Bytes8, bits: Bytes8, levels: Bytes8 | None
) -> tuple[tuple[int, int, int], bytes, Share]:
    """(detections, cross-basis slots, double clicks) of an announcement, Alice's reply to it, and her share."""
    reply, sifted = alice_sift(heard.bases, heard.x_bits, bases, bits, levels)
    counts = int(heard.slots.size), int(heard.cross_slots.size), heard.double_clicks
    return counts, reply, _share(sifted)


def sift_at_bob(announced: Detections, reply: bytes, intensities: bool) -> tuple[Share, int]:
    """Bob's share of a chunk, and how many of its bits are 1."""
    sifted = bob_sift(announced, reply, intensities=intensities)
    ones = sifted.ones()
    return _share(sifted), ones


def _share(sifted: SiftedChunk) -> Share:
    n_bits = sifted.bits.n_bits
    return sifted.bits.take(), n_bits, sifted.n_z, sifted.x_counts


def sifted_chunk(share: Share) -> SiftedChunk:
    """A share under guard again."""
    packed, n_bits, n_z, x_counts = share
    return SiftedChunk(KeyBits(packed, n_bits), n_z, x_counts)


# -- 9 verify ---------------------------------------------------------------------------------------------------------


def join_and_tag(parts: tuple[Packed, ...], n_bits: int, point: bytes) -> tuple[Packed, bytes, bytes]:
    """(the reconciled key, the point, the key's tag at it); only the last part may be no whole number of bytes."""
    joined = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return joined, point, verification_tag(joined, n_bits, point)


# -- 11 amplify -------------------------------------------------------------------------------------------------------


def hash_with(
    seed: Seed8, seed_bits: int, packed: Packed, n_bits: int, ell_bits: int, family: str
) -> tuple[Packed, str]:
    """(the secret key, SHA-256 of the seed).

    Raises
    ------
    RemoteProtocolError
        This is no seed of this many bits.
    """
    whole = np.frombuffer(b"".join(seed), np.uint8) if isinstance(seed, tuple) else seed
    if (fault := seed_fault(whole, seed_bits)) is not None:
        raise RemoteProtocolError(fault)
    secret = universal_hash(family, packed, n_bits, whole, ell_bits)
    return secret, hashlib.sha256(whole.data).hexdigest()
