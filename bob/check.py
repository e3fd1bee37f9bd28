"""`bob check`: everything that can be validated without light."""

from __future__ import annotations

from classical_channel.check import Finding, check_channel, private_file
from common.config import Config
from common.node.check import check_alarms, check_key_store, check_recorder, check_statements
from hardware.randomness import ROLE
from hardware.registry import check_devices
from hardware.slow_control import ROLES

DEVICES = ("time_tagger",)


def check(config: Config) -> list[Finding]:
    """(what, good, finding) rows."""
    key_file = config.path(config.keys.key_file)
    signing_key = config.path(config.keys.certificate_key_file)
    rows = [*check_channel(config), private_file(key_file), private_file(signing_key)]
    rows += check_devices(config, DEVICES, (*ROLES, ROLE))
    return [*rows, *check_statements(config), check_key_store(config), *check_alarms(config), *check_recorder(config)]
