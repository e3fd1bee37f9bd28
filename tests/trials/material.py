"""Good files of every kind that the product reads, made once; what is wrong with them comes later."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.auditor import verify_certificate
from common.cli.demo import prepare
from common.datatypes import TimeTags
from common.keybits import KeyBits
from common.node.flight import FlightWriter, Record, read_flight
from common.node.keystore import KeyStore
from hardware.formats import write_tags
from hardware.formats.files import FORMATS
from tests.certificates import SIGNERS, made
from tests.property.test_protocol import give_key
from tests.property.test_replay import KEY, Recorded

BLOCKS = 3
TAGS = 3000
SUFFIXES = {"text": "txt", "a1-legacy": "a1-legacy"}


@dataclass(frozen=True)
class Material:
    """Where the good files lie.

    Attributes
    ----------
    link : a link of `qkd init` with stores that hold blocks. tags : recordings by the suffix of their format.
    """

    folder: Path

    @property
    def link(self) -> Path:
        return self.folder / "link"

    @property
    def tags(self) -> dict[str, Path]:
        return {
            path.suffix[1:]: path for path in sorted((self.folder / "tags").iterdir()) if ".channels" not in path.name
        }

    @property
    def flights(self) -> list[Path]:
        return sorted((self.folder / "flights").glob("*.flight"))

    def config(self, role: str) -> dict[str, Any]:
        """A configuration as a document."""
        return tomllib.loads((self.link / f"{role}.toml").read_text())

    def copy_link(self, folder: Path) -> Path:
        """A link to spoil."""
        return Path(shutil.copytree(self.link, folder / "link"))


def make(folder: Path) -> Material:
    """Everything; a few seconds."""
    material = Material(folder)
    prepare(material.link, "lab-0.17dB", "three-state", 300_000, 1)
    for role in ("alice", "bob"):
        _store(material, role)
        (folder / f"{role}.json").write_text(json.dumps(made("three-state", 7, role)))
        (folder / f"{role}.pub").write_text(SIGNERS[role])
    shutil.copy(Path(verify_certificate.__file__).with_name("policy.toml"), folder / "policy.toml")
    (folder / "tags").mkdir()
    _tags(folder / "tags")
    _flights(folder / "flights")
    rows = [{"protocol": "bb84", "preset": "field-14.6dB", "loss_db": 14.6, "bits_per_pulse": 1e-4}]
    (folder / "reproduce.json").write_text(json.dumps({"machine": {}, "rows": rows}))
    return material


def _store(material: Material, role: str) -> None:
    home = material.link / role
    key_file = next(path for path in home.rglob("store.key"))
    with KeyStore.open(home / "keys.sqlite", key_file) as store:
        for number in range(1, BLOCKS + 1):
            key = KeyBits.from_bytes(bytes([number]) * 40_000)
            store.store_pending(number, key, json.dumps(made("three-state", number, role)), True, authenticated=False)
            store.decide(number)
            store.commit(number)
    status = {"role": role, "link": "lab-0.17dB", "state": "running", "alarms": ["disk: full"], "process_id": 1 << 30}
    (home / "status.json").write_text(json.dumps(status))


def _tags(folder: Path) -> None:
    rng = np.random.default_rng(7)
    times = 1000 * np.cumsum(rng.integers(50, 30_000, TAGS))
    channels = rng.integers(1, 3, TAGS, dtype=np.uint8)
    batches = [TimeTags(times, channels, int(times[-1]), False)]
    for name in FORMATS:
        write_tags(folder / f"run.{SUFFIXES.get(name, name)}", batches, name)
    shutil.copy(folder / "run.txt", folder / "run.csv")
    np.savez(folder / "run.npz", times_ps=times, channels=channels)
    np.save(folder / "run.times.npy", times)
    np.save(folder / "run.channels.npy", channels)


def _flights(folder: Path) -> None:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        give_key(patch, 1024)
        run = Recorded(folder, 3)
        run.pair.run(lambda: len(run.pair.alice.store.committed()) >= 1)
        run.close()
    (folder / "record.key").write_bytes(KEY)


def rewrite_flight(path: Path, records: list[Record]) -> None:
    """A recording whose seal is good and whose content is not."""
    path.unlink(missing_ok=True)
    writer = FlightWriter(path, KEY, 1 << 30, lambda reason: None)
    for record in records:
        writer.put(record)
    writer.close()


def flight_records(path: Path) -> list[Record]:
    """The records of a good one."""
    return [record for record in read_flight(path, KEY) if record.kind != "end"]
