"""A number in a small file beside the key store: it tells that the store is not an old copy of itself.

The store counts what must never go back, and writes the count here *after* its own transaction. So a crash may leave
the file behind the store, never ahead of it; a file that is ahead means that the store was set back, whether from a
backup or by hand, and that one-time pads would be used a second time. A copy of the whole machine takes the file along:
against that stands the peer's claim (`classical_channel/PROTOCOL.md`, section 2), and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.errors import InputError, KeyStoreError, StoreUnavailable
from common.files import SECRET, read_file, write_file


class Counter:
    """The file `<database>.counter`.

    Parameters
    ----------
    database : the key store that is counted.
    """

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".counter")

    def check(self, count: Callable[[], int]) -> None:
        """Refuse a store whose own count is behind the file's.

        Parameters
        ----------
        count : the store's own, read after the file's: a node that counts on meanwhile is no fault.

        Raises
        ------
        KeyStoreError
            The store was set back, or the file is damaged.
        """
        try:
            counted = int(read_file(self.path))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise KeyStoreError(f"{self.path} cannot be read: {error}", remedy=_REMEDY) from None
        if counted > (stored := count()):
            raise KeyStoreError(
                f"the key store was set back: it counts {stored}, {self.path} counts {counted}", remedy=_REMEDY
            )

    def write(self, count: int) -> None:
        """Replace the file durably; it is whole at every moment."""
        try:
            write_file(self.path, f"{count}\n", SECRET)
        except InputError as error:
            raise StoreUnavailable(str(error)) from None


_REMEDY = (
    "Put the newest store back. If there is none, its authentication key may have been used already: make a new link "
    "secret for both ends (`qkd init`), then remove this file."
)
