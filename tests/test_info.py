"""What ``tconv info`` and `tconv.show_config` say about this machine."""

import platform
from pathlib import Path

import numpy as np
import pytest
import scipy

import tconv
from tconv import _config
from tconv.__main__ import main


class Runtime:
    """What CUDA's runtime says on a machine with one GPU, and on one without a driver."""

    CUDARuntimeError = RuntimeError

    def __init__(self, driver):
        self.driver = driver

    def driverGetVersion(self):
        return self.driver

    def runtimeGetVersion(self):
        return 13020

    def getDevice(self):
        if not self.driver:
            raise RuntimeError("no driver")
        return 0

    def getDeviceProperties(self, device):
        assert device == 0
        return {"name": b"NVIDIA H100", "major": 9, "minor": 0}


def test_info_prints_every_fact_with_its_name(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = _config.config()
    width = max(map(len, facts))
    assert lines == [f"{name.ljust(width)}  {value}" for name, value in facts.items()]


def test_show_config_prints_what_info_prints(capsys):
    tconv.show_config()
    shown = capsys.readouterr().out
    main(["info"])
    assert capsys.readouterr().out == shown


def test_versions_are_those_that_compute():
    versions = _config.versions()
    assert versions["tconv"] == tconv.__version__
    assert versions["Python"] == platform.python_version()
    assert versions["NumPy"].startswith(f"{np.__version__}, BLAS: ")
    assert versions["SciPy"] == scipy.__version__


def test_a_package_that_is_not_there_is_not_installed():
    assert _config._version("no-such-package") == "not installed"
    assert _config._version("no-such-package", "numpy") == np.__version__


def test_threads_are_those_that_a_call_would_use(monkeypatch):
    monkeypatch.setenv("TCONV_NUM_THREADS", "1")
    assert _config.config()["CPU threads"] == "1"


def test_a_bad_number_of_threads_is_said_and_not_raised(monkeypatch):
    monkeypatch.setenv("TCONV_NUM_THREADS", "many")
    assert _config.config()["CPU threads"].startswith("TCONV_NUM_THREADS='many' must be")


def test_the_reason_why_the_gpu_is_not_used_is_shown(monkeypatch):
    monkeypatch.setattr(tconv.gpu, "why_not", lambda: "it is at lunch")
    assert _config.config()["GPU used"] == "no: it is at lunch"


def test_a_gpu_that_is_used_is_shown(monkeypatch):
    monkeypatch.setattr(tconv.gpu, "why_not", lambda: None)
    assert _config.config()["GPU used"] == "yes"


def test_a_device_is_shown_with_its_versions():
    assert _config._cuda(Runtime(driver=12040)) == {
        "CUDA driver": "12.4",
        "CUDA runtime": "13.2",
        "GPU": "NVIDIA H100",
        "compute capability": "9.0",
    }


def test_without_a_driver_there_is_no_device_and_no_error():
    assert _config._cuda(Runtime(driver=0)) == {"CUDA driver": "none", "CUDA runtime": "13.2"}


def test_the_kernels_folder_holds_cuda_sources():
    assert list(Path(_config.config()["kernels"]).glob("*.cu"))


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"TCONV_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"TCONV_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}, "/b/tconv"),
        ({"TCONV_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/tconv"),
    ],
)
def test_the_cache_lies_where_the_user_wants_it(monkeypatch, environment, folder):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _config.cache_folder() == Path(folder)
