"""The status document says only what is known."""

from __future__ import annotations

from common.node.status import StatusBoard


def test_before_the_handshake_nobody_knows_whether_keys_are_simulated() -> None:
    assert StatusBoard("alice", "link", 1e6).document()["simulated"] is None
