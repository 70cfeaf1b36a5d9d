"""gemm: all phases as one matrix product on FMA units."""

from __future__ import annotations

from functools import lru_cache, reduce
from math import gcd, prod
from typing import Any

import numpy as np

from ..call import Axis, Call
from ..choice import Choice, Specialisation, Tile
from . import gather

TILES = {
    4: (
        Tile(128, 128, 8, 8, 16),
        Tile(256, 64, 8, 8, 16),
        Tile(256, 32, 8, 8, 16),
        Tile(128, 16, 16, 8, 4),
    ),
    8: (Tile(128, 64, 8, 8, 8), Tile(128, 16, 8, 8, 4)),
    16: (Tile(64, 64, 8, 4, 4), Tile(64, 16, 8, 4, 2)),
}
"""Tiles by the size in bytes of what is summed in, from wide to narrow."""

ENOUGH_TILES = 128
"""In one item: about as many as a large card has multiprocessors."""

LONG_SUM = 1024
"""Products that are worth a part of their own, which is written once and read once."""

MOST_SPLITS = 16
"""What a workspace may take, as a multiple of the result."""

SUM_THREADS = 256
"""Of a block of gemm_sum."""

RUN_BYTES = 16
"""What is read from shared memory, or copied to it, at once."""

SECTOR_BYTES = 32
"""What L2 brings at least."""

PRODUCTS_A_BYTE = 5
"""What a multiprocessor multiplies while L2 brings a byte; a round number that nobody measured."""


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:
    """Return how gemm computes a call, or why that would be a waste.

    Gemm copies and computes on its tiles' zeros too; gather loads two operands for every product.
    What L2 brings is the same.
    """
    issued = _least(call, TILES[call.type.accumulator_bytes])[0]
    if not asked and (times := issued / gather.cost(call)) > 1:
        return f"it would cost {times:.1f} times as much as gather"
    tiles = (tile,) if tile else TILES[call.type.accumulator_bytes]
    tile, phase_columns, share = _best_tile(call, tiles)
    percent = f"{share:.0%} of the products in the gemm kernel's tiles are wanted"
    asynchronous = call.capability >= 80 and call.type.element_bytes >= 4
    row_blocks = -(-call.rows // tile.rows)
    column_blocks = _column_blocks(call, tile, phase_columns)
    splits = _splits(call, tile, column_blocks, prod(axis.q_size for axis in call.axes))
    parts = splits * prod(call.out_shape) if splits > 1 else 0
    shared = f"; {splits} blocks share each of their sums" if parts else ""
    x_vector = _x_vector(call, tile)
    specialisation = Specialisation(
        kernel="gemm",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=tile.threads,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", call.activation or "none"),
            ("OUT_CHANNELS_LAST", call.out_channels_last),
            ("X_CHANNELS_LAST", _channels_side_by_side(call)),
            ("ROWS", tile.rows),
            ("COLUMNS", tile.columns),
            ("DEPTH", tile.depth),
            ("THREAD_ROWS", tile.thread_rows),
            ("THREAD_COLUMNS", tile.thread_columns),
            ("ASYNC", asynchronous),
            ("FEW_CHANNELS", call.channels < tile.depth),
            ("X_VECTOR", x_vector),
            ("WEIGHT_VECTOR", _weight_vector(call, tile, phase_columns)),
            ("BLOCKS", _resident_blocks(tile)),
        ),
        shared_bytes=_shared_bytes(call, tile, x_vector),
        adjoint=call.adjoint,
    )
    return Choice(
        specialisation,
        blocks=splits * call.geometry.groups * row_blocks * column_blocks,
        reason=percent + shared,
        tile=tile,
        phase_columns=phase_columns,
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        splits=splits,
        workspace_bytes=parts * call.type.accumulator_bytes,
        # Smaller images may have fewer tiles; they shall find both kernels compiled.
        second=_second(call, parts) if _splits(call, tile, column_blocks, 1) > 1 else None,
    )


# --- the tile: no search, a count of what each would do -----------------------------------------


