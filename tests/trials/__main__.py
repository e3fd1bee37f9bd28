"""`python -m tests.trials`: what a hostile world does to two running daemons, as one table of verdicts."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click

from tests.trials import day_of_light, devices, disks, kills, networks, pools, ports, stores  # noqa: F401
from tests.trials.registry import TRIALS, Verdict

FILES = 8192


@click.command()
@click.option("--only", multiple=True, type=click.Choice(sorted(TRIALS)), help="Only this trial (repeat).")
@click.option("--quick", is_flag=True, help="Fewer and shorter.")
@click.option("--out", type=click.Path(path_type=Path), help="Add the rows to this table (Markdown) as they come.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep links, stores and logs in this folder.")
def main(only: tuple[str, ...], quick: bool, out: Path | None, keep: Path | None) -> None:
    """Run the trials one after the other; ends with 1 if a verdict is bad."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    bad = 0
    with tempfile.TemporaryDirectory(prefix="qkd-trials-") as place:
        for name in only or tuple(TRIALS):
            begin = time.monotonic()
            folder = (keep or Path(place)) / name
            folder.mkdir(parents=True)
            for verdict in _verdicts(name, folder, quick):
                bad += not verdict.good
                line = row(name, verdict).replace(f"{folder}/", "")
                print(line, flush=True)
                if out is not None:
                    with out.open("a") as file:
                        file.write(line + "\n")
            print(
                f"{name}: {time.monotonic() - begin:.0f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True
            )
    print(f"{bad} bad", file=sys.stderr)
    sys.exit(bad > 0)


def _verdicts(name: str, folder: Path, quick: bool) -> list[Verdict]:
    found: list[Verdict] = []
    try:
        for verdict in TRIALS[name](folder, quick):
            found.append(verdict)
            print(f"  {'good' if verdict.good else 'BAD '} {verdict.what}: {verdict.seen}", file=sys.stderr, flush=True)
    except Exception as error:
        traceback.print_exc()
        found.append(Verdict("the trial itself", "it runs to its end", f"{type(error).__name__}: {error}"[:300], False))
    return found


def row(name: str, verdict: Verdict) -> str:
    """A line of the table."""
    cells = (name, verdict.what, verdict.expected, verdict.seen, "good" if verdict.good else "**BAD**")
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


if __name__ == "__main__":
    main()
