"""The three programs as click commands, run in this process as their entry points run them."""

from __future__ import annotations

import io
import json
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import click
from click.testing import CliRunner

from alice.check import STEPS as ALICE
from alice.daemon import run as run_alice
from bob.check import STEPS as BOB
from bob.daemon import run as run_bob
from common.cli.main import cli, known_fault
from common.cli.role import role_command
from common.errors import QkdError, exit_code

PROGRAMS: dict[str, click.Command] = {
    "qkd": cli,
    "alice": role_command("alice", run_alice, ALICE),
    "bob": role_command("bob", run_bob, BOB),
}
INTERRUPTED = 130


@dataclass(frozen=True)
class Seen:
    """What came of a command: exit code (None: a traceback), what it said, what stood on stdout."""

    code: int | None
    said: str
    stdout: str = ""


def invoke(command: Sequence[str]) -> Seen:
    """Run it here; see :func:`common.cli.main.run`, which does the same and ends the process."""
    name, *arguments = command
    outer = io.StringIO()  # what is printed past click's own streams
    with redirect_stdout(outer), redirect_stderr(outer):
        result = CliRunner().invoke(PROGRAMS[name], arguments, prog_name=name, standalone_mode=False)
    error = result.exception
    if error is None:
        code = result.return_value if isinstance(result.return_value, int) else 0
        return Seen(code, result.stderr, result.stdout)
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        return Seen(INTERRUPTED, "interrupted")
    if isinstance(error, click.ClickException):
        return Seen(2, error.format_message(), result.stdout)
    if isinstance(error, QkdError | OSError | MemoryError):
        fault = known_fault(error)
        return Seen(exit_code(fault), f"{fault}\n  remedy: {fault.remedy}", result.stdout)
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return Seen(error.code, result.output, result.stdout)
    return Seen(None, "".join(traceback.format_exception(error)), result.stdout)


def is_one_document(text: str) -> bool:
    """Whether it is what `--json` promises."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
