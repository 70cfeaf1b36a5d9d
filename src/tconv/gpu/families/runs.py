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

EXPENSIVE = ("sigmoid", "tanh", "gelu", "silu")
"""Activations that need registers of their own, beside the sums."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a thread computes: ``q`` neighbouring q in all phases, of some rows and channels.

    It has the inputs for so many ``taps`` of the last axis in registers at a time.
    """

    q: int
    phases_y: int
    out_channels: int
    taps: int

    def outputs(self, call: Call) -> int:
        """Return how many neighbours of one row that is."""
        return self.q * call.axes[-1].stride

    def inputs(self, call: Call) -> int:
        """Return how many inputs of one row they need."""
        axis = call.axes[-1]
        last_q = (axis.r_begin + self.outputs(call) - 1) // axis.stride
        return last_q * axis.in_stride + 1 + self.last_shift(call)

    def advance(self, call: Call) -> int:
        """Return how many inputs further on those of the next run begin."""
        return self.q * call.axes[-1].in_stride

    def bits_bytes(self, call: Call) -> int:
        """Return the size of the kernel's ``Bits``, one for each of these."""
        return 4 if self.inputs(call) < 32 else 8

    def last_shift(self, call: Call) -> int:
        """Return the shift of the last of the taps."""
        return (self.taps - 1) * call.geometry.dilation[-1] // call.axes[-1].stride

    def parts(self, g: Geometry) -> int:
        """Return how many times so many taps the window has."""
        return -(-g.kernel_size[-1] // self.taps)

    def x_vector(self, call: Call) -> int:
        """Return how many inputs are loaded at once.

        If not all are wanted, single ones: the compiler would take such vectors apart.
        """
        if self.step(call) > 1 and call.type.element_bytes >= 4:
            return 1
        return gcd(self.advance(call), 16 // call.type.element_bytes)

    def step(self, call: Call) -> int:
        """Return how far apart the inputs are that are wanted."""
        return gcd(call.axes[-1].in_stride, call.geometry.dilation[-1]) if call.adjoint else 1

    def lead(self, call: Call) -> int:
        """Return how many elements of a vector lie before the first input."""
        axis = call.axes[-1]
        first = -axis.pad_begin if call.adjoint else axis.q_begin - self.last_shift(call)
        return first % self.x_vector(call)

    def out_vector(self, call: Call) -> int:
        """Return how many outputs can be stored at once."""
        return gcd(self.outputs(call), 16 // call.type.element_bytes)

    def weight_bytes(self, call: Call, channels: int) -> int:
        """Return the shared memory that the weights of some input channels take."""
        g, stride = call.geometry, call.axes[-1].stride
        shifts = self.last_shift(call) + 1 if g.dilation[-1] <= stride else self.taps
        row = shifts * channels * self.out_channels * stride
        row_bytes = _round_up(row * call.type.accumulator_bytes, 16)
        return self.parts(g) * prod(g.kernel_size[:-1]) * row_bytes

    def passage_bytes(self, call: Call, threads: int, index_bits: int) -> int:
        """Return the shared memory through which results leave."""
        vector = self.out_vector(call)
        vector_bytes = vector * call.type.element_bytes
        vectors = self.outputs(call) // vector
        last = threads * vectors - 1
        places = last + 1 + (last // (128 // vector_bytes) if vectors % 2 == 0 else 0)
        runs = threads * 2 * index_bits // 8
        passage = _round_up(places * vector_bytes, 16) + runs
        return min(self.phases_y * self.out_channels, 2) * passage

    def counts(self, call: Call) -> tuple[int, int]:
        """Return how many runs there are in a row, and in one channel of all items."""
        sizes = [axis.out_size for axis in call.axes]
        row_runs = -(-sizes[-1] // self.outputs(call))
        rows = sizes[-2:-1] if self.phases_y == 1 else [call.axes[-2].q_size]
        return row_runs, call.geometry.batch * prod(sizes[:-2]) * prod(rows) * row_runs


def last_axis_is_nearest(call: Call) -> bool:
    """Tell whether rows of x and of the result have no gaps."""
    return x_is_nearest(call) and (call.out_shape[-1] == 1 or call.strides.out[-1] == 1)


def x_is_nearest(call: Call) -> bool:
    """Tell whether rows of x have no gaps."""
    return call.x_shape[-1] == 1 or call.strides.x[-1] == 1


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
