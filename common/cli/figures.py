"""`qkd figures`: the source paper's figures from the node's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from common.cli.output import emit, json_option, progress_console, quiet_option
from common.files import make_folder

RESULTS = "reproduce.json"


@click.command("figures")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("figures"),
    show_default=True,
    help="Folder for the figures.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"What `qkd reproduce --json` printed [default: {RESULTS} in the folder, if it is there].",
)
@json_option
@quiet_option
def command(out: Path, results: Path | None, as_json: bool, quiet: bool) -> int:
    """Draw figures 1, 3, 4a and 4b of arXiv:2406.02045 with our numbers, as PNG, SVG and CSV.

    Example: qkd figures --out figures --results reproduce.json
    """
    from common.planning.figures import make_figures, read_results

    if results is None and (out / RESULTS).exists():
        results = out / RESULTS
    make_folder(out)
    points = read_results(results) if results is not None else []
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_console(quiet), transient=True) as progress:
        bar = progress.add_task("figures", total=1.0)
        files = make_figures(out, points, lambda what, part: progress.update(bar, completed=part, description=what))
    names = [str(path) for path in files]
    emit({"files": names}, as_json, lambda console: console.print("\n".join(names), highlight=False))
    return 0
