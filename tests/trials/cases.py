"""Bad inputs by kind: each function spoils one thing in a folder and says which command meets it.

A case is a pure function of (kind, number): the same everywhere, whatever was run before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import click

from common.node.flight import Record
from tests.trials import material as good
from tests.trials import mutations
from tests.trials.material import Material
from tests.trials.mutations import odd_arrays, spoil_file, text_or_values, write_json

USAGE = {0, 1, 2, 3}
READERS = {0, 1, 2}
FORMAT_OF = {"txt": "text", "csv": "text"}
ROLES = ("alice", "bob")
ODD_PATHS = (
    "/proc", "/dev/null", "/dev/zero", "/proc/self/mem", "missing", "x" * 300, "d/" * 3000, ".", "", "é"
)  # fmt: skip
Arguments = list[str]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes
    ----------
    command : what meets it (`qkd`, `alice` or `bob` and its arguments). expected : exit codes that are right.
    named : one of these words an error must say: the file's name, or what it is about. spoiled : kept if it fails.
    """

    command: Arguments
    expected: set[int] = field(default_factory=lambda: set(USAGE))
    named: tuple[str, ...] = ()
    spoiled: tuple[Path, ...] = ()


Builder = Callable[[Random, Material, Path], Case]
KINDS: dict[str, tuple[int, Builder]] = {}


def kind(name: str, count: int) -> Callable[[Builder], Builder]:
    """``count`` : of a whole run."""

    def register(builder: Builder) -> Builder:
        KINDS[name] = count, builder
        return builder

    return register


def build(name: str, number: int, material: Material, folder: Path, seed: int = 0) -> Case:
    """The case in ``folder``, which is empty."""
    return KINDS[name][1](Random(f"{seed} {name} {number}"), material, folder)


def _with_config(rng: Random, role: str, path: Path) -> Case:
    """A command that reads a configuration."""
    config = ["--config", str(path)]
    json_too = rng.choice(([], ["--json"]))
    commands: list[Arguments] = [
        *([[role, "check", *config, *json_too]] * 6),
        *([[role, "status", *config, *json_too]] * 2),
        *([["qkd", "keys", *config, *json_too]] * 2),
        ["qkd", "keys", "certificate", "1", *config],
        ["qkd", "alarm", "list", *config, *json_too],
        ["qkd", "alarm", "clear", *config, *json_too],
        ["qkd", "doctor", *config, *json_too],
    ]
    return Case(rng.choice(commands), spoiled=(path,))


# -- what a node reads ------------------------------------------------------------------------------------------------


@kind("configuration: text", 200)
def configuration_text(rng: Random, material: Material, folder: Path) -> Case:
    link, role = material.copy_link(folder), rng.choice(ROLES)
    path = link / f"{role}.toml"
    path.write_bytes(mutations.bad_bytes(rng, path.read_bytes()))
    return _with_config(rng, role, path)


@kind("configuration: values", 500)
def configuration_values(rng: Random, material: Material, folder: Path) -> Case:
    link, role = material.copy_link(folder), rng.choice(ROLES)
    path = link / f"{role}.toml"
    path.write_text(mutations.toml(mutations.bad_document(rng, _whole(role, link))), errors="replace")
    return _with_config(rng, role, path)


def _whole(role: str, link: Path) -> dict[str, Any]:
    """A configuration in which every field stands."""
    from common.config_file import load_config

    config = load_config(link / f"{role}.toml")
    document: dict[str, Any] = config.model_dump(mode="json", exclude={"base_dir"}, exclude_none=True)
    document["channel"].pop("origin", None)
    return document


@kind("configuration: applications", 80)
def applications(rng: Random, material: Material, folder: Path) -> Case:
    link, role = material.copy_link(folder), rng.choice(ROLES)
    path, document = link / f"{role}.toml", _whole(role, link)
    names = rng.choice((lambda: str(mutations.odd_value(rng))[:2000], lambda: f"sae-{rng.randrange(9)}"))
    values = rng.choice((lambda: mutations.odd_value(rng), lambda: rng.choice(("kme-alice", "kme-bob", "kme-x"))))
    saes = {names(): values() for _ in range(rng.choice((1, 2, 30)))}
    document["etsi014"]["saes"] = rng.choice((saes, saes | document["etsi014"]["saes"], mutations.odd_value(rng)))
    path.write_text(mutations.toml(document), errors="replace")
    if rng.random() < 0.3:
        shutil.rmtree(link / "alice"), shutil.rmtree(link / "bob")
        return Case(["qkd", "init", str(link)], spoiled=(path,))
    return _with_config(rng, role, path)


