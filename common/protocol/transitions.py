"""The life of a block as one literal table, the same for both roles.

Each end applies the table when it sends a message and when it receives one. A message moves the block only if its
sender is the one named here; whatever the table does not list is a protocol error. So is a message that the table
allows and that the block's story (:mod:`common.protocol.story`) does not wait for at its present place. REFUSE, which
is plain, is legal from both sides while nothing is promised. From FIXED on Bob may have promised: Alice ends the block
with WITHDRAW, which is sealed, and Bob, once he has promised, not at all; after her COMMIT nobody may.
Nothing about key bits (SYNDROME, FRAME_RESULT) may be said while light of the block still arrives: it is closed first.

    FILLING -> CLOSED -> VERIFYING -> VERIFIED -> PROPOSED -> FIXED -> PREPARED -> DECIDED -> COMMITTED
        \\________\\__________\\___________\\___________\\_______\\_________\\____-> REFUSED

Obligations: from PREPARED on Bob keeps the key until Alice has decided; from DECIDED on Alice repeats COMMIT in every
session until Bob has acknowledged. Both states are durable; all others end as REFUSED when either process ends.
"""

from __future__ import annotations

from enum import Enum

from common.errors import LocalProtocolError, RemoteProtocolError
from common.protocol.messages import (
    Announce,
    BlockEnd,
    BlockMessage,
    Commit,
    Committed,
    Ending,
    Fixed,
    FrameResult,
    Prepared,
    Propose,
    Refuse,
    Seed,
    Sift,
    Syndrome,
    Verified,
    Verify,
    Withdraw,
)


class Role(Enum):
    """Which end of the link."""

    ALICE = "alice"
    BOB = "bob"

    @property
    def peer(self) -> Role:
        """The other end of the link."""
        return Role.BOB if self is Role.ALICE else Role.ALICE


class State(Enum):
    """Where a block stands."""

    FILLING = "filling"
    CLOSED = "closed"
    VERIFYING = "verifying"
    VERIFIED = "verified"
    PROPOSED = "proposed"
    FIXED = "fixed"
    PREPARED = "prepared"
    DECIDED = "decided"
    COMMITTED = "committed"
    REFUSED = "refused"


A, B, EITHER = frozenset({Role.ALICE}), frozenset({Role.BOB}), frozenset(Role)
S = State

TABLE: dict[tuple[State, type[BlockMessage]], tuple[frozenset[Role], State]] = {
    (S.FILLING, Announce): (B, S.FILLING),
    (S.FILLING, Sift): (A, S.FILLING),
    (S.FILLING, BlockEnd): (B, S.CLOSED),
    (S.FILLING, Refuse): (EITHER, S.REFUSED),
    (S.CLOSED, Sift): (A, S.CLOSED),
    (S.CLOSED, Syndrome): (EITHER, S.CLOSED),
    (S.CLOSED, FrameResult): (EITHER, S.CLOSED),
    (S.CLOSED, Verify): (A, S.VERIFYING),
    (S.CLOSED, Refuse): (EITHER, S.REFUSED),
    (S.VERIFYING, Verified): (B, S.VERIFIED),
    (S.VERIFYING, Refuse): (EITHER, S.REFUSED),
    (S.VERIFIED, Propose): (A, S.PROPOSED),
    (S.VERIFIED, Refuse): (EITHER, S.REFUSED),
    (S.PROPOSED, Seed): (A, S.PROPOSED),
    (S.PROPOSED, Fixed): (A, S.FIXED),
    (S.PROPOSED, Refuse): (EITHER, S.REFUSED),
    (S.FIXED, Prepared): (B, S.PREPARED),
    (S.FIXED, Refuse): (B, S.REFUSED),
    (S.FIXED, Withdraw): (A, S.REFUSED),
    (S.PREPARED, Commit): (A, S.DECIDED),
    (S.PREPARED, Withdraw): (A, S.REFUSED),
    (S.DECIDED, Commit): (A, S.DECIDED),
    (S.DECIDED, Committed): (B, S.COMMITTED),
    (S.COMMITTED, Commit): (A, S.COMMITTED),
    (S.COMMITTED, Committed): (B, S.COMMITTED),
}
ENDED = frozenset({State.COMMITTED, State.REFUSED})


def next_state(state: State, message: BlockMessage, sender: Role, *, ours: bool) -> State | None:
    """The state after ``message``; None when it is to be ignored (it crossed a refusal on the way).

    Raises
    ------
    LocalProtocolError
        We were about to send what the table does not allow.
    RemoteProtocolError
        The peer did.
    """
    entry = TABLE.get((state, type(message)))
    if entry is not None and sender in entry[0]:
        return entry[1]
    if state is State.REFUSED and not ours and not isinstance(message, Commit):
        return None
    fault = f"{message!r} from {sender.value} is not allowed while the block is {state.value}"
    raise LocalProtocolError(fault) if ours else RemoteProtocolError(fault)


def may_refuse(state: State, role: Role) -> bool:
    """Whether ``role`` may still refuse a block in this state."""
    return ending(state, role) is not None


def ending(state: State, role: Role) -> type[Ending] | None:
    """The message with which ``role`` ends a block in this state; None where it may not."""
    kinds: tuple[type[Ending], ...] = (Refuse, Withdraw)
    return next((kind for kind in kinds if role in TABLE.get((state, kind), (frozenset(), state))[0]), None)
