"""The limits that the kernels have to keep."""

from __future__ import annotations

from tconv.gpu.call import TYPES
from tconv.gpu.choice import Specialisation

from .chosen import ARCHITECTURES, Row
from .record import Code, Measurement, Record

FMA_SHARE = 0.90
"""Of the instructions in the main loop of the float32 matrix product."""


def broken(rows: list[Row], record: Record) -> list[str]:
    """Return a sentence for every limit that does not hold."""
    return [
        complaint
        for row in rows
        for capability, measurement in record.of(row).items()
        for complaint in complaints(row.specialisations[capability], capability, measurement)
    ]


def complaints(
    specialisation: Specialisation, capability: int, measurement: Measurement
) -> list[str]:
    """Return what is wrong with one kernel on one architecture."""
    code, kind = measurement.code, (specialisation.kernel, specialisation.dtype)
    found = []
    if measurement.spilled_bytes or (code and code.spills):
        found.append(f"spills {measurement.spilled_bytes} bytes")
    if measurement.warnings:
        found.append("compiles with a warning")
    if code and kind == ("gemm", "float32") and code.main.fraction < FMA_SHARE:
        share = f"{code.main.fraction:.1%} of its main loop"
        found.append(f"multiplies with {share}, less than {FMA_SHARE:.0%}")
    found += _narrow(specialisation, code) if code else []
    return [f"{specialisation} on {ARCHITECTURES[capability]} {text}" for text in found]


def _narrow(specialisation: Specialisation, code: Code) -> list[str]:
    """Return where a kernel does not move as many elements at once as it is specialised for."""
    size = TYPES[specialisation.dtype].element_bytes
    loads = {*code.global_loads, *code.copies}
    widths = {"X_VECTOR": loads, "WEIGHT_VECTOR": loads, "OUT_VECTOR": {*code.global_stores}}
    if code.tensor_copies:
        widths = {"OUT_VECTOR": {*code.global_stores}}
    return [
        f"moves nothing {value} elements wide, in spite of {name}"
        for name, value in specialisation.constants
        if name in widths and value * size not in widths[name]
    ]
