"""The authentication pool: dry, refilled, and begun anew with a new link secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.node.credentials import link_secret
from tests.trials.consumers import Consumers
from tests.trials.links import Link
from tests.trials.registry import Verdict, trial

SMALL_SECRET = 8_192
RESTARTS = 12


@trial("pools")
def pools(folder: Path, quick: bool) -> Iterator[Verdict]:
    """Light without key from the first start, applications that ask, restarts; then light, and a new secret."""
    link = Link(folder)
    _new_secret(link, SMALL_SECRET)
    link.edit(link.bob, lambda document: _misaligned(document, 0.3))
    with link.running():
        link.consumers = Consumers(folder)
        refused = 20 if quick else 100
        bad = link.until(lambda: len(link.bob.blocks) - len(link.bob.good) >= refused)
        pool = [one.status().get("auth_pool_bits", 0) for one in link.both]
        seen = f"{'so many' if bad else 'fewer'} refused; pool {pool} bits; {link.alarms()}"
        alive = all(link.ended(one) is None for one in link.both)
        yield Verdict(
            f"{refused} blocks without key, with applications",
            "both ends live, the pool is not empty",
            seen,
            bad and alive and min(pool) > 0,
        )
        for number in range(2 if quick else RESTARTS):
            daemon = link.both[number % 2]
            link.end(daemon, 9)
            link.restart(daemon)
            link.until(lambda: all(one.status().get("peer") == "up" for one in link.both), 60.0)
        alive = all(link.ended(one) is None for one in link.both)
        low = quick or link.until(lambda: bool(link.alarm(link.alice, "authentication pool")), 60.0)
        what, wanted = (
            "restarts while the light produces no key",
            "both ends live, alarm `authentication pool` once half is gone",
        )
        yield Verdict(what, wanted, link.alarms() or "no alarm", alive and low)
        for daemon in (link.bob, link.alice):
            daemon.stop()
        link.edit(link.bob, lambda document: _misaligned(document, None))
        link.restart(link.alice, link.bob)
        yield link.goes_on("light that produces key again")
        filled = link.until(lambda: min(one.status().get("auth_pool_bits", 0) for one in link.both) > 30_000)
        pool = [one.status().get("auth_pool_bits", 0) for one in link.both]
        yield Verdict("the pool is refilled", "from produced and stored key", f"{pool} bits", filled)
        for daemon in (link.bob, link.alice):
            daemon.stop()
        _new_secret(link)
        link.restart(link.alice)
        link.restart(link.bob)
        yield link.goes_on("a new link secret at both ends")
        yield link.account("all keys after the pool's trials", lost_at_most=RESTARTS)


def _new_secret(link: Link, n_bytes: int | None = None) -> None:
    secret = link_secret()[:n_bytes]
    for daemon in link.both:
        next(daemon.config.with_suffix("").rglob("link.key")).write_bytes(secret)


def _misaligned(document: Any, value: float | None) -> None:
    """Light with so many errors that no block produces key; None: as it was."""
    table = document["devices"]["time_tagger"]
    if value is None:
        del table["misalignment"]
    else:
        table["misalignment"] = value