def cost(call: Call) -> float:
    """Return about how many instructions a warp issues for each row of the matrix product.

    Or could issue while L2 brings the inputs, if that takes longer.  What a stride leaves out of a
    row comes too, as far as it lies in the same sectors.  Not where products take several
    instructions, and not where blocks may share long sums: they fill the card sooner than others.
    """
    issued, tile, phase_columns, visits = _least(call, TILES[call.type.accumulator_bytes])
    if call.type.accumulator_bytes > 4 or _most_splits(call, tile) > 1:
        return issued
    step = 1 if _channels_side_by_side(call) else call.axes[-1].in_stride
    input_bytes = min(step * call.type.element_bytes, SECTOR_BYTES)
    visit = max(_visit(call, tile), call.channels * input_bytes * PRODUCTS_A_BYTE)
    return visits * visit + _stores(call, tile, phase_columns)


def _best_tile(call: Call, tiles: tuple[Tile, ...]) -> tuple[Tile, int, float]:
    """Return the tile that costs least, how many columns a phase gets, and the share of use.

    A phase either has M columns, and blocks mix phases; or it fills its last block up.  A block
    skips the shifts at which none of its phases has a tap.
    """
    _, tile, phase_columns, visits = _least(call, tiles)
    useful = prod(call.geometry.kernel_size) * call.out_channels
    return tile, phase_columns, useful / max(visits * tile.columns, 1)


@lru_cache(maxsize=16)  # other families ask too
def _least(call: Call, tiles: tuple[Tile, ...]) -> tuple[float, Tile, int, int]:
    """Return the least cost, its tile, the columns of a phase, and how many shifts are visited."""
    options = []
    for tile in tiles:
        for phase_columns in (call.out_channels, _round_up(call.out_channels, tile.columns)):
            visits = _visits(call, tile, phase_columns)
            issued = visits * _visit(call, tile) + _stores(call, tile, phase_columns)
            options.append((issued, tile, phase_columns, visits))
    return min(options, key=lambda option: option[0])