@kind("configuration: devices", 250)
def devices(rng: Random, material: Material, folder: Path) -> Case:
    from importlib.metadata import entry_points

    link, role = material.copy_link(folder), rng.choice(ROLES)
    path, document = link / f"{role}.toml", material.config(role)
    drivers = sorted(point.name for point in entry_points(group="qkd_node.devices"))
    device = rng.choice([*document["devices"], "attenuator", "power_meter", "polarisation_controller", "detector_bias"])
    table = document["devices"].setdefault(device, {})
    if rng.random() < 0.7:
        table["driver"] = rng.choice(drivers)
    for name in rng.sample(_parameters(table.get("driver")), k=min(3, len(_parameters(table.get("driver"))))):
        table[name] = rng.choice(
            (mutations.odd_value(rng), "127.0.0.1", 1, 1.5, "TCPIP::127.0.0.1::9::SOCKET", str(path))
        )
    document = mutations.bad_document(rng, document, ("devices",)) if rng.random() < 0.5 else document
    path.write_text(mutations.toml(document), errors="replace")
    return _with_config(rng, role, path)


def _parameters(driver: Any) -> list[str]:
    from common.errors import QkdError
    from hardware.registry import driver_factory

    try:
        return sorted(driver_factory(str(driver)).model.model_fields)  # type: ignore[attr-defined]
    except (QkdError, AttributeError):
        return ["fibre", "preset", "host", "port", "path"]


@kind("calibration", 150)
def calibration(rng: Random, material: Material, folder: Path) -> Case:
    content = {"mean_photon_number": 0.28, "mean_photon_number_lower": 0.27, "mean_photon_number_upper": 0.292,
               "eps_mean_photon_number": 1e-11, "g2": 0.005, "g2_upper": 0.00698, "eps_g2": 1e-11, "p_z_lower": 0.89,
               "p_z_upper": 0.91, "mismatch": 0.02, "eps_detectors": 1e-11,
               "measurement": {"g2": {"slots": 3}}}  # fmt: skip
    path = folder / "calibration.toml"
    text_or_values(rng, path, content)
    if rng.random() < 0.2:
        g2 = rng.choice(([], ["--g2-upper", "0.01"]))
        counts = ["--clicks", "8900000", "--slots", "76130000", "--efficiency", "0.39", "0.41"]
        return Case(
            ["qkd", "plan", "source", *counts, *g2, "--out", str(path)], READERS, (path.name, "--g2-upper"), (path,)
        )
    link, role = material.copy_link(folder), rng.choice(ROLES)
    document = material.config(role)
    section = rng.choice(("source", "detectors"))
    document.setdefault(section, {})["calibration"] = str(path)
    for name in ("mean_photon_number_upper", "g2_upper", "eps_source", "p_z_lower", "p_z_upper", "mismatch", "eps"):
        document[section].pop(name, None)
    (link / f"{role}.toml").write_text(mutations.toml(document))
    return replace(_with_config(rng, role, link / f"{role}.toml"), spoiled=(path,))


@kind("link description", 120)
def link_description(rng: Random, material: Material, folder: Path) -> Case:
    content = {"preset": "lab-0.17dB", "protocol": "bb84", "loss_db": 10.0, "clock_rate_hz": 76.13e6, "gate_ps": 3420.0,
               "mean_photon_number": 0.29, "g2": 0.005, "misalignment": 0.01, "p_z_bob": 0.9, "dark_rate_cps": 40.0,
               "dead_time_ps": 40_000, "jitter_ps": 100.0, "eps_total": 1e-10, "f_ec": 1.1,
               "block_size_max": 100_000,
               "block_seconds_max": 100.0, "detector_efficiency": 0.8, "mean_photon_number_upper": 0.3}  # fmt: skip
    path = folder / "link.toml"
    text_or_values(rng, path, content)
    return Case(["qkd", "plan", str(path), "--quiet", *rng.choice(([], ["--json"]))], READERS, spoiled=(path,))


