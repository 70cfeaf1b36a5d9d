"""The limits that the kernels have to keep."""

from __future__ import annotations

from tconv.gpu.call import TYPES
from tconv.gpu.choice import Specialisation
from tconv.gpu.families.runs import MOST_BITS

from . import occupancy
from .chosen import ARCHITECTURES, Row
from .record import STORED_AFTERWARDS, Code, Measurement, Record, way_out
from .traffic import DIRECT

SHARE = 0.90
"""Of the instructions in the main loop of the float32 matrix product: a step with its copies."""

DIRECT_SHARE = 0.68
"""Of the direct kernels' in float32, where one tap wants an input, or a round of the main loop is a
single vector of channels with its copies; with many taps it is over 0.90."""

WAY_OUT = 22
"""Instructions for each output in the loop of a matrix product that stores them: so many for single
channels, where these are nearest; else fewer."""

MMA_SHARES = {
    "F16": {128: 0.29, 64: 0.185, 32: 0.12, 16: 0.06},
    "BF16": {128: 0.29, 64: 0.185, 32: 0.12, 16: 0.06},
    "tf32": {128: 0.13, 64: 0.089, 32: 0.06, 16: 0.035},
    "tf32x3": {64: 0.12, 32: 0.09, 16: 0.06},
}
"""Of mma's, by its instruction and the columns of its tile, where both operands are copied."""

MMA_GATHERED_SHARES = {
    "F16": {128: 0.11, 64: 0.07, 32: 0.04, 16: 0.02},
    "BF16": {128: 0.11, 64: 0.07, 32: 0.04, 16: 0.02},
    "tf32": {128: 0.10, 64: 0.07, 32: 0.04, 16: 0.02},
    "tf32x3": {64: 0.10, 32: 0.07, 16: 0.045},
}
"""The same where an operand is gathered element by element, or by less than 16 bytes."""

HOPPER_SHARES = {256: 0.077, 128: 0.052, 64: 0.054}
"""Of hopper's, whose instructions multiply as much as dozens of mma's."""


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
    code = measurement.code
    found = []
    if measurement.spilled_bytes or (code and code.spills):
        found.append(f"spills {measurement.spilled_bytes} bytes")
    if measurement.warnings:
        found.append("compiles with a warning")
    room = occupancy.LIMITS[capability].shared_bytes - occupancy.LIMITS[capability].reserved_bytes
    if measurement.shared_bytes > room:
        found.append(f"needs {measurement.shared_bytes} bytes of shared memory, and has {room}")
    if code and code.main.fraction < (least := _least_share(specialisation)):
        share = f"{code.main.fraction:.1%} of its main loop"
        found.append(f"multiplies with {share}, less than {least:.1%}")
    afterwards = code and specialisation.kernel in STORED_AFTERWARDS
    if afterwards and (issued := way_out(specialisation, code)) > WAY_OUT:
        found.append(f"stores with {issued:.1f} instructions for each output")
    if code and specialisation.kernel in ("depthwise", "depthwise_channels_last"):
        found += _memory_bound(specialisation, code)
    found += _narrow(specialisation, code) if code else []
    return [f"{specialisation} on {ARCHITECTURES[capability]} {text}" for text in found]


def _least_share(specialisation: Specialisation) -> float:
    """Return the least share of the main loop that must multiply; 0 where there is no limit."""
    s = dict(specialisation.constants)
    if specialisation.kernel == "hopper":
        return HOPPER_SHARES[s["COLUMNS"]]
    if specialisation.kernel == "mma":
        size = TYPES[specialisation.dtype].element_bytes
        copied = s["X_VECTOR"] * size == s["WEIGHT_VECTOR"] * size == 16
        return (MMA_SHARES if copied else MMA_GATHERED_SHARES)[s["MMA"]][s["COLUMNS"]]
    if specialisation.dtype != "float32" or specialisation.kernel not in ("gemm", *DIRECT):
        return 0.0
    return DIRECT_SHARE if specialisation.kernel in DIRECT else SHARE


def _memory_bound(specialisation: Specialisation, code: Code) -> list[str]:
    """Return where single channels are not moved by 16 bytes.

    Where channels are nearest and their number is odd they cannot.  And an adjoint may store fewer
    outputs at once where a stride makes of them more inputs than a thread has bits for.
    """
    s = dict(specialisation.constants)
    if s.get("CHANNELS", 1) * s.get("OUT_CHANNELS", 1) > 1:
        return []
    if specialisation.kernel == "depthwise":
        spread = specialisation.adjoint and s["RUN_Q"] * s["STRIDE_X"] * 2 > MOST_BITS
        wide = {"loads": True, "stores": not spread}
    else:
        wide = dict.fromkeys(("loads", "stores"), s["X_VECTOR"] > 1)
    widths = {"loads": code.global_loads, "stores": code.global_stores}
    return [f"{verb} nothing by 16 bytes" for verb in wide if wide[verb] and 16 not in widths[verb]]


def _narrow(specialisation: Specialisation, code: Code) -> list[str]:
    """Return where a kernel does not move as many elements at once as it is specialised for."""
    size = TYPES[specialisation.dtype].element_bytes
    loads = {*code.global_loads, *code.copies}
    widths = {"X_VECTOR": loads, "WEIGHT_VECTOR": loads, "OUT_VECTOR": {*code.global_stores}}
    if code.tensor_copies:  # whole tiles, and so may stores be
        widths = {} if code.tensor_stores else {"OUT_VECTOR": {*code.global_stores}}
    return [
        f"moves nothing {value} elements wide, in spite of {name}"
        for name, value in specialisation.constants
        if name in widths and value * size not in widths[name]
    ]
