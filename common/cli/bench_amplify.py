"""`qkd bench amplify`: speed and memory of every hash family and path, with peers in the same run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from rich.console import Console

from common.cli.benchmark import Row, document, one_core, plot_option, rates, save_plot
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.errors import InputError
from common.kernels.clmul import available_paths
from common.node.compute import cores, make_pinned_executor
from common.postprocessing.amplification import FAMILIES, Engine, seed_bits, universal_hash

SIZES = (10**5, 10**6, 10**7, 10**8)
#: The slow path and the peers stop here.
SLOW_LIMIT = 10**7
SLOW_PEER_LIMIT = 10**6
UNIT = "Mbit/s of input"

Bits = NDArray[np.uint8]


@click.command("amplify")
@click.option("--bits", "sizes", type=click.IntRange(1000), multiple=True, help="Length of the input; may be repeated.")
@click.option("--family", "families", type=click.Choice(FAMILIES), multiple=True,
              help="Family of the hash; may be repeated [default: all].")  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Repetitions of each measurement.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the random input, for equal runs.")
@click.option("--peer/--no-peer", default=True, show_default=True, help="Measure scipy (and others if installed).")
@plot_option
@json_option
@quiet_option
def command(
    sizes: tuple[int, ...], families: tuple[Any, ...], runs: int, seed: int, peer: bool, plot_path: Path | None,
    as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Measure privacy amplification from n to n/2 bits, packed in and out.

    Example: qkd bench amplify --bits 1000000 --plot amplify.png
    """
    console = progress_console(quiet)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for n in sizes or SIZES:
        with one_core():
            peers = _peers(rng, n, console) if peer and n <= SLOW_LIMIT else []
            for path in available_paths():
                for family in families or FAMILIES:
                    if path != "fft" or n <= SLOW_LIMIT:
                        console.print(f"{n} bits, {family}, {path}", style="dim")
                        rows.append(_measure(rng, n, family, Engine(path), runs if path != "fft" else 1))
            fastest = next((row for row in peers if row.name == "scipy.fft"), None)
            for row in rows:
                if fastest and row.parameters["n"] == n:
                    row.peer, row.ratio = fastest.name, row.median / fastest.median
            rows += peers
        if cores() > 1:
            with make_pinned_executor(cores()) as executor:
                engine = Engine(available_paths()[0], executor, cores())
                for family in families or FAMILIES:
                    rows.append(_measure(rng, n, family, engine, runs))
    rows.append(_memory(max(sizes or SIZES)))
    if plot_path is not None:
        save_plot(plot_path, lambda figure: _draw(figure, rows))
    emit(document(rows), as_json, lambda printer: _render(printer, rows))
    return 0


