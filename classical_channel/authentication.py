"""Wegman-Carter authentication of each direction's transcript: Poly1305 as the universal hash, one-time pads on top.

Poly1305 with key r||s is h_r(M) + s mod 2^128. We keep r for some tags (`keypool`) and take a fresh s for every tag, so
a tag over a transcript of L bytes is forged with probability at most 8 ceil(L/16) / 2^106.
Source: RFC 8439; Wegman and Carter 1981; Portmann, arXiv:1202.1229 (recycling r with one-time pads).
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.poly1305 import Poly1305

from common.errors import LocalProtocolError
from common.security.budget import LARGEST_TRANSCRIPT_BYTES, eps_hash

TAG_BYTES = 16
HASH_KEY_BYTES = 16
PAD_BYTES = 16


class TranscriptHash:
    """h_r of one transcript, streaming.

    Parameters
    ----------
    hash_key : the secret r under which this transcript is hashed, 16 bytes.
    """

    def __init__(self, hash_key: bytes) -> None:
        self._hash = Poly1305(hash_key + bytes(PAD_BYTES))
        self.n_bytes = 0

    def update(self, data: bytes) -> None:
        """Append to the transcript.

        Raises
        ------
        LocalProtocolError
            It would be longer than what every bound in this project allows for.
        """
        self.n_bytes += len(data)
        if self.n_bytes > LARGEST_TRANSCRIPT_BYTES:
            raise LocalProtocolError(f"a transcript of more than {LARGEST_TRANSCRIPT_BYTES} bytes was to be sealed")
        self._hash.update(data)

    def finish(self, pad: bytes) -> bytes:
        """The tag h_r(M) + pad mod 2^128. ``pad`` is used for this one tag only."""
        value = int.from_bytes(self._hash.finalize(), "little") + int.from_bytes(pad, "little")
        return (value % (1 << 128)).to_bytes(TAG_BYTES, "little")

    def __repr__(self) -> str:
        return f"TranscriptHash({self.n_bytes} bytes)"


def equal_tags(ours: bytes, theirs: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(ours, theirs)


def eps_tag(transcript_bytes: int) -> float:
    """Forgery probability of one tag over a transcript of this length."""
    return eps_hash(transcript_bytes)
