"""`qkd keys`: what is in a node's key store; never the keys themselves."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from common.cli.output import emit, json_option, table
from common.config import load_config
from common.node.keystore import KeyStore

NEWEST = 20


@click.command("keys")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="Configuration file (TOML) of the node.",
)
@json_option
def command(config_path: Path, as_json: bool) -> int:
    """Show the blocks in the key store, what is left of each, and what waits for applications.

    Example: qkd keys --config link/alice.toml
    """
    config = load_config(config_path)
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file), read_only=True) as store:
        blocks = [
            {
                "block_id": block["block_id"],
                "state": block["state"],
                "secret_bits": 8 * int(str(block["n_bytes"])),
                "free_bits": 8 * int(str(block["free_bytes"])),
                "simulated": bool(block["simulated"]),
                "ledger": json.loads(str(block["record"]) or "{}"),
            }
            for block in store.blocks()
        ]
        document = {
            "role": config.role,
            "available_bits": store.available_bits(simulated=config.keys.deliver_simulated),
            "simulated_bits": store.available_bits() - store.available_bits(simulated=False),
            "keys_waiting": store.waiting_keys(),
            "blocks": blocks,
        }

    def render(console: Console) -> None:
        names = ("block_id", "state", "secret_bits", "free_bits", "simulated")
        rows = [[block[name] for name in names] for block in blocks[-NEWEST:]]
        title = f"{config.role}: newest {len(rows)} of {len(blocks)} blocks"
        console.print(table(title, ("block", "state", "secret bits", "free bits", "simulated"), rows))
        console.print(f"{document['available_bits']} bits for applications, {document['keys_waiting']} keys wait")

    emit(document, as_json, render)
    return 0
