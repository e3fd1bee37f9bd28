"""Secret bits: wipeable, unprintable, unpicklable, taken once."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from common.errors import LocalProtocolError
from common.keybits import KeyBits


def test_taken_once() -> None:
    key = KeyBits.from_bytes(b"\x01\x02")
    assert key.take().tolist() == [1, 2]
    with pytest.raises(LocalProtocolError):
        key.take()


def test_never_shown_pickled_copied_or_compared() -> None:
    key = KeyBits.from_bytes(b"secret")
    assert "secret" not in repr(key)
    for attempt in (lambda: pickle.dumps(key), lambda: copy.deepcopy(key), lambda: key == key):
        with pytest.raises(LocalProtocolError):
            attempt()


def test_wipe_overwrites_the_memory() -> None:
    memory = np.full(4, 255, dtype=np.uint8)
    key = KeyBits(memory, 32)
    key.wipe()
    assert memory.sum() == 0
    assert not key.alive


def test_words_are_little_endian_and_zero_padded() -> None:
    assert KeyBits(np.array([1, 1], dtype=np.uint8), 9).words().tolist() == [0x101]


def test_size_must_match() -> None:
    with pytest.raises(LocalProtocolError):
        KeyBits(np.zeros(2, dtype=np.uint8), 17)
