"""Light in real time and post-processing that cannot keep up: blocks are dropped whole, the others give equal keys."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from bob.daemon import MAX_BACKLOG_BLOCKS, MOST_DETECTIONS
from common.cli.demo import prepare, running
from common.cli.demo_keys import fetch_and_compare
from tests.integration.nodes import blocks_in_store, good_blocks, undelivered_bytes, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
BLOCK_SIZE = 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="threads are bound to a core on Linux alone")
@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset (util-linux)")
def test_whole_blocks_are_shed_and_those_that_were_begun_end_with_equal_keys(tmp_path: Path) -> None:
    """Ninety blocks a second, with their keys to be made durable, and one core for Bob and his light."""
    alice, bob = prepare(tmp_path, "lab-0.17dB", "three-state", BLOCK_SIZE, 1, real_time=True)
    bob.launcher = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
    worst = {"backlog_blocks": 0, "backlog_detections": 0}

    def details() -> dict[str, Any]:
        found = bob.status().get("details", {})
        for name in worst:
            worst[name] = max(worst[name], found.get(name, 0))
        return found

    def overloaded_until(shed: int, made: int) -> None:
        wait_until(lambda: details().get("blocks_shed", 0) >= shed and good_blocks(alice, bob) >= made, alice, bob)

    with running(bob, alice):
        overloaded_until(shed=5, made=20)
        overloaded_until(shed=details()["blocks_shed"] + 20, made=good_blocks(alice, bob) + 20)
        assert fetch_and_compare(tmp_path) == (8, True)
        last = details()
        bob.stop()
        alice.stop()
    reasons = [block["reason"] for end in (alice, bob) for block in end.blocks if block["secret_bits"] == 0]
    assert not any("post-processing is behind" in reason for reason in reasons), "a block was given up in the middle"
    assert last["batches_dropped"] >= last["blocks_shed"] >= 25
    assert worst["backlog_detections"] <= MOST_DETECTIONS
    assert worst["backlog_blocks"] <= MAX_BACKLOG_BLOCKS + 3
    assert set(blocks_in_store(alice)) == set(blocks_in_store(bob))
    rest = undelivered_bytes(alice)
    assert rest == undelivered_bytes(bob)
    assert len(set(rest.values())) == len(rest) >= 40
