"""What is to be computed, on arrays that lie how, on which device: all that a choice depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Literal, NamedTuple

from .._geometry import Geometry

Operation = Literal["transposed_conv", "conv", "weight_gradient"]


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
    """Strides of the four arrays, in elements; one for each axis of the array.

    For the weight gradient out is the gradient of the output; weight and bias do not count.
    """

    x: tuple[int, ...]
    weight: tuple[int, ...]
    bias: int
    out: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """The numbers of `kernels/geometry.cuh` along one axis, of what is read and what is written."""

    in_size: int
    out_size: int
    stride: int
    q_begin: int
    r_begin: int
    q_size: int
    phases: int
    shifts: int
    in_reach: int
    """A bound on the position of anything that is looked for in what is read."""
    in_stride: int = 1
    pad_begin: int = 0

    @classmethod
    def of(cls, geometry: Geometry, axis: int) -> Axis:
        """Divide the output window and the taps of one axis by its stride."""
        stride, dilation = geometry.stride[axis], geometry.dilation[axis]
        kernel_size, out_size = geometry.kernel_size[axis], geometry.out_size[axis]
        q_begin, r_begin = divmod(geometry.pad_begin[axis], stride)
        last_shift = (kernel_size - 1) * dilation // stride
        q_size = (r_begin + out_size - 1) // stride + 1
        return cls(
            in_size=geometry.in_size[axis],
            out_size=out_size,
            stride=stride,
            q_begin=q_begin,
            r_begin=r_begin,
            q_size=q_size,
            phases=min(stride, out_size),
            shifts=last_shift + 1 if dilation <= stride else kernel_size,
            in_reach=abs(q_begin) + q_size + 1 + last_shift,
        )

    @classmethod
    def of_adjoint(cls, geometry: Geometry, axis: int) -> Axis:
        """Let what was written be read, at strides, and one phase be written."""
        stride, dilation = geometry.stride[axis], geometry.dilation[axis]
        kernel_size, size = geometry.kernel_size[axis], geometry.in_size[axis]
        pad_begin = geometry.pad_begin[axis]
        return cls(
            in_size=geometry.out_size[axis],
            out_size=size,
            stride=1,
            q_begin=0,
            r_begin=0,
            q_size=size,
            phases=1,
            shifts=kernel_size,
            in_reach=(size + 1) * stride + (kernel_size + 1) * dilation + abs(pad_begin),
            in_stride=stride,
            pad_begin=pad_begin,
        )

    def outputs(self, phase: int) -> range:
        """Return the outputs of a phase.

        Its number is r; where not every phase has an output, it is that of its only output.
        """
        first = (phase - self.r_begin) % self.stride if self.phases == self.stride else phase
        return range(first, self.out_size, self.stride)


@dataclass(frozen=True)
class Call:
    """One operation on one device; ``capability`` has two digits, 80 for 8.0.

    The geometry is always that of the transposed convolution; all else is said of the arrays as
    the kernels see them: x is what is read, out what is written.
    """

    geometry: Geometry
    dtype: str
    strides: Strides
    activation: str | None = None
    precision: str | None = None
    capability: int = 80
    operation: Operation = "transposed_conv"
    wanted: tuple[bool, bool] = (True, True)
    """Of the operation "weight_gradient": the gradient of the weight, and that of the bias."""

    @property
    def adjoint(self) -> bool:
        """Whether this is the adjoint, a convolution with a stride."""
        return self.operation == "conv"

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of what is read."""
        return self.geometry.out_shape if self.adjoint else self.geometry.x_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of what is written."""
        return self.geometry.x_shape if self.adjoint else self.geometry.out_shape

    @property
    def weight_strides(self) -> tuple[int, ...]:
        """The weight's steps: a group, a channel that is summed, an output channel, the taps."""
        first, second, *taps = self.strides.weight
        if self.adjoint:
            return self.out_channels * first, second, first, *taps
        return self.channels * first, first, second, *taps

    @cached_property
    def item(self) -> Call:
        """The call on one item alone; what decides the order of a sum asks for no more."""
        x, out = ((0, *strides[1:]) for strides in (self.strides.x, self.strides.out))
        one = replace(self.geometry, batch=1)
        return replace(self, geometry=one, strides=replace(self.strides, x=x, out=out))

    @property
    def type(self) -> Type:
        """The element type as the kernels name it."""
        return TYPES[self.dtype]

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The numbers of each axis."""
        of = Axis.of_adjoint if self.adjoint else Axis.of
        return tuple(of(self.geometry, axis) for axis in range(self.geometry.ndim))

    @property
    def channels(self) -> int:
        """Channels of one group that are summed."""
        return self.x_shape[1] // self.geometry.groups

    @property
    def out_channels(self) -> int:
        """Output channels of one group."""
        return self.out_shape[1] // self.geometry.groups

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
        return _channels_last(self.x_shape, self.strides.x)

    @property
    def out_channels_last(self) -> bool:
        """Whether channels are nearest in the result's memory."""
        return _channels_last(self.out_shape, self.strides.out)

    @cached_property
    def index_bits(self) -> int:
        """Width of indices and offsets: 64 only where 32 bits would not do."""
        reach = _gradient_reach if self.operation == "weight_gradient" else _reach
        return 32 if reach(self) < 2**31 else 64


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
    batch, in_channels, *_ = call.x_shape
    out_channels = call.out_shape[1]
    margin = 256  # more than any tile's rows, columns or depth
    x_reach = (in_channels + margin) * abs(strides.x[1]) + (batch + 1) * abs(strides.x[0])
    out_reach = (out_channels + 1) * abs(strides.out[1]) + (batch + 1) * abs(strides.out[0])
    group, c, m, *taps = map(abs, call.weight_strides)
    weight_reach = geometry.groups * group + (call.channels + margin) * c
    weight_reach += (call.out_channels + 1) * m
    largest = prod(call.out_shape)
    for a, axis in enumerate(call.axes):
        dilation, kernel_size = geometry.dilation[a], geometry.kernel_size[a]
        o_reach = (abs(axis.q_begin) + axis.q_size + 2) * axis.stride
        x_reach += max(axis.in_reach, axis.in_size) * abs(strides.x[2 + a])
        weight_reach += (kernel_size + 1) * taps[a]
        out_reach += o_reach * abs(strides.out[2 + a])
        tap_reach = (kernel_size + 1) * dilation + axis.stride
        largest = max(largest, o_reach, tap_reach, axis.in_reach)
    x_reach += margin * abs(strides.x[-1])  # inputs of one thread beyond the ends of a row
    columns = call.phases * (out_channels + margin)
    bias_reach = out_channels * abs(strides.bias)
    largest = max(largest, call.rows, columns, x_reach, weight_reach, out_reach, bias_reach)
    return largest + margin


def _gradient_reach(call: Call) -> int:
    """Return such a bound for the weight gradient; parts of sums are counted in 64 bits anyway."""
    geometry, strides = call.geometry, call.strides
    margin = 2**17  # more than any block's channels and positions
    x_reach = (geometry.in_channels + 256) * abs(strides.x[1])
    x_reach += geometry.batch * abs(strides.x[0])
    y_reach = (geometry.out_channels + 256) * abs(strides.out[1])
    y_reach += geometry.batch * abs(strides.out[0])
    largest = prod(geometry.weight_shape)
    for a, size in enumerate(geometry.in_size):
        o_reach = size * geometry.stride[a] + geometry.kernel_size[a] * geometry.dilation[a]
        o_reach += abs(geometry.pad_begin[a])
        x_reach += size * abs(strides.x[2 + a])
        y_reach += max(o_reach, geometry.out_size[a]) * abs(strides.out[2 + a])
        largest = max(largest, o_reach)
    for batch, _, *sizes in (geometry.x_shape, geometry.out_shape):
        largest = max(largest, batch * prod(sizes))
    return max(largest, x_reach, y_reach) + margin
