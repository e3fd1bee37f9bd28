"""The `alice` command."""

from __future__ import annotations

from typing import NoReturn

from alice.check import check
from alice.daemon import run
from common.cli import main as command_line
from common.cli.role import role_command

cli = role_command("alice", run, check)


def main() -> NoReturn:
    """Entry point of `alice`."""
    command_line.run(cli, "alice")


if __name__ == "__main__":
    main()
