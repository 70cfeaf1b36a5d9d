"""depthwise: groups of few channels, for which memory decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from math import gcd, prod

from ..._geometry import Geometry
from ..call import Call
from ..choice import Choice, Specialisation, Tile

THREADS = 128
TILES = 4
"""How often a block uses the weights that it has brought into shared memory."""

MOST_CHANNELS = 8
"""Input channels of a group; a thread holds them all."""
MOST_OUT_CHANNELS = 16
"""Output channels of a group; a thread holds at most `MOST_CHANNELS` of them."""
MOST_SUMS = 48
MOST_INPUTS = 64
"""What a thread may hold in registers, in words of 4 bytes."""
AT_ONCE = 40
"""Inputs that it loads together, likewise, if they come from several rows."""
MOST_PRODUCTS = 1024
"""Multiplications that the compiler may write out for one row of inputs."""
MOST_SHARED_BYTES = 48 << 10
MARGIN = 2 * THREADS * TILES
"""More runs than the last block counts beyond the end."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a thread computes: ``q`` neighbouring q in all phases, of some rows and channels."""

    q: int
    phases_y: int
    out_channels: int


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:  # noqa: ARG001
    """Return how the kernel computes a call, or why it does not."""
    g = call.geometry
    refusal = _refusal(call, asked)
    if refusal is not None:
        return refusal
    found = _best(call)
    if found is None:
        size = "x".join(map(str, g.kernel_size))
        return f"a {size} window of these channels does not fit a thread's registers"
    run, specialisation = found
    row_runs = -(-g.out_size[-1] // (run.q * g.stride[-1]))
    rows = [axis.q_size if run.phases_y > 1 else n for axis, n in
            zip(call.axes[-2:-1], g.out_size[-2:-1], strict=True)]  # fmt: skip
    group_runs = g.batch * prod(g.out_size[:-2]) * prod(rows) * row_runs
    row_blocks = -(-group_runs // (THREADS * TILES))
    column_blocks = call.out_channels // run.out_channels
    return Choice(
        specialisation,
        blocks=g.groups * column_blocks * row_blocks,
        reason=f"groups of {call.channels} to {call.out_channels} channels: memory decides",
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        row_runs=row_runs,
        group_runs=group_runs,
    )


def can_be_written_out(g: Geometry) -> bool:
    """Tell whether the compiler can reckon with the window's sizes."""
    return all(
        max(kernel_size * dilation, stride) <= 4096
        for kernel_size, stride, dilation in zip(g.kernel_size, g.stride, g.dilation, strict=True)
    )


def window(g: Geometry) -> Iterator[tuple[str, int]]:
    """Yield the constants of a window; an axis that is not there has a window of 1."""
    axes = zip(g.kernel_size[::-1], g.stride[::-1], g.dilation[::-1], strict=True)
    for name, sizes in zip_longest("XYZ", axes, fillvalue=(1, 1, 1)):
        for what, size in zip(("KERNEL", "STRIDE", "DILATION"), sizes, strict=True):
            yield f"{what}_{name}", size


def _refusal(call: Call, asked: bool) -> str | None:
    g = call.geometry
    if not 1 <= call.channels <= MOST_CHANNELS or call.out_channels > MOST_OUT_CHANNELS:
        return (
            f"groups of {call.channels} to {call.out_channels} channels are not small: "
            f"at most {MOST_CHANNELS} to {MOST_OUT_CHANNELS} are"
        )
    if not can_be_written_out(g):
        return "the window is too large to be written out by the compiler"
    neighbours = [
        n == 1 or step == 1
        for n, step in ((g.in_size[-1], call.strides.x[-1]), (g.out_size[-1], call.strides.out[-1]))
    ]
    if not asked and not all(neighbours):
        return "the last axis is not nearest in memory"
    return None


def _best(call: Call) -> tuple[Run, Specialisation] | None:
    """Return the first run that fits, from wide to narrow, and the kernel for it.

    Many output channels come first, because they share the inputs; then many q, which share the
    weights; then the phases of the axis before the last, which share the inputs again.
    """
    g = call.geometry
    widest = 16 // call.type.element_bytes
    rows = g.stride[-2] if g.ndim > 1 else 1
    for out_channels in range(min(call.out_channels, MOST_CHANNELS), 0, -1):
        if call.out_channels % out_channels:
            continue
        for q in (n for n in (8, 4, 2, 1) if n <= widest):
            for phases_y in (rows, 1):
                run = Run(q, phases_y, out_channels)
                specialisation = _specialisation(call, run)
                if specialisation is not None:
                    return run, specialisation
    return None


def _specialisation(call: Call, run: Run) -> Specialisation | None:
    """Return the kernel for a run, or None if that needs too much of a thread or a block."""
    g, axis = call.geometry, call.axes[-1]
    stride, words = g.stride[-1], call.type.accumulator_bytes // 4
    outputs = run.q * stride
    last_shift = (g.kernel_size[-1] - 1) * g.dilation[-1] // stride
    inputs = (axis.r_begin + outputs - 1) // stride + 1 + last_shift
    products = axis.shifts * call.channels * run.out_channels * outputs * run.phases_y
    if (
        outputs * run.phases_y * run.out_channels * words > MOST_SUMS
        or inputs * call.channels * words > MOST_INPUTS
        or inputs > 64
        or products > MOST_PRODUCTS
    ):
        return None
    x_vector = run.q
    out_vector = gcd(outputs, 16 // call.type.element_bytes)
    shared_bytes = _shared_bytes(call, run, outputs, out_vector)
    if shared_bytes > MOST_SHARED_BYTES:
        return None
    shifts_y = call.axes[-2].shifts if g.ndim > 1 else 1
    rows_at_once = max(1, min(shifts_y, AT_ONCE // (inputs * call.channels * words)))
    if products * rows_at_once > MOST_PRODUCTS:
        rows_at_once = 1
    return Specialisation(
        kernel="depthwise",
        dtype=call.dtype,
        index_bits=call.index_bits if prod(call.out_shape) < 2**31 - MARGIN else 64,
        threads=THREADS,
        constants=(
            ("AXES", g.ndim),
            ("ACTIVATION", call.activation or "none"),
            *window(g),
            ("CHANNELS", call.channels),
            ("OUT_CHANNELS", run.out_channels),
            ("RUN_Q", run.q),
            ("PHASES_Y", run.phases_y),
            ("ROWS_AT_ONCE", rows_at_once),
            ("FIRST_PHASE", axis.r_begin),
            ("X_LEAD", (axis.q_begin - last_shift) % x_vector),
            ("X_VECTOR", x_vector),
            ("OUT_VECTOR", out_vector),
            ("TILES", TILES),
            ("BLOCKS", 5 if call.channels * run.out_channels == 1 else 1),
        ),
        shared_bytes=shared_bytes,
    )


def _shared_bytes(call: Call, run: Run, outputs: int, out_vector: int) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    g = call.geometry
    weights = call.axes[-1].shifts * call.channels * run.out_channels * g.stride[-1]
    weights = prod(g.kernel_size[:-1]) * _round_up(weights * call.type.accumulator_bytes, 16)
    vector_bytes, vectors = out_vector * call.type.element_bytes, outputs // out_vector
    last = THREADS * vectors - 1
    places = last + 1 + (last // (128 // vector_bytes) if vectors % 2 == 0 else 0)
    runs = THREADS * 2 * call.index_bits // 8
    passage = _round_up(places * vector_bytes, 16) + runs
    return weights + min(run.phases_y * run.out_channels, 2) * passage


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
