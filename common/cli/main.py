"""The `qkd` command: finds its commands by entry point and gives every fault one face.

Exit codes: 0 did it (a daemon: stopped when asked to); 1 did it and the answer is no; 2 wrong usage or configuration;
3 device, peer or environment fault; 4 authentication failed, in this run or in one before, and a person must clear the
alarm (`qkd alarm clear`); 5 certificates are consistent, but nobody said what to believe (`qkd verify-certificate`);
130 interrupted by Ctrl-C or SIGTERM before it was done.
"""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click

from common.cli.signals import INTERRUPTED, ignore, interrupt
from common.errors import EnvironmentFault, InputError, QkdError, exit_code
from common.installation import REMEDY, intrusion

COMMANDS = "qkd_node.commands"
NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
"""Errors of a name that a person gave; others are the machine's."""
GROUPS = {
    "alarm": "What keeps a node from starting, and a person's word that it may.",
    "bench": "Measure performance, with peers in the same run.",
    "plan": "What rate to expect and what to set.",
    "audit": "Check the record of what was delivered.",
    "hil": "Hardware in the loop.",
}


ORDER = (
    "demo", "doctor", "plan", "length", "init", "run", "check", "status", "keys", "alarm", "verify-certificate",
    "record", "replay", "convert", "distil", "amplify", "hil", "reproduce", "figures", "bench", "soak",
)  # fmt: skip
"""Of the list in the help: what is needed first stands first; others follow by their names."""


class LazyGroup(click.Group):
    """A group whose commands are entry points `prefix.name`, imported only when called."""

    def __init__(self, *args: Any, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prefix = prefix

    def _points(self) -> dict[str, EntryPoint]:
        points = entry_points(group=COMMANDS)
        return {p.name[len(self.prefix) :]: p for p in points if p.name.startswith(self.prefix)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command and nested group that is installed."""
        names = {name.split(".")[0] for name in self._points()} | set(self.commands)
        return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; a group exists where some entry point starts with its name."""
        points = self._points()
        nested = any(name.startswith(cmd_name + ".") for name in points)
        if cmd_name in points:
            command: click.Command = points[cmd_name].load()
            if nested and isinstance(command, LazyGroup):
                command.prefix = f"{self.prefix}{cmd_name}."
            return command
        if nested:
            return LazyGroup(name=cmd_name, prefix=f"{self.prefix}{cmd_name}.", help=GROUPS.get(cmd_name, cmd_name))
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """An unknown command names the nearest known one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.4)
            if near and "did you mean" not in str(error).lower():
                raise click.UsageError(f"{error} Did you mean {near[0]!r}?", ctx) from None
            raise


def known_fault(error: QkdError | OSError | MemoryError) -> QkdError:
    """What the operating system refuses and no command foresaw, as a fault with its file and a remedy."""
    if isinstance(error, QkdError):
        return error
    if isinstance(error, MemoryError):
        return EnvironmentFault("the memory does not suffice", remedy="Give less at once, or a larger machine.")
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in NO_SUCH_FILE:
        return InputError(f"{where}{error.strerror}", remedy="Name a file or folder that can be.")
    return EnvironmentFault(f"{where}{error.strerror or error}")


def run(command: Callable[[], click.Command], name: str) -> NoReturn:
    """Run a click command and turn every expected fault into one message and the right exit code.

    Parameters
    ----------
    command : makes it, and imports most of ours: what another distribution has overwritten is told of before that.
    """
    try:
        if (wrong := intrusion()) is not None:
            raise EnvironmentFault(wrong, remedy=REMEDY)
        code = command().main(prog_name=name, standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (QkdError, OSError, MemoryError) as error:
        fault = known_fault(error)
        click.echo(f"{name}: {fault}\n  remedy: {fault.remedy}", err=True)
        sys.exit(exit_code(fault))
    sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qkd-node", prog_name="qkd")
def cli() -> None:
    """Operate a quantum key distribution node.

    Example: qkd demo --preset field-14.6dB
    """


def main() -> NoReturn:
    """Entry point of `qkd`."""
    interrupt()
    try:
        run(lambda: cli, "qkd")
    finally:
        ignore()
