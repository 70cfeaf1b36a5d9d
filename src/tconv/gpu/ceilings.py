"""What a device can do at most, and so the least time that a call can take on it."""

from __future__ import annotations

from typing import NamedTuple

from .._geometry import Geometry
from .call import TYPES


class Ceilings(NamedTuple):
    """Rates that a device reaches: bytes moved, or real operations, in a second.

    ``copy`` counts what is read and what is written.  ``half`` and ``tf32`` are those of tensor
    cores, ``single`` and ``double`` those of fused multiply-adds in float32 and float64.
    """

    device: str
    capability: int
    copy: float
    half: float
    tf32: float
    single: float
    double: float


KNOWN = {
    "H200": Ceilings("NVIDIA H200", 90, 4.3e12, 790e12, 400e12, 60e12, 30e12),
    "H100": Ceilings("NVIDIA H100 80GB HBM3", 90, 3.0e12, 790e12, 400e12, 60e12, 30e12),
    "A100": Ceilings("NVIDIA A100-SXM4-80GB", 80, 1.8e12, 250e12, 125e12, 17.5e12, 8.7e12),
}
"""By short names.

What libraries reach on an H200: of the data sheet's figures about 80 % on tensor cores, and 90 % of
the rate of multiply-adds and of memory.  The others are the same shares of their data sheets.
"""


class Floor(NamedTuple):
    """Seconds that the arithmetic of a call and its memory traffic take at least.

    ``arithmetic`` is 0 for integers, whose rate is in no table.
    """

    arithmetic: float
    memory: float

    @property
    def seconds(self) -> float:
        """The larger of the two: they overlap at best."""
        return max(self.arithmetic, self.memory)


def floor(geometry: Geometry, dtype: str, precision: str | None, ceilings: Ceilings) -> Floor:
    """Return the least time, from useful operations and from reading and writing all arrays once.

    Operations that padding crops do not count; ``precision`` is that of float32.
    """
    memory = geometry.nbytes(TYPES[dtype].element_bytes) / ceilings.copy
    rates = {
        "float16": ceilings.half,
        "bfloat16": ceilings.half,
        "float32": _float32(precision, ceilings),
        "float64": ceilings.double,
        "complex64": ceilings.single,
        "complex128": ceilings.double,
    }
    arithmetic = flops(geometry, dtype) / rates[dtype] if dtype in rates else 0.0
    return Floor(arithmetic, memory)


def flops(geometry: Geometry, dtype: str) -> int:
    """Return the useful operations on real numbers; a complex product has four of each."""
    return geometry.flops * (4 if dtype.startswith("complex") else 1)


def _float32(precision: str | None, ceilings: Ceilings) -> float:
    if precision == "tf32":
        return ceilings.tf32
    # Three products for one, where that is quicker than a multiply-add.
    return max(ceilings.single, ceilings.tf32 / 3 if precision == "tf32x3" else 0)
