"""The key store as the session uses it: a call waits for as long as the disk takes nothing, and is then made again.

A call of the store changes all or nothing, so that it can be made again. What waits is the store's lane, in its order:
no message that rests on what could not be stored leaves before it is. Applications do not wait; they are answered 503.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, cast

from common.errors import StoreUnavailable

RETRY_S = 1.0
Part = TypeVar("Part")


def patient(store: Part, given_up: threading.Event, retry_s: float = RETRY_S) -> Part:
    """The same store, whose calls do not fail for want of room before ``given_up`` is set."""
    return cast(Part, _Patient(store, given_up, retry_s))


class _Patient:
    def __init__(self, store: Any, given_up: threading.Event, retry_s: float) -> None:
        self._store, self._given_up, self._retry_s = store, given_up, retry_s

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        def patiently(*arguments: Any, **named: Any) -> Any:
            while True:
                try:
                    return call(*arguments, **named)
                except StoreUnavailable:
                    if self._given_up.wait(self._retry_s):
                        raise

        return patiently
