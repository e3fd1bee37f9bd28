"""The `bob` command."""

from __future__ import annotations

from typing import NoReturn

from bob.check import check
from bob.daemon import run
from common.cli import main as command_line
from common.cli.role import role_command

cli = role_command("bob", run, check)


def main() -> NoReturn:
    """Entry point of `bob`."""
    command_line.run(cli, "bob")


if __name__ == "__main__":
    main()
