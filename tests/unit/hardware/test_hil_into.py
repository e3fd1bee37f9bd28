"""The bench of `qkd hil serve` goes into a daemon's configuration by a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from common.cli.init import initialise
from common.config_file import load_config
from common.errors import ConfigurationError
from hardware.twin.wire.hil import command, merge_devices

BENCH = {
    "time_tagger": {"driver": "tcp-tags", "host": "127.0.0.1", "port": 5001, "simulated": True},
    "attenuator": {"driver": "keysight-attenuator", "resource": "TCPIP::127.0.0.1::5002::SOCKET"},
}


def test_a_bench_replaces_its_roles_and_leaves_the_rest(tmp_path: Path) -> None:
    initialise(tmp_path)
    path = tmp_path / "bob.toml"
    before = path.read_text()
    for _ in range(2):  # the ports are others at every start
        merge_devices(path, "bob", BENCH)
        config = load_config(path, "bob")
        assert {role: device.driver for role, device in config.devices.items()} == {
            "time_tagger": "tcp-tags",
            "attenuator": "keysight-attenuator",
        }
    kept = before.split("[devices.time_tagger]")[0]
    assert path.read_text().startswith(kept)


def test_a_configuration_without_devices_gets_them(tmp_path: Path) -> None:
    (tmp_path / "bob.toml").write_text('role = "bob"  # mine\n')
    merge_devices(tmp_path / "bob.toml", "bob", BENCH)
    assert set(load_config(tmp_path / "bob.toml").devices) == set(BENCH)
    assert "# mine" in (tmp_path / "bob.toml").read_text()


def test_the_other_end_s_configuration_is_refused(tmp_path: Path) -> None:
    initialise(tmp_path)
    before = (tmp_path / "alice.toml").read_text()
    with pytest.raises(ConfigurationError, match="'alice'"):
        merge_devices(tmp_path / "alice.toml", "bob", BENCH)
    assert (tmp_path / "alice.toml").read_text() == before


@pytest.mark.parametrize("option", ["--light", "--fibre"])
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "127.0.0.1:47500", "ipc:///tmp/light", "tcp://:1"])
def test_an_address_of_light_that_is_none_is_a_usage_error(option: str, address: str) -> None:
    result = CliRunner().invoke(command, [option, address])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output
