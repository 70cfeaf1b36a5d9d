"""The most memory that one call of tconv needs beyond its arrays, measured in a process of its own.

What is measured is the resident memory of the whole process, so it counts everything: our buffers,
those of BLAS, threads, and modules imported on the way.  Input, weight and output are in memory
before.  The peak is Linux's ``VmHWM``; other systems keep none that begins with the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

from .suite import Layer, arrays, as_dtype, from_table

STATUS = "/proc/self/status"


def extra_bytes(layer: Layer, dtype: str) -> int | None:
    """Return the peak of a fresh process's first call, in bytes; None where it cannot be told."""
    if not sys.platform.startswith("linux"):
        return None
    task = json.dumps({"layer": asdict(layer), "dtype": dtype})
    command = [sys.executable, "-m", __name__, task]
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(child.stdout)


def _measure(layer: Layer, dtype: str) -> int:
    import numpy as np

    import tconv

    x, weight = arrays(layer, as_dtype(dtype))
    out = np.ones(layer.geometry.out_shape, x.dtype)
    verb = getattr(tconv, f"transposed_conv{layer.ndim}d")
    before = _resident("VmRSS")
    verb(x, weight, **layer.arguments, out=out)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    with open(STATUS, encoding="ascii") as lines:
        kilobytes = next(line.split()[1] for line in lines if line.startswith(field))
    return 1024 * int(kilobytes)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(_measure(from_table(given["layer"]), given["dtype"]))
