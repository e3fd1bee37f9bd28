"""A new link secret, at both ends, makes a link whose pool is empty or lost work again; an old one is refused."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from classical_channel.channel import Channel, Received
from classical_channel.keypool import ROW_BYTES, KeyPool
from classical_channel.link import POINTERS, open_pool, read_pointers
from classical_channel.stream import ReliableStream
from common.config import Config
from common.config_file import parse_config
from common.errors import AuthenticationPoolEmpty, ConfigurationError
from common.protocol.session import pads_name
from tests.pair import DictStore

BLOCK = 1 << 32 | 1
NAMES = ("alice", "bob")


class Ends:
    """Configurations and stores of both ends, with whatever link secret is installed."""

    def __init__(self, directory: Path) -> None:
        self.stores = {name: DictStore() for name in NAMES}
        self.configs: dict[str, Config] = {}
        for name in NAMES:
            (directory / name).mkdir()
            text = f'role = "{name}"\n[channel]\nlink_secret_file = "link.key"\n'
            self.configs[name] = parse_config(text, directory / name)

    def install(self, secret: bytes, *names: str) -> None:
        for name in names or NAMES:
            self.configs[name].path(self.configs[name].channel.link_secret_file).write_bytes(secret)

    def start(self) -> dict[str, KeyPool]:
        return {name: open_pool(self.configs[name], self.stores[name]) for name in NAMES}

    def talk(self) -> bool:
        """Whether a sealed message of Alice's arrives."""
        pools = self.start()
        ends = {name: Channel(ReliableStream(number), pools[name], alice=name == "alice") for number, name in
                enumerate(NAMES, 7)}  # fmt: skip
        got = []
        for step in range(40):
            for name, peer in (NAMES, NAMES[::-1]):
                while (pointers := pools[name].reservation()) is not None:
                    self.stores[name].advance({POINTERS: json.dumps(pointers).encode()})
                    pools[name].confirm(pointers)
                for raw in ends[name].packets(step * 100_000_000):
                    got += [e for e in ends[peer].receive(raw, step * 100_000_000) if isinstance(e, Received)]
            if ends["alice"].open and step == 20:
                ends["alice"].send(b"hello", seal=True)
        return got == [Received(b"hello", True)]


def drain(pool: KeyPool, store: DictStore) -> None:
    """Requests of applications, say, until nothing is left."""
    while pool.bits_left:
        while (pointers := pool.reservation()) is not None:
            store.advance({POINTERS: json.dumps(pointers).encode()})
            pool.confirm(pointers)
        pool.next_pad()


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    made = Ends(tmp_path)
    made.install(secrets.token_bytes(4 * ROW_BYTES))
    assert made.talk()
    return made


def test_a_link_whose_pool_is_empty_works_with_a_new_link_secret(ends: Ends) -> None:
    """It was the remedy, and did nothing: the durable position was past the link secret's segment."""
    for name, pool in ends.start().items():
        ends.stores[name].put_setting(pads_name(BLOCK), bytes(ROW_BYTES))
        pool.add_segment(BLOCK, bytes(ROW_BYTES))
        drain(pool, ends.stores[name])
        assert read_pointers(ends.stores[name].get_setting(POINTERS))["send"][0] == BLOCK
    with pytest.raises(AuthenticationPoolEmpty):
        ends.talk()
    ends.install(secrets.token_bytes(4 * ROW_BYTES))
    assert ends.talk()
    assert all(store.get_setting(pads_name(BLOCK)) is None for store in ends.stores.values())
    assert ends.talk(), "it is not new any more: the positions go on"
    assert all(read_pointers(store.get_setting(POINTERS))["send"] > (0, 3 * 16) for store in ends.stores.values())


def test_one_end_alone_makes_no_session_and_the_other_cures_it(ends: Ends) -> None:
    new = secrets.token_bytes(4 * ROW_BYTES)
    ends.install(new, "alice")
    assert not ends.talk()
    ends.install(new, "bob")
    assert ends.talk()


def test_a_secret_that_comes_back_is_refused(ends: Ends) -> None:
    old = ends.configs["bob"].path(Path("link.key")).read_bytes()
    ends.install(secrets.token_bytes(4 * ROW_BYTES))
    assert ends.talk()
    ends.install(old)
    with pytest.raises(ConfigurationError, match="in use before"):
        ends.start()


def test_a_new_store_beside_a_new_secret_is_a_new_link(ends: Ends) -> None:
    """The remedy for a store that is lost at one end: the other's old positions do not stand in the way."""
    ends.stores["bob"] = DictStore()
    ends.install(secrets.token_bytes(4 * ROW_BYTES))
    assert ends.talk()


def test_the_first_use_of_a_secret_says_what_must_be_true(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    """With the store and its counter gone, nothing else can tell that the secret was used before."""
    ends.stores["bob"] = DictStore()
    ends.start()
    (said,) = [record.message for record in caplog.records if record.name == "qkd.channel"]
    assert "must never have been used" in said
    assert "qkd init" in said
