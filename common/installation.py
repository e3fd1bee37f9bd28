"""Is what is installed what was installed? Our packages have plain names, and another distribution may have the same.

pip lets a later distribution overwrite files of an earlier one, says nothing, and deletes them when either is
uninstalled. The list of an installation (RECORD) holds a digest of every file: this module compares, and names the
other. It imports nothing of ours, since any of it may be somebody else's by now.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path
from typing import Any

OURS = "qkd-node"
SHOWN = 3
REMEDY = (
    "Install qkd-node again, in an environment of its own: `pipx install`, or `python3 -m venv` and its pip "
    "(`pip install --force-reinstall qkd-node` mends this one until the other is touched)."
)


def intrusion(path: Sequence[str] | None = None) -> str | None:
    """What is wrong with the installed files, and whose doing it is; None if nothing is.

    An editable installation lists no files of ours, and has nothing to compare.

    Parameters
    ----------
    path : folders with installed distributions; those of this interpreter without it.
    """
    given: dict[str, Any] = {} if path is None else {"path": list(path)}
    ours = next(iter(distributions(name=OURS, **given)), None)
    wrong = [file for file in (ours.files or [] if ours is not None else []) if _is_foreign(file)]
    if not wrong:
        return None
    others = [one for one in distributions(**given) if one.metadata["Name"] != OURS]
    claimed = sorted({one.metadata["Name"] for one in others if _claims(one, wrong)})
    whose = f"; {', '.join(claimed)} installs the same" if claimed else ""
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return f"not as {OURS} installed them: {', '.join(map(str, wrong[:SHOWN]))}{more}{whose}"


def _is_foreign(file: PackagePath) -> bool:
    """Whether a module on the disk is missing or another than the one that was installed."""
    if file.suffix != ".py" or file.hash is None:
        return False
    try:
        content = Path(str(file.locate())).read_bytes()
    except OSError:
        return True
    digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest()).rstrip(b"=")
    return digest.decode() != file.hash.value


def _claims(other: Distribution, files: Sequence[PackagePath]) -> bool:
    return bool({str(file) for file in other.files or []} & {str(file) for file in files})
