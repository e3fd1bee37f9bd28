"""Start the `alice` command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from common.cli.signals import INTERRUPTED, ignore, leave_at_once

if TYPE_CHECKING:
    from click import Command


def main() -> NoReturn:
    """Entry point of `alice`."""
    leave_at_once(0 if sys.argv[1:2] == ["run"] else INTERRUPTED)
    from common.cli.main import run as run_command  # the imports take seconds; a signal must find its handler

    def command() -> Command:
        if sys.argv[1:2] == ["status"]:  # asked again and again: without all that a daemon needs
            from click import Group

            from common.cli.status import status_command

            return Group("alice", commands=[status_command("alice")])
        from alice.check import STEPS
        from alice.daemon import run
        from common.cli.role import role_command

        return role_command("alice", run, STEPS)

    try:
        run_command(command, "alice")
    finally:
        ignore()


if __name__ == "__main__":
    main()
