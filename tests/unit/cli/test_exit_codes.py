"""Exit codes that scripts and the systemd unit rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.cli.main import exit_code
from common.errors import (
    AuthenticationError,
    AuthenticationPoolEmpty,
    ConfigurationError,
    DeviceError,
    InputError,
    LinkLocked,
    PeerUnreachable,
    QkdError,
)

UNIT = Path(__file__).parents[3] / "deploy" / "qkd@.service"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError, 2),
        (InputError, 2),
        (DeviceError, 3),
        (PeerUnreachable, 3),
        (AuthenticationError, 4),
        (LinkLocked, 4),
        (AuthenticationPoolEmpty, 3),
    ],
)
def test_every_fault_has_its_code(error: type[QkdError], code: int) -> None:
    assert exit_code(error("fault")) == code


def test_the_unit_does_not_restart_what_no_restart_mends() -> None:
    """A wrong configuration and a failed authentication at once, all else after a few tries."""
    unit = UNIT.read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert settings["RestartPreventExitStatus"] == "2 4"
    assert int(settings["StartLimitBurst"]) * int(settings["RestartSec"]) < int(settings["StartLimitIntervalSec"])
