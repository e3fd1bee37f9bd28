"""Time-tag files: :func:`read_tags` and :func:`write_tags` for every format, one file per format.

Imports `common` only. Start with `files.py`; what a format module provides is in `format.py`; the kernels and their
slow twins are in `decoders.py` and `reference_decoders.py`.
"""

from hardware.formats.files import TagFile, open_writer, read_tags, write_tags
from hardware.formats.format import FileInfo

__all__ = ["FileInfo", "TagFile", "open_writer", "read_tags", "write_tags"]
