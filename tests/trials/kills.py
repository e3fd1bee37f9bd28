"""Kill and freeze: either end or both, at random moments, with applications at both ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from common.cli.demo import Daemon
from tests.trials.links import Link
from tests.trials.registry import Verdict, trial

KILLS, QUICK_KILLS = 64, 8
FREEZES_S, QUICK_FREEZES_S = (1.0, 30.0, 120.0), (1.0, 8.0)
PEER_TIMEOUT_S = 5.0


@trial("kills")
def kills(folder: Path, quick: bool) -> Iterator[Verdict]:
    """Every kill is followed by a start; one in four starts is not given the time to make a key."""
    rng, link = Random(1), Link(folder)
    count = QUICK_KILLS if quick else KILLS
    resumed = tried = 0
    with link.running(consumers=True):
        for number in range(count):
            chosen: tuple[Daemon, ...] = rng.choice(((link.alice,), (link.bob,), link.both))
            time.sleep(rng.uniform(0.0, 3.0))
            for daemon in chosen:
                link.end(daemon, rng.choice((signal.SIGKILL, signal.SIGTERM)))
            link.restart(*rng.sample(chosen, len(chosen)))
            if number % 4 != 3 or number + 1 == count:
                tried += 1
                resumed += link.await_blocks()
        seen = f"{resumed} of {tried} awaited, {count} kills"
        yield Verdict(f"{count} kills, -9 and -TERM", "production resumes every time", seen, resumed == tried)
        yield link.goes_on("after the last of them")
        yield link.account(f"all keys after {count} kills", lost_at_most=count)


@trial("freezes")
def freezes(folder: Path, quick: bool) -> Iterator[Verdict]:
    """SIGSTOP for a while."""
    link = Link(folder)
    with link.running(consumers=True):
        for seconds in QUICK_FREEZES_S if quick else FREEZES_S:
            for name, frozen in (("Alice", (link.alice,)), ("Bob", (link.bob,)), ("both ends", link.both)):
                seen = _freeze(frozen, link, seconds)
                what = f"{name} frozen for {seconds:.0f} s"
                if seconds > 2 * PEER_TIMEOUT_S and len(frozen) == 1:
                    yield Verdict(what, "the other end raises `peer`", seen or "no alarm", "silent" in seen)
                yield link.goes_on(what)
        yield link.account("all keys after the freezes", lost_at_most=3 * 16)


def _freeze(frozen: tuple[Daemon, ...], link: Link, seconds: float) -> str:
    """Stop and let go on; the alarm at the other end just before."""
    awake = next((one for one in link.both if one not in frozen), None)
    pids = [one.process.pid for one in frozen if one.process is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    text = link.alarm(awake, "peer") if awake is not None else ""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return text
