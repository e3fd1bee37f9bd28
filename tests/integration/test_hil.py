"""Hardware in the loop: both daemons with Bob's tagger behind a socket, as `qkd hil serve` serves it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from common.cli.demo import running
from common.config import load_config
from hardware.twin.wire.hil import serve_tagger
from hardware.twin.wire.server import WireServer
from tests.integration.nodes import good_blocks, pair, wait_until


@pytest.mark.slow
def test_daemons_make_a_key_through_the_wire_level_tagger(tmp_path: Path) -> None:
    alice, bob = pair(tmp_path)
    document = tomlkit.parse(bob.config.read_text())
    fibre = str(document["devices"]["time_tagger"]["fibre"])
    with WireServer() as server:
        document["devices"]["time_tagger"] = serve_tagger(server, fibre, "lab-0.17dB")
        bob.config.write_text(tomlkit.dumps(document))
        assert load_config(bob.config).devices["time_tagger"].driver == "tcp-tags"
        with running(alice, bob):
            wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
    assert alice.good[0]["secret_bits"] == bob.good[0]["secret_bits"] > 0
