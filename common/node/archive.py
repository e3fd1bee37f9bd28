"""Blocks that have nothing more to give leave the key store; their certificates go to files beside it.

`<database>.certificates/FIRST-LAST.jsonl.gz` holds one certificate a line. A file is written whole and made durable
before its blocks leave the store, so a power cut between the two writes it once more, under the same name.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from common.errors import InputError
from common.files import SECRET, write_file
from common.node.keystore import KeyStore

BATCH = 500
"""Blocks a file."""
_LARGEST_FILE_BYTES = 1 << 26


class Archive:
    """The certificates of past blocks.

    Parameters
    ----------
    database : the key store's file.
    most : certificates kept, in whole files; the oldest files beyond are deleted.
    """

    def __init__(self, database: Path, most: int) -> None:
        self.directory = Path(f"{database}.certificates")
        self._most = most

    def take(self, store: KeyStore, kept: int, least_bytes: int) -> int:
        """Move the oldest blocks that are spent, but for the newest ``kept`` of all, if there are enough for a file.

        Parameters
        ----------
        least_bytes : a rest that is shorter is no key; it is destroyed with its block.

        Returns
        -------
        How many have left the store.

        Raises
        ------
        InputError
            The file cannot be written; the blocks stay.
        """
        spent = store.spent_blocks(kept, least_bytes, BATCH)
        if len(spent) < BATCH:
            return 0
        if self._most:
            self._write(spent)
        store.drop_blocks([number for number, _ in spent])
        files = self._files()
        for file in files[: max(len(files) - -(-self._most // BATCH), 0)]:
            file.unlink(missing_ok=True)
        return len(spent)

    def _write(self, spent: list[tuple[int, str]]) -> None:
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.directory}: {error.strerror}", remedy="Make room, or correct its mode.") from None
        lines = "".join(f"{record}\n" for _, record in spent).encode()
        name = f"{spent[0][0]}-{spent[-1][0]}.jsonl.gz"
        write_file(self.directory / name, gzip.compress(lines, mtime=0), SECRET)

    def _files(self) -> list[Path]:
        """The files, the oldest first."""
        return sorted(self.directory.glob("*-*.jsonl.gz"), key=lambda file: _extent(file).start)

    def find(self, block_id: int) -> str | None:
        """The certificate of a block that has left the store."""
        for file in self._files():
            if block_id in _extent(file):
                with gzip.open(file) as lines:
                    for line in lines.read(_LARGEST_FILE_BYTES).splitlines():
                        if json.loads(line or b"{}").get("block_id") == block_id:
                            return line.decode()
        return None


def _extent(file: Path) -> range:
    """Block numbers that a file may hold."""
    first, _, last = file.name.removesuffix(".jsonl.gz").partition("-")
    return range(int(first), int(last) + 1) if first.isdigit() and last.isdigit() else range(0)
