"""Reading of configuration files: what they hold is in :mod:`common.config`."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.calibration_file import with_calibration
from common.config import Config
from common.errors import ConfigurationError
from common.files import read_file


def parse_config(text: str, base_dir: Path, source: str = "configuration") -> Config:
    """Parse and validate a configuration.

    Raises
    ------
    ConfigurationError
        Names every wrong field; for an unknown key, the nearest known one.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source}: not valid TOML: {error}") from None
    try:
        for section in ("source", "detectors"):
            if section in table:
                table[section] = with_calibration(table[section], base_dir, section)
        return Config.model_validate({**table, "base_dir": base_dir})
    except ValidationError as error:
        raise ConfigurationError(f"{source}: " + "; ".join(_explain(item) for item in error.errors())) from None


def load_config(path: Path, role: str | None = None) -> Config:
    """Read a configuration file; with ``role``, refuse the other role's file."""
    try:
        text = read_file(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error}",
            remedy="Give an existing file with --config, or make one with `qkd init`.",
        ) from None
    config = parse_config(text, path.resolve().parent, str(path))
    if role is not None and config.role != role:
        raise ConfigurationError(f"{path}: this is the configuration of {config.role!r}, not of {role!r}")
    return config


def _explain(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    where = ".".join(location) or "file"
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg']}"
    near = difflib.get_close_matches(location[-1], _known_keys(location[:-1]), n=1, cutoff=0.4)
    return f"unknown key {where!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


def _known_keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
