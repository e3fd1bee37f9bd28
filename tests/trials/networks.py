"""The classical channel through a bad network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.cli.demo import free_ports
from tests.trials.links import Link
from tests.trials.proxies import Proxy
from tests.trials.registry import Verdict, trial

OFTEN = 0.02
"""Of all frames are spoilt, heartbeats among them."""
BAD_S, QUICK_BAD_S = 30.0, 8.0
LEAST_SPOILT, CUTS = 3, 3
STANDING: dict[str, dict[str, Any]] = {
    "1 s of round trip": {"delay_s": 0.5},
    "1 Mbit/s": {"bits_per_s": 1e6},
    "1 Mbit/s and 1 s of round trip": {"bits_per_s": 1e6, "delay_s": 0.5},
}
"""What a link must work with for ever."""
PASSING: dict[str, dict[str, Any]] = {
    "flipped bits": {"flip": OFTEN},
    "doubled frames": {"double": OFTEN},
    "half frames": {"half": OFTEN},
    "all three": {"flip": OFTEN, "double": OFTEN, "half": OFTEN},
}
"""What it must survive."""


@trial("networks")
def networks(folder: Path, quick: bool) -> Iterator[Verdict]:
    """Bob reaches Alice through a proxy."""
    link = Link(folder)
    (port,) = free_ports(1)
    target: list[int] = []

    def through(document: Any) -> None:
        target.append(int(str(document["channel"]["endpoint"]).rpartition(":")[2]))
        document["channel"]["endpoint"] = f"tcp://127.0.0.1:{port}"

    link.edit(link.bob, through)
    with Proxy(port, target[0]).running() as proxy, link.running(consumers=True):
        for name, how in STANDING.items():
            vars(proxy).update(how)
            made = link.await_blocks(2)
            seen = "keys go on" if made else "no key"
            yield Verdict(
                name, "keys go on", "; ".join(filter(None, [seen, link.alarms()])), made and not link.alarms()
            )
            proxy.calm()
            yield link.goes_on(f"{name}, over")
        for name, how in PASSING.items():
            before = proxy.spoilt
            vars(proxy).update(how)
            end = time.monotonic() + (QUICK_BAD_S if quick else BAD_S)
            link.until(lambda end=end, before=before: time.monotonic() > end and proxy.spoilt >= before + LEAST_SPOILT)  # type: ignore[misc]
            proxy.calm()
            count = proxy.spoilt - before
            yield link.goes_on(f"{name}, {count} of them")
        for _ in range(CUTS):
            proxy.cut()
            link.await_blocks(1, 60.0)
        yield link.goes_on(f"{CUTS} cuts of all connections")
        proxy.down = True
        proxy.cut()
        link.until(
            lambda: "silent" in link.alarm(link.bob, "peer") and "silent" in link.alarm(link.alice, "peer"), 60.0
        )
        seen = link.alarms()
        yield Verdict("no network", "both ends raise `peer`", seen or "no alarm", seen.count("silent") == 2)
        proxy.calm()
        yield link.goes_on("no network, over")
        yield link.account("all keys after the bad network", lost_at_most=0)
