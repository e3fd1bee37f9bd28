"""`qkd distil`: two sifted keys from files, through reconciliation, verification and amplification."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress

from common.cli.keyfiles import format_option, read_key, write_secret
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.config import Amplification
from common.errors import InputError
from common.files import make_folder, write_file
from common.node.compute import amplification_path, cores, make_executor
from common.postprocessing.amplification import amplify, seed_bits
from common.postprocessing.offline import HIGHEST_QBER, PairResult, reconcile_pair
from common.postprocessing.reconciliation.frame import LONGEST_FRAME_BITS
from common.postprocessing.verification import POINT_BYTES, leak_verify_bits, verification_tag, verified_key
from common.security.bounds import binary_entropy

FAMILIES = get_args(Amplification.model_fields["family"].annotation)


@click.command("distil")
@click.option("--alice", type=click.Path(path_type=Path), required=True, help="Sifted key of the one end.")
@click.option("--bob", type=click.Path(path_type=Path), required=True, help="Sifted key of the other end.")
@format_option
@click.option("--ell", type=click.IntRange(0), help="Length of the secret key in bits.")
@click.option("--phase-error", type=click.FloatRange(0, 0.5), help="Upper bound of the phase error rate; gives --ell.")
@click.option("--eps", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=1e-10, show_default=True,
              help="Failure probability of the amplification, with --phase-error.")  # fmt: skip
@click.option("--family", type=click.Choice(FAMILIES), default="toeplitz", show_default=True,
              help="Family of the universal hash.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for keys, seed and report.")
@click.option("--frame-length", type=click.IntRange(1 << 12, LONGEST_FRAME_BITS), default=1 << 18, show_default=True,
              help="Bits of a codeword: longer disclose less.")  # fmt: skip
@click.option("--efficiency", type=click.Choice(["efficient", "balanced", "fast"]), default="efficient",
              show_default=True, help="Fewest disclosed bits, a compromise, or least work.")  # fmt: skip
@click.option("--decoder", type=click.Choice(["fast", "reference"]), default="fast", show_default=True,
              help="The node's decoder, or the slow one that it is compared with.")  # fmt: skip
@click.option("--qber", type=click.FloatRange(0, HIGHEST_QBER),
              help="Expected error rate; saves the short first frame that finds it out.")  # fmt: skip
@json_option
@quiet_option
def command(
    alice: Path, bob: Path, file_format: str, ell: int | None, phase_error: float | None, eps: float, family: Any,
    out: Path | None, frame_length: int, efficiency: Any, decoder: Any, qber: float | None, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Distil a key from two sifted keys in files; nothing is sent anywhere.

    What is secret of it does not stand in the files: --ell or --phase-error says it. Without either, keys are corrected
    and compared, and 0 secret bits come out.

    Exit code 1 if the corrected keys do not agree or nothing could be corrected.

    Example: qkd distil --alice alice.txt --bob bob.txt --phase-error 0.05 --out key
    """
    if ell is not None and phase_error is not None:
        raise click.UsageError("--ell and --phase-error exclude each other: one length, given or computed.")
    (a, n_bits), (b, m_bits) = read_key(alice, file_format), read_key(bob, file_format)
    if n_bits != m_bits:
        raise InputError(
            f"the keys have different lengths: {n_bits} and {m_bits} bits",
            remedy="Give the sifted keys of the same detections.",
        )
    console = progress_console(quiet)
    begin = time.perf_counter()
    workers = cores()
    with Progress(console=console, transient=True, disable=quiet) as progress, make_executor() as executor:
        task = progress.add_task("reconciling", total=n_bits)
        result = reconcile_pair(
            a, b, n_bits, frame_length_bits=frame_length, efficiency=efficiency, decoder=decoder, qber=qber,
            executor=executor, under_way=workers, progress=lambda bits: progress.advance(task, bits),
        )  # fmt: skip
    seconds = time.perf_counter() - begin
    point = os.urandom(POINT_BYTES)
    tags = [verification_tag(key, result.kept, point) for key in (result.alice, result.bob)]
    verified = result.kept > 0 and tags[0] == tags[1]
    length = _length(result, ell, phase_error, eps) if verified else 0
    document = _document(result, verified, length, seconds, _reason(verified, length, ell, phase_error))
    if out is not None:
        document["files"] = _write(out, result, length, verified, document, family)
    emit(document, as_json, lambda printer: _render(printer, document))
    return 0 if verified else 1


