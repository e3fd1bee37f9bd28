"""The twin's devices: the light's time is not this machine's time, and darkness is what the fibre says it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alice.transmitter import Transmitter
from common.cli.demo import free_ports
from common.config import Config
from common.config_file import parse_config
from common.datatypes import TimeTags
from common.errors import ConfigurationError
from hardware.twin.devices import TwinModulator, TwinTimeTagger

SLOTS = 1 << 20
SLOT_PS = 1e12 / 76.13e6


class Link:
    """A modulator and a tagger with the fibre between them."""

    def __init__(self, config: Config, **more: Any) -> None:
        self._config, (port,) = config, free_ports(1)
        self._fibre = {"fibre": f"tcp://127.0.0.1:{port}"}
        self._transmitter = Transmitter(60_000, "three-state")
        rng = np.random.default_rng(1)
        self._random = lambda n: rng.integers(0, 256, n, dtype=np.uint8)
        self.modulator = TwinModulator(self._fibre, config)
        self.tagger = TwinTimeTagger(self._fibre | {"seed": 1, "clock_offset_ppm": 10.0} | more, config)

    def send(self, first_slot: int) -> None:
        self.modulator.send(self._transmitter.prepare(first_slot, SLOTS, self._random))

    def read(self) -> TimeTags:
        tags = self.tagger.read(0.01)
        assert tags is not None
        return tags

    def light(self, first_slot: int) -> TimeTags:
        """Light that arrives; the read before takes the connection up."""
        self.read()
        self.send(first_slot)
        return self.read_click()

    def read_click(self) -> TimeTags:
        while (tags := self.read()).times_ps.size == 0:
            pass
        return tags

    def restart_alice(self) -> None:
        self.modulator.close()
        while self.tagger._fibre.connected:
            self.read()

    def resume_alice(self) -> None:
        self.modulator = TwinModulator(self._fibre, self._config)


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    made = Link(parse_config('role = "bob"\n', tmp_path))
    yield made
    made.modulator.close()
    made.tagger.close()


def test_time_stands_still_while_alice_prepares_her_light(link: Link) -> None:
    """A loaded machine is not an interruption of the light: slots and times stay in step across any wait."""
    first = link.light(0)
    for _ in range(5):
        waiting = link.read()
        assert (waiting.times_ps.size, waiting.until_ps) == (0, first.until_ps)
    second = link.light(SLOTS)
    assert second.until_ps - first.until_ps == pytest.approx(SLOTS * SLOT_PS, rel=1e-4)
    assert second.times_ps[0] >= first.until_ps


def test_without_alice_it_is_dark_and_time_goes_on(link: Link) -> None:
    first = link.light(0)
    link.restart_alice()
    before, after = link.read(), link.read()
    assert first.until_ps < before.until_ps
    assert after.until_ps - before.until_ps == pytest.approx(1e10, rel=1e-3)


def test_light_that_starts_anew_comes_at_another_phase(link: Link) -> None:
    """A restarted Alice: at least 20 ms later, and never where her old clock would have put it by construction."""
    first = link.light(5 * SLOTS)
    link.restart_alice()
    dark = link.read()
    link.resume_alice()
    again = link.light(0)
    assert again.until_ps - dark.until_ps > SLOTS * SLOT_PS + 0.02e12
    assert dark.until_ps > first.until_ps


def test_slots_that_follow_in_number_may_follow_after_darkness(link: Link) -> None:
    """A generator's burst: the next slot, some 20 ms later, at any phase of Bob's clock."""
    first = link.light(0)
    link.modulator._fibre.send(link._transmitter.prepare(SLOTS, SLOTS, link._random), after_dark=True)
    while (second := link.read()).times_ps.size == 0:
        pass
    dark_ps = second.until_ps - first.until_ps - SLOTS * SLOT_PS
    assert dark_ps == pytest.approx(20e9, abs=2e6)


def test_bright_light_comes_in_pieces_that_follow_each_other(tmp_path: Path) -> None:
    """A message holds four times as many slots as give 2^17 tags: a real-time buffer of the least size has room."""
    link = Link(parse_config('role = "bob"\n', tmp_path), preset="lab-0.17dB")
    link.read()
    link.modulator._fibre.send(link._transmitter.prepare(0, 4 * SLOTS, link._random), after_dark=True)
    pieces = [link.read_click() for _ in range(4)]
    assert all(0 < tags.times_ps.size < 1.1 * (1 << 17) for tags in pieces)
    for before, after in pairwise(pieces):
        assert after.until_ps - before.until_ps == pytest.approx(SLOTS * SLOT_PS, rel=1e-4)
        assert before.times_ps[-1] < before.until_ps <= after.times_ps[0]
    assert link.read().times_ps.size == 0
    link.modulator.close()
    link.tagger.close()


def test_who_listens_and_which_detectors_are_weak_stand_in_the_manifest(tmp_path: Path) -> None:
    """Fifteen photons a pulse click in both bases of a slot; a dead detector does not click at all."""
    for more, silent, crossed in (({}, [], 0.01), ({"eve": {"photons": 15}, "efficiencies": [1, 1, 1, 0]}, [3], 0.2)):
        link = Link(parse_config('role = "bob"\n', tmp_path), preset="lab-0.17dB", g2=1e-6, **more)
        tags = link.light(0)
        link.modulator.close()
        link.tagger.close()
        slots = np.round((tags.times_ps - tags.times_ps[0]) / SLOT_PS).astype(int)
        in_z, in_x = (np.unique(slots[tags.channels >> 1 == basis]) for basis in (0, 1))
        counts = np.bincount(tags.channels, minlength=4)
        assert np.flatnonzero(counts == 0).tolist() == silent
        both = np.intersect1d(in_z, in_x).size / np.unique(slots).size
        assert both > crossed if silent else both < crossed


def test_nonsense_about_eve_and_the_detectors_is_refused(tmp_path: Path) -> None:
    for more, name in (({"eve": {"photons": 16}}, "eve.photons"), ({"efficiencies": [1, 1, 1, 1.1]}, "efficiencies")):
        with pytest.raises(ConfigurationError, match=name):
            TwinTimeTagger({"fibre": "tcp://127.0.0.1:1"} | more, parse_config('role = "bob"\n', tmp_path))
