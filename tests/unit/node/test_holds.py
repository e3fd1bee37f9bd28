"""What keeps blocks from producing key: session and operator are told, and both the hold and the alarm end with it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from common.config_file import parse_config
from common.node.node import Node, Options
from common.node.prompt import Prompt


class Store:
    bits = 0
    unavailable: str | None = None

    def stored_bits(self) -> int:
        return self.bits
    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()

    def look(self) -> None:
        self.answers.wait()


class Session:
    def __init__(self) -> None:
        self.told: list[str | None] = []

    def hold(self, reason: str | None, now_ns: int) -> list[Any]:
        self.told.append(reason)
        return []


class Shell:
    def act(self, effects: Any) -> None:
        effects()


@pytest.fixture(autouse=True)
def signals_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.node.node.stop_event", asyncio.Event)


def node(tmp_path: Path) -> tuple[Any, Store, Session]:
    config = parse_config('role = "alice"\n[keys]\nmax_stored_bits = 1000\n', tmp_path)
    store, session = Store(), Session()
    made: Any = Node(config, Options(), store)  # type: ignore[arg-type]
    made._session, made.shell = session, Shell()
    return made, store, session


async def test_a_full_store_holds_and_room_lets_go(tmp_path: Path) -> None:
    made, store, session = node(tmp_path)
    made._judge()
    assert session.told == []
    store.bits = 1000
    made._judge()
    made._judge()
    assert len(session.told) == 1, "told once"
    assert "keys.max_stored_bits is 1000" in str(session.told[0])
    assert "no block produces key" in made.board.alarms["key store"]
    store.bits = 999
    made._judge()
    assert session.told[1:] == [None]
    assert made.board.alarms == {}
    made.lanes.close()


async def test_every_watch_is_asked_and_named(tmp_path: Path) -> None:
    made, store, session = node(tmp_path)
    answers: list[str | None] = ["it is too bright"]
    made.watch("power", lambda: answers[0])
    store.bits = 2000
    made._judge()
    assert "too bright" in str(session.told[0])
    assert "max_stored_bits" in str(session.told[0])
    assert set(made.board.alarms) == {"key store", "power"}
    answers[0] = None
    made._judge()
    assert "too bright" not in str(session.told[1])
    assert set(made.board.alarms) == {"key store"}
    made.lanes.close()


async def test_a_full_disk_holds_until_there_is_room(tmp_path: Path) -> None:
    made, store, session = node(tmp_path)
    store.unavailable = "key store k.sqlite: the disk does not take it: database or disk is full"
    made._judge()
    assert "disk is full; no block produces key" in made.board.alarms["disk"]
    assert "disk is full" in str(session.told[0])
    store.unavailable = None
    made._judge()
    assert session.told[1:] == [None]
    assert made.board.alarms == {}
    made.lanes.close()


async def test_a_disk_that_hangs_holds_and_its_answer_lets_go(tmp_path: Path) -> None:
    made, store, session = node(tmp_path)
    made._look = Prompt(store.look, patience_s=0.01)
    store.answers.clear()
    await made._look.ask()
    made._judge()
    assert "has not answered" in made.board.alarms["disk"]
    assert "has not answered" in str(session.told[0])
    store.answers.set()
    while made._look.silent_s:
        await made._look.ask()
    made._judge()
    assert "disk" not in made.board.alarms
    assert session.told[1:] == [None]
