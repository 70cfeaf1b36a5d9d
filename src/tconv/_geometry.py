"""The one value that flows through tconv: which input reaches which output.

Along each axis, tap ``k`` of the kernel carries input ``i`` to output

    o = i * stride + k * dilation - pad_begin

and everything here follows from that line.  Padding, output padding, output size, "same" and
"valid" are only spellings of two facts, kept as ``pad_begin`` (where the output window begins on
the full result) and ``out_size`` (how long it is).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


def full_size(in_size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Return the output length along one axis before any padding crops it.

    >>> full_size(in_size=3, kernel_size=3, stride=2, dilation=1)
    7
    """
    return (in_size - 1) * stride + (kernel_size - 1) * dilation + 1


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of one transposed convolution, N-dimensional; every tuple has one int per axis.

    Outputs with the same residue ``r = (o + pad_begin) % stride`` form a *phase*: they use the same
    taps.  With ``q = (o + pad_begin) // stride``, tap ``k`` of that phase reads input
    ``i = q - (k * dilation - r) // stride``, so no inserted zero is ever touched.
    """

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_begin: tuple[int, ...]
    out_size: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.in_size)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """``(N, C, *in_size)``."""
        return (self.batch, self.in_channels, *self.in_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``(C, M // groups, *kernel_size)``."""
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """``(N, M, *out_size)``."""
        return (self.batch, self.out_channels, *self.out_size)

    def taps(self, axis: int) -> dict[int, tuple[tuple[int, int], ...]]:
        """Return the taps of every phase that has any, as ``{r: ((k, shift), ...)}``.

        In phase ``r`` tap ``k`` reads input ``q - shift``.  A phase that is missing here gets the
        bias and nothing else.
        """
        stride, dilation = self.stride[axis], self.dilation[axis]
        phases: dict[int, list[tuple[int, int]]] = {}
        for k in range(self.kernel_size[axis]):
            shift, r = divmod(k * dilation, stride)
            phases.setdefault(r, []).append((k, shift))
        return {r: tuple(taps) for r, taps in phases.items()}

    def phase_window(self, axis: int, r: int) -> tuple[int, int]:
        """Return ``(q_begin, q_end)``: phase ``r`` has outputs ``q * stride + r - pad_begin``."""
        stride, begin = self.stride[axis], self.pad_begin[axis] - r
        return -(-begin // stride), -(-(begin + self.out_size[axis]) // stride)

    def tap_window(self, axis: int, k: int) -> tuple[int, int]:
        """Return ``(i_begin, i_end)``: the inputs that tap ``k`` carries into the output window."""
        stride, begin = self.stride[axis], self.pad_begin[axis] - k * self.dilation[axis]
        i_begin = max(0, -(-begin // stride))
        i_end = min(self.in_size[axis], -(-(begin + self.out_size[axis]) // stride))
        return i_begin, max(i_begin, i_end)

    @property
    def products(self) -> int:
        """Multiplications that reach an output; those that padding crops do not count."""
        pairs = (
            sum(end - begin for begin, end in (self.tap_window(axis, k) for k in range(taps)))
            for axis, taps in enumerate(self.kernel_size)
        )
        channels = self.in_channels * (self.out_channels // self.groups)
        return self.batch * channels * prod(pairs)

    @property
    def flops(self) -> int:
        """Useful operations on real numbers: a multiplication and an addition for each product."""
        return 2 * self.products

    @property
    def terms(self) -> int:
        """A bound on the products in one output, as rounding bounds need it."""
        taps = (
            min(size, max(map(len, self.taps(axis).values())))
            for axis, size in enumerate(self.in_size)
        )
        return self.in_channels // self.groups * prod(taps)

    def nbytes(self, itemsize: int) -> int:
        """Compulsory traffic in bytes: input and weight read once, output written once."""
        arrays = (self.x_shape, self.weight_shape, self.out_shape)
        return itemsize * sum(map(prod, arrays))
