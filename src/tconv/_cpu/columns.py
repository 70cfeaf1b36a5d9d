"""The outputs that the taps reach, laid out for a matrix product.

Both gradients multiply what lies at the two ends of a tap.  Here the outputs are laid out so that
one matrix product does it: a row for each channel and tap, a column for each input position.  The
layout repeats an output for every tap that reaches it, so it is made block by block, in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .._geometry import Geometry, full_size
from .scratch import Scratch

Array = np.ndarray[Any, np.dtype[Any]]
Index = tuple[slice, ...]

# Of one block of columns: what a core's cache holds.
NBYTES = 1 << 21
# Input positions of one block: enough for a matrix product to run at full speed.
LEAST_POSITIONS, MOST_POSITIONS = 1 << 9, 1 << 11


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a geometry that is a geometry again, and the slices that it takes of the arrays."""

    geometry: Geometry
    x: Index
    weight: Index
    y: Index


def block(
    g: Geometry,
    n: slice,
    groups: slice,
    c: slice,
    m: slice,
    taps: tuple[slice, ...],
    positions: tuple[slice, ...],
) -> Block:
    """Cut a block: of the batch, the groups, each group's channels, taps and input positions."""
    size = groups.stop - groups.start
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    x_channels = slice(groups.start * in_group + c.start, (groups.stop - 1) * in_group + c.stop)
    y_channels = slice(groups.start * out_group + m.start, (groups.stop - 1) * out_group + m.stop)
    outputs, pad_begin = [], []
    for axis, (i, k) in enumerate(zip(positions, taps, strict=True)):
        begin = i.start * g.stride[axis] + k.start * g.dilation[axis] - g.pad_begin[axis]
        end = begin + full_size(
            i.stop - i.start, k.stop - k.start, g.stride[axis], g.dilation[axis]
        )
        o_begin = min(max(0, begin), g.out_size[axis])
        outputs.append(slice(o_begin, max(o_begin, min(end, g.out_size[axis]))))
        pad_begin.append(o_begin - begin)
    geometry = replace(
        g,
        batch=n.stop - n.start,
        groups=size,
        in_channels=size * (c.stop - c.start),
        out_channels=size * (m.stop - m.start),
        in_size=tuple(i.stop - i.start for i in positions),
        kernel_size=tuple(k.stop - k.start for k in taps),
        out_size=tuple(o.stop - o.start for o in outputs),
        pad_begin=tuple(pad_begin),
    )
    return Block(
        geometry,
        x=(n, x_channels, *positions),
        weight=(x_channels, m, *taps),
        y=(n, y_channels, *outputs),
    )


def stretches(size: int, most: int) -> Iterator[slice]:
    """Cut ``range(size)`` into a few stretches of at most `most`, nearly alike in length.

    If one is too long, their number is even, so that two threads end together.

    >>> [(s.start, s.stop) for s in stretches(9, 4)]
    [(0, 2), (2, 4), (4, 6), (6, 9)]
    """
    count = -(-size // most)
    if count > 1:
        count = min(size, count + count % 2)
    return (slice(size * i // count, size * (i + 1) // count) for i in range(count))


def boxes(
    count: int, sizes: tuple[int, ...], most: int
) -> Iterator[tuple[slice, tuple[slice, ...]]]:
    """Cut `count` maps of `sizes` into boxes of at most `most` elements, inner axes whole first."""
    steps = []
    for size in (*reversed(sizes), count):
        steps.append(max(1, min(size, most)))
        most //= steps[-1]
    items, *steps = reversed(steps)
    axes = (tuple(stretches(size, step)) for size, step in zip(sizes, steps, strict=True))
    for n, *box in product(stretches(count, items), *axes):
        yield n, tuple(box)


def columns(y: Array, g: Geometry, scratch: Scratch) -> Array:
    """Return what every tap meets at every input, ``(groups, M // groups * taps, N * positions)``.

    Beyond the ends of the output a tap meets zeros.
    """
    begin = [-pad for pad in g.pad_begin]
    reach = tuple(map(full_size, g.in_size, g.kernel_size, g.stride, g.dilation))
    y = _window(y, begin, reach, scratch)
    batch, channel, *steps = y.strides
    view = as_strided(
        y,
        (g.out_channels, *g.kernel_size, g.batch, *g.in_size),
        (
            channel,
            *(d * step for d, step in zip(g.dilation, steps, strict=True)),
            batch,
            *(s * step for s, step in zip(g.stride, steps, strict=True)),
        ),
        writeable=False,
    )
    result = scratch.empty(view.shape)
    np.copyto(result, view, casting="unsafe")
    rows = g.out_channels // g.groups * prod(g.kernel_size)
    return result.reshape(g.groups, rows, g.batch * prod(g.in_size))


def _window(y: Array, begin: list[int], sizes: tuple[int, ...], scratch: Scratch) -> Array:
    """Return a stretch of `y` along each axis, with zeros where it leaves the array."""
    ends = [b + size for b, size in zip(begin, sizes, strict=True)]
    if min(begin) >= 0 and all(e <= size for e, size in zip(ends, y.shape[2:], strict=True)):
        return y[:, :, *map(slice, begin, ends)]
    canvas = scratch.empty((*y.shape[:2], *sizes))
    canvas.fill(0)
    inside = [
        (max(0, b), max(0, b, min(e, size)))
        for b, e, size in zip(begin, ends, y.shape[2:], strict=True)
    ]
    target = [slice(i - b, j - b) for (i, j), b in zip(inside, begin, strict=True)]
    canvas[:, :, *target] = y[:, :, *(slice(i, j) for i, j in inside)]
    return canvas


def meets_zeros(g: Geometry) -> bool:
    """Tell whether any tap reaches beyond the ends of the output."""
    full = map(full_size, g.in_size, g.kernel_size, g.stride, g.dilation)
    return any(
        begin > 0 or n - begin > size
        for n, begin, size in zip(full, g.pad_begin, g.out_size, strict=True)
    )


def single_taps(g: Geometry) -> Iterator[tuple[tuple[int, ...], Index, Geometry]]:
    """Take a geometry apart into its taps: which it is, the inputs that it carries, its geometry.

    None of these meets a zero.
    """
    for tap in product(*map(range, g.kernel_size)):
        windows = [g.tap_window(axis, k) for axis, k in enumerate(tap)]
        if any(begin == end for begin, end in windows):
            continue
        yield (
            tap,
            tuple(slice(*window) for window in windows),
            replace(
                g,
                in_size=tuple(end - begin for begin, end in windows),
                kernel_size=(1,) * g.ndim,
                pad_begin=tuple(
                    g.pad_begin[axis] - k * g.dilation[axis] - begin * g.stride[axis]
                    for axis, (k, (begin, _)) in enumerate(zip(tap, windows, strict=True))
                ),
            ),
        )
