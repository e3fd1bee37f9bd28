"""One function for each format, ``path -> (times_ps, channels)``: the entry points of `qkd_node.tag_readers`.

A laboratory's own package may add to the group; `read_tags` finds the format by itself where none is named.
"""

from __future__ import annotations

from functools import partial

from hardware.formats.files import load

feather = partial(load, format="feather")
parquet = partial(load, format="parquet")
ptu = partial(load, format="ptu")
a1 = partial(load, format="a1")
a1_legacy = partial(load, format="a1-legacy")
qutag = partial(load, format="qutag")
text = partial(load, format="text")
