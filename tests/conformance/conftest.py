"""Runs a test once for every way to reach a device; the devices of `--hardware lab.toml` are ways like the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.config import Config, DeviceSection
from common.config_file import load_config
from tests.conformance.bench import WAYS, WITHOUT_FAULTS
from tests.conformance.way import Opening, Way

#: A test asks for `<kind>_way`, or for one of these.
EVERY, FAULTY = "any_way", "faulty_way"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise `<kind>_way`; a real device's role begins with its kind."""
    manifest = metafunc.config.getoption("--hardware")
    lab = load_config(Path(manifest)) if manifest else None
    for name in (name for name in metafunc.fixturenames if name.endswith("_way")):
        kinds = list(WAYS) if name in (EVERY, FAULTY) else [name.removesuffix("_way").replace("_", " ")]
        ways = {(kind, key): way for kind in kinds for key, way in WAYS[kind].items()}
        if name == FAULTY:
            ways = {key: way for key, way in ways.items() if not key[1].endswith(WITHOUT_FAULTS)}
        elif lab is not None:
            for role, section in lab.devices.items():
                if role.replace("_", " ").startswith(tuple(kinds)):
                    ways["real", role] = _real(section, lab)
        metafunc.parametrize(name, list(ways.values()), ids=["-".join(key) for key in ways], indirect=True)


def _real(section: DeviceSection, lab: Config) -> Callable[[], Opening]:
    @contextmanager
    def way() -> Iterator[Way]:
        yield Way(section.driver, dict(section.model_extra or {}), config=lab, real=True)

    return lambda: way


@pytest.fixture
def any_way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """One way."""
    with request.param()() as way:
        yield way


faulty_way = attenuator_way = power_meter_way = polarisation_controller_way = detector_bias_way = any_way
time_tagger_way = random_source_way = any_way
