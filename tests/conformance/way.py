"""How a test reaches a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from common.config import Config
from hardware.twin.wire.server import Faults

TIMEOUT_S = 0.3
CONFIG = Config(role="alice")


@dataclass
class Way:
    """How a test reaches a device; ``faults`` to inject; ``safe``: is the twin in its safe state?

    ``config`` : what the driver is opened with. ``real`` : by a manifest, so nothing is known about it, not even light.
    """

    driver: str
    parameters: dict[str, Any]
    faults: Faults | None = None
    safe: Callable[[], bool] | None = None
    config: Config = CONFIG
    real: bool = False


Opening = Callable[[], AbstractContextManager[Way]]


def local(driver: str, **parameters: Any) -> Opening:
    """A twin in this process."""

    @contextmanager
    def way() -> Iterator[Way]:
        yield Way(driver, parameters)

    return way
