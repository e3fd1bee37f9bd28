"""A day of light of which every second hour produces no key, with applications at both ends that ask all the time.

Run it from the project's root: `python -m tests.trials.day_of_light [--hours 24]`. It takes minutes; the time is
virtual. It ends with the account of every byte, and exit code 0 only if none was destroyed and the link lives.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.day import Day, day
from tests.trials.registry import Verdict, trial

HOUR_S = 3600
HOURS, QUICK_HOURS = 24.0, 4.0
CHECKS = ("every byte is delivered, stored or authenticates", "both ends get keys", "the link lives", "tags are left")


def verdicts(made: Day, account: dict[str, int]) -> dict[str, bool]:
    """What must hold, and whether it does; that the ends' keys are equal has been looked at while they were made."""
    used = account["delivered"] + account["authentication"] + account["stored"]
    good = (
        account["made"] == used,
        all(town.delivered > account["made"] // 8 for town in made.towns),
        all(town.end.running and town.end.starts == 1 and town.end.session.ready for town in made.towns),
        all(town.end.pool.least_bits > 0 for town in made.towns),
    )
    return dict(zip(CHECKS, good, strict=True))


@trial("day")
def day_of_light(folder: Path, quick: bool) -> Iterator[Verdict]:
    """As one of the trials; see :func:`main`."""
    hours = QUICK_HOURS if quick else HOURS
    with day(folder, HOUR_S) as made:
        made.run(hours, lambda text: None)
        account = made.account()
    for check, good in verdicts(made, account).items():
        yield Verdict(f"{hours:.0f} h of light, each second hour without key", check, f"bytes: {account}", good)


def main() -> int:
    """Run it and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=HOURS)
    hours = parser.parse_args().hours
    with tempfile.TemporaryDirectory() as directory, day(Path(directory), HOUR_S) as made:
        made.run(hours, lambda text: print(text, flush=True))
        account = made.account()
    print(f"bytes: {account}")
    found = verdicts(made, account)
    for check, good in found.items():
        print(f"{'holds' if good else 'FAILS'}  {check}")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
