"""What the peer writes in JSON, and what somebody writes in its name, ends nothing but what it is about."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from common.errors import LocalProtocolError, RemoteProtocolError
from common.node.runtime import Lanes, Shell
from common.protocol.messages import Propose
from common.protocol.session import check_hello
from tests.pair import DictStore
from tests.property.test_protocol import (  # noqa: F401
    Feeder,
    make_pair,
    short_blocks_give_key,
)
from tests.property.test_tampering import Eve, altered
from tests.stores import inventory, open_store

NESTED = b"[" * 200_000


@pytest.mark.parametrize("text", [NESTED, b"{}", b"[]", b"1", b"\xff", b'{"n_z":' + NESTED])
def test_a_proposal_that_nobody_made_gives_its_block_up_and_nothing_else(text: bytes) -> None:
    pair, sky = make_pair()

    def act(raw: bytes, message: Any) -> list[bytes]:
        return [altered(raw, replace(message, payload=text))] if isinstance(message, Propose) else [raw]

    pair.to_bob.fault = Eve(act)
    Feeder(pair, sky)
    pair.run(lambda: bool(pair.bob.done))
    assert pair.bob.done[0].reason.startswith("the tallies differ in")


def test_the_first_tally_that_differs_is_named() -> None:
    pair, sky = make_pair()

    def act(raw: bytes, message: Any) -> list[bytes]:
        if not isinstance(message, Propose):
            return [raw]
        tallies = json.loads(message.payload)
        tallies["n_z_kept"] += 10
        return [altered(raw, replace(message, payload=json.dumps(tallies, sort_keys=True).encode()))]

    pair.to_bob.fault = Eve(act)
    Feeder(pair, sky)
    pair.run(lambda: bool(pair.bob.done))
    assert pair.bob.done[0].reason == "the tallies differ in 'n_z_kept'"


@pytest.mark.parametrize(
    "change",
    [
        {"agreed": [["a", 1], [5, 2]]},
        {"pending": [1e999]},
        {"pending": [[1]]},
        {"newest_block": 1e999},
        {"newest_block": "1"},
        {"decided": {"1": 2}},
        {"pending": [True]},
    ],
)
def test_a_hello_of_wrong_types_is_the_peer_s_fault(change: dict[str, Any]) -> None:
    pair, _ = make_pair()
    session: Any = pair.bob.session
    said = session._hello([], 0) | change
    with pytest.raises(RemoteProtocolError, match="HELLO"):
        check_hello(json.dumps(said).encode(), pair.alice.session.identity)


def test_a_nested_hello_is_the_peer_s_fault() -> None:
    with pytest.raises(RemoteProtocolError, match="HELLO"):
        check_hello(NESTED, make_pair()[0].alice.session.identity)


@pytest.mark.parametrize("row", [[5, 1, 0, 32], [None, 1, 0, 32], [[], 1, 0, 32], ["x", 1, 0, 32], 7, "abcd", [1]])
def test_a_request_of_wrong_types_is_refused(tmp_path: Any, row: Any) -> None:
    keys = inventory(open_store(tmp_path, "bob"), "bob")
    request = {"reserve": [row], "master": "sae-a", "slave": "sae-b"}
    assert b"cannot be read" in keys.accept_from_peer(json.dumps(request).encode())
    assert b"cannot be read" in keys.accept_from_peer(NESTED)


async def test_what_nobody_foresaw_is_told_as_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    """The process ends with a fault of its own, with words and a remedy, not with a group of tasks."""

    class Transport:
        async def receive(self) -> bytes:
            return b""

    class Channel:
        def receive(self, raw: bytes, now_ns: int) -> list[Any]:
            raise RecursionError("too deep")

    nobody: Any = None
    lanes, channel, transport = Lanes(1), Channel(), Transport()
    shell = Shell(nobody, channel, transport, nobody, DictStore(), lanes, lambda _: None, lambda: None)  # type: ignore[arg-type]
    shell.pump = lambda: None  # type: ignore[method-assign]
    await shell._receive()
    lanes.close()
    fault = shell._failed.exception()
    assert isinstance(fault, LocalProtocolError)
    assert "RecursionError" in str(fault)
    assert "defect" in fault.remedy
    assert "too deep" in caplog.text
