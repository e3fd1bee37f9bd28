"""What commands advise can be followed: help, remedies and reasons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomlkit
from click.testing import CliRunner

from common.cli.distil import command as distil
from common.cli.doctor import role_check
from common.cli.init import initialise, template
from common.cli.plan import optimum_command as plan
from common.cli.replay import record_command
from common.config_file import load_config, parse_config
from common.errors import ConfigurationError


def test_what_the_help_of_record_advises_is_valid(tmp_path: Path) -> None:
    assert "`enabled = true` below `[record]`" in " ".join(str(record_command.help).split())
    document = tomlkit.parse(template("bob"))
    document["record"]["enabled"] = True  # type: ignore[index]
    assert parse_config(tomlkit.dumps(document), tmp_path).record.enabled


def test_a_wrong_key_of_a_link_is_corrected_in_its_own_file(tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.write_text("los_db = 3\n")
    with pytest.raises(ConfigurationError, match="did you mean 'loss_db'") as caught:
        CliRunner().invoke(plan, [str(link), "--quiet"], catch_exceptions=False, standalone_mode=False)
    assert str(link) in caught.value.remedy
    assert "`check`" not in caught.value.remedy


def test_distil_says_why_there_is_no_key(tmp_path: Path) -> None:
    bits = np.random.default_rng(1).integers(0, 2, 40_000, dtype=np.uint8)
    np.save(tmp_path / "a.npy", bits)
    files = ["--alice", str(tmp_path / "a.npy"), "--bob", str(tmp_path / "a.npy"), "--quiet"]
    for options, reason in (
        ([], "was not said: give --phase-error, or --ell"),
        (["--ell", "0"], "--ell is 0"),
        (["--phase-error", "0.5"], "more than what is secret"),
        (["--phase-error", "0.01"], ""),
    ):
        told = json.loads(CliRunner().invoke(distil, [*files, *options, "--json"], catch_exceptions=False).stdout)
        assert told["reason"] == "" if not reason else reason in told["reason"]
        assert (told["secret_bits"] > 0) == (not reason)
    assert "no key: how much" in CliRunner().invoke(distil, files, catch_exceptions=False).stdout


def test_doctor_says_what_check_says(tmp_path: Path) -> None:
    """All steps of the role, those of its channel and devices among them."""
    initialise(tmp_path, port_base=58_500)
    config = load_config(tmp_path / "bob.toml")
    config.path(config.channel.link_secret_file).write_bytes(bytes(1 << 16))
    rows = {name: (good, text) for name, good, text in role_check("bob", tmp_path / "bob.toml")}
    assert rows["link secret"][0] is False
    assert "does not hold random bytes" in rows["link secret"][1]
    assert {"secrets", "CURVE keys", "key delivery"} <= set(rows)
