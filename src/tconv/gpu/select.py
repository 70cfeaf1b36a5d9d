"""Which kernel computes a transposed convolution, how it is specialised, and why.

Everything here is a pure function of the geometry, the element type, the memory order and the
device's compute capability.  Neither the batch nor an address ever changes which kernel or tile is
chosen, and every kernel sums in the same order, so an item gives the same bits in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from .._geometry import Geometry

KERNELS = ("gather", "gemm")

GATHER_THREADS = 256


@dataclass(frozen=True, slots=True)
class Tile:
    """What one block of the gemm kernel computes, and how its threads share that."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.thread_rows * (self.columns // self.thread_columns)

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}"


TILES = {
    4: (Tile(128, 64, 16, 8, 8), Tile(128, 32, 16, 8, 4), Tile(128, 16, 16, 4, 4)),
    8: (Tile(64, 64, 8, 4, 4), Tile(64, 16, 16, 4, 2)),
    16: (Tile(64, 32, 8, 4, 2), Tile(64, 16, 8, 4, 2)),
}
"""Tiles of the gemm kernel by the size in bytes of what it sums in, from wide to narrow."""


class Type(NamedTuple):
    """An element type as the kernels name it."""

    element: str
    accumulator: str
    element_bytes: int
    accumulator_bytes: int


TYPES = {
    "float16": Type("Float16", "float", 2, 4),
    "bfloat16": Type("BFloat16", "float", 2, 4),
    "float32": Type("float", "float", 4, 4),
    "float64": Type("double", "double", 8, 8),
    "complex64": Type("Complex<float>", "Complex<float>", 8, 8),
    "complex128": Type("Complex<double>", "Complex<double>", 16, 16),
    "int32": Type("int", "unsigned int", 4, 4),
    "int64": Type("long long", "unsigned long long", 8, 8),
}


@dataclass(frozen=True, slots=True)
class Strides:
    """Strides of the four arrays, in elements; one for each axis of the array."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    bias: int
    out: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Specialisation:
    """All that a kernel is compiled for; image sizes are not part of it."""

    kernel: str
    dtype: str
    axes: int
    index_bits: int
    activation: str | None
    out_channels_last: bool
    threads: int
    tile: Tile | None = None
    x_channels_last: bool = False
    asynchronous: bool = False
    shared_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A kernel, how it is launched on one geometry, and why it was chosen."""

    specialisation: Specialisation
    phase_columns: int
    row_blocks: int
    column_blocks: int
    blocks: int
    reason: str


@dataclass(frozen=True, slots=True)
class Axis:
    """The numbers of `kernels/geometry.cuh` along one axis."""

    q_begin: int
    r_begin: int
    q_size: int
    phases: int
    shifts: int
    last_shift: int

    @classmethod
    def of(cls, geometry: Geometry, axis: int) -> Axis:
        """Divide the output window and the taps of one axis by its stride."""
        stride, dilation = geometry.stride[axis], geometry.dilation[axis]
        kernel_size, out_size = geometry.kernel_size[axis], geometry.out_size[axis]
        q_begin, r_begin = divmod(geometry.pad_begin[axis], stride)
        last_shift = (kernel_size - 1) * dilation // stride
        return cls(
            q_begin=q_begin,
            r_begin=r_begin,
            q_size=(r_begin + out_size - 1) // stride + 1,
            phases=min(stride, out_size),
            shifts=last_shift + 1 if dilation <= stride else kernel_size,
            last_shift=last_shift,
        )


