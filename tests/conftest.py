"""Shared test settings: deterministic property tests under CI, a seeded generator per test."""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--hardware lab.toml`: the conformance suite runs on the devices of this configuration too."""
    parser.addoption("--hardware", default=None, help="configuration whose devices the conformance suite opens")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator whose seed is the test's own name: reproducible and independent between tests."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
