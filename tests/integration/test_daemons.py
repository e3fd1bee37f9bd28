"""Two real processes, real ZeroMQ, simulated light: keys whatever the order of starting, and after kill -9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.auditor.verify_certificate import examine
from common.cli.demo import Daemon, prepare, running
from common.cli.demo_keys import fetch_and_compare
from tests.integration.nodes import (
    BLOCK_SIZE,
    blocks_in_store,
    first_failure,
    good_blocks,
    kill,
    light_waits,
    pair,
    replace_in,
    stopped,
    undelivered_bytes,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def link(tmp_path: Path) -> tuple[Daemon, Daemon]:
    return pair(tmp_path)


def stop_cleanly(*daemons: Daemon) -> None:
    """Bob first where stores are compared: what he has not acknowledged stays "decided" with Alice until they meet."""
    for daemon in daemons:
        daemon.stop()
        assert daemon.process is not None
        assert daemon.process.returncode == 0, daemon.log.read_text()[-1500:]


def certified(*blocks: dict[str, Any]) -> None:
    """Nothing in the certificates of both ends is contradictory, and they agree."""
    assert examine([("store", json.dumps(block["certificate"])) for block in blocks]).verdict == "consistent"


def test_keys_are_made_killed_for_and_made_again(link: tuple[Daemon, Daemon]) -> None:
    """Bob first; then one or both are killed, again and again: nothing committed is lost, doubled or differs."""
    alice, bob = link
    replace_in(alice, "seed = 1\n", "")  # a seeded source begins anew with every start, and gives old keys again
    with running(bob, alice):
        wait_until(lambda: good_blocks(alice, bob) >= 2, alice, bob)
        assert alice.status()["state"] == "running"
        assert fetch_and_compare(alice.directory) == (8, True)
        for victims in ((bob,), (alice,), (bob, alice), (alice, bob)):
            before = set(blocks_in_store(alice)) & set(blocks_in_store(bob))
            for victim in victims:
                kill(victim)
            made = len(blocks_in_store(alice))
            for victim in victims:
                victim.start()
            wait_until(lambda made=made: len(blocks_in_store(alice)) >= made + 2, alice, bob)
            assert before <= set(blocks_in_store(alice)) & set(blocks_in_store(bob))
        assert fetch_and_compare(alice.directory) == (8, True)
        stop_cleanly(bob, alice)
    ours, theirs = blocks_in_store(alice), blocks_in_store(bob)
    assert set(ours) == set(theirs)
    rest = undelivered_bytes(alice)
    assert rest == undelivered_bytes(bob)
    assert len(set(rest.values())) == len(rest), "one key under two names"
    assert undelivered_bytes(alice) == {}, "a byte was handed out twice"
    for number, block in ours.items():
        ledger = block["certificate"]["ledger"]
        assert block["certificate"]["amplification"]["secret_bits"] == ledger["ell_bits"]
        assert block["certificate"]["authentication"]["application_bits"] == block["secret_bits"]
        certified(block, theirs[number])


@pytest.mark.parametrize("family", ["modified-toeplitz", "gf2m"])
def test_every_hash_family_makes_keys(link: tuple[Daemon, Daemon], family: str) -> None:
    for daemon in link:
        replace_in(daemon, 'family = "toeplitz"', f'family = "{family}"')
    alice, bob = link
    with running(bob, alice):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        assert fetch_and_compare(alice.directory) == (8, True)
        stop_cleanly(bob, alice)
    assert "self-test passed" in alice.log.read_text()
    assert "self-test passed" in bob.log.read_text()


def test_no_block_is_lost_on_a_loaded_machine(tmp_path: Path) -> None:
    """Alice gets no processor for longer than Bob's tagger waits: the light waits too, and every block is good."""
    alice, bob = prepare(tmp_path, "field-14.6dB", "three-state", 400_000, 1)
    with running(bob, alice):
        for made in range(1, 4):
            wait_until(lambda made=made: len(bob.blocks) >= made, alice, bob)
            assert alice.process is not None
            with stopped(alice.process.pid):
                wait_until(lambda: light_waits(bob), bob)
        wait_until(lambda: good_blocks(alice, bob) >= 4, alice, bob)
        stop_cleanly(bob, alice)
    assert [
        block["reason"] for block in bob.blocks if block["secret_bits"] == 0 and "stop" not in block["reason"]
    ] == []


