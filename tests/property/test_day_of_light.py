"""Light that comes and goes, and applications that ask all the time: the link lives, and asking destroys nothing."""

from __future__ import annotations

from pathlib import Path

from tests.day import day


def test_an_hour_of_which_every_second_part_is_dark(tmp_path: Path) -> None:
    with day(tmp_path, 600) as made:
        made.run(1.0)
        account = made.account()
    assert account["made"] == account["delivered"] + account["authentication"] + account["stored"]
    assert account["delivered"] > account["made"] // 2
    assert account["authentication"] > 0, "the pool was never refilled: a weak test"
    for town in made.towns:
        assert town.delivered > account["delivered"] // 4
        assert town.refused["not enough key"] > 10, "the store never ran dry: a weak test"
        assert town.end.session.ready
        assert town.end.pool.least_bits > 0
