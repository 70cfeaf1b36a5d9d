"""What is to be computed, on arrays that lie how, on which device: all that a choice depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from .._geometry import Geometry


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


@dataclass(frozen=True)
class Call:
    """One operation on one device; ``capability`` has two digits, 80 for 8.0."""

    geometry: Geometry
    dtype: str
    strides: Strides
    activation: str | None = None
    precision: str | None = None
    capability: int = 80

    @property
    def type(self) -> Type:
        """The element type as the kernels name it."""
        return TYPES[self.dtype]

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The numbers of each axis."""
        return tuple(Axis.of(self.geometry, axis) for axis in range(self.geometry.ndim))

    @property
    def channels(self) -> int:
        """Input channels of one group."""
        return self.geometry.in_channels // self.geometry.groups

    @property
    def out_channels(self) -> int:
        """Output channels of one group."""
        return self.geometry.out_channels // self.geometry.groups

    @property
    def rows(self) -> int:
        """Rows ``(n, q)`` of the matrix product."""
        return self.geometry.batch * prod(axis.q_size for axis in self.axes)

    @property
    def phases(self) -> int:
        """Phases that have an output."""
        return prod(axis.phases for axis in self.axes)

    @property
    def x_channels_last(self) -> bool:
        """Whether channels are nearest in x's memory."""
        return _channels_last(self.geometry.x_shape, self.strides.x)

    @property
    def out_channels_last(self) -> bool:
        """Whether channels are nearest in the result's memory."""
        return _channels_last(self.geometry.out_shape, self.strides.out)

    @cached_property
    def index_bits(self) -> int:
        """Width of indices and offsets: 64 only where 32 bits would not do."""
        return 32 if _reach(self) < 2**31 else 64


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of a C-contiguous array."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))


def _channels_last(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether channels are nearer in memory than the last axis that has a neighbour."""
    spatial = [abs(s) for n, s in zip(shape[2:], strides[2:], strict=True) if n > 1]
    return shape[1] > 1 and bool(spatial) and abs(strides[1]) < spatial[-1]


def _reach(call: Call) -> int:
    """Return a bound on every index and offset that a kernel forms, in elements.

    Kernels also form, and then ignore, the offsets of inputs and outputs just outside an array.
    """
    geometry, strides = call.geometry, call.strides
    margin = 256  # more than any tile's rows, columns or depth
    x_reach = (geometry.in_channels + margin) * abs(strides.x[1])
    x_reach += (geometry.batch + 1) * abs(strides.x[0])
    weight_reach = (geometry.in_channels + margin) * abs(strides.weight[0])
    weight_reach += (geometry.out_channels + 1) * abs(strides.weight[1])
    out_reach = (geometry.out_channels + 1) * abs(strides.out[1])
    out_reach += (geometry.batch + 1) * abs(strides.out[0])
    largest = prod(geometry.out_shape)
    for a, axis in enumerate(call.axes):
        stride, dilation = geometry.stride[a], geometry.dilation[a]
        kernel_size = geometry.kernel_size[a]
        q_reach = abs(axis.q_begin) + axis.q_size + 1
        i_reach = q_reach + axis.last_shift
        o_reach = (q_reach + 1) * stride
        x_reach += max(i_reach, geometry.in_size[a]) * abs(strides.x[2 + a])
        weight_reach += (kernel_size + 1) * abs(strides.weight[2 + a])
        out_reach += o_reach * abs(strides.out[2 + a])
        largest = max(largest, o_reach, (kernel_size + 1) * dilation + stride, i_reach)
    columns = call.phases * (geometry.out_channels + margin)
    bias_reach = geometry.out_channels * abs(strides.bias)
    largest = max(largest, call.rows, columns, x_reach, weight_reach, out_reach, bias_reach)
    return largest + margin