@kind("secrets and certificates", 250)
def secrets(rng: Random, material: Material, folder: Path) -> Case:
    link, role = material.copy_link(folder), rng.choice(ROLES)
    path = rng.choice(sorted((link / role / "secrets").iterdir()))
    spoil_file(rng, path)
    return replace(_with_config(rng, role, link / f"{role}.toml"), spoiled=(path,))


@kind("key store", 250)
def store(rng: Random, material: Material, folder: Path) -> Case:
    link, role = material.copy_link(folder), rng.choice(ROLES)
    database = link / role / "keys.sqlite"
    what = rng.randrange(4)
    if what == 0:
        _spoil_store(rng, database)
    else:
        beside = [
            database,
            database,
            database,
            Path(f"{database}-wal"),
            Path(f"{database}.lock"),
            Path(f"{database}.count"),
        ]
        beside += list((link / role).glob("keys.sqlite.*"))
        database = rng.choice(beside)
        spoil_file(rng, database)
    return replace(_with_config(rng, role, link / f"{role}.toml"), spoiled=(database,))


def _spoil_store(rng: Random, database: Path) -> None:
    """A database that is whole, and whose content is not."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = rng.choice(tables)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        value = rng.choice((None, -1, 2**62, "x", "{}", "[", "[1", "null", b"\xff", 1.5, '{"ledger": {}}', "é" * 1000))
        statement = rng.choice((
            f"UPDATE OR REPLACE {table} SET {rng.choice(columns)} = ?", f"DELETE FROM {table} WHERE ? IS NOT 5",
            f"UPDATE {table} SET {rng.choice(columns)} = CAST(? AS TEXT) || {rng.choice(columns)}",
        ))  # fmt: skip
        try:
            connection.execute(statement, (value,))
        except sqlite3.Error:
            connection.execute(rng.choice((f"DROP TABLE {table}", "PRAGMA user_version = 77")))
    connection.close()


@kind("status file", 100)
def status(rng: Random, material: Material, folder: Path) -> Case:
    link, role = material.copy_link(folder), rng.choice(ROLES)
    path = link / role / "status.json"
    if rng.random() < 0.5:
        spoil_file(rng, path)
    else:
        write_json(path, mutations.bad_document(rng, json.loads(path.read_text())))
    json_too = rng.choice(([], ["--json"]))
    config = ["--config", str(link / f"{role}.toml")]
    return Case([role, rng.choice(("status", "status", "check")), *config, *json_too], {0, 1, 2, 3}, spoiled=(path,))


# -- what a person hands in -------------------------------------------------------------------------------------------


@kind("certificates", 250)
def certificates(rng: Random, material: Material, folder: Path) -> Case:
    files = [folder / f"{role}.json" for role in ROLES]
    for path in files:
        shutil.copy(material.folder / path.name, path)
    path = rng.choice(files)
    if rng.random() < 0.4:
        spoil_file(rng, path)
    else:
        write_json(path, mutations.bad_document(rng, json.loads(path.read_text())))
    judged = ["--policy", str(material.folder / "policy.toml"), "--signer", str(material.folder / "alice.pub")]
    return Case(
        ["qkd", "verify-certificate", *map(str, files), *judged, *rng.choice(([], ["--json"]))], {1, 2}, spoiled=(path,)
    )


@kind("policies and signers", 120)
def policies(rng: Random, material: Material, folder: Path) -> Case:
    policy, signer = folder / "policy.toml", folder / "alice.pub"
    for path in (policy, signer):
        shutil.copy(material.folder / path.name, path)
    path = rng.choice((policy, signer))
    if path is policy and rng.random() < 0.6:
        import tomllib

        policy.write_text(
            mutations.toml(mutations.bad_document(rng, tomllib.loads(policy.read_text()))), errors="replace"
        )
    else:
        spoil_file(rng, path)
    given = ["--policy", str(policy), "--signer", rng.choice((str(signer), str(signer), *mutations.ODD_TEXTS[3:8]))]
    return Case(
        ["qkd", "verify-certificate", str(material.folder / "alice.json"), *given], {0, 1, 2, 5}, spoiled=(path,)
    )


@kind("recordings: convert", 300)
def converted(rng: Random, material: Material, folder: Path) -> Case:
    suffix = rng.choice([name for name in material.tags if name not in ("npz", "npy", "csv")])
    path = _recording(rng, material, folder, suffix)
    to = rng.choice(["feather", "parquet", "ptu", "a1", "qutag", "text"])
    forced = rng.choice(
        ([], ["--from", FORMAT_OF.get(suffix, suffix)], ["--void"], ["--from", FORMAT_OF.get(suffix, suffix), "--void"])
    )
    return Case(
        ["qkd", "convert", str(path), str(folder / f"out.{to}"), "--to", to, *forced],
        {0, 2},
        (path.name, "out."),
        (path,),
    )


@kind("recordings: plan g2", 300)
def measured(rng: Random, material: Material, folder: Path) -> Case:
    suffix = rng.choice([*material.tags, "npz", "npy"])
    path = _recording(rng, material, folder, suffix)
    options = rng.choice(([], ["--format", suffix], ["--out", str(folder / "calibration.toml")]))
    return Case(
        ["qkd", "plan", "g2", str(path), *options, *rng.choice(([], ["--json"]))], READERS, (path.name, "run."), (path,)
    )


def _recording(rng: Random, material: Material, folder: Path, suffix: str) -> Path:
    path = folder / material.tags[suffix].name
    shutil.copy(material.tags[suffix], path)
    if suffix == "npy":
        shutil.copy(material.folder / "tags" / "run.channels.npy", folder)
        path = rng.choice((path, folder / "run.channels.npy"))
    if suffix in ("npz", "npy") and rng.random() < 0.5:
        odd_arrays(rng, path)
    else:
        spoil_file(rng, path, (24,))  # of recordings, so much is usual
    return path


@kind("flight recordings", 150)
def flights(rng: Random, material: Material, folder: Path) -> Case:
    source = rng.choice(material.flights)
    path, key = folder / source.name, folder / "record.key"
    shutil.copy(source, path), shutil.copy(material.folder / "flights" / "record.key", key)
    what = rng.randrange(4)
    if what == 0:
        spoil_file(rng, key)
    elif what == 1:
        spoil_file(rng, path)
    else:
        good.rewrite_flight(path, _odd_records(rng, good.flight_records(source)))
    verb = rng.choice(("record", "replay"))
    return Case(
        ["qkd", verb, str(path), "--key-file", str(key), *rng.choice(([], ["--json"]))], READERS, spoiled=(path, key)
    )


def _odd_records(rng: Random, records: list[Record]) -> list[Record]:
    made = list(records)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made)) if rng.random() < 0.6 else 0
        one = made[at]
        changed = rng.randrange(5)
        if changed == 0:
            made[at] = Record(one.kind, mutations.bad_document(rng, one.facts), one.raw)
        elif changed == 1:
            made[at] = Record(one.kind, one.facts, mutations.bad_bytes(rng, one.raw))
        elif changed == 2:
            made[at] = Record(rng.choice(mutations.ODD_TEXTS), one.facts, one.raw)
        elif changed == 3:
            made[at : at + 1] = [one, one]
        else:
            made[at:] = made[at + 1 :] or [one]
    return made


@kind("sifted keys", 150)
def distilled(rng: Random, material: Material, folder: Path) -> Case:
    import numpy as np

    bits = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 2, 4200, dtype=np.uint8)
    form = rng.choice(("text", "packed", "npy"))
    files = [folder / f"{role}.{form}" for role in ROLES]
    for path in files:
        if form == "npy":
            np.save(path, bits)
        else:
            path.write_bytes("".join(map(str, bits)).encode() if form == "text" else np.packbits(bits).tobytes())
    path = rng.choice(files)
    odd_arrays(rng, path) if form == "npy" and rng.random() < 0.5 else spoil_file(rng, path)
    given = rng.choice(([], ["--format", form]))
    lengths = rng.choice(([], ["--ell", "100"], ["--phase-error", "0.05"], ["--ell", "999999999"]))
    out = rng.choice(([], ["--out", str(folder / "out")], ["--out", "/dev/null/x"]))
    command = ["qkd", "distil", "--alice", str(files[0]), "--bob", str(files[1]), *given, *lengths, *out, "--quiet"]
    return Case([*command, "--frame-length", "4096"], READERS, spoiled=(path,))


@kind("hash inputs", 120)
def amplified(rng: Random, material: Material, folder: Path) -> Case:
    n, ell = rng.choice((8, 1001, 4096)), rng.choice((0, 1, 8, 500, 4096))
    family = rng.choice(("toeplitz", "modified-toeplitz", "gf2m"))
    key, seed = folder / "key", folder / "seed"
    key.write_bytes(rng.randbytes(-(-n // 8))), seed.write_bytes(rng.randbytes(-(-(n + ell - 1) // 8)))
    path = rng.choice((key, seed))
    spoil_file(rng, path)
    out = rng.choice((str(folder / "out"), str(folder), "/dev/null", "/proc/x", str(key)))
    bits = ["--bits", str(n), "--ell", str(ell)]
    command = ["qkd", "amplify", "--family", family, "--input", str(key), *bits, "--seed", str(seed), "--output", out]
    return Case(command, {0, 2}, spoiled=(path,))


@kind("results for figures", 80)
def results(rng: Random, material: Material, folder: Path) -> Case:
    path = folder / "reproduce.json"
    shutil.copy(material.folder / "reproduce.json", path)
    if rng.random() < 0.5:
        spoil_file(rng, path)
    else:
        write_json(path, mutations.bad_document(rng, json.loads(path.read_text())))
    out = rng.choice((str(folder / "figures"), str(folder), "/dev/null/x", "/proc/x", str(path)))
    return Case(["qkd", "figures", "--out", out, "--results", str(path)], READERS, spoiled=(path,))


# -- options ----------------------------------------------------------------------------------------------------------

LONG = {"demo", "soak", "reproduce", "bench", "hil", "run", "--warm"}
"""Commands that would work for long: they get an option that they must refuse."""


@kind("options", 450)
def options(rng: Random, material: Material, folder: Path) -> Case:
    return options_of(rng, folder, *rng.choice(every_command()))


def options_of(rng: Random, folder: Path, way: Arguments, command: click.Command) -> Case:
    """Random options for one command."""
    arguments: Arguments = []
    for parameter in command.params:
        if rng.random() < 0.35 or (parameter.required and rng.random() < 0.9):
            named = [rng.choice(parameter.opts)] if isinstance(parameter, click.Option) else []
            if isinstance(parameter, click.Option) and parameter.is_flag:
                arguments += named
            else:
                arguments += [*named, *(_odd_option(rng, folder, parameter) for _ in range(max(parameter.nargs, 1)))]
    if rng.random() < 0.2:
        arguments.insert(
            rng.randrange(len(arguments) + 1), rng.choice(("--no-such-option", "-Z", "--jsno", "--config"))
        )
    long = bool(LONG & {*way, *arguments})
    if long:
        arguments += rng.choice(
            (["--no-such-option"], ["--block-size", "5"], ["--seed", "x"], ["--tags", "-1"], ["a", "b", "c"])
        )
    return Case([*way, *arguments], {2} if long else {0, 1, 2, 3})


def _odd_option(rng: Random, folder: Path, parameter: click.Parameter) -> str:
    kind_ = parameter.type
    if isinstance(kind_, click.Choice) and rng.random() < 0.7:
        return str(rng.choice(list(kind_.choices)))
    if isinstance(kind_, click.Path):
        return rng.choice((*ODD_PATHS, str(folder), str(folder / "new")))
    if rng.random() < 0.7:
        return str(rng.choice((*mutations.ODD_NUMBERS, rng.uniform(0, 1), rng.randint(0, 100_000), "1,2", "0.9")))
    return rng.choice(mutations.ODD_TEXTS)[:2000].replace("\0", "")  # the operating system ends words at NUL


def every_command() -> list[tuple[Arguments, click.Command]]:
    """(way, command) of all that `qkd`, `alice` and `bob` have."""
    from tests.trials.programs import PROGRAMS

    found: list[tuple[Arguments, click.Command]] = []
    for name, program in PROGRAMS.items():
        _below(program, [name], found)
    return found


def _below(command: click.Command, way: Arguments, found: list[tuple[Arguments, click.Command]]) -> None:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            _below(inner, [*way, name], found)
    if not isinstance(command, click.Group) or command.invoke_without_command or len(way) == 1:
        found.append((way, command))
