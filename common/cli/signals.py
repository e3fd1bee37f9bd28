"""Ctrl-C and SIGTERM at any moment, also while a command is still being imported: an orderly end, never a traceback.

Imports nothing of ours and nothing slow: it must be ready before anything else is.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130


def leave_at_once(exit_code: int) -> None:
    """Until a daemon takes the signals over, nothing is open that an end could harm."""

    def leave(_: int, __: FrameType | None) -> None:
        os._exit(exit_code)  # an exception could be swallowed by a half-imported library

    for number in STOP_SIGNALS:
        signal.signal(number, leave)


def interrupt() -> None:
    """Both signals raise KeyboardInterrupt, so that a command cleans up (child processes, temporary folders)."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)


def ignore() -> None:
    """The end is under way and must not be interrupted."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
