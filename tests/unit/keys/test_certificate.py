"""What a certificate counts, and the keys that sign it; how one is judged is in `tests/unit/auditor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.auditor.verify_certificate import public_key_hex
from common.keys.certificate import (
    TAGS_PER_BLOCK,
    Amplification,
    Provenance,
    Reconciliation,
    Transcript,
    certificate,
)
from common.keys.life import Life
from common.node import credentials
from common.protocol.messages import Commit, Committed, Fixed, Prepared, Propose, Seed
from tests.certificates import ledger_of
from tests.identities import both_sources


def test_the_tags_of_a_block_are_its_sealed_messages() -> None:
    assert sum(kind.SEALED for kind in (Propose, Seed, Fixed, Prepared, Commit, Committed)) == TAGS_PER_BLOCK


def test_without_a_signer_it_says_that_it_is_not_signed() -> None:
    text = certificate(
        Provenance("a", "b", "bob", 1, False),
        ledger_of("bb84"),
        Reconciliation(1, 1, 0, 0),
        Amplification("toeplitz", 1, 1, 1, ""),
        0,
        Transcript("", ""),
        both_sources(),
        Life(1, 4, 1e-14),
        None,
    )
    assert (json.loads(text)["public_key"], json.loads(text)["signature"]) == ("", "")


def test_keys_of_qkd_init_sign_and_verify(tmp_path: Path) -> None:
    private, public = credentials.certificate_keys()
    (tmp_path / "k").write_bytes(private)
    signer = credentials.read_certificate_key(tmp_path / "k")
    assert public_key_hex(public) == signer.public_key().public_bytes_raw().hex()
    (tmp_path / "k").write_bytes(public)
    with pytest.raises(Exception, match="not an Ed25519 private key"):
        credentials.read_certificate_key(tmp_path / "k")
    with pytest.raises(Exception, match="cannot be read"):
        credentials.read_certificate_key(tmp_path / "none")
