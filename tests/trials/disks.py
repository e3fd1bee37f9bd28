"""The key store's disk: full, shrinking, read-only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.cli.demo import Daemon
from tests.disks import fill, small_file_system
from tests.trials.links import Link
from tests.trials.registry import Verdict, trial

SIZE = "24m"
"""A node wants 16 MB to start."""
Act = Callable[[Path], None]


def _fill(place: Path) -> None:
    fill(place / "filler")


def _empty(place: Path) -> None:
    (place / "filler").unlink()


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def _shrink(place: Path) -> None:
    _remount(place, f"size={shutil.disk_usage(place).used}")


FAULTS: dict[str, tuple[Act, Act, str]] = {
    "full": (_fill, _empty, "full"),
    "shrunk to what it holds": (_shrink, lambda place: _remount(place, f"size={SIZE}"), "full"),
}
"""What is done, what undoes it, a word of the alarm."""


@trial("disks")
def disks(folder: Path, quick: bool) -> Iterator[Verdict]:
    """Each fault at each end, with applications."""
    for role in ("alice", "bob")[: 1 if quick else 2]:
        try:
            with small_file_system(folder / f"disk-{role}", SIZE) as place:
                yield from _of_one_end(folder / f"link-{role}", place, role)
        except pytest.skip.Exception as skipped:
            yield Verdict(f"disk of {role}", "file systems can be mounted", str(skipped), False)


def _of_one_end(folder: Path, place: Path, role: str) -> Iterator[Verdict]:
    link = Link(folder)
    daemon: Daemon = {"alice": link.alice, "bob": link.bob}[role]

    def elsewhere(document: dict[str, dict[str, str]]) -> None:
        document.setdefault("keys", {})["database"] = str(place / "keys.sqlite")

    link.edit(daemon, elsewhere)
    with link.running(consumers=True):
        for name, (harm, mend, word) in FAULTS.items():
            what = f"{role}'s disk {name}"
            harm(place)
            link.until(lambda word=word: word in link.alarm(daemon, "disk"))  # type: ignore[misc]
            seen = link.alarm(daemon, "disk")
            yield Verdict(what, "alarm `disk` with cause and remedy", seen[:160] or "no alarm", word in seen)
            mend(place)
            yield link.goes_on(f"{what}, mended")
        link.end(daemon)
        _remount(place, "ro")  # the system does not let it while a file is open for writing
        link.restart(daemon)
        code = link.await_end(daemon, 60.0)
        seen = link.read_log(daemon)[-200:]
        yield Verdict(
            f"{role}'s disk read-only at the start", "exit code 3, the disk is named", f"{code}: {seen}", code == 3
        )
        _remount(place, "rw")
        link.restart(daemon)
        yield link.goes_on(f"{role}'s disk can be written again")
        yield link.account(f"all keys after the faults of {role}'s disk", lost_at_most=16)
