"""What a link has spent of its security since its start secret: the sum over its whole life, kept in the key store.

Every key that is delivered rests on the authentication before it, which rests on earlier keys: epsilons add up over
rounds (Portmann, arXiv:1202.1229). The two shares are counted where they arise: blocks in the transaction that decides
a key, so that a repetition or a crash counts none twice and loses none; tags with the pads that are reserved for them.
The formula is in `common/security/README.md`, section The life of a link.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

BLOCKS, TAGS = "life/blocks", "life/tags"
"""Settings of the key store."""
RESTART_EPS = 1e-18
"""Counted at every start: more than the tags that a process can lose from the record by dying, of any length."""
UNKNOWN_EPS = 1.0
"""Of a block whose ledger is not there."""


@dataclass(frozen=True, slots=True)
class Share:
    """This many blocks, or tags, and what they have spent together."""

    count: int = 0
    eps: float = 0.0

    def plus(self, count: int, eps: float) -> Share:
        """The sum with more of them."""
        return Share(self.count + count, self.eps + eps)

    def encode(self) -> bytes:
        """For the key store."""
        return json.dumps([self.count, self.eps]).encode()

    @classmethod
    def decode(cls, raw: bytes | None) -> Share:
        """As it was kept; without anything, nothing was spent."""
        count, eps = json.loads(raw or b"[0, 0.0]")
        return cls(int(count), float(eps))


@dataclass(frozen=True, slots=True)
class Life:
    """What is told of it, in the status and in certificates."""

    blocks: int
    tags: int
    eps_life: float


def together(blocks: Share, tags: Share) -> Life:
    """Both shares; more than 1 has no meaning beyond 1."""
    return Life(blocks.count, tags.count, min(blocks.eps + tags.eps, 1.0))


def life_with(eps_block: float, get_setting: Callable[[str], bytes | None]) -> Life:
    """The life of a link with one more block, from its key store."""
    blocks = Share.decode(get_setting(BLOCKS)).plus(1, eps_block)
    return together(blocks, Share.decode(get_setting(TAGS)))


def eps_of(record: str) -> float:
    """What a block has spent, by the ledger in its certificate."""
    try:
        return float(json.loads(record)["ledger"]["eps_spent"])
    except (ValueError, LookupError, TypeError):
        return UNKNOWN_EPS
