"""Two real daemons whose link brings no key: applications live on the store, and so does the authentication pool."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.cli.demo import Daemon, running
from common.cli.demo_keys import fetch_and_compare
from common.config_file import load_config
from tests.integration.nodes import blocks_in_store, good_blocks, pair, replace_in, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NO_MORE = "max_stored_bits = 1"
SMALL_POOL = "auth_pool_target_bits = 16384"
LINK_SECRET_BYTES = 4160
"""128 tags a direction, of which applications leave 32."""
ONE_END, BOTH_ENDS = 100, 60
PATIENTLY = ("the authentication pool is low", "the other end of the link does not answer now")


class Application:
    """One connection to one node, that asks for keys of 64 bits one behind the other."""

    def __init__(self, daemon: Daemon) -> None:
        config = load_config(daemon.config)
        etsi = config.etsi014
        mine, self.peer = sorted(etsi.saes, key=lambda sae: etsi.saes[sae] != etsi.kme_id)
        authority = config.path(etsi.ca_certificate)
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(authority.parent / f"{mine}.crt", authority.parent / f"{mine}.key")
        host, _, port = etsi.listen.rpartition(":")
        self.host, self.port, self.context = host, int(port), context
        self.answers: Counter[int] = Counter()
        self.reasons: set[str] = set()

    def ask(self, number: int) -> None:
        """Until so many have come; what is refused is asked again."""
        connection = http.client.HTTPSConnection(self.host, self.port, context=self.context, timeout=20)
        with contextlib.closing(connection):
            while self.answers[200] < number:
                connection.request("GET", f"/api/v1/keys/{self.peer}/enc_keys?size=64")
                answer = connection.getresponse()
                body: dict[str, Any] = json.loads(answer.read())
                self.answers[answer.status] += 1
                if answer.status != 200:
                    self.reasons.add(body["message"])
                    time.sleep(0.1)


def test_an_idle_link_answers_applications_and_stays_alive(tmp_path: Path) -> None:
    """The pool is used up, and refilled from stored key; a restart loses no question."""
    alice, bob = pair(tmp_path)
    for secret in tmp_path.rglob("link*.key"):
        secret.write_bytes(secret.read_bytes()[:LINK_SECRET_BYTES])
    replace_in(alice, "seed = 1\n", "")
    for daemon in (alice, bob):
        replace_in(daemon, "[keys]\n", f"[keys]\n{SMALL_POOL}\n")
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 4, alice, bob)
        bob.stop()
        replace_in(bob, "[keys]\n", f"[keys]\n{NO_MORE}\n")
        bob.start()
        wait_until(lambda: "handshake agreed" in bob.log.read_text(), alice, bob)
        made = set(blocks_in_store(bob))
        for ends, number in (((alice,), ONE_END), ((alice, bob), BOTH_ENDS)):
            applications = [Application(end) for end in ends]
            threads = [threading.Thread(target=one.ask, args=(number,)) for one in applications]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for one in applications:
                assert one.answers[200] == number
                assert one.answers.keys() <= {200, 503}
                assert all(reason in PATIENTLY for reason in one.reasons), one.reasons
        assert set(blocks_in_store(bob)) == made, "the link was not idle"
        assert "refill the authentication pool" in bob.log.read_text()
        for daemon in (alice, bob):
            daemon.poll()  # it runs
        bob.stop()
        replace_in(bob, f"{NO_MORE}\n", "")
        bob.start()
        wait_until(lambda: len(set(blocks_in_store(bob)) - made) >= 1, alice, bob)
        assert fetch_and_compare(alice.directory) == (8, True)
