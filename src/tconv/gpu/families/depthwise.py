"""depthwise: groups of few channels, for which memory decides."""

from __future__ import annotations

from math import prod

from ..call import Call
from ..choice import Choice, Specialisation, Tile
from .runs import (
    MOST_BITS,
    Run,
    can_be_written_out,
    last_axis_is_nearest,
    window,
    x_is_nearest,
)

THREADS = 128
TILES = 4
"""How often a block uses the weights that it has brought into shared memory."""

MOST_CHANNELS = 8
"""Input channels of a group; a thread holds them all."""
MOST_OUT_CHANNELS = 16
"""Output channels of a group; a thread holds at most `MOST_CHANNELS` of them."""
MOST_SUMS = 48
MOST_SUMS_OF_ONE = 64
"""With single channels, which have fewer inputs and weights, in float32."""
MOST_INPUTS = 64
"""What a thread may hold in registers, in words of 4 bytes."""
AT_ONCE = 40
"""Inputs that it loads together, likewise, if they come from several rows."""
MOST_PRODUCTS = 1024
"""Multiplications that the compiler may write out for one row of inputs."""
MOST_SHARED_BYTES = 48 << 10
MARGIN = 2 * THREADS * TILES
"""At least as many runs as the last block counts beyond the end."""


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
    row_runs, group_runs = run.counts(call)
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


def _refusal(call: Call, asked: bool) -> str | None:
    g = call.geometry
    if not 1 <= call.channels <= MOST_CHANNELS or call.out_channels > MOST_OUT_CHANNELS:
        return (
            f"groups of {call.channels} to {call.out_channels} channels are not small: "
            f"at most {MOST_CHANNELS} to {MOST_OUT_CHANNELS} are"
        )
    if not can_be_written_out(g):
        return "the window is too large to be written out by the compiler"
    if not asked and not last_axis_is_nearest(call):
        return "the last axis is not nearest in memory"
    return None


def _best(call: Call) -> tuple[Run, Specialisation] | None:
    """Return the first run that fits, from wide to narrow, and the kernel for it.

    Many output channels come first, because they share the inputs; then many q, which share the
    weights; then the phases of the axis before the last, which share the inputs again.
    """
    g = call.geometry
    widest = 16 // call.type.element_bytes
    rows = call.axes[-2].stride if g.ndim > 1 else 1
    for out_channels in range(min(call.out_channels, MOST_CHANNELS), 0, -1):
        if call.out_channels % out_channels:
            continue
        for q in (n for n in (8, 4, 2, 1) if n <= widest):
            for phases_y in (rows, 1):
                run = Run(q, phases_y, out_channels, g.kernel_size[-1])
                specialisation = _specialisation(call, run)
                if specialisation is not None:
                    return run, specialisation
    return None


def _specialisation(call: Call, run: Run) -> Specialisation | None:
    """Return the kernel for a run, or None if that needs too much of a thread or a block."""
    g, axis = call.geometry, call.axes[-1]
    words = call.type.accumulator_bytes // 4
    outputs, inputs = run.outputs(call), run.inputs(call)
    products = axis.shifts * call.channels * run.out_channels * outputs * run.phases_y
    sums = outputs * run.phases_y * run.out_channels
    single = call.channels * run.out_channels == words == 1
    if (
        sums * words > (MOST_SUMS_OF_ONE if single else MOST_SUMS)
        or inputs * call.channels * words > MOST_INPUTS
        or inputs > MOST_BITS
        or products > MOST_PRODUCTS
    ):
        return None
    index_bits = call.index_bits if prod(call.out_shape) < 2**31 - MARGIN else 64
    shared_bytes = run.weight_bytes(call, call.channels)
    shared_bytes += run.passage_bytes(call, THREADS, index_bits)
    if shared_bytes > MOST_SHARED_BYTES:
        return None
    shifts_y = call.axes[-2].shifts if g.ndim > 1 else 1
    rows_at_once = max(1, min(shifts_y, AT_ONCE // (inputs * call.channels * words)))
    if products * rows_at_once > MOST_PRODUCTS:
        rows_at_once = 1
    return Specialisation(
        kernel="depthwise",
        dtype=call.dtype,
        index_bits=index_bits,
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
            ("X_NEAREST", x_is_nearest(call)),
            ("X_LEAD", run.lead(call)),
            ("X_VECTOR", run.x_vector(call)),
            ("OUT_VECTOR", run.out_vector(call)),
            ("TILES", TILES),
            ("BLOCKS", _resident_blocks(call, run, index_bits)),
        ),
        shared_bytes=shared_bytes,
        adjoint=call.adjoint,
    )


def _resident_blocks(call: Call, run: Run, index_bits: int) -> int:
    """Return how many blocks shall share a multiprocessor's registers: as many as spill nothing."""
    if call.channels * run.out_channels > 1:
        return 1
    if call.type.accumulator_bytes > 4:
        return 4
    if run.outputs(call) * run.phases_y > MOST_SUMS:
        return 3
    return 4 if index_bits == 64 else 5
