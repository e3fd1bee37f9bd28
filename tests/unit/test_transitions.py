"""The table of a block's life, checked for what it must and must not allow."""

from __future__ import annotations

import pytest

from common.errors import LocalProtocolError, RemoteProtocolError
from common.protocol import messages as m
from common.protocol.transitions import ENDED, TABLE, Role, State, may_refuse, next_state

DIGESTS = bytes(32), bytes(32)
BLOCK_TYPES = [kind for kind in m.message_types().values() if issubclass(kind, m.BlockMessage)]


def test_every_block_message_and_state_is_in_the_table() -> None:
    assert {kind for _, kind in TABLE} == set(BLOCK_TYPES)
    assert {state for state, _ in TABLE} == set(State) - {State.REFUSED}


def test_nothing_leaves_the_ends() -> None:
    for (state, _), (_, after) in TABLE.items():
        if state in ENDED:
            assert after is state


def test_refusal_is_legal_until_bob_has_promised_then_only_for_alice() -> None:
    for state in State:
        expected = {
            State.PREPARED: (True, False),
            State.DECIDED: (False, False),
            State.COMMITTED: (False, False),
            State.REFUSED: (False, False),
        }.get(state, (True, True))
        assert (may_refuse(state, Role.ALICE), may_refuse(state, Role.BOB)) == expected


def test_only_a_commit_leads_to_a_key() -> None:
    into = {kind for (state, kind), (_, after) in TABLE.items() if after is State.DECIDED}
    assert into == {m.Commit}
    assert all(sender == frozenset({Role.ALICE}) for (_, kind), (sender, _) in TABLE.items() if kind is m.Commit)


def test_bob_promises_only_what_is_fixed() -> None:
    """FIXED seals all that Alice said of the block, and nothing but his promise or a refusal follows it."""
    assert {state for (state, kind) in TABLE if kind is m.Prepared} == {State.FIXED}
    assert {state for (state, kind) in TABLE if kind is m.Fixed} == {State.PROPOSED}
    assert {kind for (state, kind) in TABLE if state is State.FIXED} == {m.Prepared, m.Refuse, m.Withdraw}
    assert m.Fixed.SEALED


@pytest.mark.parametrize("sender", list(Role))
@pytest.mark.parametrize("message", [m.Syndrome(1, 0, 1, 0, 64, 0, 0, b""), m.FrameResult(1, 0, 1, 1, 0)])
def test_nothing_about_key_bits_is_said_while_light_of_the_block_arrives(
    message: m.BlockMessage, sender: Role
) -> None:
    with pytest.raises(LocalProtocolError, match="filling"):
        next_state(State.FILLING, message, sender, ours=True)
    with pytest.raises(RemoteProtocolError, match="filling"):
        next_state(State.FILLING, message, sender, ours=False)
    assert next_state(State.CLOSED, message, sender, ours=False) is State.CLOSED


def test_wrong_sender_and_wrong_moment_are_told_apart() -> None:
    with pytest.raises(RemoteProtocolError, match=r"PREPARED.*from alice.*proposed"):
        next_state(State.PROPOSED, m.Prepared(1, *DIGESTS), Role.ALICE, ours=False)
    with pytest.raises(LocalProtocolError, match="COMMIT"):
        next_state(State.FILLING, m.Commit(1, *DIGESTS), Role.ALICE, ours=True)


def test_what_crosses_a_refusal_is_ignored_but_never_a_commit() -> None:
    assert next_state(State.REFUSED, m.Prepared(1, *DIGESTS), Role.BOB, ours=False) is None
    with pytest.raises(RemoteProtocolError, match="COMMIT"):
        next_state(State.REFUSED, m.Commit(1, *DIGESTS), Role.ALICE, ours=False)
