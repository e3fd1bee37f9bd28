"""The alarm that outlives its process: after a failed authentication a node stays down until a person clears it.

It stands in the key store, so that neither a restart nor another machine with the same store forgets it, and it is
counted there, so that no earlier copy of the store opens instead.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from common.config import Config
from common.errors import LinkLocked, QkdError
from common.node.keystore import KeyStore
from common.protocol.session import Store

log = logging.getLogger("qkd.node")
NAME = "authentication"
_SETTING = f"alarm/{NAME}"


class DurableStore(Store, Protocol):
    """The key store, with what must never go back."""

    def destroy_unauthenticated(self) -> list[int]:
        """Forget every key that is not authenticated, and its pads: the blocks."""
        ...

    def advance(self, values: Mapping[str, bytes]) -> None:
        """Keep such values: once it returns, no earlier copy of the store opens."""
        ...


def latch(store: DurableStore, reason: str, since: str) -> None:
    """Authentication failed: destroy every key that rests on unauthenticated words, and lock the link.

    A key that Bob has promised and one that Alice has decided stay. Whatever their block's messages were, a tag over
    them was verified before; and the other end may have committed already, so that destroying them could split a key.
    The next handshake settles them.
    """
    lost = store.destroy_unauthenticated()
    store.advance({_SETTING: json.dumps({"name": NAME, "since": since, "reason": reason}).encode()})
    log.critical("the link is locked until a person clears the alarm; keys destroyed: %d", len(lost))


def lock(store: DurableStore, error: BaseException) -> None:
    """:func:`latch` at this moment; a store that cannot be written is told of, the process ends all the same."""
    try:
        latch(store, str(error), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    except Exception:
        log.exception("the alarm could not be made durable")


def latched(store: Store) -> dict[str, str] | None:
    """The alarm that locks the link: name, since when, reason."""
    raw = store.get_setting(_SETTING)
    return None if raw is None else dict(json.loads(raw))


def clear(store: DurableStore) -> None:
    """A person says that the link may start again."""
    store.delete_setting(_SETTING)
    store.advance({})


def refuse_if_latched(store: Store, role: str) -> None:
    """Raise :class:`LinkLocked` while an alarm stands."""
    if (alarm := latched(store)) is not None:
        raise LinkLocked(
            f"the link is locked since {alarm['since']}: {alarm['reason']}",
            remedy=f"Find out why (RUNBOOK, 'Failed authentication'), then `qkd alarm clear --config {role}.toml`.",
        )


def alarms_of(config: Config) -> list[dict[str, str]]:
    """What locks the link of this configuration, beside a running daemon or without one; none without a store."""
    database, key_file = config.path(config.keys.database), config.path(config.keys.key_file)
    if not database.exists():
        return []
    try:
        with KeyStore.open(database, key_file, read_only=True) as store:
            alarm = latched(store)
    except QkdError:  # `check` tells what is wrong with the store
        return []
    return [] if alarm is None else [alarm]
