"""Packages and libraries that only some laboratories have: found on opening, or refused with what to install."""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path
from typing import Any

from common.errors import ConfigurationError


def require(module: str, driver: str, extra: str = "", remedy: str = "") -> Any:
    """Import a vendor's package; without it, say how to get it.

    Parameters
    ----------
    module : import name. driver : its manifest name. extra : of this distribution. remedy : where there is no extra.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: the package is there, its shared library is not
        raise ConfigurationError(
            f"driver {driver!r} needs the package {module!r}: {error}",
            remedy=remedy or f"Install it: pip install 'qkd-node[{extra}]'.",
        ) from None


def load_library(path: Path, driver: str, remedy: str) -> Any:
    """Open a vendor's shared library; without it, say what to install.

    Parameters
    ----------
    path : of the library; a bare name is looked for where the system keeps libraries. driver : its manifest name.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigurationError(f"driver {driver!r} needs the vendor's library: {error}", remedy=remedy) from None
