"""hopper: all phases as one matrix product on Hopper's tensor cores, fed by its copy engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise, product
from math import prod

from ..call import Call, contiguous
from ..choice import Boxes, Choice, Specialisation, Tile, Transposition
from ..tensor_map import TensorMap
from ..transpose import transposition

SWITCH = "TCONV_HOPPER"
"""Environment variable that lets the family be chosen; it is not before it has run on a GPU."""

ROWS, DEPTH, SLICE = 128, 64, 64
TILES = tuple(Tile(ROWS, columns, DEPTH, 2, columns // 4) for columns in (256, 128, 64))
"""Of a block; its 256 consumers share that."""

STAGES = {256: 3, 128: 6, 64: 8}
"""Of the ring, by the columns of a tile: with the outputs, what fits 227 KB."""

CLUSTERS = {256: 2, 128: 2, 64: 1}
"""Blocks that share a tile's weights, by its columns: few columns have few weights."""

MOST_PHASES = 16
"""As many tensor maps of the result go to a kernel by value."""

THREADS = 384
VECTOR = 8
"""Elements of 16 bytes: what addresses and strides are multiples of."""

OPERATIONS_A_BYTE = 200
"""Of wgmma, in the time in which memory moves a byte, about."""

WGMMA_GAIN = 1.6
"""Speed of wgmma, as a multiple of that of mma.sync, about; it decides whether a copy pays."""

