"""What a call would run on a GPU, and why, without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from .._api import Ints, Padding
from .._geometry import Geometry
from .call import TYPES, Call, Strides, contiguous
from .choice import Choice
from .select import select


@dataclass(frozen=True, slots=True)
class Plan:
    """A geometry, and the kernel that computes it; ``print`` it to read it."""

    geometry: Geometry
    choice: Choice
    capability: int
    precision: str | None

    def __str__(self) -> str:
        g, c, s = self.geometry, self.choice, self.choice.specialisation
        itemsize = TYPES[s.dtype].element_bytes
        major, minor = divmod(self.capability, 10)
        lines = [
            f"{s.kernel} on {s.dtype}, compute capability {major}.{minor}",
            f"because     {c.reason}",
            f"x           {g.x_shape}, weight {g.weight_shape}, result {g.out_shape}",
        ]
        if c.tile is not None:
            lines += [
                f"tile        {c.tile.rows} rows (n, q) x {c.tile.columns} columns (phase, m), "
                f"{c.tile.depth} channels a step",
                f"columns     {c.phase_columns} for each phase",
            ]
        copies = "asynchronous copies" if dict(s.constants).get("ASYNC") else "plain loads"
        lines += [
            f"grid        {c.blocks} blocks of {s.threads} threads",
            f"memory      {s.shared_bytes} bytes of shared memory a block, {copies}, "
            f"{s.index_bits}-bit offsets",
            f"work        {g.flops:.3g} FLOP, at least {g.nbytes(itemsize):.3g} bytes",
        ]
        if self.precision not in (None, "ieee"):
            lines.append(f"precision   float32, more exact than the {self.precision} asked for")
        return "\n".join(lines)


def plan(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: Any = np.float32,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    dilation: Ints = 1,
    groups: int = 1,
    activation: str | None = None,
    precision: str | None = None,
    channels_last: bool = False,
    capability: int | None = None,
) -> Plan:
    """Say which kernel would compute a call, how it would be launched, and why.

    Parameters
    ----------
    x_shape, weight_shape : tuple of int
        ``(N, C, *in_size)`` or ``(C, *in_size)``, and ``(C, M // groups, *kernel_size)``; as many
        axes as the weight has beyond two.
    dtype : dtype, default float32
        Element type.
    stride, padding, output_padding, output_size, dilation, groups, activation, precision
        As for `transposed_conv2d`.
    channels_last : bool, default False
        Whether x and the result are views of channels-last memory.
    capability : int, optional
        Compute capability as two digits, 90 for 9.0.  Default: the current device's, or 80.

    Returns
    -------
    Plan
        Its ``str`` is a description; its fields are the numbers.

    Raises
    ------
    ValueError, TypeError
        As `transposed_conv2d` does.
    """
    # NumPy knows bfloat16 by name only once somebody has imported ml_dtypes.
    name = "bfloat16" if str(dtype) == "bfloat16" else np.dtype(dtype).name
    size = TYPES[name].element_bytes if name in TYPES else 0
    x, weight = (_Shaped(shape, _Type(name, size)) for shape in (x_shape, weight_shape))
    _check.dtypes({"x": x, "weight": weight})
    _check.activation(activation, x)
    _check.precision(precision, x)
    geometry = _check.geometry(
        len(weight_shape) - 2,
        x,
        weight,
        None,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_size=output_size,
        dilation=dilation,
        groups=groups,
    )
    if capability is None:
        capability = _current_capability()
    order = _channels_last if channels_last else contiguous
    strides = Strides(
        x=order(geometry.x_shape),
        weight=contiguous(geometry.weight_shape),
        bias=1,
        out=order(geometry.out_shape),
    )
    call = Call(geometry, name, strides, activation, precision, capability)
    return Plan(geometry, select(call), capability, precision)


class _Type(NamedTuple):
    """As much of a dtype as the checks read."""

    name: str
    itemsize: int


class _Shaped(NamedTuple):
    """As much of an array as the checks read."""

    shape: tuple[int, ...]
    dtype: _Type


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = contiguous((shape[0], *shape[2:], shape[1]))
    return (strides[0], strides[-1], *strides[1:-1])


def _current_capability() -> int:
    from . import is_available

    if not is_available():
        return 80
    import cupy

    return int(cupy.cuda.Device().compute_capability)
