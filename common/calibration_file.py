"""Reading and writing of calibration files: what they hold is in :mod:`common.calibration`."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from common.calibration import Calibration
from common.errors import ConfigurationError
from common.files import read_file, write_file

MEASURE = {
    "source": "Measure both with `qkd plan g2` and `qkd plan source`, into the same file.",
    "detectors": "Write all of them, as measured; 0 for a probability of being wrong says that they are certain.",
}


def load_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises
    ------
    ConfigurationError
        It cannot be read, or a field is wrong; the field is named.
    """
    remedy = "Make it with `qkd plan g2` and `qkd plan source`, or correct the named field."
    try:
        return Calibration.model_validate(tomllib.loads(read_file(path).decode()))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path}: {faults}", remedy=remedy) from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the name, not UTF-8, not TOML
        raise ConfigurationError(f"{path}: cannot be read: {error}", remedy=remedy) from None


def with_calibration(table: Any, base_dir: Path, section: str) -> Any:
    """A configuration's table completed from the file that it names.

    Raises
    ------
    ConfigurationError
        A bound is not in the file, or is given twice.
    """
    if not isinstance(table, dict) or not isinstance(table.get("calibration"), str):
        return table
    known = load_calibration(base_dir / table["calibration"])
    if missing := known.missing(section):
        raise ConfigurationError(
            f"{section}.calibration {table['calibration']} does not give {', '.join(missing)}", remedy=MEASURE[section]
        )
    fields = known.fields_of(section)
    twice = sorted(set(fields) & set(table))
    if twice:
        raise ConfigurationError(
            f"{section}.{twice[0]} is given by the configuration and by {table['calibration']}",
            remedy="Leave it out of one of them.",
        )
    return {**table, **fields}


def update_calibration(path: Path, measurement: str, details: dict[str, Any], **fields: float) -> None:
    """Write measured fields and how they were measured into a calibration file; other measurements in it stay."""
    document = tomlkit.document()
    if path.exists():
        load_calibration(path)  # what is wrong with it is told before it is edited
        document = tomlkit.parse(read_file(path).decode())
    for name, value in fields.items():
        if not math.isfinite(value):
            raise ConfigurationError(f"{name} = {value} is no calibration")
        document[name] = value
    how = document.setdefault("measurement", tomlkit.table())
    how[measurement] = details
    write_file(path, tomlkit.dumps(document))
    load_calibration(path)
