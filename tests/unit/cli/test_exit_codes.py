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
        (AuthenticationPoolEmpty, 4),
    ],
)
def test_every_fault_has_its_code(error: type[QkdError], code: int) -> None:
    assert exit_code(error("fault")) == code


def test_the_unit_does_not_restart_what_no_restart_mends() -> None:
    found = re.search(r"^RestartPreventExitStatus=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    assert found.group(1).split() == ["2", "4"]
