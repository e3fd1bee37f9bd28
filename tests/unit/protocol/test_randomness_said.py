"""The class and source of every kind of randomness: said in the handshake, in the ledger, below the minimum refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.config import Config
from common.config_file import parse_config
from common.errors import ConfigurationError, HandshakeMismatch, RemoteProtocolError
from common.node.node import identity
from common.protocol.messages import PROTOCOL_VERSION
from common.protocol.session import Identity, check_hello
from common.randomness import USES, Randomness, assumptions, documents, read_uses, shortfall
from tests.identities import identity_of, sources

QUANTUM = Randomness("quantum", "a beam splitter")
KERNEL = Randomness("computational", "the kernel")


def config(role: str, extra: str = "") -> Config:
    return parse_config(f'role = "{role}"\n{extra}', Path())


def hello(who: Identity, **changes: Any) -> bytes:
    said = {
        "protocol_version": PROTOCOL_VERSION,
        "role": who.role.value,
        "software": who.software,
        "simulated": who.simulated,
        "randomness": documents(who.randomness),
        "agreed": dict(who.agreed),
        "pending": [],
        "decided": [],
        "newest_block": 0,
    }
    return json.dumps({**said, **changes}).encode()


def test_both_ends_state_the_same_assumptions_whoever_asks() -> None:
    both = {"alice": sources("alice", "quantum"), "bob": sources("bob")}
    sentences = assumptions(both)
    assert sentences == assumptions(dict(reversed(both.items())))
    assert len(sentences) == sum(map(len, USES.values()))
    assert sum("secret only as long as nobody predicts" in one for one in sentences) == len(USES["bob"])
    assert any("quantum randomness from the symbols of a test" in one for one in sentences)


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        {"coins": {"class": "quantum", "source": "x"}},
        {"coins": {"class": "true", "source": "x"}, "start": {"class": "quantum", "source": "x"}},
        {"coins": {"class": ["quantum"], "source": "x"}, "start": {"class": "quantum", "source": "x"}},
        {"coins": {"class": "quantum"}, "start": {"class": "quantum", "source": "x"}},
        {"coins": {"class": "quantum", "source": ""}, "start": {"class": "quantum", "source": "x"}},
        {"coins": {"class": "quantum", "source": "a\nb"}, "start": {"class": "quantum", "source": "x"}},
        {"coins": {"class": "quantum", "source": 201 * "x"}, "start": {"class": "quantum", "source": "x"}},
        {"coins": {"class": "quantum", "source": 7}, "start": {"class": "quantum", "source": "x"}},
    ],
)
def test_a_handshake_without_a_class_and_a_source_for_each_use_is_refused(said: Any) -> None:
    alice = identity_of(config("alice"))
    check_hello(hello(identity_of(config("bob"))), alice)
    with pytest.raises(RemoteProtocolError):
        check_hello(hello(identity_of(config("bob")), randomness=said), alice)
    with pytest.raises(ValueError, match="randomness"):
        read_uses(said, "bob")


def test_a_peer_below_the_agreed_class_ends_a_real_link_and_no_simulated_one() -> None:
    alice = identity_of(config("alice"), simulated=False, grade="quantum")
    for grade, simulated, refused in (
        ("computational", False, True),
        ("physical", False, False),
        ("quantum", False, False),
        ("computational", True, False),
    ):
        peer = identity_of(config("bob"), simulated=simulated, grade=grade)  # type: ignore[arg-type]
        if refused:
            with pytest.raises(HandshakeMismatch, match=r"security\.randomness.*coins are computational"):
                check_hello(hello(peer), alice)
        else:
            check_hello(hello(peer), alice)


def test_the_minimum_is_the_same_at_both_ends() -> None:
    alice = identity_of(config("alice"))
    with pytest.raises(HandshakeMismatch, match=r"security\.randomness"):
        check_hello(hello(identity_of(config("bob", '[security]\nrandomness = "computational"\n'))), alice)


def test_the_weakest_of_all_uses_counts() -> None:
    uses = {"symbols": QUANTUM, "seeds": QUANTUM, "start": KERNEL}
    assert shortfall(uses, "computational") is None
    assert "start is computational" in str(shortfall(uses, "physical"))
    assert "symbols are physical" in str(shortfall({"symbols": Randomness("physical", "noise")}, "quantum"))


SIGNER = '[keys]\ncertificate_key_file = "sign.pem"\n'
STATED = '[channel]\nlink_secret_class = "quantum"\nlink_secret_origin = "Quantis, carried by hand"\n'


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_a_node_with_real_devices_does_not_start_below_the_minimum(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.node.credentials.read_certificate_key", lambda _: None)
    drawn = {use: QUANTUM for use in USES[role] if use != "start"}
    unstated, stated = config(role), config(role, STATED)
    with pytest.raises(ConfigurationError, match="'physical', but start is computational") as caught:
        identity(unstated, False, drawn)
    assert "link_secret_class" in caught.value.remedy
    assert identity(stated, False, drawn).randomness["start"].source == "Quantis, carried by hand"
    with pytest.raises(ConfigurationError, match="are computational"):
        identity(stated, False, dict.fromkeys(drawn, KERNEL))
    identity(unstated, True, dict.fromkeys(drawn, KERNEL))
    accepted = config(role, '[security]\nrandomness = "computational"\n')
    identity(accepted, False, dict.fromkeys(drawn, KERNEL))


def test_a_better_link_secret_says_where_it_comes_from() -> None:
    with pytest.raises(ConfigurationError, match="link_secret_origin"):
        config("bob", '[channel]\nlink_secret_class = "quantum"\n')
    with pytest.raises(ConfigurationError, match="printable"):
        config("bob", '[channel]\nlink_secret_origin = "a\\nb and more"\n')
