"""The limits that the kernels have to keep."""

from __future__ import annotations

from collections.abc import Iterator

from tconv.gpu.choice import Specialisation

from .chosen import ARCHITECTURES, Row
from .record import Measurement, Record

FMA_SHARE = 0.90
"""Of the instructions in the main loop of the float32 matrix product."""


def broken(rows: list[Row], record: Record) -> list[str]:
    """Return a sentence for every limit that does not hold."""
    return [
        f"{row.one} on {ARCHITECTURES[capability]} {complaint}"
        for row in rows
        for capability, measurement in record.of(row).items()
        for complaint in complaints(row.one, measurement)
    ]


def complaints(specialisation: Specialisation, measurement: Measurement) -> Iterator[str]:
    """Yield what is wrong with one kernel."""
    code, kind = measurement.code, (specialisation.kernel, specialisation.dtype)
    if measurement.spilled_bytes or (code and code.spills):
        yield f"spills {measurement.spilled_bytes} bytes"
    if code and kind == ("gemm", "float32") and code.main.fraction < FMA_SHARE:
        share = f"{code.main.fraction:.1%} of its main loop"
        yield f"multiplies with {share}, less than {FMA_SHARE:.0%}"
