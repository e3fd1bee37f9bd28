"""`qkd keys`: what is in a node's key store, and the certificate of each block; never the keys themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from common.cli.main import LazyGroup
from common.cli.output import json_option, table
from common.config_file import load_config
from common.errors import InputError, KeyStoreError
from common.files import write_file
from common.node.archive import Archive
from common.node.keystore import open_store
from common.node.storefile import ANEW
from common.units import block_name, block_number

NEWEST = 20
CONFIG_HELP = "Configuration file (TOML) of the node."


@click.group("keys", cls=LazyGroup, invoke_without_command=True)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help=CONFIG_HELP)
@json_option
@click.pass_context
def command(context: click.Context, config_path: Path | None, as_json: bool) -> int:
    """Show the blocks in the key store, what is left of each, and what waits for applications.

    Example: qkd keys --config link/alice.toml
    """
    if context.invoked_subcommand is not None:
        return 0
    if config_path is None:
        raise click.MissingParameter(ctx=context, param_hint="--config", param_type="option")
    config = load_config(config_path)
    with open_store(config, read_only=True) as store:
        blocks = store.blocks(-1 if as_json else NEWEST)
        n_blocks, spent = store.count_blocks(), store.life()
        document = {
            "role": config.role,
            "available_bits": store.available_bits(simulated=config.keys.deliver_simulated),
            "simulated_bits": store.available_bits() - store.available_bits(simulated=False),
            "keys_waiting": store.waiting_keys(),
            "life": asdict(spent),
        }
    damaged = [block["block_id"] for block in blocks if not block["readable"]]
    if damaged:
        raise KeyStoreError(f"the record of block {block_name(int(str(damaged[0])))} cannot be read", remedy=ANEW)
    if as_json:
        _print(document, blocks)
        return 0
    rows = [
        [block_name(int(str(block["block_id"]))), block["state"], 8 * int(str(block["n_bytes"])),
         8 * int(str(block["free_bytes"])), bool(block["simulated"])]
        for block in blocks
    ]  # fmt: skip
    console = Console()
    title = f"{config.role}: newest {len(rows)} of {n_blocks} blocks"
    console.print(table(title, ("block", "state", "secret bits", "free bits", "simulated"), rows))
    console.print(f"{document['available_bits']} bits for applications, {document['keys_waiting']} keys wait")
    console.print(f"in the life of the link {spent.blocks} blocks and {spent.tags} tags: eps {spent.eps_life:.2g}")
    return 0


def _print(document: Mapping[str, object], blocks: list[dict[str, object]]) -> None:
    """One JSON document, a line a block: certificates are JSON already, and there may be tens of thousands."""
    click.echo(json.dumps(document, allow_nan=False)[:-1] + ', "blocks": [')
    for number, block in enumerate(blocks, 1):
        told = {
            "block_id": block["block_id"],
            "state": block["state"],
            "secret_bits": 8 * int(str(block["n_bytes"])),
            "free_bits": 8 * int(str(block["free_bytes"])),
            "simulated": bool(block["simulated"]),
        }
        comma = "," if number < len(blocks) else ""
        click.echo(f'{json.dumps(told)[:-1]}, "certificate": {block["record"]}}}{comma}')
    click.echo("]}")


def _number(ctx: click.Context, argument: click.Parameter, text: str) -> int:
    try:
        return block_number(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no block: give session.block, as `qkd keys` lists them") from None


@click.command("certificate")
@click.argument("block", callback=_number)
@click.option("--config", "config_path", type=click.Path(path_type=Path), required=True, help=CONFIG_HELP)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of stdout.")
def certificate(block: int, config_path: Path, out: Path | None) -> int:
    """Export the signed certificate of BLOCK: the evidence for its key, without the key (JSON).

    Example: qkd keys certificate 1.1 --config link/alice.toml --out block.json
    """
    config = load_config(config_path)
    with open_store(config, read_only=True) as store:
        state = store.state_of(block)
        record = None if state is None else store.certificate_of(block)
    if record is None:
        record = Archive(config.path(config.keys.database), config.keys.certificates_archived).find(block)
    if record is None:
        name = block_name(block)
        raise InputError(f"the key store of {config.role} has no block {name}", remedy="List them with `qkd keys`.")
    if out is None:
        click.echo(record)
    else:
        write_file(out, record + "\n")
    return 0
