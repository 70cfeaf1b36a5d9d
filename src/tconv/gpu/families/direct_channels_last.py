"""direct_channels_last: few output channels on FMA units, where channels are nearest in memory."""

from __future__ import annotations

from functools import partial

from ..call import Call
from ..choice import Choice, Specialisation, Tile
from . import direct, gather, gemm
from .direct import MOST_SHARED_BYTES, MOST_SUMS, THREADS
from .runs import Run, can_be_written_out, window

MOST_INPUTS = 40
"""What a thread may hold in registers of a vector of channels, in words of 4 bytes."""
MOST_PRODUCTS = 1024
"""Multiplications that the compiler may write out for one row of inputs in a vector of channels."""
WEIGHT_BYTES = 16 << 10
INPUT_BYTES = 24 << 10
"""Of shared memory, for as many channels at a time as have room; one vector has room anyway."""
COPY_COST = 4
ROW_COST = 40
"""Instructions of a copy to shared memory, and for a row of inputs: barriers, and where it lies."""
GAIN = 0.92
"""Of what gemm or gather would cost; gemm reckons with single copies, and vectors cost it less."""


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:  # noqa: ARG001
    """Return how the kernel computes a call, or why it does not."""
    g = call.geometry
    if not can_be_written_out(g):
        return "the window is too large to be written out by the compiler"
    if not asked and (call.strides.x[1] != 1 or call.channels == 1):
        return "channels are not nearest in memory"
    item = call.item
    some = direct.runs(item, lambda _: 1, partial(_fits, item))
    run = min(some, key=partial(_cost, item), default=None)
    if run is None:
        size = "x".join(map(str, g.kernel_size))
        return f"a {size} window does not fit a thread's registers"
    share = _cost(item, run) / min(gemm.cost(call), gather.cost(call))
    if not asked and share > GAIN:
        return f"it would cost {share:.0%} of what the next best kernel does"
    return direct.choice(call, run, _specialisation(call, run), share)


def _fits(call: Call, run: Run) -> bool:
    words = call.type.accumulator_bytes // 4
    vector = _x_vector(call, run)
    return (
        direct.sums(call, run) * words <= MOST_SUMS
        and run.inputs(call) * words <= MOST_INPUTS
        and direct.products(run) * vector <= MOST_PRODUCTS
        and _shared_bytes(call, run, vector) <= MOST_SHARED_BYTES
    )


def _x_vector(call: Call, run: Run) -> int:
    """Return how many channels of an input are fetched at once: up to 16 bytes."""
    size, (n, c, *pixels) = call.type.element_bytes, call.strides.x
    words = run.inputs(call) * call.type.accumulator_bytes // 4
    vector = 16 // size
    while vector > 1 and (
        c != 1
        or vector * words > MOST_INPUTS
        or any(step % vector for step in (call.channels, n, *pixels))
    ):
        vector //= 2
    return vector


def _cost(call: Call, run: Run) -> float:
    """Return about how many instructions are issued for each row of the matrix product.

    Or could be issued while L2 brings the inputs, if that takes longer.
    """
    vector, depth = _x_vector(call, run), _depth(call, run)
    work = direct.work(call, run)
    copies = (run.inputs(call) * (COPY_COST + 1) + 13) / vector + ROW_COST / depth
    traffic = run.inputs(call) * call.type.element_bytes * gemm.PRODUCTS_A_BYTE
    step = max(work.products + work.rows * (work.reads + copies), work.rows * traffic)
    stores = 5 * direct.sums(call, run) + 300
    return (call.channels * step + stores) * work.threads


def _specialisation(call: Call, run: Run) -> Specialisation:
    g, vector, depth = call.geometry, _x_vector(call, run), _depth(call.item, run)
    return Specialisation(
        kernel="direct_channels_last",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=THREADS,
        constants=(
            ("AXES", g.ndim),
            ("ACTIVATION", call.activation or "none"),
            *(dict(window(g)) | {"KERNEL_X": run.taps}).items(),
            ("PARTS_X", run.parts(g)),
            ("CHANNELS", 1),
            ("OUT_CHANNELS", run.out_channels),
            ("DEPTH", depth),
            ("RUN_Q", run.q),
            ("PHASES_Y", run.phases_y),
            ("FIRST_PHASE", call.axes[-1].r_begin),
            ("X_NEAREST", False),
            ("X_LEAD", 0),
            ("X_VECTOR", vector),
            ("OUT_VECTOR", _out_vector(call, run)),
            ("ASYNC", call.capability >= 80 and vector * call.type.element_bytes >= 4),
            ("BLOCKS", 4 if call.type.accumulator_bytes == 16 else 6),
        ),
        shared_bytes=_shared_bytes(call, run, depth),
        adjoint=call.adjoint,
    )


def _out_vector(call: Call, run: Run) -> int:
    """Return how many channels of an output are stored at once."""
    n, m, *pixels = call.strides.out
    vector = 16 // call.type.element_bytes
    steps = (run.out_channels, n, *pixels)
    while vector > 1 and (m != 1 or any(step % vector for step in steps)):
        vector //= 2
    return vector


def _depth(call: Call, run: Run) -> int:
    """Return how many channels' weights and inputs are in shared memory at a time."""
    depth = _x_vector(call, run)
    while (
        depth < call.channels
        and 2 * depth <= THREADS
        and 2 * depth * run.weight_bytes(call, 1) <= WEIGHT_BYTES
        and _input_bytes(call, run, 2 * depth) <= INPUT_BYTES
    ):
        depth *= 2
    return depth


def _input_bytes(call: Call, run: Run, depth: int) -> int:
    vector = _x_vector(call, run)
    vectors = run.inputs(call) * depth // vector
    return THREADS * (vectors | 1) * vector * call.type.element_bytes


def _shared_bytes(call: Call, run: Run, depth: int) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    inputs = -(-_input_bytes(call, run, depth) // 16) * 16
    sources = THREADS * 2 * max(call.index_bits // 8, run.bits_bytes(call))
    return depth * run.weight_bytes(call, 1) + inputs + sources
