"""The status document says only what is known."""

from __future__ import annotations

from dataclasses import fields, replace

from common.node.status import StatusBoard
from common.protocol.block import WATCHED, BlockFacts

NOTHING = BlockFacts(**{field.name: "" if field.type == "str" else 0 for field in fields(BlockFacts)})  # type: ignore[arg-type]


def test_a_block_that_a_detector_spoiled_raises_an_alarm_until_one_gives_key() -> None:
    board = StatusBoard("bob", "link", 1e6)
    assert board.document()["watched"] == {}
    spoiled = replace(NOTHING, state="refused", x_share=0.1, l_share=0.01, device_fault="detector L is too weak: 1 %")
    board.block(spoiled)
    board.block(replace(NOTHING, state="refused", reason="the peer stopped"))
    assert board.document()["watched"] == {name: getattr(spoiled, name) for name in WATCHED}
    (alarm,) = board.document()["alarms"]
    assert alarm.startswith("detectors: detector L is too weak: 1 %; look at bias")
    board.block(replace(NOTHING, state="committed", x_share=0.1))
    assert board.document()["alarms"] == []


def test_before_the_handshake_nobody_knows_whether_keys_are_simulated() -> None:
    assert StatusBoard("alice", "link", 1e6).document()["simulated"] is None
