"""What a session asks its shell to do. Effects are values; the shell carries them out in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from common.protocol.messages import Message

Lane = Literal["sift", "frames", "block", "store"]
"""`sift`, `block` and `store` run one job at a time in order; `frames` runs jobs side by side."""


@dataclass(frozen=True, slots=True)
class Send:
    """Queue a message to the peer (sealed if its type says so)."""

    message: Message


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """Do ``work`` off the event loop, then hand its result to ``then`` and carry out what that returns."""

    lane: Lane
    work: Callable[[], Any]
    then: Callable[[Any], list[Effect]]


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block ended: its facts for operators (never secret), see :class:`common.protocol.block.BlockFacts`."""

    facts: Any


@dataclass(frozen=True, slots=True)
class Ready:
    """The handshake agreed: blocks may flow."""


@dataclass(frozen=True, slots=True, repr=False)
class AddPads:
    """Authentication key for the pool; ``sendable`` once the peer surely holds it too."""

    segment_id: int
    secret: bytes
    sendable: bool


@dataclass(frozen=True, slots=True)
class DropPads:
    """Authentication key that the peer will never hold: the pool forgets it."""

    segment_id: int


@dataclass(frozen=True, slots=True)
class PeerStopped:
    """The peer said goodbye."""


Effect = Send | Run | BlockDone | Ready | AddPads | DropPads | PeerStopped
