"""The point of the verification hash: which bits count, and what happens where none is set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import DeviceError, RemoteProtocolError
from common.postprocessing.verification import draw_point, usable_point, verification_tag

UNUSED = 0xF0000003F0000003F0000003F0000000


@pytest.mark.parametrize("bit", range(128))
def test_a_point_is_usable_where_it_tells_strings_apart(bit: int) -> None:
    point = (1 << bit).to_bytes(16, "little")
    assert usable_point(point) is not bool(UNUSED >> bit & 1)
    if usable_point(point):
        assert verification_tag(b"\x01", 8, point) != verification_tag(b"\x02", 8, point)
    else:
        with pytest.raises(RemoteProtocolError, match="every string"):
            verification_tag(b"\x01", 8, point)


def test_alice_draws_again_but_not_for_ever() -> None:
    drawn: list[int] = []

    def source(good_after: int) -> Any:
        def read(n: int) -> Any:
            drawn.append(n)
            return np.full(n, len(drawn) > good_after, np.uint8)

        return read

    assert draw_point(source(2)) == b"\x01" * 16
    assert drawn == [16] * 3
    with pytest.raises(DeviceError, match="random source"):
        draw_point(source(1000))
