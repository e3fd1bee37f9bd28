"""Verification: a universal hash over the whole reconciled block decides whether both ends hold the same string.

Poly1305 with a fresh public point r and s = 0, sent only once both strings are fixed. Source: Bernstein 2005 (the bound
8 ceil(L/16) / 2^106 for messages of at most L bytes); ours, decision 24 (the length is part of the message).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305
from numpy.typing import NDArray

from common.datatypes import ReconciledKey, VerifiedKey
from common.errors import DeviceError, LocalProtocolError, RemoteProtocolError
from common.keybits import KeyBits

#: The tag is sent in the clear.
leak_verify_bits = 128
POINT_BYTES = 16
_LENGTH_BYTES = 8
_CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
"""Bits of a point that Poly1305 uses (RFC 8439, 2.5)."""
_TRIES = 4


def usable_point(r: bytes) -> bool:
    """Whether a point tells strings apart: with one whose used bits are all zero every string has the same tag."""
    return int.from_bytes(r, "little") & _CLAMP != 0


def draw_point(random_bytes: Callable[[int], NDArray[np.uint8]]) -> bytes:
    """A fresh usable point, drawn again in the 2^-106 of cases where it would not be.

    Raises
    ------
    DeviceError
        Never usable: the random source is broken.
    """
    for _ in range(_TRIES):
        if usable_point(point := random_bytes(POINT_BYTES).tobytes()):
            return point
    raise DeviceError(f"the random source gave no usable point of the verification hash in {_TRIES} tries")


def verification_tag(packed_key: bytes | NDArray[np.uint8], n_bits: int, r: bytes) -> bytes:
    """Tag of a key.

    Parameters
    ----------
    packed_key : ceil(n_bits / 8) bytes or *(ceil(n_bits / 8),) uint8*, bits beyond ``n_bits`` zero.
    n_bits : length, bound into the tag.
    r : 16 fresh random bytes, public, drawn after both keys are fixed.

    Returns
    -------
    16 bytes.

    Security
    --------
    Leaks ``leak_verify_bits``. Different keys of equal length agree with probability at most `eps_verify` of
    `common/security/budget.py`.
    """
    view = np.frombuffer(packed_key, np.uint8).data
    if len(view) != (n_bits + 7) // 8:
        raise LocalProtocolError(f"a key of {n_bits} bits has {(n_bits + 7) // 8} bytes, not {len(view)}")
    if len(r) != POINT_BYTES:
        raise RemoteProtocolError(f"the point of the verification hash has {len(r)} bytes instead of {POINT_BYTES}")
    if not usable_point(r):
        raise RemoteProtocolError("the point of the verification hash is 0: every string would have the same tag")
    hash = Poly1305(r + bytes(16))
    hash.update(n_bits.to_bytes(_LENGTH_BYTES, "little"))
    hash.update(view)
    return hash.finalize()


def verified_key(key: ReconciledKey) -> VerifiedKey:
    """The same bits as a verified key, once the tags of both ends are known to agree; the bits move into it."""
    n_bits = key.bits.n_bits
    return VerifiedKey(key.block_id, KeyBits(key.bits.take(), n_bits), key.leak_ec_bits, leak_verify_bits)
