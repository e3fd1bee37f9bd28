"""Numbers without a meaning, given to `qkd plan rate`: a named error, or length 0 with its reason; never a key."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from common.cli.plan_rate import command
from common.errors import InputError

CASES = [
    *((name, value) for name in ("--p-z-alice", "--p-z-bob") for value in ("0", "1", "nan", "-0.1")),
    *((name, value) for name in ("--g2", "--mean-photon-number") for value in ("0", "nan", "-1")),
    *((name, value) for name in ("--g2-upper", "--mean-photon-number-upper") for value in ("0", "nan", "-1")),
    *(("--eps-total", value) for value in ("0", "1", "nan", "1e-200")),
    *((name, "nan") for name in ("--loss-db", "--misalignment", "--dark-probability", "--f-ec", "--attenuation-db")),
    ("--detector-efficiency", "0"),
    ("--block-size", "0"),
]


@pytest.mark.parametrize("protocol", ["three-state", "bb84"])
@pytest.mark.parametrize(("option", "value"), CASES)
def test_nonsense_gives_no_key_and_says_why(option: str, value: str, protocol: str) -> None:
    given = ["--p-z-alice", "0.9", "--protocol", protocol, option, value, "--json"]
    found = CliRunner().invoke(command, given)
    if found.exception is None or isinstance(found.exception, SystemExit):
        document = json.loads(found.stdout)
        assert document["secret_bits"] == 0
        assert document["refusal"]
    else:
        assert isinstance(found.exception, InputError), found.exception
        assert found.exception.remedy
