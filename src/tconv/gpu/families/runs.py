"""Runs of outputs that one thread computes, and windows that are compiled into a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from math import gcd, prod

from ..._geometry import Geometry
from ..call import Call

MOST_BITS = 63
"""Inputs of a row, of which a kernel keeps a bit for each."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a thread computes: ``q`` neighbouring q in all phases, of some rows and channels.

    It has the inputs for so many ``taps`` of the last axis in registers at a time.
    """

    q: int
    phases_y: int
    out_channels: int
    taps: int

    def outputs(self, g: Geometry) -> int:
        """Return how many neighbours of one row that is."""
        return self.q * g.stride[-1]

    def inputs(self, call: Call) -> int:
        """Return how many inputs of one row they need."""
        axis = call.axes[-1]
        stride = call.geometry.stride[-1]
        last_q = (axis.r_begin + self.outputs(call.geometry) - 1) // stride
        return last_q + 1 + self.last_shift(call.geometry)

    def last_shift(self, g: Geometry) -> int:
        """Return the shift of the last of the taps."""
        return (self.taps - 1) * g.dilation[-1] // g.stride[-1]

    def parts(self, g: Geometry) -> int:
        """Return how many times so many taps the window has."""
        return -(-g.kernel_size[-1] // self.taps)

    def lead(self, call: Call, x_vector: int) -> int:
        """Return how many elements of a vector lie before the first input."""
        return (call.axes[-1].q_begin - self.last_shift(call.geometry)) % x_vector

    def out_vector(self, call: Call) -> int:
        """Return how many outputs can be stored at once."""
        return gcd(self.outputs(call.geometry), 16 // call.type.element_bytes)

    def weight_bytes(self, call: Call, channels: int) -> int:
        """Return the shared memory that the weights of some input channels take."""
        g = call.geometry
        shifts = self.last_shift(g) + 1 if g.dilation[-1] <= g.stride[-1] else self.taps
        row = shifts * channels * self.out_channels * g.stride[-1]
        row_bytes = _round_up(row * call.type.accumulator_bytes, 16)
        return self.parts(g) * prod(g.kernel_size[:-1]) * row_bytes

    def passage_bytes(self, call: Call, threads: int, index_bits: int) -> int:
        """Return the shared memory through which results leave."""
        vector = self.out_vector(call)
        vector_bytes = vector * call.type.element_bytes
        vectors = self.outputs(call.geometry) // vector
        last = threads * vectors - 1
        places = last + 1 + (last // (128 // vector_bytes) if vectors % 2 == 0 else 0)
        runs = threads * 2 * index_bits // 8
        passage = _round_up(places * vector_bytes, 16) + runs
        return min(self.phases_y * self.out_channels, 2) * passage

    def counts(self, g: Geometry, q_sizes: tuple[int, ...]) -> tuple[int, int]:
        """Return how many runs there are in a row, and in one channel of all items."""
        row_runs = -(-g.out_size[-1] // self.outputs(g))
        rows = q_sizes[-2:-1] if self.phases_y > 1 else g.out_size[-2:-1]
        return row_runs, g.batch * prod(g.out_size[:-2]) * prod(rows) * row_runs


def last_axis_is_nearest(call: Call) -> bool:
    """Tell whether rows of x and of the result have no gaps."""
    g = call.geometry
    x, out = (g.in_size[-1], call.strides.x[-1]), (g.out_size[-1], call.strides.out[-1])
    return all(n == 1 or step == 1 for n, step in (x, out))


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


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