def select(
    geometry: Geometry,
    dtype: str,
    strides: Strides,
    *,
    activation: str | None = None,
    capability: int = 80,
    kernel: str | None = None,
    tile: Tile | None = None,
) -> Choice:
    """Choose the kernel for arrays that fit ``geometry``; ``kernel`` and ``tile`` force a choice.

    ``capability`` is the device's compute capability as two digits, 80 for 8.0.
    """
    axes = [Axis.of(geometry, axis) for axis in range(geometry.ndim)]
    best, phase_columns, share = _best_tile(geometry, axes, TYPES[dtype], tile)
    if kernel is None:
        kernel, reason = _family(share)
    else:
        reason = "asked for by name"
    x_channels_last = _channels_last(geometry.x_shape, strides.x)
    out_channels_last = _channels_last(geometry.out_shape, strides.out)
    index_bits = 32 if _reach(geometry, axes, strides) < 2**31 else 64

    if kernel == "gather":
        blocks = -(-prod(geometry.out_shape) // GATHER_THREADS)
        specialisation = Specialisation(
            kernel=kernel,
            dtype=dtype,
            axes=geometry.ndim,
            index_bits=index_bits,
            activation=activation,
            out_channels_last=out_channels_last,
            threads=GATHER_THREADS,
        )
        return Choice(specialisation, phase_columns, 1, 1, blocks, reason)

    rows = geometry.batch * prod(axis.q_size for axis in axes)
    columns = prod(axis.phases for axis in axes) * phase_columns
    row_blocks, column_blocks = -(-rows // best.rows), -(-columns // best.columns)
    specialisation = Specialisation(
        kernel=kernel,
        dtype=dtype,
        axes=geometry.ndim,
        index_bits=index_bits,
        activation=activation,
        x_channels_last=x_channels_last,
        out_channels_last=out_channels_last,
        asynchronous=capability >= 80 and TYPES[dtype].element_bytes >= 4,
        tile=best,
        threads=best.threads,
        shared_bytes=_shared_bytes(best, TYPES[dtype], geometry.ndim, index_bits, x_channels_last),
    )
    blocks = geometry.groups * row_blocks * column_blocks
    return Choice(specialisation, phase_columns, row_blocks, column_blocks, blocks, reason)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of a C-contiguous array."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))


def _family(share: float) -> tuple[str, str]:
    """Gemm computes on its tiles' zeros too; gather loads two operands for every product."""
    percent = f"{share:.0%} of the products in the gemm kernel's tiles are wanted"
    if share < 1 / 8:
        return "gather", f"only {percent}"
    return "gemm", percent


def _best_tile(
    geometry: Geometry, axes: list[Axis], dtype: Type, forced: Tile | None
) -> tuple[Tile, int, float]:
    """Return the tile that wastes least, how many columns a phase gets, and the share of use.

    A phase either has M columns, and blocks mix phases and visit every shift; or it fills its last
    block up, and every block skips the shifts that its phase lacks.
    """
    channels = geometry.in_channels // geometry.groups
    out_channels = geometry.out_channels // geometry.groups
    phases = prod(axis.phases for axis in axes)
    shifts = prod(axis.shifts for axis in axes)
    taps = prod(geometry.kernel_size)
    options = []
    for tile in (forced,) if forced else TILES[dtype.accumulator_bytes]:
        depth = _round_up(channels, tile.depth)
        filled = _round_up(out_channels, tile.columns)
        for phase_columns, products in (
            (out_channels, _round_up(phases * out_channels, tile.columns) * shifts),
            (filled, filled * taps),
        ):
            stores = phases * phase_columns
            # A narrower tile reads shared memory more often for each product.
            narrowness = 1 + 8 / tile.columns
            cost = (products * depth + stores) * narrowness
            options.append((cost, tile, phase_columns, products * depth))
    _, tile, phase_columns, products = min(options, key=lambda option: option[0])
    useful = taps * out_channels * channels
    return tile, phase_columns, useful / max(products, 1)


def _shared_bytes(
    tile: Tile, dtype: Type, axes: int, index_bits: int, x_channels_last: bool
) -> int:
    """Return the size of the gemm kernel's ``Shared``; the kernel asserts it."""
    padding = 16 if x_channels_last else 0
    stage = tile.depth * ((tile.rows + tile.columns) * dtype.accumulator_bytes + padding)
    table = (tile.rows + tile.columns) * (1 + axes) * index_bits // 8
    return _round_up(2 * stage + table, 16)


def _channels_last(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether channels are nearer in memory than the last axis that has a neighbour."""
    spatial = [abs(s) for n, s in zip(shape[2:], strides[2:], strict=True) if n > 1]
    return shape[1] > 1 and bool(spatial) and abs(strides[1]) < spatial[-1]


def _reach(geometry: Geometry, axes: list[Axis], strides: Strides) -> int:
    """Return a bound on every index and offset that a kernel forms, in elements.

    Kernels also form, and then ignore, the offsets of inputs and outputs just outside an array.
    """
    margin = 256  # more than any tile's rows, columns or depth
    x_reach = (geometry.in_channels + margin) * abs(strides.x[1])
    x_reach += (geometry.batch + 1) * abs(strides.x[0])
    weight_reach = (geometry.in_channels + margin) * abs(strides.weight[0])
    weight_reach += (geometry.out_channels + 1) * abs(strides.weight[1])
    out_reach = (geometry.out_channels + 1) * abs(strides.out[1])
    out_reach += (geometry.batch + 1) * abs(strides.out[0])
    largest = prod(geometry.out_shape)
    for a, axis in enumerate(axes):
        stride, dilation = geometry.stride[a], geometry.dilation[a]
        kernel_size = geometry.kernel_size[a]
        q_reach = abs(axis.q_begin) + axis.q_size + 1
        i_reach = q_reach + axis.last_shift
        o_reach = (q_reach + 1) * stride
        x_reach += max(i_reach, geometry.in_size[a]) * abs(strides.x[2 + a])
        weight_reach += (kernel_size + 1) * abs(strides.weight[2 + a])
        out_reach += o_reach * abs(strides.out[2 + a])
        largest = max(largest, o_reach, (kernel_size + 1) * dilation + stride, i_reach)
    rows = geometry.batch * prod(axis.q_size for axis in axes)
    columns = prod(axis.phases for axis in axes) * (geometry.out_channels + margin)
    bias_reach = geometry.out_channels * abs(strides.bias)
    largest = max(largest, rows, columns, x_reach, weight_reach, out_reach, bias_reach)
    return largest + margin


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
