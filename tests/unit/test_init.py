"""`qkd init`: what it makes is complete, private, and never overwritten; `deploy/` is what it writes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from alice.check import STEPS as ALICE
from bob.check import STEPS as BOB
from common.cli.init import initialise, template
from common.config_file import load_config
from common.errors import ConfigurationError
from common.node.check import judged

ROOT = Path(__file__).parents[2]


def test_both_checks_are_content_with_a_fresh_link(tmp_path: Path) -> None:
    initialise(tmp_path)
    for steps, role in ((ALICE, "alice"), (BOB, "bob")):
        rows = judged(steps, load_config(tmp_path / f"{role}.toml", role))
        busy = "addresses"  # another link may run on this machine
        assert [row for row in rows if not row.good and row.name != busy] == []


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_deploy_holds_the_template(role: str, tmp_path: Path) -> None:
    initialise(tmp_path)
    assert (ROOT / "deploy" / f"{role}.toml").read_text() == template(role) == (tmp_path / f"{role}.toml").read_text()


def test_both_ends_agree(tmp_path: Path) -> None:
    initialise(tmp_path)
    assert load_config(tmp_path / "alice.toml").digest() == load_config(tmp_path / "bob.toml").digest()
    first, second = (tmp_path / role / "secrets" / "link.key" for role in ("alice", "bob"))
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "alice/secrets/store.key").read_bytes() != (tmp_path / "bob/secrets/store.key").read_bytes()


def test_secrets_are_private_and_never_overwritten(tmp_path: Path) -> None:
    initialise(tmp_path)
    secrets = list(tmp_path.rglob("secrets/*"))
    assert len(secrets) == 2 * 11
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    before = {path: path.read_bytes() for path in secrets}
    with pytest.raises(ConfigurationError, match="never overwritten"):
        initialise(tmp_path)
    assert before == {path: path.read_bytes() for path in secrets}


def test_an_existing_configuration_is_kept(tmp_path: Path) -> None:
    text = template("bob").replace("1_000_000", "50_000")
    (tmp_path / "bob.toml").write_text(text)
    written = initialise(tmp_path)
    assert tmp_path / "bob.toml" not in written
    assert (tmp_path / "bob.toml").read_text() == text


def test_a_port_base_enters_every_address(tmp_path: Path) -> None:
    initialise(tmp_path, hosts={"alice": "fd00::1"}, port_base=50_000)
    alice, bob = (load_config(tmp_path / f"{role}.toml", role) for role in ("alice", "bob"))
    assert alice.channel.endpoint == bob.channel.endpoint == "tcp://[fd00::1]:50001"
    assert (alice.etsi014.listen, bob.etsi014.listen) == ("[fd00::1]:50002", "127.0.0.1:50003")
    light = {alice.devices["modulator"].model_extra["fibre"], bob.devices["time_tagger"].model_extra["fibre"]}  # type: ignore[index]
    assert light == {"tcp://[fd00::1]:50000"}


def test_hosts_enter_every_address_and_nothing_else(tmp_path: Path) -> None:
    initialise(tmp_path / "one")
    initialise(tmp_path / "two", hosts={"alice": "alice.example", "bob": "fd00::2"})
    changed = set()
    for role in ("alice", "bob"):
        plain, placed = ((tmp_path / link / f"{role}.toml").read_text().splitlines() for link in ("one", "two"))
        changed |= {new.partition(" #")[0].strip() for old, new in zip(plain, placed, strict=True) if old != new}
    assert changed == {
        'endpoint = "tcp://alice.example:47600"',
        'fibre = "tcp://alice.example:47500"',
        'listen = "[fd00::2]:47701"',
        'listen = "alice.example:47700"',
    }
    load_config(tmp_path / "two" / "bob.toml", "bob")