def expect_refusal(link: tuple[Daemon, Daemon], *words: str, exit_code: int = 3) -> None:
    """At least one end stops with a clear message; neither has a key."""
    alice, bob = link
    with running(alice, bob):
        code, text = first_failure(alice, bob)
    assert code == exit_code, text
    for word in words:
        assert word in text
    assert not alice.good
    assert not bob.good
    assert blocks_in_store(alice) == blocks_in_store(bob) == {}


def test_another_pre_shared_secret(link: tuple[Daemon, Daemon]) -> None:
    """Neither proves anything to the other: both wait, and say why. Nobody's packet ends a node."""
    alice, bob = link
    path = bob.directory / "bob" / "secrets" / "link.key"
    path.write_bytes(path.read_bytes()[::-1])
    with running(alice, bob):
        for daemon in link:
            wait_until(
                lambda daemon=daemon: any("link secrets differ" in text for text in daemon.status().get("alarms", [])),
                alice,
                bob,
            )
        stop_cleanly(bob, alice)
    assert blocks_in_store(alice) == blocks_in_store(bob) == {}


def test_another_epsilon_budget(link: tuple[Daemon, Daemon]) -> None:
    replace_in(link[1], "eps_total = 1e-14", "eps_total = 1e-13")
    expect_refusal(link, "handshake mismatch in 'security.eps_total'")


def test_another_curve_key(link: tuple[Daemon, Daemon]) -> None:
    """The connection never comes up; both ends say why, nothing is sent."""
    alice, bob = link
    path = bob.directory / "bob" / "secrets" / "curve.key"
    path.write_bytes((alice.directory / "alice" / "secrets" / "curve.key").read_bytes())
    with running(alice, bob):
        wait_until(lambda: any("CURVE" in alarm for alarm in bob.status().get("alarms", [])), alice, bob)
        wait_until(lambda: any("CURVE" in alarm for alarm in alice.status().get("alarms", [])), alice, bob)
        stop_cleanly(bob, alice)
    assert blocks_in_store(alice) == blocks_in_store(bob) == {}


@pytest.mark.parametrize("protocol", ["bb84", "decoy-bb84"])
def test_every_protocol_makes_equal_keys(protocol: str, tmp_path: Path) -> None:
    """Four states and weak coherent pulses, both daemons end to end; the auditor's file computes the same length."""
    alice, bob = prepare(tmp_path, "lab-0.17dB", protocol, BLOCK_SIZE, 1)
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        assert fetch_and_compare(alice.directory) == (8, True)
        stop_cleanly(bob, alice)
    ours, theirs = blocks_in_store(alice), blocks_in_store(bob)
    assert set(ours) == set(theirs)
    for number, block in ours.items():
        ledger = block["certificate"]["ledger"]
        certified(block, theirs[number])
        assert ledger["settings"]["protocol"] == protocol
        seen = [sum(map(sum, level)) for level in ledger["tallies"]["x_counts"]]
        # of the vacuum's few dark counts hardly one is in X
        assert [count > 0 for count in seen[:2]] == ([True] if protocol == "bb84" else [True, True])


def test_a_node_of_twins_says_so_before_its_first_handshake(link: tuple[Daemon, Daemon]) -> None:
    alice, _ = link
    with running(alice):
        wait_until(lambda: "simulated" in alice.status(), alice)
        assert alice.status()["peer"] == "never seen"
        assert alice.status()["simulated"] is True
