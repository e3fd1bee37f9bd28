"""At every place of a block's story only what the table allows and the story waits for has an effect."""

from __future__ import annotations

import ast
import hashlib
import inspect
import struct
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

import alice.session
import bob.session
import common.protocol.session
from common.errors import RemoteProtocolError
from common.protocol.block import Block
from common.protocol.effects import Effect
from common.protocol.messages import (
    BlockMessage,
    Commit,
    Committed,
    FrameResult,
    Message,
    Refuse,
    Syndrome,
    Withdraw,
    decode,
    message_types,
)
from common.protocol.story import Strand
from common.protocol.transitions import TABLE, Role, State
from tests.pair import End, Pair
from tests.property.test_protocol import Feeder, agree, make_pair, short_blocks_give_key  # noqa: F401

KINDS = [kind for kind in message_types().values() if issubclass(kind, BlockMessage)]
NOT_TOLD = (Syndrome, FrameResult, Refuse, Withdraw, Commit, Committed)
"""Messages that the table alone judges: of frames, of ends, and of obligations that outlive the story."""
BLOCKS = 2


def of_block(kind: type[BlockMessage], block_id: int) -> BlockMessage:
    """A message of this kind whose other fields are zero."""
    _, *others = struct.unpack("<" + kind.LAYOUT, bytes(struct.calcsize("<" + kind.LAYOUT)))
    raw = bytes([kind.TYPE]) + struct.pack("<" + kind.LAYOUT, block_id, *others)
    message = decode(raw)
    assert isinstance(message, BlockMessage)
    return message


def innermost(tale: Any) -> Any:
    while tale.gi_yieldfrom is not None and hasattr(tale.gi_yieldfrom, "gi_yieldfrom"):
        tale = tale.gi_yieldfrom
    return tale


def place(strand: Strand) -> tuple[str, str]:
    """Which tale stands where: the innermost generator's name and what it waits for."""
    wish = strand.wish
    kinds = "/".join(kind.__name__ for kind in getattr(wish, "kinds", ()))
    return innermost(strand.tale).gi_code.co_name, kinds or (wish if isinstance(wish, str) else type(wish).__name__)


def fingerprint(end: End, block: Block) -> Any:
    """All that a message could have changed at this end."""
    session: Any = end.session
    frames = block.frames
    return (
        block.state,
        block.digests(),
        [(place(strand), innermost(strand.tale).gi_frame.f_lasti) for strand in block.story._strands],
        (block.chunks, block.chunks_sifted, block.detections, getattr(block, "unanswered", 0)),
        (frames.open_bits, frames.leak_ec_bits, [(frame.status, frame.round) for frame in frames._frames.values()]),
        sorted(session._blocks),
        (len(session._talk._strands), len(session._lasting._strands)),
        len(end.jobs),
        dict(end.store.blocks),
        hashlib.sha256(repr(sorted(end.store.settings.items())).encode()).digest(),
        len(end.done),
    )


class Disturbed:
    """Before every step and every message, an end hears of its open blocks every message that is illegal there."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.places: set[tuple[Role, tuple[str, str]]] = set()
        self.refused: set[tuple[Role, State, str]] = set()
        self._handle = {end.name: end.session.handle for end in (pair.alice, pair.bob)}
        for end in (pair.alice, pair.bob):
            end.session.handle = partial(self.handle, end)  # type: ignore[method-assign]

    def handle(self, end: End, message: Message, sealed: bool, now_ns: int) -> list[Effect]:
        self.disturb(end)
        return self._handle[end.name](message, sealed, now_ns)

    def disturb(self, end: End) -> None:
        for block in end.session.open_blocks():
            self.places |= {(block.role, place(strand)) for strand in block.story._strands}
            for message in illegal(block):
                before = fingerprint(end, block)
                with pytest.raises(RemoteProtocolError):
                    self._handle[end.name](message, True, self.pair.now_ns)
                assert fingerprint(end, block) == before, f"{message!r} has changed something"
                self.refused.add((block.role, block.state, message.name))


def illegal(block: Block) -> Iterator[BlockMessage]:
    for kind in KINDS:
        message = of_block(kind, block.block_id)
        senders = TABLE.get((block.state, kind), (frozenset(), None))[0]
        lawful = block.role.peer in senders
        if not lawful or (kind not in NOT_TOLD and not block.story.expects(message)):
            yield message


def two_blocks(disturb: Callable[[Pair], Callable[[End], None]]) -> dict[int, bytes]:
    pair, sky = make_pair()
    Feeder(pair, sky)
    disturbed = disturb(pair)
    while len(pair.alice.store.committed()) < BLOCKS:
        for end in (pair.alice, pair.bob):
            disturbed(end)
        pair.step()
    pair.on_step = lambda now_ns: None
    pair.settle(1_000_000_000)
    agree(pair)
    return pair.alice.store.committed()


def test_an_illegal_message_changes_nothing_at_any_place() -> None:
    """Every kind, at both ends, at every step of two blocks: the keys are those of the same run without any of it."""
    watches: list[Disturbed] = []

    def disturb(pair: Pair) -> Callable[[End], None]:
        watches.append(Disturbed(pair))
        return watches[0].disturb

    assert two_blocks(disturb) == two_blocks(lambda pair: lambda end: None)
    (watch,) = watches
    assert watch.places >= {
        (Role.ALICE, ("_next_chunk", "Announce/BlockEnd")),
        (Role.ALICE, ("_sift", "sift")),
        (Role.ALICE, ("_fill", "Until")),
        (Role.ALICE, ("_reconcile", "Until")),
        (Role.ALICE, ("_verify", "block")),
        (Role.ALICE, ("_verify", "Verified")),
        (Role.ALICE, ("_propose", "block")),
        (Role.ALICE, ("_announce_seed", "block")),
        (Role.ALICE, ("amplify", "block")),
        (Role.ALICE, ("_make", "store")),
        (Role.ALICE, ("_hear_promise", "Prepared")),
        (Role.BOB, ("_tell", "Until")),
        (Role.BOB, ("_announce", "sift")),
        (Role.BOB, ("_sift", "Sift")),
        (Role.BOB, ("_sift", "sift")),
        (Role.BOB, ("_tell", "Verify")),
        (Role.BOB, ("_verify", "block")),
        (Role.BOB, ("_tell", "Propose")),
        (Role.BOB, ("_judge", "block")),
        (Role.BOB, ("_hear_seed", "Seed")),
        (Role.BOB, ("_hear_seed", "Fixed")),
        (Role.BOB, ("amplify", "block")),
        (Role.BOB, ("_make", "store")),
    }, "a place was not visited"
    assert {name for _, _, name in watch.refused} == {of_block(kind, 1).name for kind in KINDS}
    for role in Role:
        visited = {state for one, state, _ in watch.refused if one is role}
        assert visited >= set(State) - {State.REFUSED, State.COMMITTED}


def nested(module: ModuleType) -> list[str]:
    tree = ast.parse(inspect.getsource(module))
    outer = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inner = [one for node in outer for one in ast.walk(node) if one is not node]
    return [one.name for one in inner if isinstance(one, ast.FunctionDef)]


@pytest.mark.parametrize("module", [alice.session, bob.session, common.protocol.session])
def test_a_session_is_told_and_not_nested(module: ModuleType) -> None:
    assert nested(module) == []
