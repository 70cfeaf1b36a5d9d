"""direct: few output channels on FMA units, where a matrix product would be too narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import gcd, prod
from typing import NamedTuple

from ..._geometry import Geometry
from ..call import Call
from ..choice import Choice, Specialisation, Tile
from . import gather, gemm
from .runs import EXPENSIVE, Run, can_be_written_out, last_axis_is_nearest, window, x_is_nearest

THREADS = 64
"""Few, so that even a small batch has enough blocks for a large card."""

MOST_OUT_CHANNELS = 16
"""Of a thread."""
MOST_SUMS = 64
MOST_INPUTS = 40
"""What a thread may hold in registers, in words of 4 bytes."""
FEW_WORDS = 76
"""Of both, the inputs as whole vectors, that leave room for all else in 128 registers."""
MOST_PRODUCTS = 512
"""Multiplications that the compiler may write out for one row of inputs."""
WEIGHT_BYTES = 16 << 10
"""Of shared memory, for as many channels at a time as have room there; one has room anyway."""
INPUT_BYTES = 16 << 10
"""Of the L1 cache, where the rows of as many channels shall stay from one shift to the next."""
MOST_SHARED_BYTES = 48 << 10
GAIN = 0.96
"""Of what gemm or gather would cost; with more it is not worth a kernel for each window."""


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:  # noqa: ARG001
    """Return how the kernel computes a call, or why it does not."""
    g = call.geometry
    if not can_be_written_out(g):
        return "the window is too large to be written out by the compiler"
    some = runs(call, lambda run: run.x_vector(call), partial(_fits, call.item))
    run = min(some, key=partial(_cost, call), default=None)
    if run is None:
        size = "x".join(map(str, g.kernel_size))
        return f"a {size} window does not fit a thread's registers"
    share = _cost(call, run) / min(gemm.cost(call), gather.cost(call))
    if not asked:
        if not last_axis_is_nearest(call):
            return "the last axis is not nearest in memory"
        if share > GAIN:
            return f"it would cost {share:.0%} of what the next best kernel does"
    return choice(call, run, _specialisation(call, run), share)


def choice(call: Call, run: Run, specialisation: Specialisation, share: float) -> Choice:
    """Return the choice of a kernel whose threads compute such runs, at a share of the costs."""
    row_runs, group_runs = run.counts(call)
    row_blocks = -(-group_runs // specialisation.threads)
    column_blocks = call.out_channels // run.out_channels
    return Choice(
        specialisation,
        blocks=call.geometry.groups * column_blocks * row_blocks,
        reason=f"few output channels: it costs {share:.0%} of what the next best kernel does",
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        row_runs=row_runs,
        group_runs=group_runs,
    )


def runs(call: Call, aligned: Callable[[Run], int], fits: Callable[[Run], bool]) -> list[Run]:
    """Return what a thread could compute: of the whole window, or part by part.

    Parts of the window lie a multiple of ``aligned`` inputs apart.
    """
    g, most = call.geometry, min(call.out_channels, MOST_OUT_CHANNELS)
    channels = [m for m in range(1, most + 1) if call.out_channels % m == 0]
    rows = dict.fromkeys((call.axes[-2].stride if g.ndim > 1 else 1, 1))
    whole = [Run(q, y, m, g.kernel_size[-1]) for m in channels for q in (8, 4, 2, 1) for y in rows]
    parts = (
        replace(run, taps=taps)
        for run in whole
        for taps in _parts(g, call.axes[-1].stride * aligned(run))
    )
    return [run for run in whole if fits(run)] or [run for run in parts if fits(run)]


def _parts(g: Geometry, distance: int) -> Iterator[int]:
    """Yield numbers of taps that reach a multiple of a distance."""
    taps = distance // gcd(distance, g.dilation[-1])
    while taps < g.kernel_size[-1]:
        yield taps
        taps *= 2


def _fits(call: Call, run: Run) -> bool:
    words = call.type.accumulator_bytes // 4
    return (
        sums(call, run) * words <= MOST_SUMS
        and run.inputs(call) * words <= MOST_INPUTS
        and products(run) <= MOST_PRODUCTS
        and _shared_bytes(call, run, 1) <= MOST_SHARED_BYTES
    )


def sums(call: Call, run: Run) -> int:
    """Return how many sums a thread keeps."""
    return run.outputs(call) * run.phases_y * run.out_channels


def products(run: Run) -> int:
    """Return how many products it makes of one row of inputs, about."""
    return run.q * run.taps * run.out_channels * run.phases_y


class Work(NamedTuple):
    """What a thread does for one input channel, on average."""

    products: float
    rows: float
    """Rows of inputs that it reads."""
    reads: float
    """16 bytes of weights, for one of those."""
    threads: float
    """That share a row of the matrix product."""


def work(call: Call, run: Run) -> Work:
    """Return what a thread of such a run does."""
    g = call.geometry
    kernel_z, kernel_y, _ = (1, 1, *g.kernel_size)[-3:]
    stride_z, stride_y, _ = (1, 1, *(axis.stride for axis in call.axes))[-3:]
    parts = run.parts(g)
    rows = kernel_y / stride_y if run.phases_y == 1 else call.axes[-2].shifts
    done = run.q * run.taps * parts * run.out_channels * kernel_y * kernel_z / stride_z
    return Work(
        products=done * run.phases_y / stride_y,
        rows=rows * parts * kernel_z / stride_z,
        reads=run.weight_bytes(call, 1) / 16 / (kernel_y * kernel_z * parts) * run.phases_y,
        threads=call.out_channels / run.out_channels * stride_y / run.phases_y * stride_z / run.q,
    )


def _cost(call: Call, run: Run) -> float:
    """Return about how many instructions are issued for each row of the matrix product.

    Or could be issued while L2 brings the inputs, if that takes longer.
    """
    of = work(call, run)
    loads = 2 * (run.inputs(call) / max(run.x_vector(call), run.step(call)) + 1)
    traffic = run.advance(call) * call.type.element_bytes * gemm.PRODUCTS_A_BYTE
    step = max(of.products + of.rows * (of.reads + loads + 5), of.rows * traffic)
    stores = 5 * sums(call, run) + 300
    return (call.channels * step + stores) * of.threads


def _specialisation(call: Call, run: Run) -> Specialisation:
    g, depth = call.geometry, _depth(call, run)
    return Specialisation(
        kernel="direct",
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
            ("X_NEAREST", x_is_nearest(call)),
            ("X_LEAD", run.lead(call)),
            ("X_VECTOR", run.x_vector(call)),
            ("OUT_VECTOR", run.out_vector(call)),
            ("BLOCKS", _resident_blocks(call, run)),
        ),
        shared_bytes=_shared_bytes(call, run, depth),
        adjoint=call.adjoint,
    )


def _depth(call: Call, run: Run) -> int:
    """Return how many channels' weights are in shared memory at a time."""
    depth = min(call.channels, WEIGHT_BYTES // run.weight_bytes(call, 1))
    if prod(axis.shifts for axis in call.axes[:-1]) > 1:
        new_bytes = THREADS * run.advance(call) * call.type.element_bytes
        depth = min(depth, INPUT_BYTES // new_bytes)
    return max(1, depth)


def _shared_bytes(call: Call, run: Run, depth: int) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    weights = depth * run.weight_bytes(call, 1)
    return weights + run.passage_bytes(call, THREADS, call.index_bits)


def _resident_blocks(call: Call, run: Run) -> int:
    """Return how many blocks shall share a multiprocessor's registers: as many as hardly spill."""
    element, accumulator = call.type.element_bytes, call.type.accumulator_bytes
    if accumulator > 4:
        return 6 if accumulator == 8 else 4
    vectors = -(-(run.lead(call) + run.inputs(call)) // run.x_vector(call))
    words = sums(call, run) + vectors * run.x_vector(call)
    if element < accumulator:  # Halves are there as they came, too.
        words += run.inputs(call) // 2
    if run.x_vector(call) == 1:  # A question for each is, too.
        words += run.inputs(call)
    needs_more = call.index_bits == 64 or call.activation in EXPENSIVE
    return 6 if needs_more or words > FEW_WORDS else 8
