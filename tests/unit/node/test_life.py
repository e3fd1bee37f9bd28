"""The epsilon of a link's whole life: nothing counted twice, nothing forgotten, whatever dies in between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from classical_channel.authentication import eps_tag
from classical_channel.keypool import RESERVE_BYTES, KeyPool
from classical_channel.link import open_link
from common.config_file import parse_config
from common.errors import ConfigurationError
from common.keybits import KeyBits
from common.keys import life
from common.keys.life import Life, Share
from common.node.keystore import KeyStore
from common.node.node import Node
from common.node.runtime import Lanes, Shell
from common.node.status import StatusBoard
from common.node.telemetry import Reporter
from common.planning.link_model import ReceiverRules, expected_block
from common.planning.presets import PRESETS
from common.security.budget import EPS_AUTH_LEAST, MOST_TAGS_PER_BLOCK, EpsilonBudget
from common.security.tallies import ProtocolSettings
from tests.pair import LINK_SECRET, DictStore
from tests.stores import open_store

EPS = 3e-14
RECORD = json.dumps({"ledger": {"eps_spent": EPS}})
YEAR_S = 365.25 * 86400


def pending(store: KeyStore, block_id: int, record: str = RECORD) -> None:
    store.store_pending(block_id, KeyBits.from_bytes(bytes(32)), record, False, authenticated=True)


def test_a_block_counts_once_with_its_decision_or_its_commit(tmp_path: Path) -> None:
    """Alice's when she decides, Bob's when he commits; however often either is repeated, in whatever process."""
    with open_store(tmp_path, "alice") as store:
        for number in (1, 2, 3):
            pending(store, number)
        assert store.life() == Life(0, 0, 0.0)
        store.decide(1)
        store.commit(2)
        store.destroy(3)
        assert store.life() == Life(2, 0, 2 * EPS)
    with open_store(tmp_path, "alice") as store:
        for _ in range(3):
            store.commit(1)
            store.commit(2)
        assert store.life() == Life(2, 0, 2 * EPS)


def test_the_count_and_the_decision_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(*_: Any) -> None:
        raise OSError("the power is cut")

    with open_store(tmp_path, "alice") as store:
        pending(store, 1)
        with monkeypatch.context() as patch:
            patch.setattr(KeyStore, "_put", power_cut)
            with pytest.raises(OSError, match="power"):
                store.decide(1)
        assert store.state_of(1) == "pending"
        assert store.life() == Life(0, 0, 0.0)
        store.decide(1)
        assert store.life() == Life(1, 0, EPS)


def test_a_key_without_a_ledger_has_no_security_to_speak_of(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        pending(store, 1, "{}")
        store.decide(1)
        assert store.life().eps_life == 1.0


def shell_of(store: DictStore, channel: Any, lanes: Any) -> Shell:
    unused: Any = None
    return Shell(unused, channel, unused, KeyPool(LINK_SECRET, alice=True), store, lanes, lambda _: None, lambda: None)


async def test_tags_are_kept_with_the_pads_and_survive_restarts() -> None:
    """Of every seal: handshakes, requests, refusals, blocks. What a dying process loses is covered by the next."""
    store, lanes = DictStore(), Lanes(1)
    try:
        for process in range(1, 4):
            channel = SimpleNamespace(tags_sent=0, tags_verified=0, eps_auth_spent=0.0, placed=True)
            shell = shell_of(store, channel, lanes)
            channel.tags_sent, channel.tags_verified, channel.eps_auth_spent = 7, 5, 1e-20
            shell._reserve_pads()
            while shell.jobs_running:
                lanes["store"].submit(bool).result()
                await asyncio.sleep(0)
            kept = Share.decode(store.get_setting(life.TAGS))
            assert kept.count == 12 * process
            assert kept.eps == pytest.approx(process * (life.RESTART_EPS + 1e-20), rel=1e-12)
    finally:
        lanes.close()


def test_the_alarm_is_up_while_more_is_spent_than_was_agreed(tmp_path: Path) -> None:
    most = 2.5 * EPS
    config = parse_config(f'role = "alice"\n[security]\neps_life_max = {most}\n', tmp_path)
    assert config.agreed()["security.eps_life_max"] == most
    with open_store(tmp_path, "alice") as store:
        tags = Share(7, 1e-20)
        board = StatusBoard("alice", "x", 1.0)
        node: Any = SimpleNamespace(store=store, board=board, config=config, shell=SimpleNamespace(tags=lambda: tags))
        for number in (1, 2, 3):
            Node._look_at_life(node)
            assert board.document()["alarms"] == []
            pending(store, number)
            store.decide(number)
        Node._look_at_life(node)
    document = board.document()
    assert (document["life_blocks"], document["life_tags"]) == (3, 7)
    assert document["eps_life"] == pytest.approx(3 * EPS + 1e-20, rel=1e-12)
    told = "eps_life: the link has spent 9e-14 since its start secret; security.eps_life_max is 7.5e-14"
    assert document["alarms"] == [told]
    published = Reporter("x", "alice", 1).update(document, {}, 0)
    assert any(b'"eps_life"' in one.payload for one in published if one.topic.endswith("tele/key"))


def test_what_a_start_counts_is_more_than_a_process_can_lose() -> None:
    """Between two writes at most two reservations of each direction, of any length; below what one block may spend."""
    unit = EPS_AUTH_LEAST / MOST_TAGS_PER_BLOCK
    assert 4 * RESERVE_BYTES // 16 * unit < life.RESTART_EPS < EpsilonBudget().eps_auth


def test_a_budget_that_tags_could_exceed_does_not_open_a_link(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "link.key").write_bytes(LINK_SECRET)
    config = parse_config('role = "alice"\n[security]\neps_auth = 3e-21\n', tmp_path)
    with pytest.raises(ConfigurationError, match="less than the tags of a block"):
        open_link(config, DictStore())


def test_a_year_of_the_field_link_stays_below_the_default_limit() -> None:
    """14.6 dB, blocks of 1e6 detections, eps_total 1e-14: the figure of `common/security/README.md`."""
    field = PRESETS["field-14.6dB"]
    settings = ProtocolSettings("three-state", 0.86, field.p_z_bob)
    slots = expected_block(field, settings, 1e6, ReceiverRules(field.dead_time_ps)).tallies.slots_sent
    blocks = YEAR_S * field.clock_rate_hz / slots
    tags = MOST_TAGS_PER_BLOCK * blocks + 200 * YEAR_S  # and a hundred requests a second, two tags each
    spent = blocks * 1e-14 + tags * eps_tag(10**9) + 365 * life.RESTART_EPS
    assert f"{spent:.2e}" == "1.04e-07"
    assert spent < parse_config('role = "alice"', Path()).security.eps_life_max
    assert tags * eps_tag(10**9) < 1e-6 * spent