def _visit(call: Call, tile: Tile) -> float:
    """Return about how many instructions are issued at one shift, for each row.

    As if all were copied one by one: a tile, and with it the order of sums that blocks share, does
    not depend on the order of memory.  A step of fewer channels multiplies these alone, but takes
    the instructions of all copies.
    """
    run = RUN_BYTES // call.type.accumulator_bytes
    sums = tile.thread_rows * tile.thread_columns
    reads = sum(-(-n // run) for n in (tile.thread_rows, tile.thread_columns))
    copies = (tile.rows + tile.columns) * tile.depth // tile.threads
    steps = -(-call.channels // tile.depth)
    visit = call.channels * (sums + reads) + steps * (2 * copies + 22)
    return visit * tile.threads / tile.rows


def _stores(call: Call, tile: Tile, phase_columns: int) -> float:
    """Return about how many instructions are issued at the end, for each row."""
    stores = 10 * tile.thread_rows * tile.thread_columns + 300
    return _column_blocks(call, tile, phase_columns) * stores * tile.threads / tile.rows


def _visits(call: Call, tile: Tile, phase_columns: int) -> int:
    """Return how many shifts all column blocks visit, added up."""
    blocks = _column_blocks(call, tile, phase_columns)
    shifts = prod(axis.shifts for axis in call.axes)
    if max(blocks, call.phases * shifts) > 2**16:
        return blocks * shifts
    taps = reduce(np.kron, (_taps(call, a) for a in range(call.geometry.ndim)))
    before = np.concatenate([np.zeros((1, shifts), int), taps.cumsum(0)])
    begin = np.arange(blocks) * tile.columns
    first, last = begin // phase_columns, (begin + tile.columns - 1) // phase_columns
    return int(np.count_nonzero(before[np.minimum(last + 1, call.phases)] - before[first]))


def _taps(call: Call, a: int) -> Any:
    """Return one where a phase (row) of an axis has a tap at a shift (column), else zero."""
    axis: Axis = call.axes[a]
    if call.adjoint:
        return np.ones((1, axis.shifts), int)
    stride, dilation = call.geometry.stride[a], call.geometry.dilation[a]
    shift = np.arange(axis.shifts)
    if dilation > stride:
        shift = shift * dilation // stride
    r = (np.arange(axis.phases) + axis.r_begin) % stride
    tap, rest = np.divmod(shift * stride + r[:, None], dilation)
    return ((rest == 0) & (tap < call.geometry.kernel_size[a])).astype(int)


def _column_blocks(call: Call, tile: Tile, phase_columns: int) -> int:
    return -(-call.phases * phase_columns // tile.columns)


# --- long sums ----------------------------------------------------------------------------------


def _splits(call: Call, tile: Tile, column_blocks: int, rows: int) -> int:
    """Return how many blocks share a tile's sums, where one item has so many rows.

    More than one where an item has few tiles and the sums are long.  Neither the batch nor the
    device matter, so an item's bits depend on neither.
    """
    tiles = call.geometry.groups * column_blocks * -(-rows // tile.rows)
    return max(1, min(_most_splits(call, tile), ENOUGH_TILES // max(tiles, 1)))


def _most_splits(call: Call, tile: Tile) -> int:
    """Return how many blocks share the sums of a tile where there are few tiles."""
    terms = call.channels * prod(axis.shifts for axis in call.axes)
    return min(MOST_SPLITS, terms // LONG_SUM, call.channels // tile.depth)


def _second(call: Call, parts: int) -> tuple[Specialisation, int]:
    """Return the pass that adds up the parts of each output; no blocks where there are none."""
    specialisation = Specialisation(
        kernel="gemm_sum",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=SUM_THREADS,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", call.activation or "none"),
            ("OUT_CHANNELS_LAST", call.out_channels_last),
        ),
        adjoint=call.adjoint,
    )
    return specialisation, -(-prod(call.out_shape) // SUM_THREADS) if parts else 0


# --- what a block takes -------------------------------------------------------------------------


def _channels_side_by_side(call: Call) -> bool:
    """Tell whether lanes of a warp shall copy neighbouring channels of x, not neighbouring rows."""
    return call.x_channels_last and call.strides.x[1] == 1


def _x_vector(call: Call, tile: Tile) -> int:
    """Return how many channels of an input are copied at once: 16 bytes in shared memory, or one.

    Rows are copied one by one, since their number is that of an image.
    """
    if not _channels_side_by_side(call):
        return 1
    n, _, *pixels = call.strides.x
    run = RUN_BYTES // call.type.accumulator_bytes
    copies = tile.rows * tile.depth // tile.threads
    return run if gcd(run, copies, call.channels, n, *pixels) == run else 1


def _weight_vector(call: Call, tile: Tile, phase_columns: int) -> int:
    """Return how many columns are copied at once: neighbours in memory, with a tap or without.

    Those are output channels where they are nearest in memory, or with a single one the phases
    where their taps are.
    """
    g, (group, c, m, *taps) = call.geometry, call.weight_strides
    if call.out_channels > 1:
        near, facts = m, (call.out_channels, phase_columns, group, c, *taps)
    else:
        near = taps[-1] if g.dilation[-1] == 1 and phase_columns == 1 else 0
        axis = call.axes[-1]
        facts = (axis.stride, g.kernel_size[-1], axis.phases, axis.r_begin, group, c, *taps[:-1])
    if near != 1:
        return 1
    copies = tile.columns * tile.depth // tile.threads
    return gcd(RUN_BYTES // call.type.element_bytes, copies, *facts)


def _resident_blocks(tile: Tile) -> int:
    """Return how many blocks shall share a multiprocessor's registers: as many as spill nothing."""
    return 256 // tile.threads


def _shared_bytes(call: Call, tile: Tile, x_vector: int) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    size = call.type.accumulator_bytes
    padding = 2 * RUN_BYTES * max(4, tile.depth // x_vector) if _channels_side_by_side(call) else 0
    stage = tile.depth * (tile.rows + tile.columns) * size + padding
    run = min(RUN_BYTES // size, tile.thread_columns)
    span = tile.columns // tile.thread_columns * run
    sums = span * (tile.rows + (1 if call.out_channels_last else 0)) * size
    table = table_bytes(call, tile.rows, tile.columns)
    tiles = max(2 * stage, _round_up(sums, RUN_BYTES))
    return _round_up(tiles + table, RUN_BYTES)


def table_bytes(call: Call, rows: int, columns: int) -> int:
    """Return the size of so many ``Row`` and ``Column`` of ``product.cuh``."""
    ndim = call.geometry.ndim
    words = rows * _round_up(4 + ndim, 2) + columns * _round_up(3 + ndim, 2)
    return words * call.index_bits // 8


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
