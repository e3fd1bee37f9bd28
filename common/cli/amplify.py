"""`qkd amplify`: one universal hash on files, so that anyone can check it against other software."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from common.cli.keyfiles import MAX_FILE_BYTES, write_secret
from common.cli.output import emit, json_option, quiet_option, table
from common.errors import InputError
from common.files import read_file
from common.node.compute import amplification_path, cores, make_pinned_executor
from common.postprocessing.amplification import FAMILIES, Engine, seed_bits, universal_hash


@click.command("amplify")
@click.option("--family", type=click.Choice(FAMILIES), required=True, help="Family of the universal hash.")
@click.option("--input", "input_path", type=click.Path(path_type=Path), required=True,
              help="File with the packed bits.")  # fmt: skip
@click.option("--bits", type=click.IntRange(0), required=True, help="Bits of the input.")
@click.option("--seed", "seed_path", type=click.Path(path_type=Path), required=True, help="Packed bits of the seed.")
@click.option("--ell", type=click.IntRange(0), required=True, help="Bits of the output.")
@click.option("--output", "output_path", type=click.Path(path_type=Path), required=True, help="Where to write it.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads that share the work.")
@json_option
@quiet_option
def command(
    family: Any, input_path: Path, bits: int, seed_path: Path, ell: int, output_path: Path, threads: int, as_json: bool,
    quiet: bool,
) -> int:  # fmt: skip
    """Hash a file of bits with a seed from a file.

    Bits are packed, bit i is bit i%8 of byte i//8, unused bits zero. Seeds: toeplitz n+m-1 bits, y_j = XOR_i x_i
    s_(n-1+j-i); modified-toeplitz n-1 bits, y = x[:m] + T x[m:]; gf2m k bits, y = first m bits of x[:m] + a x[m:] in
    GF(2)[z] / (1 + z + ... + z^k), k the least degree >= m and >= n-m with k+1 prime and 2 a primitive root of it.

    Example: qkd amplify --family toeplitz --input key --bits 100000 --seed seed --ell 40000 --output secret
    """
    if ell > bits:
        raise InputError(f"{ell} bits cannot be hashed out of {bits}", remedy="Give --ell of at most --bits.")
    key = _read(input_path, bits, "--input")
    seed = _read(seed_path, seed_bits(family, bits, ell), "--seed")
    path = amplification_path()
    threads = min(threads, cores())
    with make_pinned_executor(threads) as executor:
        engine = Engine(path, executor if threads > 1 else None, threads)
        begin = time.perf_counter()
        secret = universal_hash(family, key, bits, seed, ell, engine)
        seconds = time.perf_counter() - begin
    write_secret(output_path, secret)
    document = {"n": bits, "m": ell, "family": family, "seconds": seconds, "path": path}
    rows = [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in document.items()]
    emit(document, as_json, lambda console: console.print(table("amplified", ("", ""), rows)))
    return 0


def _read(path: Path, n_bits: int, option: str) -> NDArray[np.uint8]:
    try:
        raw = read_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", remedy="Name a file that can be read.") from error
    if len(raw) != (n_bits + 7) // 8:
        raise InputError(
            f"{path}: {len(raw)} bytes; {n_bits} bits need {(n_bits + 7) // 8}",
            remedy=f"Give {option} a file of packed bits of exactly this length.",
        )
    packed = np.frombuffer(raw, np.uint8).copy()
    if n_bits % 8 and packed[-1] >> n_bits % 8:
        raise InputError(f"{path}: ones beyond bit {n_bits}", remedy="Set the unused bits of the last byte to zero.")
    return packed