def _length(result: PairResult, ell: int | None, phase_error: float | None, eps: float) -> int:
    if ell is not None:
        if ell > result.kept:
            raise InputError(f"--ell {ell} is more than the {result.kept} bits that were corrected")
        return ell
    if phase_error is None:
        return 0
    leak = result.leak_ec_bits + leak_verify_bits
    secret = result.kept * (1 - binary_entropy(phase_error)) - leak - 2 * math.log2(1 / (2 * eps))
    return max(0, math.floor(secret / 8) * 8)


def _reason(verified: bool, length: int, ell: int | None, phase_error: float | None) -> str:
    """Why there is no key; empty if there is one."""
    if length:
        return ""
    if not verified:
        return "the corrected keys do not agree, or no frame could be corrected"
    if ell is None and phase_error is None:
        return "how much of the key is secret was not said: give --phase-error, or --ell"
    if phase_error is None:
        return "--ell is 0"
    return f"with phase errors of {phase_error:g}, what was disclosed is more than what is secret"


def _document(result: PairResult, verified: bool, length: int, seconds: float, reason: str) -> dict[str, Any]:
    return {
        "n": result.n_bits,
        "qber": result.qber,
        "f_ec": result.f_ec,
        "f_ec_kept": result.f_ec_kept,
        "leak_ec_bits": result.leak_ec_bits,
        "leak_verify_bits": leak_verify_bits,
        "frames": result.frames,
        "frames_failed": result.frames_failed,
        "rounds_max": result.rounds_max,
        "kept_bits": result.kept,
        "verified": verified,
        "seconds": seconds,
        "mbit_per_s": result.n_bits / seconds / 1e6,
        "secret_bits": length,
        "reason": reason,
    }


def _write(
    out: Path, result: PairResult, length: int, verified: bool, document: dict[str, Any], family: Any
) -> list[str]:
    make_folder(out, 0o700)
    files = []
    if verified:
        for name, key in (("alice", result.alice), ("bob", result.bob)):
            write_secret(out / f"{name}.reconciled", key)
            files.append(f"{name}.reconciled")
    if length:
        amplification_path()
        needed = seed_bits(family, result.kept, length)
        seed = np.frombuffer(os.urandom((needed + 7) // 8), np.uint8).copy()
        if needed % 8:
            seed[-1] &= (1 << needed % 8) - 1
        write_file(out / "seed", seed.tobytes())
        for name, key in (("alice", result.alice), ("bob", result.bob)):
            verified_bits = verified_key(result.reconciled(key))
            secret = amplify(verified_bits, seed, length, family, simulated=False)
            write_secret(out / f"{name}.key", secret.bits.take())
            files.append(f"{name}.key")
        files.append("seed")
    write_file(out / "report.json", json.dumps(document | {"family": family if length else None}, indent=2) + "\n")
    return [*files, "report.json"]


def _render(console: Console, document: dict[str, Any]) -> None:
    def shown(value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    names = {
        "n": "sifted bits", "qber": "QBER", "f_ec": "f_EC, everything counted", "f_ec_kept": "f_EC, decoded frames",
        "leak_ec_bits": "disclosed bits", "frames": "frames", "frames_failed": "frames failed",
        "rounds_max": "most rounds", "verified": "verified equal", "mbit_per_s": "Mbit/s", "secret_bits": "secret bits",
    }  # fmt: skip
    console.print(table("distilled", ("", ""), [(name, shown(document[key])) for key, name in names.items()]))
    if document["reason"]:
        console.print(f"no key: {document['reason']}", style="bold red", markup=False, highlight=False)
