"""Alice's session again, from a flight recording. Entry point of `qkd_node.replay`."""

from __future__ import annotations

from collections.abc import Iterable

from alice.session import AliceSession
from common.node.flight import Record
from common.node.node import agreed
from common.node.replay import Replay, ReplayStore, ReplaySymbols


def replay(records: Iterable[Record]) -> Replay:
    """Run a recording of Alice's again; what was found is in the result's ``report``."""
    run = Replay(records)
    who = run.identity(agreed(run.config))
    store, symbols = ReplayStore(run), ReplaySymbols(run)
    run.run(AliceSession(run.config, who, store, symbols, run.random, run.number("refill"), run.reply))
    return run
