"""`bob check`: everything that can be validated without light, and what `run` refuses before it opens anything."""

from __future__ import annotations

from bob.daemon import require_controller
from classical_channel.check import CHANNEL
from common.node.check import NODE, Step
from hardware.randomness import ROLE
from hardware.registry import device_steps
from hardware.slow_control import ROLES

STEPS: tuple[Step, ...] = (
    *NODE,
    *CHANNEL,
    *device_steps(("time_tagger",), (*ROLES, ROLE)),
    ("polarisation", require_controller),
)
