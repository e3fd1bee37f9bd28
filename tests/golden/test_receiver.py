"""What the receiver makes of steady and of faulty light, frozen feed by feed.

Jumps, gaps, restarts, slips, overflows: detections, events, counts of the preambles and the state after every feed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field, replace

import numpy as np
import pytest

from bob.receiver import Receiver
from common.datatypes import TimeTags
from common.preamble import EPOCH_SLOTS
from tests.clicks import RATE_HZ, Link, batches, make

FIELD = Link(1.5e5, offset_ppm=17.3, walk_per_s=0.0, first_slot=40 * EPOCH_SLOTS - 20_000_000)
NOTHING = np.zeros(0, np.int64), np.zeros(0, np.uint8)


@dataclass
class Scenario:
    """Tags that are fed one after the other; the light is turned after the feeds of ``turned``."""

    feeds: list[TimeTags]
    options: dict[str, object] = field(default_factory=dict)
    turned: frozenset[int] = frozenset()


def light(seed: int, duration_s: float, link: Link = FIELD) -> TimeTags:
    return make(np.random.default_rng(seed), link, duration_s)[0]


def moved(tags: TimeTags, by_ps: int) -> TimeTags:
    return TimeTags(tags.times_ps + by_ps, tags.channels, tags.until_ps + by_ps)


def chained(*parts: TimeTags) -> TimeTags:
    times, channels = (np.concatenate([getattr(p, name) for p in parts]) for name in ("times_ps", "channels"))
    return TimeTags(times, channels, parts[-1].until_ps)


def jumping(slots: float) -> TimeTags:
    """After 1.4 s the light comes ``slots`` later than its own numbers say."""
    at = int(1.4 * RATE_HZ)
    exact_ps = round(at / RATE_HZ * 1e12 * (1 + 17.3e-6))
    after = light(2, 1.4, replace(FIELD, first_slot=FIELD.first_slot + at))
    return chained(light(1, 1.4), moved(after, exact_ps + round(slots / RATE_HZ * 1e12)))


def renumbered(slots: int) -> TimeTags:
    """After 1.4 s Alice counts ``slots`` too many."""
    at = int(1.4 * RATE_HZ)
    exact_ps = round(at / RATE_HZ * 1e12 * (1 + 17.3e-6))
    after = light(2, 1.8, replace(FIELD, first_slot=FIELD.first_slot + at + slots))
    return chained(light(1, 1.4), moved(after, exact_ps))


def coincident(tags: TimeTags) -> TimeTags:
    """Every tenth click also in the other detector of its basis, every tenth in the other basis."""
    same, cross = tags.times_ps[::10] + 500, tags.times_ps[1::10] + 500
    times = np.concatenate([tags.times_ps, same, cross])
    channels = np.concatenate([tags.channels, tags.channels[::10] ^ 1, tags.channels[1::10] ^ 2])
    order = np.argsort(times, kind="stable")
    return TimeTags(times[order], channels[order], tags.until_ps)


def skewed(tags: TimeTags, skew_ps: tuple[int, ...]) -> TimeTags:
    times = tags.times_ps + np.array(skew_ps)[tags.channels]
    order = np.argsort(times, kind="stable")
    return TimeTags(times[order], tags.channels[order], tags.until_ps)


def restarted_alice() -> Scenario:
    after = moved(light(2, 2.2, replace(FIELD, first_slot=EPOCH_SLOTS - 40_000_000)), 1_500_000_003_000)
    return Scenario(batches(chained(light(1, 1.5), after), 0.1))


def restarted_tagger() -> Scenario:
    return Scenario(batches(moved(light(1, 1.4), 10**14), 0.1) + batches(light(1, 1.4), 0.1))


def overflowing() -> Scenario:
    fed = batches(light(1, 1.6), 0.1)
    return Scenario([replace(tags, overflow=i in (0, 4, 12, 14)) for i, tags in enumerate(fed)])


def clouds(**options: object) -> Scenario:
    cloudy = replace(FIELD, signal_cps=3.3e5, dark_cps=1e5, dark_spans=[(1.0, 1.1), (1.5, 1.9)])
    return Scenario(batches(light(1, 3.4, cloudy), 0.037), {"selection": "transmittance", **options})


def without_preambles() -> Scenario:
    """Random outcomes from 1.2 s on: the light is there and its preambles say nothing."""
    tags = light(1, 2.6, replace(FIELD, signal_cps=3.3e5))
    channels = tags.channels.copy()
    late = tags.times_ps > 12 * 10**11
    channels[late] = np.random.default_rng(3).integers(0, 2, int(late.sum()))
    return Scenario(batches(TimeTags(tags.times_ps, channels, tags.until_ps), 0.1))


def dark_days() -> Scenario:
    far = 10**18 - 10**18 % 10**12
    return Scenario([*batches(light(1, 1.2), 0.1), TimeTags(*NOTHING, far), *batches(moved(light(2, 1.4), far), 0.1)])


def remembering() -> Scenario:
    """Each detector is blind for three slots after its own click: seen beyond the dead time."""
    tags = light(1, 0.4, replace(FIELD, signal_cps=4e6, first_slot=40 * EPOCH_SLOTS - 6_000_000))
    kept = np.ones(len(tags), np.bool_)
    for channel in range(4):
        own = np.flatnonzero(tags.channels == channel)
        kept[own[1:][np.diff(tags.times_ps[own]) < 40_000]] = False
    return Scenario(batches(TimeTags(tags.times_ps[kept], tags.channels[kept], tags.until_ps), 0.05))


def crowded() -> Scenario:
    """More tags in a stretch of 20 ms than a step takes; all of the tags at once, then in small feeds."""
    link = Link(8e6, offset_ppm=3.0, first_slot=40 * EPOCH_SLOTS - 6_000_000)
    tags = light(1, 0.16, link)
    middle = int(np.searchsorted(tags.times_ps, 10**11))
    first = TimeTags(tags.times_ps[:middle], tags.channels[:middle], 10**11)
    rest = TimeTags(tags.times_ps[middle:], tags.channels[middle:], tags.until_ps)
    return Scenario([first, *batches(rest, 0.003)], {"dead_time_ps": 10_000})


def nonsense() -> Scenario:
    rng = np.random.default_rng(4)
    now, feeds = 0, []
    for _ in range(60):
        n, span = int(rng.integers(0, 2000)), int(10 ** rng.uniform(3, 12))
        times = np.sort(now + rng.integers(0, span, n))
        now += span
        feeds.append(TimeTags(times, rng.integers(0, 4, n, dtype=np.uint8), now, bool(rng.random() < 0.1)))
    return Scenario(feeds, {"dead_time_ps": 123_456, "channel_skew_ps": (5000, -3000, 0, 9999)})


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "steady": lambda: Scenario(batches(light(1, 2.4), 0.1)),
    "small feeds": lambda: Scenario(batches(light(1, 1.6), 0.003)),
    "one feed": lambda: Scenario([light(1, 2.4)]),
    "weak, after 17 hours": lambda: Scenario(
        batches(light(1, 3.4, Link(5e4, 2e3, 20.0, 2e-8, first_slot=70_000 * EPOCH_SLOTS - 20_000_000)), 0.1)
    ),
    "dark alone": lambda: Scenario(batches(light(1, 2.0, Link(0.0, 2e5)), 0.1)),
    "short gap": lambda: Scenario(batches(light(1, 2.6, replace(FIELD, dark_spans=[(1.3, 1.6)])), 0.1)),
    "long gap": lambda: Scenario(batches(light(1, 5.4, replace(FIELD, dark_spans=[(1.3, 3.6)])), 0.1)),
    "jump by a fraction": lambda: Scenario(batches(jumping(0.1), 0.05)),
    "jump by 1000 slots": lambda: Scenario(batches(jumping(1000.1), 0.003)),
    "slip": lambda: Scenario(batches(renumbered(3), 0.1)),
    "slip, one feed": lambda: Scenario([renumbered(3)]),
    "slip, dead time, selection": lambda: Scenario(
        batches(renumbered(40), 0.02), {"selection": "transmittance", "dead_time_ps": 20_000}
    ),
    "slip backwards": lambda: Scenario(batches(renumbered(-3), 0.1)),
    "restarted Alice": restarted_alice,
    "restarted tagger": restarted_tagger,
    "restarted tagger while searching": lambda: Scenario(
        [*batches(moved(light(1, 0.25), 10**14), 0.1), *batches(light(2, 1.4), 0.1)]
    ),
    "overflow": overflowing,
    "clouds": clouds,
    "clouds, dead time": lambda: clouds(dead_time_ps=50_000, p_z=0.5, segment_s=0.003, light_qber=0.02),
    "coincidences": lambda: Scenario(batches(coincident(light(1, 1.6)), 0.1), {"dead_time_ps": 30_000}),
    "coincidences kept": lambda: Scenario(batches(coincident(light(1, 1.6)), 0.1), {"cross_basis": "random"}),
    "skew": lambda: Scenario(
        batches(skewed(light(1, 1.8), (0, 3000, 1500, 6000)), 0.02), {"channel_skew_ps": (0, 3000, 1500, 6000)}
    ),
    "turned": lambda: Scenario(batches(light(1, 2.4), 0.1), turned=frozenset({0, 2, 4, 14})),
    "without preambles": without_preambles,
    "dark days": dark_days,
    "remembering": remembering,
    "crowded": crowded,
    "nonsense": nonsense,
}


def told(scenario: Scenario) -> Iterator[tuple[list[bytes], list[object]]]:
    """Feed by feed: columns of the detections, and all else that is whole numbers and words."""
    coins = np.random.default_rng(9)
    bob = Receiver(RATE_HZ, lambda n: coins.integers(0, 2, n, dtype=np.uint8), **scenario.options)  # type: ignore[arg-type]
    for i, tags in enumerate(scenario.feeds):
        made = bob.feed(tags)
        if i in scenario.turned:
            bob.search_anew()
        status = bob.status()
        columns = [getattr(d, name) for d in made for name in ("slots", "bases", "bits", "double_slots", "cross_slots")]
        yield (
            [column.tobytes() for column in columns],
            [
                [(int(d.from_slot), int(d.to_slot), len(d)) for d in made],
                [(e.kind, int(e.from_slot), int(e.to_slot), int(e.gap_slots)) for e in bob.take_events()],
                [tuple(map(int, count)) for count in bob.take_preamble_counts()],
                bob.state,
                [int(getattr(status, n)) for n in ("next_slot", "last_verified_epoch", "acquisitions", "slips")],
                [int(n) for n in (*astuple(status.counts), *astuple(status.selection))],
            ],
        )


def digest(scenario: Scenario) -> str:
    hashed = hashlib.sha256()
    for columns, rest in told(scenario):
        for column in columns:
            hashed.update(column)
        hashed.update(repr(rest).encode())
    return hashed.hexdigest()[:16]


def digest_of_tags(scenario: Scenario) -> str:
    hashed = hashlib.sha256()
    for tags in scenario.feeds:
        hashed.update(tags.times_ps.astype("<i8").tobytes() + tags.channels.tobytes() + bytes([tags.overflow]))
    return hashed.hexdigest()[:16]


GOLDEN: dict[str, tuple[str, str]] = {
    "steady": ("f7fe14441fdf1f84", "9d3312f5247258a7"),
    "small feeds": ("94cb30453c389674", "22ffc751d8373c92"),
    "one feed": ("e307dd48ebb233b2", "afe8ab6f62e0866b"),
    "weak, after 17 hours": ("9688e7cf0c253f1b", "4cd0ffc99ff1fd89"),
    "dark alone": ("5eb8e6fb960c6584", "37e60f39c541a3b1"),
    "short gap": ("181fd5710363b55f", "27d86843765bd2bb"),
    "long gap": ("9a14761ce3974804", "c3eca78cf9e4f114"),
    "jump by a fraction": ("7efc871cc79fb09d", "971fa4459780a5df"),
    "jump by 1000 slots": ("5566261da562643b", "9ce46544055db3d8"),
    "slip": ("b211130442898295", "3d8f70ba8c514695"),
    "slip, one feed": ("1890a7467767187c", "a88fb9d332242121"),
    "slip, dead time, selection": ("d14ccaaed27e4dec", "c7a76283842aa79c"),
    "slip backwards": ("cd86890eeca48a65", "949371d8989c6f3d"),
    "restarted Alice": ("80d7902985b62f7f", "8dfbccad4980b1db"),
    "restarted tagger": ("d32da032b40a4a9a", "bdeedd927d5544c4"),
    "restarted tagger while searching": ("29123efcb5acaeaa", "f3eb6cd545804865"),
    "overflow": ("ee8df0e8d54a4ca4", "9620caa0095a1059"),
    "clouds": ("194a4798b9f19af7", "1b919b6c64585473"),
    "clouds, dead time": ("194a4798b9f19af7", "67c6e559b87af05e"),
    "coincidences": ("36d90e59510ac60e", "de38f49a23d19690"),
    "coincidences kept": ("36d90e59510ac60e", "f8601569c758fa35"),
    "skew": ("d06e9b388c61f735", "e47b9988794ca697"),
    "turned": ("f7fe14441fdf1f84", "9d3312f5247258a7"),
    "without preambles": ("f9ff2fbd686762b2", "6408d0d6d03c2d4c"),
    "dark days": ("f03926f34895c419", "69538ca9889b0f3f"),
    "remembering": ("652fe6251a0a349f", "894bc6104dd47e15"),
    "crowded": ("02af43d4203c95e7", "3a831e5e3a2af641"),
    "nonsense": ("b4536c4d171e56fb", "092f7ebb869cfbc8"),
}
"""Digests of the tags and of what became of them."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_becomes_of_the_tags(name: str) -> None:
    scenario = SCENARIOS[name]()
    tags, expected = GOLDEN[name]
    assert digest_of_tags(scenario) == tags, "other tags, not another receiver: NumPy draws other numbers now"
    assert digest(scenario) == expected


def test_every_scenario_is_frozen() -> None:
    assert GOLDEN.keys() == SCENARIOS.keys()


if __name__ == "__main__":
    for name, made in SCENARIOS.items():
        scenario = made()
        print(f'    "{name}": ("{digest_of_tags(scenario)}", "{digest(scenario)}"),')
