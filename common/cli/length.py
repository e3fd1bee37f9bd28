"""`qkd length COUNTS.toml`: the key length of one's own counts, by the proof that the node uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import tomlkit
from pydantic import Field, ValidationError
from rich.console import Console

from common.cli.output import emit, json_option, table
from common.config import Section
from common.config_file import parse_config
from common.errors import ConfigurationError, InputError
from common.files import read_file
from common.postprocessing.estimation import estimate
from common.security.finite_key import Ledger
from common.security.tallies import Tallies

REMEDY = "Correct that in {path}; docs/planning.md has an example, section 'One's own counts'."
Row = tuple[int, int]


class Counts(Section):
    """`[tallies]`: public counts of one block, named as in :class:`common.security.tallies.Tallies`."""

    slots_sent: int
    n_z: tuple[int, ...] = Field(min_length=1)
    n_z_kept: int | None = None
    """Without it, all of them."""
    x_counts: tuple[tuple[Row, Row, Row, Row], ...]
    """Of each intensity: for H, V, R and L sent, how often R and how often L was measured."""
    z_detections: int
    x_detections: int
    cross_clicks: int = 0
    double_clicks: int = 0
    z_ones_share: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of outcome V among the sifted bits."""
    leak_ec_bits: int = Field(ge=0)
    """Disclosed in error correction."""

    def tallies(self) -> Tallies:
        """The tallies for the proof."""
        values = self.model_dump(exclude={"leak_ec_bits", "z_ones_share"})
        kept = sum(self.n_z) if self.n_z_kept is None else self.n_z_kept
        return Tallies(**values | {"n_z_kept": kept, "z_ones_steps": int(self.z_ones_share * (1 << 16))})


def length_of(path: Path) -> Ledger:
    """The ledger of the counts in a file.

    Raises
    ------
    ConfigurationError, InputError
        The file cannot be read, or a table of it is wrong.
    """
    remedy = REMEDY.format(path=path)
    try:
        document: Any = tomlkit.parse(read_file(path).decode())
        counts = Counts.model_validate(document.pop("tallies", {}).unwrap() if "tallies" in document else {})
    except ValidationError as error:
        faults = [f"tallies.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise InputError(f"{path}: {'; '.join(faults)}", remedy=remedy) from None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read: {error}", remedy=remedy) from None
    document.setdefault("role", "alice")
    try:
        config = parse_config(tomlkit.dumps(document), path.resolve().parent, str(path))
    except ConfigurationError as error:
        raise ConfigurationError(str(error), remedy=remedy) from None
    return estimate(config, counts.tallies(), counts.leak_ec_bits)


@click.command("length")
@click.argument("counts", type=click.Path(path_type=Path))
@json_option
def command(counts: Path, as_json: bool) -> int:
    """Compute the length of the secret key that one's own counts of a block allow, with its ledger.

    COUNTS is a TOML file with the tables [link], [source], [detectors] and [security] of a node's configuration, and
    [tallies] with the counts. Exit code 1 if they leave no key.

    Example: qkd length counts.toml --json
    """
    ledger = length_of(counts)
    document = {
        "secret_bits": ledger.ell_bits,
        "refusal": ledger.refusal,
        "n_u_lower": ledger.n_u_lower,
        "phase_error_upper": ledger.phi_upper,
        "leak_bits": ledger.leak_ec_bits + ledger.leak_verify_bits + ledger.leak_monitor_bits,
        "eps_spent": ledger.eps_spent,
        "terms": {term.name: term.value for term in ledger.terms},
        "assumes": list(ledger.assumes),
    }

    def render(console: Console) -> None:
        rows = [
            ("secret bits", f"{ledger.ell_bits:,}"),
            ("untagged Z events, at least", f"{ledger.n_u_lower:,.0f}"),
            ("phase errors of these, at most", f"{100 * ledger.phi_upper:.3f} %"),
            ("disclosed bits", f"{document['leak_bits']:,}"),
            ("epsilon spent", f"{ledger.eps_spent:.2g}"),
        ]
        console.print(table(f"key of {counts}", ("quantity", "value"), rows))
        if ledger.refusal:
            console.print(f"no key: {ledger.refusal}", markup=False, highlight=False)
        for sentence in ledger.assumes:
            console.print(f"assumes: {sentence}", markup=False, highlight=False)

    emit(document, as_json, render)
    return 0 if ledger.ell_bits else 1
