"""`qkd convert IN OUT`: a time-tag file in another format, by the names of the files."""

from __future__ import annotations

from pathlib import Path

import click

from common.cli.output import emit, json_option
from common.errors import InputError
from hardware.formats.files import FORMATS, read_tags, write_tags
from hardware.formats.format import Format
from hardware.formats.text import Layout

_FORMAT = click.Choice(sorted(FORMATS))


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--from", "source_format", type=_FORMAT, help="Format of the input, where its name does not tell.")
@click.option("--to", "target_format", type=_FORMAT, help="Format of the output, where its name does not tell.")
@click.option("--columns", help="Columns of text from elsewhere, in their order: channel,time or -,time,channel, say.")
@click.option("--tick-ps", help="Unit of the times in text from elsewhere, as 81 or 1e3 or 10000/3 [default: 1].")
@click.option("--skip-lines", type=click.IntRange(0), help="Lines before the first tag of text from elsewhere.")
@click.option("--void", is_flag=True, help="Go on after a fault and mark what it touches as lost.")
@click.option("--force", is_flag=True, help="Overwrite an output that is there.")
@json_option
def command(
    source: Path,
    target: Path,
    source_format: str | None,
    target_format: str | None,
    columns: str | None,
    tick_ps: str | None,
    skip_lines: int | None,
    void: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Convert a time-tag file: Feather, Parquet, PTU (T2), a1, quTAG, text.

    Text from elsewhere (other columns, other units, a title of several lines) is read by --columns, --tick-ps and
    --skip-lines.

    Examples: qkd convert run.ptu run.parquet; qkd convert scope.csv run.parquet --columns channel,time --tick-ps 81
    """
    if source.is_file() and source.stat().st_size == 0:
        raise InputError(f"{source} is empty: an interrupted write left it", remedy="Give the recording itself.")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the recording itself", remedy="Give the converted file another name.")
    if target.exists() and not force:
        raise InputError(f"{target} is there already", remedy="Give another name, or --force.")
    given: str | Format | None = source_format
    if (columns, tick_ps, skip_lines) != (None, None, None):
        if source_format not in (None, "text"):
            raise click.UsageError("--columns, --tick-ps and --skip-lines are for text")
        given = Layout.described(columns or "time,channel", tick_ps or "1", skip_lines or 0).format()
    with read_tags(source, given, faults="void" if void else "raise") as tags:
        metadata = {"source_format": tags.info.format}
        written = write_tags(target, tags, target_format, resolution_ps=tags.info.resolution_ps, metadata=metadata)
        document = {
            "tags": written,
            "format": tags.info.format,
            "resolution_ps": tags.info.resolution_ps,
            "bytes": target.stat().st_size,
        }
    emit(document, as_json, lambda out: out.print(f"{written} tags, {document['bytes']} bytes"))
    return 0
