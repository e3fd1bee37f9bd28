"""Whatever the link: expected tallies are those of one block, and no expected key lies above the fundamental limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.planning.link_model import DECOY, ReceiverRules, expected_block
from common.planning.presets import PRESETS, LinkParameters
from common.planning.rate import Task, evaluate
from common.security.rates import coherent_limit, single_photon_asymptotic, single_photon_limit
from common.security.tallies import ProtocolSettings

PROBABILITY = st.floats(0.02, 0.98)
BLOCK = 10_000_000


@st.composite
def links(draw: st.DrawFn, darks_cps: float = 1e5) -> LinkParameters:
    mean = draw(st.floats(0.01, 0.9))
    return replace(
        PRESETS["field-14.6dB"],
        loss_db=draw(st.floats(0.0, 40.0)),
        mean_photon_number=mean,
        g2=draw(st.floats(0.0, 0.5)),
        misalignment=draw(st.floats(0.0, 0.1)),
        receiver_efficiency=draw(st.floats(0.1, 1.0)),
        dark_rate_cps=draw(st.floats(0.0, darks_cps)),
        p_z_bob=draw(PROBABILITY),
        dead_time_ps=draw(st.integers(0, 60_000)),
    )


@st.composite
def settings_of(draw: st.DrawFn, link: LinkParameters) -> ProtocolSettings:
    protocol = draw(st.sampled_from(["three-state", "bb84", DECOY]))
    if protocol != DECOY:
        return ProtocolSettings(protocol, draw(PROBABILITY), link.p_z_bob)
    signal, ratio = draw(st.floats(0.1, 1.0)), draw(st.floats(0.05, 0.9))
    share, part = draw(PROBABILITY), draw(PROBABILITY)
    shares = (share, (1 - share) * part, (1 - share) * (1 - part))
    return ProtocolSettings(protocol, draw(PROBABILITY), link.p_z_bob, (signal, signal * ratio, 0.0), shares)


@given(st.data())
def test_tallies_are_those_of_one_block(data: st.DataObject) -> None:
    link = data.draw(links())
    settings = data.draw(settings_of(link))
    rules = ReceiverRules(data.draw(st.integers(0, 60_000)), data.draw(st.sampled_from(["discard", "random"])))
    found = expected_block(link, settings, BLOCK, rules)
    tallies = found.tallies
    x_events = sum(count for level in tallies.x_counts for symbol in level for count in symbol)
    z_in_x_sent = BLOCK - sum(tallies.n_z) - x_events
    assert z_in_x_sent >= -20, "Z events of X symbols are the only ones that no tally holds"
    assert tallies.n_z_kept == sum(tallies.n_z)
    assert 0.0 <= found.qber <= 0.5
    assert 0.0 < found.detection_probability <= 1.0
    assert tallies.slots_sent == pytest.approx(BLOCK / found.detection_probability, abs=1)
    if settings.protocol == "three-state":
        assert tallies.x_counts[0][3] == (0, 0)
    for level in tallies.x_counts:
        (h_r, h_l), (v_r, v_l), (r_r, r_l), _ = level
        if rules.dead_time_ps >= link.dead_time_ps:
            assert abs(h_r - h_l) <= 1, "without a common dead time the busier detector is blind more often"
            assert abs(v_r - v_l) <= 1
        assert r_r >= r_l


@given(links(), st.floats(0.1, 0.5), PROBABILITY)
def test_more_loss_means_fewer_detections_and_more_errors(link: LinkParameters, step_db: float, p_z: float) -> None:
    settings = ProtocolSettings("bb84", p_z, link.p_z_bob)
    near = expected_block(link, settings, BLOCK)
    far = expected_block(replace(link, loss_db=link.loss_db + step_db), settings, BLOCK)
    assert far.detection_probability <= near.detection_probability * (1 + 1e-12)
    dark_share = link.dark_probability / near.detection_probability
    if dark_share > 1e-3:
        assert far.qber >= near.qber * (1 - 1e-3)


@given(links(darks_cps=0.0), st.sampled_from(["three-state", "bb84"]), PROBABILITY, st.floats(0.0, 10.0))
def test_no_single_photon_key_above_equation_two(
    link: LinkParameters, protocol: str, p_z: float, attenuation_db: float
) -> None:
    task = Task(replace(link, dead_time_ps=0), protocol, BLOCK)
    found = evaluate(task, task.settings(p_z), attenuation_db).bits_per_pulse
    eta, mean = link.transmittance, link.mean_photon_number
    assert found <= max(single_photon_limit(eta, mean, link.g2), 0.0) * (1 + 1e-6)
    asymptotic = single_photon_asymptotic(eta, mean, link.g2, link.misalignment, 0.0, task.f_ec)
    assert found <= asymptotic * (1 + 0.02) + 1e-12


@given(st.data())
def test_no_laser_key_above_equation_one(data: st.DataObject) -> None:
    link = data.draw(links(darks_cps=0.0))
    settings = data.draw(settings_of(link).filter(lambda one: one.protocol == DECOY))
    found = evaluate(Task(link, DECOY, BLOCK), settings).bits_per_pulse
    assert found <= coherent_limit(link.transmittance) * (1 + 1e-6)