def _packed(rng: np.random.Generator, n_bits: int) -> Bits:
    packed = rng.integers(0, 256, (n_bits + 7) // 8, dtype=np.uint8)
    if n_bits % 8:
        packed[-1] &= (1 << n_bits % 8) - 1
    return packed


def _measure(rng: np.random.Generator, n: int, family: Any, engine: Engine, runs: int) -> Row:
    m = n // 2
    key, seed = _packed(rng, n), _packed(rng, seed_bits(family, n, m))
    values = rates(lambda: universal_hash(family, key, n, seed, m, engine), n / 1e6, runs)
    return Row(
        "amplify", {"n": n, "m": m, "family": family, "path": engine.path, "threads": engine.parts}, values, UNIT
    )


def _peers(rng: np.random.Generator, n: int, console: Console) -> list[Row]:
    """The usual way, one floating-point transform of everything; and what else is installed. All give our bits."""
    m = n // 2
    x, s = (rng.integers(0, 2, size, dtype=np.uint8) for size in (n, n + m - 1))
    ours = universal_hash("toeplitz", _pack(x), n, _pack(s), m)
    works: list[tuple[str, Callable[[], Any]]] = [("scipy.fft", lambda: _scipy(x, s, n, m))]
    if find_spec("randextract") is not None and n <= SLOW_PEER_LIMIT:
        works.append(("randextract", _randextract(x, s, n, m)))
    if find_spec("cryptomite") is not None and n <= SLOW_PEER_LIMIT:
        works.append(("cryptomite", _cryptomite(x, s, n, m)))
    found = []
    for name, work in works:
        console.print(f"{n} bits, {name}", style="dim")
        equal = np.array_equal(_pack(np.array(work(), np.uint8)), ours)
        if not equal:
            raise InputError(f"{name} and we hash {n} bits differently", remedy="Report this with both versions.")
        parameters = {"n": n, "m": m, "family": "toeplitz", "path": name, "threads": 1}
        found.append(Row(name, parameters, rates(work, n / 1e6, 1), UNIT, extra={"equal": equal}))
    return found


def _pack(bits: Bits) -> Bits:
    return np.packbits(bits, bitorder="little")


def _scipy(x: Bits, s: Bits, n: int, m: int) -> NDArray[np.int64]:
    # Circular: only what is not read wraps round.
    length = scipy.fft.next_fast_len(n + m - 1, real=True)
    product = scipy.fft.irfft(scipy.fft.rfft(x.astype(float), length) * scipy.fft.rfft(s.astype(float), length), length)
    bits: NDArray[np.int64] = np.rint(product[n - 1 : n - 1 + m]).astype(np.int64) & 1
    return bits


def _from_the_diagonal(s: Bits, n: int) -> Bits:
    """Others count the seed from the main diagonal, row minus column, and go round."""
    return np.concatenate([s[n - 1 :], s[: n - 1]])


def _randextract(x: Bits, s: Bits, n: int, m: int) -> Callable[[], Any]:
    from galois import GF2
    from randextract import RandomnessExtractor

    extractor = RandomnessExtractor.create(extractor_type="toeplitz", input_length=n, output_length=m)
    return lambda: extractor.extract(GF2(x), GF2(_from_the_diagonal(s, n)))


def _cryptomite(x: Bits, s: Bits, n: int, m: int) -> Callable[[], Any]:
    import cryptomite

    extractor = cryptomite.Toeplitz(n, m)
    return lambda: extractor.extract(x.tolist(), _from_the_diagonal(s, n).tolist())


def _memory(n: int) -> Row:
    """Peak memory of a fresh process beyond its inputs and outputs."""
    code = (
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from common.postprocessing.amplification import seed_bits, universal_hash\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(1024 * int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "def hash(n, m):\n"
        "    key, seed = (np.ones(size // 8, np.uint8) for size in (n, seed_bits('toeplitz', n, m) + 1))\n"
        "    universal_hash('toeplitz', key, n, seed, m)\n"
        f"n, m = {n // 16 * 16}, {n // 16 * 8}\n"
        "hash(1600, 800)\n"
        "before = peak()\n"
        "hash(n, m)\n"
        "print(peak() - before - (n + n + m + m) // 8)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return Row(
        "memory beyond input, seed and output",
        {"n": n, "m": n // 2, "family": "toeplitz"},
        [int(done.stdout) / 1e9],
        "GB",
    )


def _render(console: Console, rows: list[Row]) -> None:
    cells = [
        (f"{row.parameters['n']:.0e}", row.parameters["family"], row.parameters.get("path", ""),
         row.parameters.get("threads", ""), f"{row.median:.4g} ({min(row.values):.4g}-{max(row.values):.4g})", row.unit,
         f"{row.ratio:.0f}" if row.ratio else "")
        for row in rows
    ]  # fmt: skip
    names = ("n", "family", "path", "threads", "median (min-max)", "unit", "x scipy")
    console.print(table("privacy amplification, m = n/2", names, cells))


def _draw(figure: Any, rows: list[Row]) -> None:
    axes = figure.subplots()
    speeds = [row for row in rows if row.unit == UNIT]
    keys = dict.fromkeys((r.parameters["family"], r.parameters["path"], r.parameters["threads"]) for r in speeds)
    for number, (family, path, threads) in enumerate(keys):
        of = [
            r
            for r in speeds
            if (r.parameters["family"], r.parameters["path"], r.parameters["threads"]) == (family, path, threads)
        ]
        axes.loglog(
            [r.parameters["n"] for r in of],
            [r.median for r in of],
            marker="o",
            color=f"C{number % 10}",
            linestyle="-" if number < 10 else "--",
            label=f"{family}, {path}, {threads} thread(s)",
        )
    axes.set(xlabel="input bits", ylabel="Mbit/s of input")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
