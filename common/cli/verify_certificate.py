"""`qkd verify-certificate`: judge key certificates with nothing but their files (and the signer's public key)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from common.cli.output import emit, json_option, table
from common.errors import InputError
from common.keys.certificate_check import faults, faults_between, parse
from common.node.credentials import public_key_hex

FIELDS = ("link", "role", "block_id", "simulated", "software", "public_key")


def judge(texts: Sequence[tuple[str, str]], signer: str | None = None) -> tuple[list[str], list[dict[str, Any]]]:
    """(reasons why they are not valid, what the good ones say) of certificates, given as file name and text."""
    reasons: list[str] = []
    good: list[tuple[str, dict[str, Any]]] = []
    for name, text in texts:
        try:
            body = parse(text)
        except (ValueError, RecursionError) as error:
            reasons.append(f"{name}: this is not a key certificate: {error}")
            continue
        found = faults(body, signer)
        reasons += [f"{name}: {fault}" for fault in found]
        if not found:
            good.append((name, body))
    reasons += faults_between([body for _, body in good])
    return reasons, [_summary(name, body) for name, body in good]


def _summary(name: str, body: dict[str, Any]) -> dict[str, Any]:
    net = {key: body["authentication"][key] for key in ("application_bits", "net_key_bits")}
    return {"file": name, **{key: body[key] for key in FIELDS}, **net, "eps_spent": body["ledger"]["eps_spent"]}


@click.command("verify-certificate")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--signer", type=click.Path(path_type=Path), help="Public key of the node that must have signed (PEM, hex)."
)
@json_option
def command(files: tuple[Path, ...], signer: Path | None, as_json: bool) -> int:
    """Compute the key length again from the tallies, check signature and sums, refuse claims that cannot be true.

    Several FILES are also compared: no block may be used twice, and both ends of a block must agree.
    Exit code 0 if valid, 1 if not, 2 if a file cannot be read.

    Example: qkd verify-certificate block.json --signer certificate.pub
    """
    try:
        texts = [(str(path), path.read_text(encoding="utf-8")) for path in files]
        key = public_key_hex(signer.read_bytes().strip()) if signer is not None else None
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}", remedy="Name existing files.") from None
    except UnicodeDecodeError:
        raise InputError(
            "a file is not text", remedy="Give certificates as `qkd keys certificate` writes them."
        ) from None
    except ValueError:
        raise InputError(f"{signer} is not an Ed25519 public key", remedy="Give the node's certificate.pub.") from None
    reasons, good = judge(texts, key)

    def render(console: Console) -> None:
        rows = [(c["block_id"], c["role"], c["application_bits"], c["net_key_bits"], c["simulated"]) for c in good]
        if rows:
            console.print(table("good", ("block", "end", "for applications", "net key bits", "simulated"), rows))
        for reason in reasons:
            console.print(f"[bold red]not valid:[/] {reason}", highlight=False)
        if key is None and good:
            console.print("signed by the keys that the certificates name; give --signer to know whose they are")
        console.print("valid" if not reasons else "NOT VALID")

    emit({"valid": not reasons, "reasons": reasons, "certificates": good}, as_json, render)
    return 0 if not reasons else 1
