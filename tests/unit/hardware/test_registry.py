"""Drivers by entry point: the README's example as a package outside the tree; what was not tried says so."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import hardware.driver
import hardware.drivers
from common.config import Config, DeviceSection
from common.errors import ConfigurationError
from common.node.check import judged
from hardware.registry import GROUP, device_steps, doctor, manifest_digest, open_device, tried

README = Path(hardware.drivers.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of the README, its code and its pyproject.toml, as `pip install -e` leaves it: the build backend
    reads the project and writes its entry points."""
    pytest.importorskip("setuptools")
    project = tmp_path_factory.mktemp("my-lab")
    (project / "my_lab").mkdir()
    (project / "my_lab" / "__init__.py").write_text("")
    for language, name in (("python", "my_lab/shutter.py"), ("toml", "pyproject.toml")):
        (project / name).write_text(re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S)[-1])
    build = "import setuptools; setuptools.setup()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build, "--quiet", "egg_info"], cwd=project, check=True)
    return project


@pytest.fixture
def my_lab(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)


def test_the_example_imports_one_name_of_ours() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert set(re.findall(r"^from ((?:common|hardware|alice|bob|classical_channel)\S*)", code, re.M)) == {
        "hardware.driver"
    }
    assert set(hardware.driver.__all__) <= set(vars(hardware.driver))


@pytest.mark.usefixtures("my_lab")
def test_a_package_outside_the_tree_brings_a_driver() -> None:
    section = DeviceSection.model_validate({"driver": "my-shutter", "serial": "7"})
    device = open_device("attenuator", section, Config(role="alice"))
    device.set_attenuation_db(0.0)
    device.close()
    assert device.attenuation_db() == 60.0
    assert not tried("my-shutter")
    assert any("my-shutter" in text for _, _, text in doctor())


def test_doctor_says_what_a_driver_needs_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    rows = {what: text for what, _, text in doctor()}
    for needs in ("swabian needs the package 'Swabian'", "picoquant needs", "qutag needs libtdcbase.so", "quantis"):
        assert needs in rows["not usable here"]
    for name in ("swabian", "keysight-awg", "oz-attenuator"):
        assert name not in rows["drivers"].split(", ")
    assert "tcp-tags" in rows["drivers"].split(", ")


@pytest.mark.usefixtures("my_lab")
def test_its_wrong_parameter_is_named() -> None:
    section = DeviceSection.model_validate({"driver": "my-shutter", "serail": "7"})
    with pytest.raises(ConfigurationError, match="my-shutter"):
        open_device("attenuator", section, Config(role="alice"))


def test_check_says_what_was_not_tried_and_hashes_the_manifest() -> None:
    def config(port: int) -> Config:
        section = {"driver": "tcp-tags", "host": "x", "port": port, "simulated": False}
        return Config(role="bob", devices={"time_tagger": DeviceSection.model_validate(section)})

    rows = judged(device_steps(["time_tagger"]), config(1))
    assert (rows[0].name, rows[0].text) == ("device time_tagger", "tcp-tags (not tried on a real instrument)")
    assert manifest_digest(config(1))[:16] in rows[1].text
    assert manifest_digest(config(1)) != manifest_digest(config(2))


def test_check_looks_at_every_configured_device_and_says_which_is_never_opened() -> None:
    drivers = {"time_tagger": "software-random", "attenuator": "oz-attenuater", "spare": "random-device"}
    devices = {role: DeviceSection(driver=driver) for role, driver in drivers.items()}
    rows = judged(device_steps(["time_tagger"], ["attenuator"]), Config(role="bob", devices=devices))
    assert [(row.name, row.good) for row in rows[:3]] == [
        ("device time_tagger", True),
        ("device attenuator", False),
        ("other devices", True),
    ]
    assert "did you mean 'oz-attenuator'" in rows[1].text
    assert "never opened" in rows[2].text
    assert "spare: random-device" in rows[2].text


def test_a_misspelt_parameter_is_named_before_the_one_that_is_missing_for_it() -> None:
    section = DeviceSection.model_validate({"driver": "tcp-tags", "hots": "x", "port": 1, "simulated": False})
    (row, *_) = judged(device_steps(["time_tagger"]), Config(role="bob", devices={"time_tagger": section}))
    assert "'hots'" in row.text
    assert "did you mean 'host'" in row.text


def test_the_readme_lists_every_driver() -> None:
    ours = {point.name for point in entry_points(group=GROUP) if point.value.startswith("hardware.drivers.")}
    listed = set(re.findall(r"^\| `([a-z0-9-]+)` \|", README.read_text(), re.M))
    assert ours - {"software-random"} == listed


def test_no_driver_imports_a_vendors_package_before_it_is_opened() -> None:
    names = [
        point.value.partition(":")[0] for point in entry_points(group=GROUP) if point.value.startswith("hardware.")
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(n) for n in {names}];"
        "sys.exit(any(m in sys.modules for m in ('pyvisa', 'serial', 'Swabian')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
