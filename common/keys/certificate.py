"""The key certificate: everything that makes the length of one block's key believable, signed, without any of the key.

A certificate is one JSON document. Its signature (Ed25519) covers every other field in canonical form; the ledger in it
holds the tallies, settings and bounds from which `common/auditor` computes the length again. Source: ours, decision
43; the arithmetic is `common/security/README.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.keys.life import Life
from common.security.finite_key import Ledger

FORMAT = "qkd-node key certificate"
VERSION = 2
TAG_BITS = 128
TAGS_PER_BLOCK = 4
"""FIXED, PREPARED, COMMIT and COMMITTED: the sealed messages of a block that produces key."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who says it, of which block."""

    software: str
    link: str
    role: str
    block_id: int
    simulated: bool


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What error correction met: counts of both ends, nothing secret."""

    detections: int
    frames: int
    frames_failed: int
    errors_corrected: int


@dataclass(frozen=True, slots=True)
class Amplification:
    """The hash that was used: family, sizes, and the digest of its public seed."""

    family: str
    input_bits: int
    secret_bits: int
    seed_bits: int
    seed_sha256: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """SHA-256 of each direction's messages of this block, in order, up to the seed and the verdict of verification."""

    alice_to_bob_sha256: str
    bob_to_alice_sha256: str


def authentication(secret_bits: int, bits_earned: int) -> dict[str, int]:
    """One-time pad spent on this block's tags, key put by for later tags, and what the block adds on balance."""
    spent = TAG_BITS * TAGS_PER_BLOCK
    return {
        "tags": TAGS_PER_BLOCK,
        "bits_spent": spent,
        "bits_earned": bits_earned,
        "application_bits": secret_bits - bits_earned,
        "net_key_bits": secret_bits - spent,
    }


def certificate(
    provenance: Provenance,
    ledger: Ledger,
    reconciliation: Reconciliation,
    amplification: Amplification,
    bits_earned: int,
    transcript: Transcript,
    randomness: Mapping[str, Mapping[str, Mapping[str, str]]],
    life: Life,
    signer: Ed25519PrivateKey | None,
) -> str:
    """The signed document; without a signer it says so and is not valid.

    Parameters
    ----------
    randomness : role -> use -> `class` and `source` of its random numbers, as each end said in the handshake.
    life : what this end has counted for the link, with this block.
    """
    body: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        **asdict(provenance),
        "ledger": json.loads(ledger.to_json()),
        "reconciliation": asdict(reconciliation),
        "amplification": asdict(amplification),
        "authentication": authentication(amplification.secret_bits, bits_earned),
        "transcript": asdict(transcript),
        "randomness": randomness,
        "life": asdict(life),
        "public_key": signer.public_key().public_bytes_raw().hex() if signer is not None else "",
    }
    body["signature"] = signer.sign(signed_bytes(body)).hex() if signer is not None else ""
    return json.dumps(body, sort_keys=True, allow_nan=False)


def signed_bytes(body: Mapping[str, Any]) -> bytes:
    """Canonical form of everything but the signature."""
    covered = {name: value for name, value in body.items() if name != "signature"}
    return json.dumps(covered, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
