"""`qkd doctor`: what this machine can do, and what to repair; parts add findings (entry points `qkd_node.doctor`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from common.cli.demo import prepare, running, wait_for_blocks
from common.cli.doctor_bench import DETECTORS, answer
from common.cli.output import emit, json_option, machine, progress_console, quiet_option, table
from common.config_file import load_config
from common.errors import ConfigurationError, EnvironmentFault
from common.kernels.clmul import OVERRIDE
from common.node.compute import amplification_path

GROUP = "qkd_node.doctor"
MIN_MEMORY_BYTES = 2 << 30
WARM_BLOCK = 300_000
Finding = tuple[str, bool, str]


def findings(config_path: Path | None) -> list[Finding]:
    """(what, good, text) of this machine, of every installed part, and of one node's files."""
    rows = [_python(), _cores(), _memory(), _packages(), _numba_cache(), _amplification()]
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        look: Callable[[], list[Finding]] = point.load()
        rows += look()
    if config_path is not None:
        config = load_config(config_path)
        rows.append(("configuration", True, f"{config_path}: {config.role} of link {config.link.name!r}"))
        rows += role_check(config.role, config_path)
    return rows


def role_check(role: str, config_path: Path) -> list[Finding]:
    """What the daemon of a role says in its own `check`, which takes the steps that `run` takes.

    Raises
    ------
    EnvironmentFault
        It does not answer.
    """
    command = [sys.executable, "-P", "-m", role, "check", "--json", "--config", str(config_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return [(one["name"], one["ok"], one["message"]) for one in json.loads(done.stdout)["checks"]]
    except (ValueError, KeyError):
        raise EnvironmentFault(f"`{role} check` does not answer: {done.stderr.strip()[-500:]}") from None


def _python() -> Finding:
    return ("python", sys.version_info >= (3, 11), sys.version.split()[0])


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    return ("cores", cores >= 2, f"{cores}" + ("" if cores >= 2 else ": a node with the twin beside it wants two"))


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return ("memory", total >= MIN_MEMORY_BYTES, f"{total / 2**30:.1f} GiB")


def _packages() -> Finding:
    missing = []
    for name in ("numpy", "scipy", "numba", "pyzmq", "cryptography", "ldpc", "aiohttp", "aiomqtt", "pydantic"):
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    return ("packages", not missing, "missing: " + ", ".join(missing) if missing else "all there")


def _numba_cache() -> Finding:
    folder = Path(os.environ.get("NUMBA_CACHE_DIR", Path(__file__).parents[1] / "kernels"))
    good = os.access(folder if folder.exists() else folder.parent, os.W_OK)
    text = "compiled kernels are kept" if good else f"{folder} is read-only: every start compiles; set NUMBA_CACHE_DIR"
    return ("kernel cache", good, text)


def _amplification() -> Finding:
    speeds = {
        "clmul512": "carry-less multiplication, 512 bits wide",
        "clmul128": "carry-less multiplication, 128 bits wide",
        "fft": "floating-point transforms: exact, but a hundred times slower than with carry-less multiplication",
    }
    try:
        path = amplification_path()
    except ConfigurationError as error:
        return ("amplification", False, f"{error}; {error.remedy}")
    forced = f" (by {OVERRIDE})" if os.environ.get(OVERRIDE) else ""
    return ("amplification", True, f"{path}{forced}: {speeds[path]}")


def warm(console: Console) -> None:
    """Compile everything by one small block over the simulated link, both daemons as processes."""
    directory = Path(tempfile.mkdtemp(prefix="qkd-warm-"))
    try:
        alice, bob = prepare(directory, "lab-0.17dB", "three-state", WARM_BLOCK, None)
        with running(alice, bob):
            wait_for_blocks(alice, bob, 1, console, refused=5)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@click.command("doctor")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Look at this node's files as well.")
@click.option("--warm", "compile_ahead", is_flag=True, help="Compile all kernels now, by one block of simulated light.")
@click.option(
    "--hardware",
    type=click.Path(path_type=Path),
    help="Walk through the bench of this configuration instead: opens and reads its devices, leaves them safe.",
)
@click.option(
    "--seconds", type=click.FloatRange(0.2, 600.0), default=2.0, show_default=True, help="Seconds of light to record."
)
@click.option("--darken", is_flag=True, help="Moves the attenuator: also count darks behind its closed shutter.")
@click.option("--bias", is_flag=True, help="Switches the detectors' bias on before counting (and off at the end).")
@click.option("--prepared", type=click.Choice(DETECTORS), help="The one state that Alice sends: gives the contrast.")
@json_option
@quiet_option
def command(
    config_path: Path | None,
    compile_ahead: bool,
    hardware: Path | None,
    as_json: bool,
    quiet: bool,
    **wishes: Any,
) -> int:
    """Say what this machine can do and what to repair; with --hardware, what a bench needs.

    Examples: qkd doctor --warm; qkd doctor --hardware bench.toml
    """
    if hardware is not None:
        progress_console(quiet).print(f"looking at the devices of {hardware}, {wishes['seconds']:g} s of light")
        return answer(hardware, as_json, **wishes)
    if compile_ahead:
        warm(progress_console(quiet))
    rows = findings(config_path)
    if compile_ahead:
        rows.append(("kernels", True, "compiled"))
    document = {
        "ok": all(good for _, good, _ in rows),
        "machine": machine(),
        "checks": [{"name": name, "ok": good, "message": text} for name, good, text in rows],
    }
    marks = [(name, "ok" if good else "FAULT", text) for name, good, text in rows]
    emit(document, as_json, lambda console: console.print(table("doctor", ("what", "", "finding"), marks)))
    return 0 if document["ok"] else 1
