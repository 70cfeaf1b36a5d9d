"""Cutting one transposed convolution into smaller ones that fit the cache.

A part of a transposed convolution (some items of the batch, some channels, a window of the
output) is again a transposed convolution, of a slice of the input with a slice of the weights.  So
whatever computes a part knows nothing of blocks, and no two parts write the same output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from .._geometry import Geometry

Index = tuple[slice, ...]

# A matrix product with fewer columns is slow.
FEWEST = 1 << 6
# More products than this in one part, or weights that may have to be copied, would be too much
# memory.
LARGEST = 1 << 22


@dataclass(frozen=True, slots=True)
class Part:
    """A window of the output, and the slices that it is computed from."""

    geometry: Geometry
    x: Index
    weight: Index
    bias: Index
    out: Index


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of output along one axis, and the inputs that reach it."""

    out: slice
    x: slice
    pad_begin: int

    @property
    def out_size(self) -> int:
        return int(self.out.stop - self.out.start)

    @property
    def in_size(self) -> int:
        return int(self.x.stop - self.x.start)


def chunks(size: int, count: int) -> Iterator[slice]:
    """Cut ``range(size)`` into `count` stretches of nearly the same length, fewer if it is shorter.

    >>> [(s.start, s.stop) for s in chunks(7, 3)]
    [(0, 3), (3, 5), (5, 7)]
    """
    count = min(size, max(1, count))
    small, longer = divmod(size, count) if count else (0, 0)
    begin = 0
    for i in range(count):
        end = begin + small + (i < longer)
        yield slice(begin, end)
        begin = end


def windows(geometry: Geometry, axis: int, step: int) -> list[Window]:
    """Cut the output along `axis` so that each stretch comes from about `step` inputs."""
    stride, dilation = geometry.stride[axis], geometry.dilation[axis]
    begin, size = geometry.pad_begin[axis], geometry.out_size[axis]
    reach = (geometry.kernel_size[axis] - 1) * dilation
    cut = []
    # Cuts lie between two steps of the stride, q * stride - pad_begin, where all phases begin.
    first, last = begin // stride, -(-(begin + size) // stride)
    count = -(-_length(geometry, axis) // step)
    for q in chunks(last - first, count):
        o_begin = max(0, (first + q.start) * stride - begin)
        o_end = min(size, (first + q.stop) * stride - begin)
        i_begin = max(0, -(-(begin + o_begin - reach) // stride))
        i_end = min(geometry.in_size[axis], (begin + o_end - 1) // stride + 1)
        pad_begin = begin + o_begin - i_begin * stride
        if i_begin >= i_end:
            # No input reaches here: let the outputs lie just before one.
            i_begin, i_end, pad_begin = 0, 1, o_begin - o_end
        cut.append(Window(slice(o_begin, o_end), slice(i_begin, i_end), pad_begin))
    return cut


def split(
    geometry: Geometry, rows: int, elements: int, least: int, positions: int, threads: int
) -> Iterator[Part]:
    """Cut a transposed convolution into parts of about `elements` intermediate results, or fewer.

    There are `rows` of them for every output channel and each position that a tap takes an input
    to, or as many as there are input channels.  Parts of fewer than `least`, or of fewer than
    `positions`, are made only where there are no more.  None has many more than `LARGEST` weights.
    """
    g = geometry
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    rows = max(1, g.in_channels, g.out_channels * rows)
    # As many parts for each thread, so that all finish together, unless these would be too small.
    everything = rows * g.batch * _spread(g, g.in_size)
    count = threads * -(-everything // (threads * elements))
    elements = min(elements, max(least, -(-everything // max(1, count))))
    if g.out_channels == 1:
        # Channels cannot be cut, and the taps make a product of few positions large enough.
        positions = min(positions, max(FEWEST, elements // rows))

    steps = _steps(g, max(positions, elements // rows))
    items = max(1, min(g.batch, max(positions, elements // rows) // prod(steps)))
    # Rounded: the reach beyond a window's end is no reason to cut its channels in two.
    count = round(rows * items * _spread(g, steps) / elements)
    count = max(count, -(-prod(g.weight_shape) // LARGEST))
    count += count % 2 if count > 1 else 0
    if g.groups >= count:
        groups_by, channels_by = count, 1
    else:
        groups_by, channels_by = g.groups, -(-count // g.groups)

    axes = [windows(g, axis, step) for axis, step in enumerate(steps)]
    for n, cut in product(chunks(g.batch, -(-g.batch // items)), product(*axes)):
        for groups, m in product(chunks(g.groups, groups_by), chunks(out_group, channels_by)):
            c = slice(groups.start * in_group, groups.stop * in_group)
            out_channels = slice(
                groups.start * out_group + m.start, (groups.stop - 1) * out_group + m.stop
            )
            size = groups.stop - groups.start
            part = replace(
                g,
                batch=n.stop - n.start,
                groups=size,
                in_channels=size * in_group,
                out_channels=size * (m.stop - m.start),
                in_size=tuple(w.in_size for w in cut),
                out_size=tuple(w.out_size for w in cut),
                pad_begin=tuple(w.pad_begin for w in cut),
            )
            yield Part(
                part,
                x=(n, c, *(w.x for w in cut)),
                weight=(c, m),
                bias=(out_channels,),
                out=(n, out_channels, *(w.out for w in cut)),
            )


def _steps(g: Geometry, positions: int) -> list[int]:
    """Return how many inputs of every axis a part takes: whole rows of the inner axes if they fit.

    They are not so few that what neighbouring parts compute twice would matter.
    """
    steps: list[int] = []
    for axis in reversed(range(g.ndim)):
        steps.insert(0, min(_length(g, axis), max(positions, 8 * _reach(g, axis), 1)))
        positions //= steps[0]
    return steps


def smallest(geometry: Geometry, rows: int, positions: int) -> int:
    """Return how many results the smallest part of `split` has, that of one output channel."""
    return rows * _spread(geometry, _steps(geometry, positions))


def _spread(g: Geometry, sizes: Iterable[int]) -> int:
    """Return over how many positions the kernel spreads so many inputs."""
    return prod(size + _reach(g, axis) for axis, size in enumerate(sizes))


def _reach(g: Geometry, axis: int) -> int:
    """Return over how many inputs the kernel reaches, beyond the first."""
    return (g.kernel_size[axis] - 1) * g.dilation[axis] // g.stride[axis]


def _length(g: Geometry, axis: int) -> int:
    """Return how many inputs the output spans, whether or not there are so many."""
    begin, end = g.pad_begin[axis], g.pad_begin[axis] + g.out_size[axis]
    return max(1, -(-end // g.stride[axis]) - begin // g.stride[axis] - _reach(g, axis))