LARGEST_STRIDE = 2**40
LARGEST_SIZE = 2**31 - 1


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:
    """Return how hopper computes a call, or why it cannot or should not."""
    if not asked and os.environ.get(SWITCH) != "1":
        return f"{SWITCH} is not 1, and this kernel has not run on a GPU yet"
    if call.capability != 90:
        return "wgmma needs compute capability 9.0"
    if call.type.element_bytes != 2:
        return f"wgmma multiplies float16 and bfloat16, not {call.dtype}"
    if not call.channels:
        return "there are no input channels"
    tile = tile or min(TILES, key=lambda tile: _cost(call, tile))
    column_blocks = -(-call.out_channels // tile.columns)
    share = call.out_channels / (column_blocks * tile.columns)
    percent = f"{share:.0%} of the columns in the hopper kernel's tiles are wanted"
    if share < 1 / 2 and not asked:
        return f"only {percent}"
    transpositions = _transpositions(call)
    if isinstance(transpositions, str):
        return transpositions
    names = " and ".join(("x", "the weight")[one.argument] for one in transpositions)
    if not asked and not _copies_pay(call.item):
        return f"copying {names} in another order first would take longer than wgmma saves"
    call = _transposed(call, transpositions)
    boxes = _boxes(call)
    cluster = CLUSTERS[tile.columns]
    row_blocks = -(-boxes.count // cluster) * cluster if boxes else 0
    blocks = call.geometry.groups * call.phases * row_blocks * column_blocks
    reach = (axis.in_reach + ROWS for axis in call.axes)
    if not boxes or max(blocks, *reach, *(t.blocks for t in transpositions)) > LARGEST_SIZE:
        return "the copy engine counts in 32 bits"
    specialisation = Specialisation(
        kernel="hopper",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=THREADS,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", call.activation or "none"),
            ("ROWS", ROWS),
            ("COLUMNS", tile.columns),
            ("DEPTH", DEPTH),
            ("STAGES", STAGES[tile.columns]),
            ("CLUSTER", cluster),
            ("X_VECTOR", VECTOR),
            ("WEIGHT_VECTOR", VECTOR),
            ("OUT_VECTOR", VECTOR if boxes.out else 2 if _out_has_pairs(call) else 1),
            ("OUT_MAPS", len(boxes.out)),
        ),
        shared_bytes=_shared_bytes(tile),
    )
    return Choice(
        specialisation,
        blocks=blocks,
        reason="".join(
            (
                percent,
                f"; {cluster} blocks share their weights" * (cluster > 1),
                f"; {names} are copied in another order first" * bool(names),
            )
        ),
        tile=tile,
        phase_columns=column_blocks * tile.columns,
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        boxes=boxes,
        transpositions=transpositions,
        strides=call.strides if transpositions else None,
    )


def _cost(call: Call, tile: Tile) -> float:
    """Return what a tile costs: its filled columns, and more where few share the inputs read."""
    return -(-call.out_channels // tile.columns) * (tile.columns + 16)


def _shared_bytes(tile: Tile) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    stage, out = (ROWS + tile.columns) * DEPTH, ROWS * tile.columns
    return (STAGES[tile.columns] * stage + out) * 2 + 1024


def _boxes(call: Call) -> Boxes | None:
    """Return how the copy engine cuts x and the weight, or None if they are too large for it."""
    g = call.geometry
    # Of each phase, at most; all phases together may have one position more.
    q_sizes = tuple(-(-o // s) for o, s in zip(g.out_size, g.stride, strict=True))
    images, sizes = _row_box(q_sizes)
    x_sizes, x_strides = _x_view(call)
    weight_sizes, weight_strides = _weight_view(call)
    if x_strides is None or weight_strides is None:
        return None
    return Boxes(
        images,
        sizes,
        tuple(-(-q // size) for q, size in zip(q_sizes, sizes, strict=True)),
        -(-g.batch // images),
        TensorMap(call.dtype, x_sizes, x_strides, (DEPTH, *reversed(sizes), images)),
        TensorMap(call.dtype, weight_sizes, weight_strides, (SLICE, DEPTH, 1, 1)),
        _out_maps(call, sizes, images),
    )


def _x_view(call: Call) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return x as the copy engine sees it: sizes, and strides in bytes if it can follow them."""
    g, (n, c, *steps) = call.geometry, call.strides.x
    sizes = (g.in_channels, *reversed(g.in_size), g.batch)
    return sizes, _engine_strides(sizes, (c, *reversed(steps), n))


def _weight_view(call: Call) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the weight in the same way."""
    g, (c, m, *steps) = call.geometry, call.strides.weight
    sizes = (call.out_channels, call.channels, g.groups, prod(g.kernel_size))
    tap = _one_stride(g.kernel_size, tuple(steps))
    strides = None if tap is None else (m, c, c * call.channels, tap)
    return sizes, strides and _engine_strides(sizes, strides)


def _transpositions(call: Call) -> tuple[Transposition, ...] | str:
    """Return what is copied first, because the copy engine cannot follow it, or why it cannot be.

    It can follow a channels-last x and a packed weight whose strides are multiples of 16 bytes.
    """
    g, (n, c, *steps) = call.geometry, call.strides.x
    (first, second, *taps) = call.strides.weight
    copies = []
    if _x_view(call)[1] is None:
        position = _one_stride(g.in_size, tuple(steps))
        if position is None:
            return "x must be channels-last, or have positions at one distance from each other"
        positions, width = prod(g.in_size), _in_vectors(g.in_channels)
        sizes, copied = (g.batch, g.in_channels, positions), (positions * width, width)
        copies.append(transposition(call, 0, sizes, (n, c, position), copied))
    if _weight_view(call)[1] is None:
        tap = _one_stride(g.kernel_size, tuple(taps))
        if tap is None:
            return "the weight must be packed, or have taps at one distance from each other"
        width = _in_vectors(call.out_channels)
        sizes = (g.in_channels, call.out_channels, prod(g.kernel_size))
        copied = (width, g.in_channels * width)
        copies.append(transposition(call, 1, sizes, (first, second, tap), copied))
    return tuple(copies)


def _transposed(call: Call, transpositions: tuple[Transposition, ...]) -> Call:
    """Return the call on the copies."""
    g, lies = call.geometry, [call.strides.x, call.strides.weight]
    for one in transpositions:
        b, j = one.copied
        sizes = (g.in_size, g.kernel_size)[one.argument]
        lies[one.argument] = (b, 1, *(j * step for step in contiguous(sizes)))
    x, weight = lies
    return replace(call, strides=replace(call.strides, x=x, weight=weight))


def _copies_pay(item: Call) -> bool:
    """Tell whether the copies for one item, if any, take less time than wgmma saves.

    Times are counted in operations that wgmma would do.
    """
    transpositions = _transpositions(item)
    if not transpositions or isinstance(transpositions, str):
        return not transpositions
    g, copied = item.geometry, sum(t.nbytes for t in transpositions)
    arrays = g.nbytes(item.type.element_bytes)
    memory, copying = (OPERATIONS_A_BYTE * n for n in (arrays, 2 * copied))
    return max(WGMMA_GAIN * g.flops, memory) > max(g.flops, memory) + copying


def _out_maps(call: Call, sizes: tuple[int, ...], images: int) -> tuple[TensorMap, ...]:
    """Return the view that each phase is of the result; none if the copy engine cannot store it."""
    g, (n_stride, m_stride, *steps) = call.geometry, call.strides.out
    # The engine knows five axes.  Groups are one, so that a box is clipped where its group ends.
    grouped = g.ndim < 3
    if call.phases > MOST_PHASES or (g.groups > 1 and not grouped):
        return ()
    maps = []
    for number in product(*(range(axis.phases) for axis in call.axes)):
        outputs = [axis.outputs(phase) for phase, axis in zip(number, call.axes, strict=True)]
        spread = [stride * step for stride, step in zip(g.stride, steps, strict=True)]
        group = (g.groups,) * grouped
        view = (call.out_channels, *group, *map(len, reversed(outputs)), g.batch)
        apart = (call.out_channels,) * grouped
        engine = _engine_strides(view, (m_stride, *apart, *reversed(spread), n_stride))
        offset = 2 * sum(o.start * step for o, step in zip(outputs, steps, strict=True))
        if engine is None or offset % 16:
            return ()
        box = (SLICE, *(1,) * grouped, *reversed(sizes), images)
        maps.append(TensorMap(call.dtype, view, engine, box, offset))
    return tuple(maps)


@lru_cache(maxsize=4096)
def _row_box(q_sizes: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return the images and the rectangle of a tile of at most `ROWS` rows that wastes least.

    A rectangle that is nearly square reads the fewest inputs twice.

    >>> _row_box((9, 200))
    (1, (9, 14))
    >>> _row_box((5, 5))
    (5, (5, 5))
    """
    if prod(q_sizes) <= ROWS:
        return ROWS // prod(q_sizes), q_sizes
    best = min(
        _rectangles(q_sizes, ROWS),
        key=lambda sizes: (
            prod(-(-q // size) for q, size in zip(q_sizes, sizes, strict=True)),
            sum(sizes),
            -sizes[-1],
        ),
    )
    return 1, best


def _rectangles(q_sizes: tuple[int, ...], rows: int) -> Iterator[tuple[int, ...]]:
    """Yield the rectangles of at most so many rows that cut each axis evenly."""
    if not q_sizes:
        yield ()
        return
    q = q_sizes[0]
    for size in {-(-q // -(-q // n)) for n in range(1, min(q, rows) + 1)}:
        for rest in _rectangles(q_sizes[1:], rows // size):
            yield (size, *rest)


def _one_stride(sizes: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """Return the stride of several axes taken as one, or None if they are no such axis."""
    axes = [(n, stride) for n, stride in zip(sizes, strides, strict=True) if n > 1]
    if any(outer != n * inner for (_, outer), (n, inner) in pairwise(axes)):
        return None
    return axes[-1][1] if axes else 0


def _engine_strides(sizes: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return all strides but the first in bytes, or None if the copy engine cannot follow them.

    Sizes and strides, in elements, are those of the axes from the nearest to the farthest.
    """
    if sizes[0] > 1 and strides[0] != 1:
        return None
    given, end = [], _in_vectors(sizes[0])
    for n, stride in zip(sizes[1:], strides[1:], strict=True):
        # Nothing follows the stride of one element, but the driver asks that each axis lie beyond
        # the one before it.
        given.append(end if n == 1 else stride)
        end = given[-1] * n
    if any(stride <= 0 or stride % VECTOR or 2 * stride >= LARGEST_STRIDE for stride in given):
        return None
    return tuple(2 * stride for stride in given) if max(sizes) <= LARGEST_SIZE else None


def _in_vectors(n: int) -> int:
    return VECTOR * -(-n // VECTOR)


def _out_has_pairs(call: Call) -> bool:
    """Tell whether two neighbouring channels of the result can be stored at once."""
    n, m, *rest = call.strides.out
    return m == 1 and call.out_channels % 2 == 0 and not any(s % 2 for s in (n, *rest))
