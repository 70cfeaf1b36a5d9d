"""What tconv found on this machine: versions, devices, threads and folders."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ._version import __version__

PACKAGE = Path(__file__).parent


def show_config() -> None:
    """Print the configuration, one line for each fact.

    Shows the versions of tconv and of what it computes with, the CPU and the number of threads, the
    GPU or the reason why it is not used, and the folders of the kernels and of their compiled form.
    """
    facts = config()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


def config() -> dict[str, str]:
    """Return what `show_config` prints, as ``{name: value}``."""
    from .gpu.source import kernels

    return {
        **versions(),
        "platform": platform.platform(),
        "CPU": cpu_model(),
        "CPU threads": cpu_threads(),
        **_gpu(),
        "kernels": os.path.normpath(str(kernels())),
        "cache": str(cache_folder()),
    }


def versions() -> dict[str, str]:
    """Return the versions of tconv, of Python and of the libraries that compute."""
    # conda's package is called cupy; the wheels carry the CUDA version in their name.
    return {
        "tconv": __version__,
        "Python": platform.python_version(),
        "NumPy": f"{_version('numpy')}, BLAS: {_blas()}",
        "SciPy": _version("scipy"),
        "CuPy": _version("cupy", "cupy-cuda12x", "cupy-cuda13x"),
        "ml_dtypes": _version("ml_dtypes"),
    }


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def cpu_threads() -> str:
    """Return how many threads a call on the CPU uses at most, or why none can be told."""
    from ._cpu.pool import num_threads

    try:
        return str(num_threads())
    except ValueError as error:
        return str(error)


def cache_folder() -> Path:
    """Return the folder of the compiled kernels; ``TCONV_CACHE_DIR`` moves it."""
    chosen = os.environ.get("TCONV_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tconv"


def _blas() -> str:
    import numpy as np

    built: Any = np.show_config(mode="dicts")
    blas = built["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version(*names: str) -> str:
    """Return the version of the first of these packages that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    for name in names:
        with suppress(PackageNotFoundError):
            return version(name)
    return "not installed"


def _gpu() -> dict[str, str]:
    """Return the device and CUDA's versions as far as they are known, and why it is not used."""
    from . import gpu

    why_not = gpu.why_not()
    cupy = sys.modules.get("cupy")
    facts = {} if cupy is None else _cuda(cupy.cuda.runtime)
    facts["GPU used"] = "yes" if why_not is None else f"no: {why_not}"
    return facts


def _cuda(runtime: Any) -> dict[str, str]:
    """Return the versions of CUDA's driver and runtime, and the current device."""
    facts = {
        "CUDA driver": _cuda_version(runtime.driverGetVersion()),
        "CUDA runtime": _cuda_version(runtime.runtimeGetVersion()),
    }
    try:
        properties = runtime.getDeviceProperties(runtime.getDevice())
    except runtime.CUDARuntimeError:
        return facts
    facts["GPU"] = properties["name"].decode()
    facts["compute capability"] = f"{properties['major']}.{properties['minor']}"
    return facts


def _cuda_version(number: int) -> str:
    """Return 12040 as "12.4"; CUDA gives 0 where there is no driver."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"
