"""`qkd keys`: what is in a node's key store, and the certificate of each block; never the keys themselves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from common.cli.main import LazyGroup
from common.cli.output import emit, json_option, table
from common.config_file import load_config
from common.errors import InputError, KeyStoreError
from common.files import write_file
from common.node.keystore import KeyStore
from common.node.storefile import ANEW

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
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file), read_only=True) as store:
        blocks = [
            {
                "block_id": block["block_id"],
                "state": block["state"],
                "secret_bits": 8 * int(str(block["n_bytes"])),
                "free_bits": 8 * int(str(block["free_bytes"])),
                "simulated": bool(block["simulated"]),
                "certificate": _certificate(block),
            }
            for block in store.blocks()
        ]
        spent = store.life()
        document = {
            "role": config.role,
            "available_bits": store.available_bits(simulated=config.keys.deliver_simulated),
            "simulated_bits": store.available_bits() - store.available_bits(simulated=False),
            "keys_waiting": store.waiting_keys(),
            "life": asdict(spent),
            "blocks": blocks,
        }

    def render(console: Console) -> None:
        names = ("block_id", "state", "secret_bits", "free_bits", "simulated")
        rows = [[block[name] for name in names] for block in blocks[-NEWEST:]]
        title = f"{config.role}: newest {len(rows)} of {len(blocks)} blocks"
        console.print(table(title, ("block", "state", "secret bits", "free bits", "simulated"), rows))
        console.print(f"{document['available_bits']} bits for applications, {document['keys_waiting']} keys wait")
        console.print(f"in the life of the link {spent.blocks} blocks and {spent.tags} tags: eps {spent.eps_life:.2g}")

    emit(document, as_json, render)
    return 0


def _certificate(block: dict[str, object]) -> Any:
    try:
        return json.loads(str(block["record"]) or "{}")
    except ValueError:
        raise KeyStoreError(f"the record of block {block['block_id']} cannot be read", remedy=ANEW) from None


@click.command("certificate")
@click.argument("block", type=int)
@click.option("--config", "config_path", type=click.Path(path_type=Path), required=True, help=CONFIG_HELP)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of stdout.")
def certificate(block: int, config_path: Path, out: Path | None) -> int:
    """Export the signed certificate of BLOCK: the evidence for its key, without the key (JSON).

    Example: qkd keys certificate 4294967297 --config link/alice.toml --out block.json
    """
    config = load_config(config_path)
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file), read_only=True) as store:
        records = {int(str(one["block_id"])): str(one["record"]) for one in store.blocks()}
    if block not in records:
        raise InputError(f"the key store of {config.role} has no block {block}", remedy="List them with `qkd keys`.")
    if out is None:
        click.echo(records[block])
    else:
        write_file(out, records[block] + "\n")
    return 0
