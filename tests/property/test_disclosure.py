"""No parity of the key is public while light of its block still arrives, whatever happens to single packets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.postprocessing import interleaving
from common.protocol.effects import Effect, Send
from common.protocol.messages import BlockEnd, BlockMessage, FrameResult, Syndrome
from tests.pair import End
from tests.property.test_protocol import Feeder, finish, make_pair, short_blocks_give_key  # noqa: F401

BLOCKS = 3


@pytest.fixture(autouse=True)
def frames_are_ready_long_before_a_block_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "WINDOW_BITS", 1 << 12)
    monkeypatch.setattr(interleaving, "_FEWEST_FRAMES", 1)


class Watched:
    """What an end says, held against what it knows: the end of a block, by its own word or by the peer's."""

    def __init__(self, end: End) -> None:
        self.closed: set[int] = set()
        self.early: list[BlockMessage] = []
        self.said = 0
        self._carry, handle = end.carry, end.session.handle
        end.carry = self.carry  # type: ignore[method-assign]

        def heard(message: Any, sealed: bool, now_ns: int) -> list[Effect]:
            self.closed |= {message.block_id} if isinstance(message, BlockEnd) else set()
            return handle(message, sealed, now_ns)

        end.session.handle = heard  # type: ignore[method-assign]

    def carry(self, effects: list[Effect], now_ns: int) -> None:
        for message in (effect.message for effect in effects if isinstance(effect, Send)):
            if isinstance(message, BlockEnd):
                self.closed.add(message.block_id)
            if isinstance(message, Syndrome | FrameResult):
                self.said += 1
                self.early += [message] if message.block_id not in self.closed else []
        self._carry(effects, now_ns)


faults = st.dictionaries(
    st.integers(0, 200), st.tuples(st.sampled_from(["lose", "duplicate", "delay"]), st.integers(1, 2000)), max_size=12
)


@settings(max_examples=25)
@given(faults, faults)
def test_frames_are_spoken_of_only_after_the_end_of_their_block(
    to_bob: dict[int, tuple[str, int]], to_alice: dict[int, tuple[str, int]]
) -> None:
    pair, sky = make_pair()

    def faulty(plan: dict[int, tuple[str, int]]) -> Any:
        def fault(n: int, packet: bytes) -> list[tuple[int, bytes]]:
            kind, delay_ms = plan.get(n, ("none", 0))
            late = (delay_ms * 1_000_000, packet)
            return {"none": [(0, packet)], "lose": [], "duplicate": [(0, packet), late], "delay": [late]}[kind]

        return fault

    pair.to_bob.fault, pair.to_alice.fault = faulty(to_bob), faulty(to_alice)
    ends = [Watched(end) for end in (pair.alice, pair.bob)]
    Feeder(pair, sky)
    finish(pair, BLOCKS)
    for end in ends:
        assert end.said >= BLOCKS
        assert end.early == []
