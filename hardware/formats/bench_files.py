"""`qkd bench files`: how fast time-tag files are read and written, with `ptufile` as peer where it is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from common.cli.benchmark import Row, document, one_core, plot_option, rates, save_plot
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.datatypes import TimeTags
from hardware.formats.files import CHUNK_TAGS, FORMATS, read_tags, write_tags

GOAL_TAGS_PER_S = 100e6
GOALS = ("ptu", "feather")
MEAN_GAP_PS = 200_000.0
"""5 million tags a second: four superconducting detectors near their limit."""
TEXT_SHARE = 20
"""Text is for eyes: it is measured on a twentieth of the tags."""


def _clicks(n_tags: int) -> Iterator[TimeTags]:
    rng = np.random.default_rng(1)
    now_ps = 0
    for start in range(0, n_tags, CHUNK_TAGS):
        n = min(CHUNK_TAGS, n_tags - start)
        times = now_ps + np.cumsum(rng.exponential(MEAN_GAP_PS, n).astype(np.int64) + 1)
        now_ps = int(times[-1])
        # S-Fifteen and PTU files number detectors differently: 1..3 are in both.
        yield TimeTags(times, rng.integers(1, 4, n, dtype=np.uint8), now_ps)


def _drain(path: Path, name: str) -> int:
    return sum(len(batch) for batch in read_tags(path, name))


def _ptufile(path: Path) -> Callable[[], Any] | None:
    if find_spec("ptufile") is None:
        return None
    from ptufile import PtuFile

    def decode() -> Any:
        with PtuFile(path) as file:
            return file.decode_records()

    return decode


def measure(folder: Path, n_tags: int, runs: int, progress: Callable[[str], None]) -> list[Row]:
    """Write and read every format; the files lie in ``folder`` (page cache warm)."""
    batches = list(_clicks(n_tags))
    rows = []
    for name in FORMATS:
        progress(name)
        n, some = n_tags, batches
        if name == "text":
            some = batches[: max(len(batches) // TEXT_SHARE, 1)]
            n = sum(map(len, some))
        path = folder / f"clicks.{name}"
        written = rates(lambda some=some, path=path, name=name: write_tags(path, some, name), n, 1)  # type: ignore[misc]
        read = rates(lambda path=path, name=name: _drain(path, name), n, runs)  # type: ignore[misc]
        facts = {"format": name, "tags": n, "bytes_per_tag": round(path.stat().st_size / n, 2)}
        row = Row("read", facts, read, "tags/s", extra={"goal": GOAL_TAGS_PER_S if name in GOALS else None})
        peer = _ptufile(path) if name == "ptu" else None
        if peer is not None:
            theirs = Row("read", facts | {"reader": "ptufile"}, rates(peer, n, runs), "tags/s")
            row.peer, row.ratio = "ptufile", row.median / theirs.median
            rows.append(theirs)
        rows += [row, Row("write", facts, written, "tags/s")]
        path.unlink()
    return rows


@click.command("files")
@click.option("--tags", "n_tags", type=click.IntRange(1000), default=20_000_000, show_default=True,
              help="Tags of the recording that is measured.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Repetitions of each measurement.")
@plot_option
@json_option
@quiet_option
def command(n_tags: int, runs: int, plot_path: Path | None, as_json: bool, quiet: bool) -> int:
    """Measure reading and writing of time-tag files: one thread, pinned, page cache warm, order of time checked.

    Example: qkd bench files --tags 20000000 --plot files.png
    """
    console = progress_console(quiet)
    with one_core(), tempfile.TemporaryDirectory(prefix="qkd-bench-") as folder:
        rows = measure(Path(folder), n_tags, runs, lambda name: console.print(f"measuring {name}"))
    if plot_path is not None:
        save_plot(plot_path, lambda figure: _draw(figure, rows))
    emit(document(rows), as_json, lambda out: out.print(table("Time-tag files", _COLUMNS, [_cells(r) for r in rows])))
    return 0


_COLUMNS = ("", "format", "M tags/s", "min", "max", "bytes/tag", "against")


def _cells(row: Row) -> tuple[str, ...]:
    peer = f"{row.ratio:.2f} of {row.peer}" if row.ratio is not None else str(row.parameters.get("reader", ""))
    speeds = (f"{value / 1e6:.1f}" for value in (row.median, min(row.values), max(row.values)))
    return (row.name, row.parameters["format"], *speeds, f"{row.parameters['bytes_per_tag']:.2f}", peer)


def _draw(figure: Any, rows: list[Row]) -> None:
    axes = figure.add_subplot()
    names = [f"{r.parameters.get('reader') or r.parameters['format']}, {r.name}" for r in rows]
    axes.barh(names, [r.median / 1e6 for r in rows])
    axes.axvline(GOAL_TAGS_PER_S / 1e6, linestyle="--", color="black", label="goal for PTU T2 and Feather, reading")
    axes.set_xlabel("million tags a second, one thread")
    axes.set_xscale("log")
    axes.legend()
