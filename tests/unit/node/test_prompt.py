"""Calls that hang, as they do on a file system that was frozen: the node goes on and says so."""

from __future__ import annotations

import threading

import pytest

from common.node.prompt import Prompt


async def test_a_call_that_hangs_is_told_of_and_made_once() -> None:
    gate, made = threading.Event(), []

    def hang(name: str) -> str:
        made.append(name)
        gate.wait()
        return name

    prompt = Prompt(hang, patience_s=0.01)
    assert await prompt.ask("first") is None
    since = prompt.silent_s
    assert since >= 0.01
    assert await prompt.ask("second") is None
    assert prompt.silent_s > since
    assert str(prompt.fault("the disk")).startswith("the disk has not answered for ")
    gate.set()
    while (result := await prompt.ask("third")) is None:
        pass
    assert (result, made) == ("first", ["first"])
    assert prompt.silent_s == 0.0
    assert prompt.fault("the disk") is None
    prompt.close()


async def test_what_the_call_raises_is_raised_and_it_can_be_made_again() -> None:
    prompt = Prompt(int, patience_s=60.0)
    with pytest.raises(ValueError, match="invalid literal"):
        await prompt.ask("one")
    assert await prompt.ask("1") == 1
    prompt.close()
