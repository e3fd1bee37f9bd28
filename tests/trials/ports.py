"""The open ports: strangers, more idle connections than a process may have, slow bodies, addresses in use."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from common.config_file import load_config
from tests.integration.wire import closed, idle_connections
from tests.trials.consumers import identity, sae_of
from tests.trials.links import Link
from tests.trials.registry import Verdict, trial

IDLE = 1_100
"""More than a process may open in the shell of most systems; each daemon is held to that here."""
LIMITED = ("sh", "-c", 'ulimit -n 1024; exec "$@"', "sh")
STRANGERS = 200
SLOW = 40
NOISE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\xff" + bytes(8) + b"\x7f\x03\x00NULL",
    b"\x00" * 4096,
    b"SSH-2.0-x\r\n",
)
HEAD = (
    b"POST /api/v1/keys/sae-bob/enc_keys HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
)


@trial("ports")
def ports(folder: Path, quick: bool) -> Iterator[Verdict]:
    """Alice's two ports, with applications meanwhile."""
    link = Link(folder / "link")
    for daemon in link.both:
        daemon.launcher = LIMITED
    config = load_config(link.alice.config)
    both = {
        "key delivery": int(config.etsi014.listen.rpartition(":")[2]),
        "channel": int(config.channel.endpoint.rpartition(":")[2]),
    }
    with link.running(consumers=True):
        assert link.consumers is not None
        for name, port in both.items():
            with idle_connections(port, IDLE) as strangers:
                before = link.consumers.delivered
                yield link.goes_on(f"{IDLE} idle connections at the port of the {name}")
                served = link.until(lambda before=before: link.consumers.delivered > before)  # type: ignore[misc,union-attr]
                ended = link.until(lambda ones=strangers: sum(map(closed, ones)) > IDLE // 2)  # type: ignore[misc]
                seen = f"served: {served}; most of them closed: {ended}"
                what = f"{IDLE} idle connections at the port of the {name}: applications"
                yield Verdict(what, "served; the idle ones are closed", seen, served and ended)
            for number in range(STRANGERS):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as one:
                    one.sendall(NOISE[number % len(NOISE)] + os.urandom(64))
            yield link.goes_on(f"{STRANGERS} strangers with noise at the port of the {name}")
        yield from _slow_bodies(link, both["key delivery"])
        yield link.account("all keys after the strangers", lost_at_most=0)
    yield from _addresses_in_use(folder / "taken")


def _slow_bodies(link: Link, port: int) -> Iterator[Verdict]:
    """Applications with good certificates that never finish a request."""
    config = load_config(link.alice.config)
    context, before = identity(config, sae_of(config)), link.alice.status()["load"].get("memory_bytes", 0)
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW):
            with contextlib.suppress(OSError, ssl.SSLError):
                raw = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
                one = stack.enter_context(context.wrap_socket(raw, server_hostname="127.0.0.1"))
                one.sendall(HEAD)
        yield link.goes_on(f"{SLOW} bodies that never end")
        grown = link.alice.status()["load"].get("memory_bytes", 0) - before
        yield Verdict(
            f"{SLOW} bodies that never end: memory", "grows by less than 80 MB", f"{grown / 1e6:.0f} MB", grown < 80e6
        )


def _addresses_in_use(folder: Path) -> Iterator[Verdict]:
    """The node names the field and ends with 3, which the unit tries again; once it is free, it starts."""
    link = Link(folder)
    config = load_config(link.alice.config)
    for field, address in (("channel.endpoint", config.channel.endpoint), ("etsi014.listen", config.etsi014.listen)):
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        with socket.create_server((host, int(port))):
            link.alice.start()
            code = link.await_end(link.alice, 60.0)
        said = link.read_log(link.alice)
        yield Verdict(
            f"{field} is in use",
            "exit code 3, the field is named",
            f"{code}: {said[-160:]}",
            code == 3 and field in said,
        )
    with link.running():
        yield link.goes_on("the addresses are free again")
