"""Two daemons and a receiver that is not what it says: no key is made, and the alarm names the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.cli.demo import Daemon, running
from tests.integration.nodes import good_blocks, pair, replace_in, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
TWIN = 'preset = "lab-0.17dB"'


def alarms(daemon: Daemon) -> str:
    return "; ".join(daemon.status().get("alarms", []))


def test_a_dead_time_that_is_too_short_makes_no_key_until_it_is_long_enough(tmp_path: Path) -> None:
    """Detectors that are blind for 40 ns after their own click."""
    alice, bob = pair(tmp_path)
    replace_in(bob, TWIN, f"{TWIN}\ndead_time_ps = 40000")
    with running(bob, alice):
        wait_until(lambda: "dead time: a detector is still blind 13 ns after its click" in alarms(bob), alice, bob)
        assert good_blocks(alice, bob) == 0
    replace_in(bob, "[receiver]", "[receiver]\ndead_time_ps = 40000")
    with running(bob, alice):
        wait_until(lambda: good_blocks(alice, bob) >= 2, alice, bob)
        assert alarms(bob) == ""
        watched = bob.good[-1]
    assert watched["x_share"] == pytest.approx(0.1, abs=0.01)
    assert watched["v_share"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("fault", "alarm"),
    [
        ("efficiencies = [1.0, 1.0, 1.0, 0.0]", "detectors: detector L is too weak"),
        ("efficiencies = [1.0, 0.5, 1.0, 1.0]", "detectors: detector V is too weak"),
    ],
    ids=["L is dead", "V is weak"],
)
def test_a_spoiled_receiver_makes_no_key_and_names_the_detector_at_both_ends(
    fault: str, alarm: str, tmp_path: Path
) -> None:
    alice, bob = pair(tmp_path)
    replace_in(bob, TWIN, f"{TWIN}\n{fault}")
    with running(bob, alice):
        wait_until(lambda: alarm in alarms(bob) and alarm in alarms(alice), alice, bob)
        assert good_blocks(alice, bob) == 0


def test_bright_pulses_of_an_eavesdropper_make_no_key(tmp_path: Path) -> None:
    """She measures everything in Z and resends fifteen photons: no error in Z, and few detections in X."""
    alice, bob = pair(tmp_path)
    replace_in(bob, TWIN, f"{TWIN}\neve = {{ photons = 15 }}")
    with running(bob, alice):
        wait_until(lambda: len(bob.blocks) >= 2, alice, bob)
        assert good_blocks(alice, bob) == 0
        last = bob.blocks[-1]
    assert last["cross_clicks"] > 0.3 * last["detections"]
    assert "too many errors for any key: " in last["reason"]
