"""`qkd init`: everything a new link needs: secrets for both ends, demonstration certificates, two configurations."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import tomlkit
from rich.console import Console

from common.cli.output import emit, json_option
from common.config import Config
from common.config_file import parse_config
from common.errors import ConfigurationError
from common.files import make_folder, read_file, write_file
from common.node import credentials

ROLES = ("alice", "bob")
Overrides = dict[str, Any]
PORTS = ("fibre", "endpoint", "listen of alice", "listen of bob")
"""What `--port-base` counts up from: simulated light, channel, key delivery of either end."""


def template(role: str) -> str:
    """The commented example configuration of a role, as in `deploy/`."""
    return (files("common.cli") / "templates" / f"{role}.toml").read_text(encoding="utf-8")


def initialise(
    directory: Path,
    overrides: dict[str, Overrides] | None = None,
    hosts: dict[str, str] | None = None,
    port_base: int | None = None,
) -> list[Path]:
    """Make a link's files below ``directory``.

    Parameters
    ----------
    directory : gets `alice.toml`, `bob.toml` (existing ones are kept) and what they name below `alice/` and `bob/`.
    overrides : role -> values that replace the template's; a device table is replaced whole.
    hosts : role -> the name or address of its machine, put into every address.
    port_base : first of four ports, in the order of `PORTS`; without it, ports stay as they are.

    Returns
    -------
    Every file that was written.

    Raises
    ------
    ConfigurationError
        A secret exists already: nothing is overwritten, nothing is written.
    """
    texts = {role: _text(directory, role, (overrides or {}).get(role, {}), hosts or {}, port_base) for role in ROLES}
    configs = {role: parse_config(texts[role], directory.absolute(), f"{role}.toml") for role in ROLES}
    contents = _secrets(configs)
    for path in contents:
        if path.exists():
            raise ConfigurationError(
                f"{path} exists: a link's secrets are never overwritten", remedy="Give `qkd init` another folder."
            )
    make_folder(directory)
    for path, content in contents.items():
        credentials.write_secret(path, content)
    new = [role for role in ROLES if not (directory / f"{role}.toml").exists()]
    for role in new:
        write_file(directory / f"{role}.toml", texts[role])
    return [*[directory / f"{role}.toml" for role in new], *contents]


def _text(directory: Path, role: str, overrides: Overrides, hosts: dict[str, str], port_base: int | None) -> str:
    path = directory / f"{role}.toml"
    try:
        text = read_file(path).decode()
    except FileNotFoundError:
        text = template(role)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}", remedy="Correct it, or move it away.") from None
    config = parse_config(text, directory.absolute(), str(path))  # before it is edited: what is wrong is told
    document = tomlkit.parse(text)
    for section, values in overrides.items():
        for name, value in values.items():
            document.setdefault(section, tomlkit.table())[name] = value
    ports = {name: None if port_base is None else port_base + place for place, name in enumerate(PORTS)}
    for section, name, address, end, port in (
        ("channel", "endpoint", config.channel.endpoint, "alice", ports["endpoint"]),
        ("etsi014", "listen", config.etsi014.listen, role, ports[f"listen of {role}"]),
    ):
        if hosts.get(end) or port:
            document.setdefault(section, tomlkit.table())[name] = _at(address, hosts.get(end), port)
    for device in document.get("devices", {}).values():
        if "fibre" in device:
            device["fibre"] = _at(str(device["fibre"]), hosts.get("alice"), ports["fibre"])
    return tomlkit.dumps(document)


def _at(address: str, host: str | None, port: int | None) -> str:
    """`tcp://host:port` or `host:port` with another host or port."""
    scheme, slashes, rest = address.rpartition("://")
    old_host, _, old_port = rest.rpartition(":")
    written = old_host if host is None else f"[{host}]" if ":" in host else host
    return f"{scheme}{slashes}{written}:{port or old_port}"


def _secrets(configs: dict[str, Config]) -> dict[Path, bytes]:
    """Content of every secret file that the two configurations name."""
    start, curve = credentials.link_secret(), {role: credentials.curve_keys() for role in ROLES}
    authority = credentials.make_authority(configs["alice"].link.name)
    contents: dict[Path, bytes] = {}
    for role, peer in (ROLES, ROLES[::-1]):
        config = configs[role]
        channel, etsi = config.channel, config.etsi014
        host = etsi.listen.rpartition(":")[0].strip("[]")
        certificate, key = credentials.make_certificate(authority, etsi.kme_id, _hosts(host))
        signing, verifying = credentials.certificate_keys()
        named = {
            channel.link_secret_file: start,
            channel.curve_secret_file: curve[role][1],
            channel.peer_curve_public_file: curve[peer][0],
            config.keys.key_file: credentials.store_key(),
            config.keys.certificate_key_file: signing,
            config.keys.certificate_key_file.with_suffix(".pub"): verifying,
            etsi.ca_certificate: credentials.pem(authority.certificate),
            etsi.certificate: certificate,
            etsi.private_key: key,
        }
        for sae in (sae for sae, kme in etsi.saes.items() if kme == etsi.kme_id):
            folder = etsi.certificate.parent
            named[folder / f"{sae}.crt"], named[folder / f"{sae}.key"] = credentials.make_certificate(authority, sae)
        contents |= {config.path(path): content for path, content in named.items()}
    return contents


def _hosts(listen: str) -> tuple[str, ...]:
    """Names that the key manager's certificate is good for."""
    local = ("localhost", "127.0.0.1", "::1")
    return local if listen in ("", "0.0.0.0", "::", *local) else (listen, *local)


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path("link"))
@click.option("--alice-host", help="Alice's machine as Bob reaches it: the channel, key delivery and simulated light.")
@click.option("--bob-host", help="Bob's machine as applications reach it: his key delivery.")
@click.option("--port-base", type=click.IntRange(1, 65532), help="Four ports from this one on: simulated light, "
              "channel, key delivery of Alice and of Bob [default: 47500, 47600, 47700, 47701].")  # fmt: skip
@json_option
def command(
    directory: Path, alice_host: str | None, bob_host: str | None, port_base: int | None, as_json: bool
) -> int:
    """Make link secrets, CURVE and signing keys, demonstration certificates and both configurations below DIRECTORY.

    Existing configurations are kept, existing secrets are never overwritten.

    Example: qkd init link --alice-host 10.47.0.1 --bob-host 10.47.0.2
    """
    given = (("alice", alice_host), ("bob", bob_host))
    hosts = {role: host for role, host in given if host is not None}
    written = initialise(directory, hosts=hosts, port_base=port_base)

    def render(console: Console) -> None:
        console.print(f"{len(written)} files below {directory}")
        console.print(f"start, in two terminals, in either order:\n  alice run --config {directory / 'alice.toml'}")
        console.print(f"  bob run --config {directory / 'bob.toml'}")
        console.print("on two machines: carry each .toml with its folder by a trusted way, then delete them here")

    emit({"files": [str(path) for path in written]}, as_json, render)
    return 0
