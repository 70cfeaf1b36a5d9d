"""What a call would run on a GPU, and why, without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from .._api import Ints, Padding
from .._geometry import Geometry
from .call import TYPES, Call, Strides
from .ceilings import KNOWN, Ceilings, Floor, floor, flops
from .choice import Choice, Tile, WarpTile
from .select import select


@dataclass(frozen=True, slots=True)
class Plan:
    """A geometry, and the kernel that computes it; ``print`` it to read it.

    ``ceilings`` are those that `floor` is reckoned with, of a device that is ``assumed`` where it
    is neither the current one nor was asked for.
    """

    geometry: Geometry
    choice: Choice
    capability: int
    precision: str | None
    ceilings: Ceilings | None
    assumed: bool

    @property
    def dtype(self) -> str:
        """The name of the element type."""
        return self.choice.specialisation.dtype

    @property
    def flops(self) -> int:
        """Useful operations on real numbers; those that padding crops do not count."""
        return flops(self.geometry, self.dtype)

    @property
    def nbytes(self) -> int:
        """Compulsory traffic in bytes: x and weight read once, the result written once."""
        return self.geometry.nbytes(TYPES[self.dtype].element_bytes)

    @property
    def tile(self) -> Tile | WarpTile | None:
        """What one block of a matrix product computes; None for other kernels."""
        return self.choice.tile

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self.choice.blocks

    @property
    def floor(self) -> Floor | None:
        """The least time on the device, in seconds; None where its ceilings are not known."""
        if self.ceilings is None:
            return None
        return floor(self.geometry, self.dtype, self.precision, self.ceilings)

    def __str__(self) -> str:
        g, c, s = self.geometry, self.choice, self.choice.specialisation
        major, minor = divmod(self.capability, 10)
        lines = [
            f"{s.kernel} on {s.dtype}, compute capability {major}.{minor}",
            f"because     {c.reason}",
            *(f"            {refusal}" for refusal in c.refusals),
            f"x           {g.x_shape}, weight {g.weight_shape}, result {g.out_shape}",
        ]
        if c.tile is not None:
            lines += [
                f"tile        {c.tile.rows} rows (n, q) x {c.tile.columns} columns (phase, m), "
                f"{c.tile.depth} channels a step",
                f"columns     {c.phase_columns} for each phase",
            ]
        if c.boxes is not None:
            copies = "copies of whole boxes"
        else:
            copies = "asynchronous copies" if dict(s.constants).get("ASYNC") else "plain loads"
        lines += [
            f"grid        {c.blocks} blocks of {s.threads} threads",
            f"memory      {s.shared_bytes} bytes of shared memory a block, {copies}, "
            f"{s.index_bits}-bit offsets",
            f"work        {self.flops:.3g} FLOP, at least {self.nbytes:.3g} bytes",
            f"floor       {self._floor()}",
        ]
        if self.precision not in (None, "ieee"):
            asked = f"{self.precision}, as asked for"
            exact = f"float32, more exact than the {self.precision} asked for"
            lines.append(f"precision   {asked if s.kernel == 'mma' else exact}")
        return "\n".join(lines)

    def _floor(self) -> str:
        if self.ceilings is None or self.floor is None:
            return f"not known; say on which device: {', '.join(KNOWN)}"
        arithmetic, memory = (f"{_three_digits(1e6 * time)} us" for time in self.floor)
        device = f"{'an assumed ' if self.assumed else ''}{self.ceilings.device}"
        return f"{arithmetic} of arithmetic, {memory} of memory traffic on {device}"


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
    packed: bool = False,
    capability: int | None = None,
    device: str | Ceilings | None = None,
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
    packed : bool, default False
        Whether the weight lies as a layer's does, with output channels nearest.
    capability : int, optional
        Compute capability as two digits, 90 for 9.0.  Default: that of ``device``.
    device : {"H200", "H100", "A100"} or Ceilings, optional
        Where the call would run: what the floor is reckoned with.  Default: the current device;
        without one, the first of these of the ``capability``, by default the A100.

    Returns
    -------
    Plan
        Its ``str`` is a description; its fields are the numbers.

    Raises
    ------
    ValueError, TypeError
        As `transposed_conv2d` does.

    Examples
    --------
    >>> from tconv import gpu
    >>> plan = gpu.plan((8, 1024, 32, 32), (1024, 512, 2, 2), stride=2, device="H200")
    >>> plan.flops, plan.nbytes
    (34359738368, 109051904)
    >>> print(f"{1e6 * plan.floor.seconds:.0f} us")
    573 us
    """
    # NumPy knows bfloat16 by name only once somebody has imported ml_dtypes.
    name = "bfloat16" if str(dtype) == "bfloat16" else np.dtype(dtype).name
    _check.chosen_dtype(dtype, name)
    x_shape, weight_shape = _check.shape("x_shape", x_shape), _check.weight_shape(weight_shape)
    element = _Type(name, TYPES[name].element_bytes)
    x, weight = (_Shaped(shape, element) for shape in (x_shape, weight_shape))
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
    ceilings, capability, assumed = _where(device, capability)
    axes = range(2, len(weight_shape))
    rows = (0, 1, *axes)
    images = (0, *axes, 1) if channels_last else rows
    x_strides = lying(geometry.x_shape, *images)
    if x_strides == lying(geometry.x_shape, *rows):
        images = rows  # a call would take x, and make its result, so
    strides = Strides(
        x=x_strides,
        weight=lying(geometry.weight_shape, *((*axes, 0, 1) if packed else rows)),
        bias=1,
        out=lying(geometry.out_shape, *images),
    )
    call = Call(geometry, name, strides, activation, precision, capability)
    return Plan(geometry, select(call), capability, precision, ceilings, assumed)


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 1000 else f"{number:.3g}"


class _Type(NamedTuple):
    """As much of a dtype as the checks read."""

    name: str
    itemsize: int


class _Shaped(NamedTuple):
    """As much of an array as the checks read."""

    shape: tuple[int, ...]
    dtype: _Type


def lying(shape: tuple[int, ...], *order: int) -> tuple[int, ...]:
    """Return the strides, in elements, of an array whose axes lie in this order, nearest last.

    As at a launch, an axis of one element has none.
    """
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step if shape[axis] > 1 else 0
        step *= shape[axis]
    return tuple(strides)


def _where(
    device: str | Ceilings | None, capability: int | None
) -> tuple[Ceilings | None, int, bool]:
    """Return the ceilings and the capability of a device, and whether it was only assumed."""
    if device is not None:
        if not isinstance(device, Ceilings):
            _check.choice("device", device, tuple(KNOWN))
            device = KNOWN[device]
        return device, device.capability if capability is None else capability, False
    here = _current()
    if here is not None and capability in (None, here[1]):
        name, capability = here
        known = (c for c in KNOWN.values() if c.device == name)
        return next(known, None), capability, False
    capability = 80 if capability is None else capability
    return next((c for c in KNOWN.values() if c.capability == capability), None), capability, True


def _current() -> tuple[str, int] | None:
    """Return the name and the capability of the current device, if there is one."""
    from . import is_available

    if not is_available():
        return None
    import cupy

    device = cupy.cuda.Device()
    name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    return name, int(device.compute_capability)
