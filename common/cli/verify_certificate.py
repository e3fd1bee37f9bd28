"""`qkd verify-certificate`: judge key certificates by the auditor's own file, which shares nothing with the node."""

from __future__ import annotations

import click

from common.auditor.verify_certificate import examine, inputs
from common.cli.output import emit, json_option
from common.errors import InputError


@click.command("verify-certificate")
@click.argument("files", nargs=-1, required=True)
@click.option("--policy", help="What to believe of the devices and demand of the proof (TOML).")
@click.option("--signer", "signers", multiple=True, help="Public key that may have signed: a file (PEM, hex) or hex.")
@json_option
def command(files: tuple[str, ...], policy: str | None, signers: tuple[str, ...], as_json: bool) -> int:
    """Compute the key length again from the tallies, check signature and sums, refuse claims that cannot be true.

    Several FILES are also compared: no block may be used twice, and both ends of a block must agree. `valid` needs
    --policy and --signer; without them the best verdict is `consistent`. The same without this software:
    python common/auditor/verify_certificate.py. An example of a policy lies beside that file.

    Exit code 0 if valid, 1 if invalid, 2 if a file cannot be read, 5 if consistent.

    Example: qkd verify-certificate alice.json bob.json --policy policy.toml --signer alice.pub --signer bob.pub
    """
    try:
        report = examine(*inputs(files, policy, signers))
    except (OSError, ValueError) as error:
        raise InputError(str(error), remedy="Give certificates, policy and keys that exist.") from None
    emit(report.document(), as_json, lambda console: console.out("\n".join(report.lines()), highlight=False))
    return report.exit_code
