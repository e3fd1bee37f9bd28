"""The key store: corrupted, cut, removed under the running node; restored from a copy at one end and at both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from common.cli.demo import Daemon
from common.node.credentials import link_secret
from tests.trials.links import Link
from tests.trials.registry import Verdict, trial

Act = Callable[[Path], None]


def _overwrite(store: Path) -> None:
    with store.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(8192))


def _log(store: Path) -> Path:
    return Path(f"{store}-wal")


def _cut(path: Path) -> None:
    os.truncate(path, 100)


RUNNING: dict[str, tuple[Act, str]] = {
    "overwritten": (_overwrite, "written"),
    "cut": (_cut, "cut"),
    "removed": (lambda store: store.unlink(), "removed"),
    "its log cut": (lambda store: _cut(_log(store)), "cut"),
    "its log removed": (lambda store: _log(store).unlink(), "removed"),
}
"""What is done while the node runs, and a word of what it says."""


@trial("stores")
def stores(folder: Path, quick: bool) -> Iterator[Verdict]:
    """Every fault on a link of its own: a store is not mended."""
    for number, (name, (harm, word)) in enumerate(RUNNING.items()):
        if quick and number > 1:
            break
        yield from _harmed(folder / f"running-{number}", ("alice", "bob")[number % 2], name, harm, word)
    yield from _set_back(folder / "one", ("bob",))
    if not quick:
        yield from _set_back(folder / "other", ("alice",))
        yield from _set_back(folder / "both", ("alice", "bob"))


def _one(link: Link, role: str) -> Daemon:
    return {"alice": link.alice, "bob": link.bob}[role]


def _harmed(folder: Path, role: str, name: str, harm: Act, word: str) -> Iterator[Verdict]:
    link = Link(folder)
    daemon = _one(link, role)
    what = f"{role}'s key store {name} while it runs"
    with link.running(consumers=True):
        store = link.store(daemon)
        harm(store)
        if word == "written":  # once more: what is written while the node writes cannot be told from its own
            link.until(lambda: link.ended(daemon) is not None or harm(store) is not None, 60.0)
        code = link.await_end(daemon, 60.0)
        seen = link.reason(daemon)
        yield Verdict(
            what,
            "ends within a minute, exit code 3, says what it was",
            f"{code}: {seen[:200]}",
            code == 3 and word in seen,
        )
        assert link.consumers is not None
        link.consumers.end(0.0)
        faults = [*link.consumers.faults(), *link.tracebacks]
        yield Verdict(f"{what}: keys", "none twice, none different", "; ".join(faults) or "none", not faults)


def _set_back(folder: Path, roles: tuple[str, ...]) -> Iterator[Verdict]:
    """An earlier copy of the store's files, but for its counter; then a new secret, as the RUNBOOK says."""
    link, both = Link(folder), " and ".join(roles)
    with link.running(consumers=True):
        link.await_blocks(2)
        assert link.consumers is not None
        for daemon in (link.bob, link.alice):
            daemon.stop()
        copies = {role: _copy(link.store(_one(link, role))) for role in roles}
        link.restart(link.alice, link.bob)
        link.await_blocks(2)
        link.until(lambda: link.consumers is not None and link.consumers.delivered >= 20, 60.0)
        for daemon in (link.bob, link.alice):
            daemon.stop()
        for role in roles:
            _put_back(link.store(_one(link, role)), copies[role])
        link.restart(link.alice, link.bob)
        codes = [link.await_end(_one(link, role), 60.0) for role in roles]
        said = link.reason(_one(link, roles[0]))
        good = (codes == [3] * len(roles) and "earlier" in said) or "set back" in said
        what = f"key store of {both} restored from a copy"
        yield Verdict(what, "does not start, exit code 3, says why", f"{codes}: {said[:200]}", good)
        link.consumers.end(0.0)
        faults = [*link.consumers.faults(), *link.tracebacks]
        yield Verdict(f"{what}: keys", "none twice, none different", "; ".join(faults) or "none", not faults)
        for daemon in (link.bob, link.alice):
            daemon.stop()
        secret = link_secret()
        for daemon in link.both:
            store = link.store(daemon)
            for path in store.parent.glob(f"{store.name}*"):
                path.unlink()
            next(daemon.config.with_suffix("").rglob("link.key")).write_bytes(secret)
            daemon.blocks.clear()
        link.restart(link.alice, link.bob)
        yield link.goes_on(f"{what}, stores moved away, new link secret")


def _copy(store: Path) -> Path:
    place = store.parent / "copy"
    place.mkdir()
    for path in (store, _log(store)):
        if path.exists():
            shutil.copy2(path, place)
    return place


def _put_back(store: Path, place: Path) -> None:
    _log(store).unlink(missing_ok=True)
    for path in place.iterdir():
        shutil.copy2(path, store.parent)
    shutil.rmtree(place)
